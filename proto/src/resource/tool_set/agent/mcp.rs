//! Settings of a tool that is another backend's tool under a name of its own.

use super::super::fields::Fields;
use crate::{
    resource::{Kind, ResourceName},
    template::Tree,
};

/// The names of the field that names the backend.
pub const BACKEND: [&str; 3] = ["backend", "server", "server_name"];

/// A tool of a backend, with fixed or mapped arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Mcp {
    pub backend: ResourceName,
    /// The backend's own name for it.
    pub tool: String,
    /// What the backend gets as arguments. None: what the client sends.
    pub arguments: Option<Tree>,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Mcp> {
    let name = fields.take_any("backend", &BACKEND[1..]);
    let backend = match name {
        Some(serde_json::Value::String(name)) => {
            let path = fields.path("backend");
            fields.checker.reference(&path, Kind::Backend, &name)
        }
        _ => {
            fields.missing("backend", "for example `backend: time`");
            None
        }
    };
    let tool = match fields.take_any("tool", &["tool_name"]) {
        Some(serde_json::Value::String(tool)) if !tool.is_empty() => Some(tool),
        _ => {
            fields.missing("tool", "for example `tool: get_current_time`");
            None
        }
    };
    let arguments = fields.tree("arguments");
    Some(Mcp { backend: backend?, tool: tool?, arguments })
}
