//! The resources of a tool set: which one a URI names, and what it holds.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mt_proto::{
    resource::{Address, BoundResource, Content, ToolSet},
    template::{RenderError, Scope, Template},
};
use serde_json::{Map, Value, json};

use super::files::{self, Files, ReadError};
use crate::{
    gateway::call::CallError,
    mcp::{RpcError, error::code},
};

/// What bytes are that say nothing of themselves.
const BINARY: &str = "application/octet-stream";
const PLAIN: &str = "text/plain";

/// The resources of one tool set on one node.
pub struct Resources {
    tool_set: Arc<ToolSet>,
    /// Where they are in the set.
    by_uri: HashMap<String, usize>,
    templates: Vec<usize>,
    pub files: Arc<Files>,
}

/// One resource, and what the variables of its URI stand for.
pub struct Found<'a> {
    pub resource: &'a BoundResource,
    pub variables: Map<String, Value>,
}

impl Resources {
    pub fn new(tool_set: &Arc<ToolSet>, files: Arc<Files>) -> Self {
        let (mut by_uri, mut templates) = (HashMap::new(), Vec::new());
        for (at, resource) in tool_set.resources.iter().enumerate() {
            match &resource.address {
                Address::Uri(uri) => _ = by_uri.insert(uri.clone(), at),
                Address::UriTemplate(_) => templates.push(at),
            }
        }
        Self { tool_set: tool_set.clone(), by_uri, templates, files }
    }

    /// The resource that a URI names: its own comes before a family's.
    pub fn find(&self, uri: &str) -> Option<Found<'_>> {
        let all = &self.tool_set.resources;
        if let Some(at) = self.by_uri.get(uri) {
            return Some(Found { resource: &all[*at], variables: Map::new() });
        }
        self.templates.iter().find_map(|at| {
            let resource = &all[*at];
            Some(Found { variables: resource.address.matches(uri)?, resource })
        })
    }

    /// The resource or family that is written so.
    pub fn written(&self, address: &str) -> Option<&BoundResource> {
        let all = &self.tool_set.resources;
        let family = || self.templates.iter().map(|at| &all[*at]).find(|r| r.address.as_str() == address);
        self.by_uri.get(address).map(|at| &all[*at]).or_else(family)
    }

    /// What the resource at a URI holds, as one element of `contents`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub async fn read(&self, uri: &str) -> Result<Value, CallError> {
        let unknown = || CallError::UnknownResource { uri: uri.to_owned() };
        let found = self.find(uri).ok_or_else(unknown)?;
        let path = match &found.resource.content {
            Content::Text(template) => {
                let text = rendered(template, &found.variables)?.text();
                let mime_type = found.resource.mime_type.as_deref().unwrap_or(PLAIN);
                return Ok(json!({"uri": uri, "mimeType": mime_type, "text": text}));
            }
            Content::File(_) => found.path()?.ok_or_else(unknown)?,
        };
        let mime_type = found.resource.mime_type_at(&path).map(str::to_owned);
        let bytes = self.files.read(path).await.map_err(|error| match error {
            ReadError::NotFound(source) => {
                tracing::debug!(uri, error = %source, "the file of a resource is not there");
                unknown()
            }
            ReadError::TooLarge { .. } => {
                CallError::Rpc(RpcError::new(code::TOO_LARGE, error.to_string()).with_text("uri", uri))
            }
            ReadError::Failed(source) => {
                tracing::warn!(uri, error = %source, "the file of a resource cannot be read");
                CallError::Rpc(RpcError::internal())
            }
        })?;
        Ok(contents(uri, mime_type.as_deref(), bytes))
    }
}

impl Found<'_> {
    /// The path of its file; none if it has none with these variables.
    ///
    /// # Errors
    /// If something on the node is missing.
    pub fn path(&self) -> Result<Option<String>, CallError> {
        match &self.resource.content {
            Content::File(template) => Ok(files::path(&rendered(template, &self.variables)?)),
            Content::Text(_) => Ok(None),
        }
    }
}

/// Fills a template in, as all of a tool set are.
///
/// # Errors
/// If it reads what is not there.
pub fn rendered(
    template: &Template,
    arguments: &Map<String, Value>,
) -> Result<mt_proto::template::Pieces, CallError> {
    let scope = Scope { arguments, env: &|name| std::env::var(name).ok() };
    template.render(scope).map_err(|error| match error {
        RenderError::NoEnv { .. } => CallError::Rpc(RpcError::new(code::INTERNAL, error.to_string())),
        other => CallError::InvalidParams { reason: other.to_string() },
    })
}

/// Text if it is UTF-8 and nothing says that it is no text.
fn contents(uri: &str, mime_type: Option<&str>, bytes: Vec<u8>) -> Value {
    let text = match mime_type.is_some_and(is_binary) {
        true => Err(bytes),
        false => String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes),
    };
    match text {
        Ok(text) => json!({"uri": uri, "mimeType": mime_type.unwrap_or(PLAIN), "text": text}),
        Err(bytes) => {
            json!({"uri": uri, "mimeType": mime_type.unwrap_or(BINARY), "blob": STANDARD.encode(bytes)})
        }
    }
}

fn is_binary(mime_type: &str) -> bool {
    let media = mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.ends_with("+xml") || media.ends_with("+json") {
        return false;
    }
    ["image/", "audio/", "video/", "font/", "application/vnd.openxmlformats"]
        .iter()
        .any(|family| media.starts_with(family))
        || [
            BINARY,
            "application/pdf",
            "application/zip",
            "application/gzip",
            "application/x-tar",
            "application/wasm",
        ]
        .contains(&media.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_all_else_is_base64() {
        let of = |mime_type: Option<&str>, bytes: &[u8]| contents("a:b", mime_type, bytes.to_vec());
        assert_eq!(of(None, "ü".as_bytes()), json!({"uri": "a:b", "mimeType": "text/plain", "text": "ü"}));
        assert_eq!(
            of(None, b"\xff"),
            json!({"uri": "a:b", "mimeType": "application/octet-stream", "blob": "/w=="})
        );
        assert_eq!(of(Some("text/markdown"), b"\xff")["blob"], "/w==");
        assert_eq!(of(Some("image/png"), b"ok")["blob"], "b2s=");
        assert_eq!(of(Some("image/svg+xml"), b"<svg/>")["text"], "<svg/>");
        assert_eq!(of(Some("application/json"), b"{}")["text"], "{}");
    }
}
