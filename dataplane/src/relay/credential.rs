//! By which a node of the fleet is known to another: a text that only who has
//! the fleet's keys can make, good for one message, one receiver and a moment.
//!
//! It does not hide what is relayed, nor keep a listener on the network from
//! sending the same message again within that moment.

use std::time::Duration;

use crate::seal::{KeyRing, Purpose};

/// How far the clocks of two nodes may differ, and how long a message may take.
pub const AGE_MAX: Duration = Duration::from_secs(60);

/// A hash of everything that a credential vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// Makes one for a message from this node to another.
pub fn seal(keys: &KeyRing, to: &str, content: Digest, now_seconds: u64) -> String {
    let mut plain = [0; 40];
    plain[..8].copy_from_slice(&now_seconds.to_le_bytes());
    plain[8..].copy_from_slice(&content.0);
    keys.seal(Purpose::Relay, to.as_bytes(), &plain)
}

/// Whether a message for `to` comes from a node of the fleet, as it was sent, and lately.
pub fn holds(keys: &KeyRing, to: &str, content: Digest, sealed: &str, now_seconds: u64) -> bool {
    let Ok(plain) = keys.open(Purpose::Relay, to.as_bytes(), sealed) else { return false };
    let Some((sent, digest)) = plain.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*sent).abs_diff(now_seconds) <= AGE_MAX.as_secs() && digest == content.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_good_for_one_message_to_one_node_now() {
        let keys = KeyRing::ephemeral();
        let content = Digest::of(&[b"head", b"body"]);
        let sealed = seal(&keys, "n2", content, 1_000);
        assert!(holds(&keys, "n2", content, &sealed, 1_010));
        assert!(holds(&keys, "n2", content, &sealed, 990), "clocks differ");
        assert!(!holds(&keys, "n3", content, &sealed, 1_010));
        assert!(!holds(&keys, "n2", Digest::of(&[b"headb", b"ody"]), &sealed, 1_010));
        assert!(!holds(&keys, "n2", content, &sealed, 1_001 + AGE_MAX.as_secs()));
        assert!(!holds(&KeyRing::ephemeral(), "n2", content, &sealed, 1_010));
    }
}
