//! Ids of the requests that a node sends to its clients on a backend's behalf.
//!
//! The client's answer is a request of its own and may reach any node, so the
//! id itself says where the answer belongs. It is sealed: a client can neither
//! read the route nor make one up, and two backends that both count from 0 do
//! not meet.

use crate::mcp::id::{RESPONSE_ID_BYTES_MAX, RawId};
use crate::seal::{KeyRing, OpenError, Purpose};

/// Where the answer to a request of ours belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The node that waits for it.
    pub node: String,
    /// The backend that has asked; empty if it was the node itself.
    pub backend: String,
    /// The node's own number of what waits (a call, a session).
    pub owner: u64,
    /// The id that the backend gave its request.
    pub inner: RawId,
}

impl Routed {
    /// The id for the client; `aad` binds it to the session or principal.
    /// `None` if the names are so long that no client could send it back.
    pub fn seal(&self, ring: &KeyRing, aad: &[u8]) -> Option<RawId> {
        let inner = self.inner.as_bytes();
        let mut plain = Vec::with_capacity(12 + self.node.len() + self.backend.len() + inner.len());
        plain.extend_from_slice(&self.owner.to_be_bytes());
        for name in [&self.node, &self.backend] {
            plain.push(u8::try_from(name.len()).ok()?);
            plain.extend_from_slice(name.as_bytes());
        }
        plain.extend_from_slice(inner);
        let id = RawId::text(&ring.seal(Purpose::RequestId, aad, &plain));
        (id.as_bytes().len() <= RESPONSE_ID_BYTES_MAX).then_some(id)
    }

    /// Takes an id back.
    pub fn open(id: &RawId, ring: &KeyRing, aad: &[u8]) -> Result<Self, OpenError> {
        let text = id.as_text().ok_or(OpenError::Malformed)?;
        let plain = ring.open(Purpose::RequestId, aad, &text)?;
        Self::read(&plain).ok_or(OpenError::Malformed)
    }

    fn read(plain: &[u8]) -> Option<Self> {
        let (owner, rest) = plain.split_first_chunk::<8>()?;
        let (node, rest) = name(rest)?;
        let (backend, inner) = name(rest)?;
        Some(Self { node, backend, owner: u64::from_be_bytes(*owner), inner: RawId::from_json(inner)? })
    }
}

fn name(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((String::from_utf8(name.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(inner: &str) -> Routed {
        let inner = RawId::from_json(inner.as_bytes()).unwrap();
        Routed { node: "node-1".into(), backend: "search".into(), owner: 7, inner }
    }

    #[test]
    fn the_answer_finds_its_way_and_the_id_its_bytes() {
        let ring = KeyRing::ephemeral();
        for inner in ["0", "\"0\"", "1.0", "9007199254740993", "\"\\u0061\""] {
            let sent = routed(inner).seal(&ring, b"session").unwrap();
            assert_eq!(Routed::open(&sent, &ring, b"session"), Ok(routed(inner)));
        }
    }

    #[test]
    fn an_id_of_another_session_or_of_nobody_is_refused() {
        let ring = KeyRing::ephemeral();
        let sent = routed("0").seal(&ring, b"session").unwrap();
        assert!(Routed::open(&sent, &ring, b"other").is_err());
        assert!(Routed::open(&sent, &KeyRing::ephemeral(), b"session").is_err());
        assert!(Routed::open(&RawId::number(0), &ring, b"session").is_err());
        assert!(Routed::open(&RawId::text("0"), &ring, b"session").is_err());
    }

    #[test]
    fn an_id_that_could_not_come_back_is_not_sent() {
        let ring = KeyRing::ephemeral();
        let long = Routed {
            backend: "x".repeat(255),
            node: "y".repeat(255),
            ..routed(&format!("\"{}\"", "z".repeat(254)))
        };
        let fits = Routed { backend: "x".repeat(100), node: "y".repeat(100), ..long.clone() };
        assert!(fits.seal(&ring, b"").is_some());
        assert!(Routed { backend: "x".repeat(256), ..routed("0") }.seal(&ring, b"").is_none());
        assert!(long.seal(&ring, b"").is_none());
    }
}
