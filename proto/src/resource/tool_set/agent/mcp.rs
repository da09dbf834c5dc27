//! Settings of a tool that is another backend's tool under a name of its own.

use serde_json::{Map, Value};

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
    /// Put in where the client says nothing.
    pub defaults: Vec<(String, Tree)>,
    /// Put in whatever the client says.
    pub fixed: Vec<(String, Tree)>,
}

impl Mcp {
    /// Whether the backend gets exactly what the client sends.
    pub fn is_plain(&self) -> bool {
        self.arguments.is_none() && self.defaults.is_empty() && self.fixed.is_empty()
    }
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Mcp> {
    let name = fields.take_any("backend", &BACKEND[1..]);
    let backend = match name {
        Some(Value::String(name)) => {
            let path = fields.path("backend");
            fields.checker.reference(&path, Kind::Backend, &name)
        }
        _ => {
            fields.missing("backend", "for example `backend: time`");
            None
        }
    };
    let tool = match fields.take_any("tool", &["tool_name"]) {
        Some(Value::String(tool)) if !tool.is_empty() => Some(tool),
        _ => {
            fields.missing("tool", "for example `tool: get_current_time`");
            None
        }
    };
    let arguments = arguments(fields);
    let defaults = named(fields, "defaults");
    let fixed = named(fields, "fixed");
    Some(Mcp { backend: backend?, tool: tool?, arguments, defaults, fixed })
}

/// Nothing else can be the arguments of a tool than an object.
fn arguments(fields: &mut Fields<'_, '_>) -> Option<Tree> {
    match fields.take("arguments")? {
        value @ Value::Object(_) => fields.tree_of("arguments", &value),
        _ => {
            let hint = "for example `arguments: {timezone: \"{{zone}}\"}`";
            fields.problem("arguments", "`arguments` must be an object", Some(hint.into()));
            None
        }
    }
}

fn named(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<(String, Tree)> {
    let entries: Map<String, Value> = fields.map(name);
    let tree = |(key, value): (String, Value)| Some((key.clone(), fields.tree_of(name, &value)?));
    entries.into_iter().filter_map(tree).collect()
}
