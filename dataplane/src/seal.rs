//! Sealing what travels through clients: session ids, cursors, ids of our own
//! requests, parked calls.
//!
//! Sealed text is encrypted and authenticated (AES-256-GCM-SIV, which forgives
//! a repeated nonce), so it can hold a route and cannot be forged, read or used
//! for another purpose. Keys come from the fleet's ring; nothing is derived per
//! call. This file knows nothing of expiry or principals: what is sealed says
//! that itself, or the caller binds it as associated data.
//!
//! Random bytes are the system's: the library that encrypts would first gather
//! its own from the jitter of the clock, for longer than all else that a node
//! does until it serves.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mt_proto::pb;

/// The most keys that open: the current one, those before it during a
/// rotation, and room for a rotation that was repeated in haste.
pub const KEYS_MAX: usize = 8;
/// Bytes in a key.
pub const KEY_BYTES: usize = 32;
/// The longest sealed text that is looked at: a session id with everything in
/// it stays far below, and nothing a client sends is decrypted beyond.
pub const SEALED_BYTES_MAX: usize = 16 * 1024;

/// What a sealed text is for; opening it for anything else fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    Session = 1,
    Cursor = 2,
    RequestId = 3,
    ProgressToken = 4,
    EventId = 5,
    Task = 6,
    RequestState = 7,
    Stream = 8,
    /// A message from one node to another.
    Relay = 9,
}

/// Why a text could not be opened. Towards a client they are all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("not a sealed text")]
    Malformed,
    #[error("sealed with a key that is not in the ring")]
    UnknownKey,
    #[error("forged, damaged, or sealed for something else")]
    Forged,
}

/// Why a ring of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRing {
    #[error("the key ring is empty")]
    Empty,
    #[error("the key ring has {count} keys, at most {KEYS_MAX} are used")]
    TooMany { count: usize },
    #[error("key {id} has {bytes} bytes instead of {KEY_BYTES}")]
    KeyLength { id: u32, bytes: usize },
    #[error("key {id} occurs twice")]
    Duplicate { id: u32 },
}

/// Keys by id; the first seals, all open. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(Arc<[Key]>);

struct Key {
    id: u32,
    key: LessSafeKey,
}

impl KeyRing {
    /// Takes the keys that the control plane has pushed.
    pub fn from_pb(ring: &pb::discovery::KeyRing) -> Result<Self, InvalidKeyRing> {
        if ring.keys.len() > KEYS_MAX {
            return Err(InvalidKeyRing::TooMany { count: ring.keys.len() });
        }
        let mut keys: Vec<Key> = Vec::with_capacity(ring.keys.len());
        for key in &ring.keys {
            if keys.iter().any(|known| known.id == key.id) {
                return Err(InvalidKeyRing::Duplicate { id: key.id });
            }
            keys.push(Key::new(key.id, &key.key)?);
        }
        if keys.is_empty() {
            return Err(InvalidKeyRing::Empty);
        }
        Ok(Self(keys.into()))
    }

    /// A ring of one key that nobody else has: for a node alone, and for tests.
    pub fn ephemeral() -> Self {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes);
        Self(Arc::new([Key::new(0, &bytes).expect("the length is right")]))
    }

    /// Encrypts `plaintext` for one purpose; `aad` must be the same when it is
    /// opened. The text is visible ASCII, safe in URLs and headers, and about
    /// 4/3 of the plaintext plus 42 bytes long.
    pub fn seal(&self, purpose: Purpose, aad: &[u8], plaintext: &[u8]) -> String {
        let key = &self.0[0];
        let mut sealed = Vec::with_capacity(NONCE_LEN + plaintext.len() + MAX_TAG_LEN);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .key
            .seal_in_place_separate_tag(nonce, bind(purpose, aad), &mut sealed[NONCE_LEN..])
            .expect("encryption fails only beyond 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        let mut text = String::with_capacity(9 + sealed.len().div_ceil(3) * 4);
        fmt::Write::write_fmt(&mut text, format_args!("{:x}.", key.id)).expect("strings take any text");
        URL_SAFE_NO_PAD.encode_string(&sealed, &mut text);
        text
    }

    /// Decrypts what [`seal`](Self::seal) made with any key of the ring.
    pub fn open(&self, purpose: Purpose, aad: &[u8], sealed: &str) -> Result<Vec<u8>, OpenError> {
        self.open_up_to(SEALED_BYTES_MAX, purpose, aad, sealed)
    }

    /// The same with another bound than [`SEALED_BYTES_MAX`].
    pub fn open_up_to(
        &self,
        bytes_max: usize,
        purpose: Purpose,
        aad: &[u8],
        sealed: &str,
    ) -> Result<Vec<u8>, OpenError> {
        if sealed.len() > bytes_max {
            return Err(OpenError::Malformed);
        }
        let (id, text) = sealed.split_once('.').ok_or(OpenError::Malformed)?;
        let id = key_id(id).ok_or(OpenError::Malformed)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Malformed)?;
        if bytes.len() < NONCE_LEN + MAX_TAG_LEN {
            return Err(OpenError::Malformed);
        }
        let key = self.0.iter().find(|key| key.id == id).ok_or(OpenError::UnknownKey)?;
        let (nonce, body) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Malformed)?;
        let plain =
            key.key.open_in_place(nonce, bind(purpose, aad), body).map_err(|_| OpenError::Forged)?.len();
        bytes.truncate(NONCE_LEN + plain);
        bytes.drain(..NONCE_LEN);
        Ok(bytes)
    }

    /// Whether texts sealed by `other` can be opened here.
    pub fn opens(&self, other: &Self) -> bool {
        self.0.iter().any(|key| key.id == other.0[0].id)
    }
}

