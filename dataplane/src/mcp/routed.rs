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
