//! New messages around values that are already JSON.
//!
//! Everything is written once, front to back; no tree is built and nothing
//! that came from a peer is formatted again. Edits of a value are a [`Patch`],
//! which is carried out while it is written.

use bytes::Bytes;

use crate::id::RawId;
use crate::method::Method;
pub use crate::patch::Patch;
pub use crate::raw::Raw;
use crate::text;

/// A request; without `params` if there are none.
pub fn request(id: &RawId, method: &Method, params: Option<&dyn Raw>) -> Bytes {
    call(Some(id), method, params)
}

/// A notification; without `params` if there are none.
pub fn notification(method: &Method, params: Option<&dyn Raw>) -> Bytes {
    call(None, method, params)
}

fn call(id: Option<&RawId>, method: &Method, params: Option<&dyn Raw>) -> Bytes {
    // Exact if the sizes are: then the message needs no second allocation.
    let bytes = r#"{"jsonrpc":"2.0","method":""}"#.len()
        + id.map_or(0, |id| r#","id":"#.len() + id.as_bytes().len())
        + method.as_str().len()
        + params.map_or(0, |params| r#","params":"#.len() + params.size());
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b",\"method\":");
    text::write(method.as_str(), &mut out);
    if let Some(params) = params {
        out.extend_from_slice(b",\"params\":");
        params.write(&mut out);
    }
    out.push(b'}');
    out.into()
}

/// A response with a result.
pub fn response(id: &RawId, result: &(impl Raw + ?Sized)) -> Bytes {
    answer(Some(id), b"result", result)
}

/// A response with an error: one of ours, or raw bytes of a backend's.
pub fn error_response(id: Option<&RawId>, error: &(impl Raw + ?Sized)) -> Bytes {
    answer(id, b"error", error)
}

fn answer(id: Option<&RawId>, member: &[u8], value: &(impl Raw + ?Sized)) -> Bytes {
    let id = id.map_or(&b"null"[..], RawId::as_bytes);
    let bytes = r#"{"jsonrpc":"2.0","id":,"":}"#.len() + id.len() + member.len() + value.size();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(member);
    out.extend_from_slice(b"\":");
    value.write(&mut out);
    out.push(b'}');
    out.into()
}

/// Writes an object from keys and raw values.
#[derive(Debug)]
pub struct Object {
    out: Vec<u8>,
}

impl Default for Object {
    fn default() -> Self {
        Self { out: vec![b'{'] }
    }
}

impl Object {
    /// Adds a member; the caller does not repeat keys.
    pub fn set(mut self, key: &str, value: &(impl Raw + ?Sized)) -> Self {
        self.key(key);
        value.write(&mut self.out);
        self
    }

    /// Adds a string.
    pub fn set_text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        text::write(value, &mut self.out);
        self
    }

    pub fn finish(mut self) -> Bytes {
        self.out.push(b'}');
        self.out.into()
    }

    fn key(&mut self, key: &str) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        text::write(key, &mut self.out);
        self.out.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RpcError;
    use crate::params::Params;
    use crate::scan::Limits;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn messages_are_written_around_raw_values() {
        let id = RawId::text("a");
        let params = Bytes::from_static(b"{ \"x\":1E2 }");
        assert_eq!(
            text(&request(&id, &Method::ToolsCall, Some(&params))),
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{ "x":1E2 }}"#
        );
        assert_eq!(
            text(&notification(&Method::Other("a\"".into()), None)),
            r#"{"jsonrpc":"2.0","method":"a\""}"#
        );
        assert_eq!(text(&response(&id, &b"{}"[..])), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
        assert_eq!(
            text(&error_response(None, &RpcError::internal())),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"internal error","data":{"side":"gateway","retry":false}}}"#
        );
    }

    #[test]
    fn a_patch_is_carried_out_while_the_message_is_written() {
        let params = Bytes::from_static(br#"{"name":"a","arguments":{"x": 1}}"#);
        let patch = Params::scan(&params, Limits::CLIENT).unwrap().patch().set_text("name", "b");
        assert_eq!(
            text(&request(&RawId::number(1), &Method::ToolsCall, Some(&patch))),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b","arguments":{"x": 1}}}"#
        );
    }

    #[test]
    fn objects_are_written_in_order() {
        let object = Object::default().set_text("a", "x\n").set("b", &b"[1]"[..]).finish();
        assert_eq!(text(&object), r#"{"a":"x\n","b":[1]}"#);
        assert_eq!(text(&Object::default().finish()), "{}");
    }
}