impl Key {
    fn new(id: u32, bytes: &[u8]) -> Result<Self, InvalidKeyRing> {
        let wrong = |_| InvalidKeyRing::KeyLength { id, bytes: bytes.len() };
        Ok(Self { id, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, bytes).map_err(wrong)?) })
    }
}

/// Only the ids: keys are never shown.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

/// Reads an id only in the one form that is written, so that a sealed text has
/// no second spelling and may serve as a key.
fn key_id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let padded = text.len() > 1 && text.starts_with('0');
    u32::from_str_radix(text, 16).ok().filter(|_| digits && !padded)
}

fn bind(purpose: Purpose, aad: &[u8]) -> Aad<Vec<u8>> {
    let mut bound = Vec::with_capacity(1 + aad.len());
    bound.push(purpose as u8);
    bound.extend_from_slice(aad);
    Aad::from(bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(ids: &[u32]) -> KeyRing {
        let keys = ids.iter().map(|id| pb::discovery::SealingKey {
            id: *id,
            key: vec![*id as u8; KEY_BYTES].into(),
            ..Default::default()
        });
        KeyRing::from_pb(&pb::discovery::KeyRing { keys: keys.collect() }).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_only_for_its_purpose_and_owner() {
        let ring = KeyRing::ephemeral();
        let sealed = ring.seal(Purpose::Session, b"alice", b"secret");
        assert_eq!(ring.open(Purpose::Session, b"alice", &sealed).unwrap(), b"secret");
        assert_eq!(ring.open(Purpose::Session, b"bob", &sealed), Err(OpenError::Forged));
        assert_eq!(ring.open(Purpose::Cursor, b"alice", &sealed), Err(OpenError::Forged));
        assert_eq!(KeyRing::ephemeral().open(Purpose::Session, b"alice", &sealed), Err(OpenError::Forged));
        assert_ne!(ring.seal(Purpose::Session, b"alice", b"secret"), sealed);
    }

    #[test]
    fn a_sealed_text_has_one_spelling() {
        let ring = ring(&[10]);
        let sealed = ring.seal(Purpose::Session, b"", b"x");
        assert!(ring.open(Purpose::Session, b"", &sealed).is_ok());
        for other in
            [format!("0{sealed}"), format!("+{sealed}"), sealed.replacen('a', "A", 1), format!("{sealed}=")]
        {
            assert_eq!(ring.open(Purpose::Session, b"", &other), Err(OpenError::Malformed), "{other}");
        }
    }

    #[test]
    fn a_rotation_keeps_what_was_sealed_before() {
        let sealed = ring(&[1]).seal(Purpose::Cursor, b"", b"x");
        assert_eq!(ring(&[2, 1]).open(Purpose::Cursor, b"", &sealed).unwrap(), b"x");
        assert!(ring(&[2, 1]).seal(Purpose::Cursor, b"", b"x").starts_with("2."));
        assert_eq!(ring(&[3, 2]).open(Purpose::Cursor, b"", &sealed), Err(OpenError::UnknownKey));
        assert!(ring(&[2, 1]).opens(&ring(&[1])) && !ring(&[1]).opens(&ring(&[2, 1])));
    }

    #[test]
    fn an_unusable_ring_is_refused() {
        let of = |keys: Vec<(u32, usize)>| {
            let keys = keys
                .into_iter()
                .map(|(id, len)| pb::discovery::SealingKey {
                    id,
                    key: vec![0; len].into(),
                    ..Default::default()
                })
                .collect();
            KeyRing::from_pb(&pb::discovery::KeyRing { keys }).unwrap_err()
        };
        assert_eq!(of(vec![]), InvalidKeyRing::Empty);
        assert_eq!(of(vec![(1, 16)]), InvalidKeyRing::KeyLength { id: 1, bytes: 16 });
        assert_eq!(of(vec![(1, 32), (1, 32)]), InvalidKeyRing::Duplicate { id: 1 });
        assert_eq!(of((0..9).map(|id| (id, 32)).collect()), InvalidKeyRing::TooMany { count: 9 });
    }

    #[test]
    fn keys_are_never_shown() {
        assert_eq!(format!("{:?}", ring(&[7, 6])), "[7, 6]");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_is_fit_for_a_header(plain in prop::collection::vec(any::<u8>(), 0..300), aad in prop::collection::vec(any::<u8>(), 0..40)) {
            let ring = ring(&[u32::MAX]);
            let sealed = ring.seal(Purpose::EventId, &aad, &plain);
            prop_assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            prop_assert_eq!(ring.open(Purpose::EventId, &aad, &sealed).unwrap(), plain);
        }

        #[test]
        fn a_changed_text_never_opens(at in any::<prop::sample::Index>(), byte in b'!'..b'~') {
            let ring = ring(&[1]);
            let sealed = ring.seal(Purpose::Task, b"", b"some plain text");
            let mut forged = sealed.clone().into_bytes();
            forged[at.index(sealed.len())] = byte;
            let forged = String::from_utf8(forged).unwrap();
            prop_assert_eq!(ring.open(Purpose::Task, b"", &forged).is_ok(), forged == sealed);
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), id in "[0-9a-f]{1,9}\\.[A-Za-z0-9_-]{0,60}") {
            let ring = ring(&[1]);
            prop_assert!(ring.open(Purpose::Task, b"", &text).is_err());
            prop_assert!(ring.open(Purpose::Task, b"", &id).is_err());
        }
    }
}
