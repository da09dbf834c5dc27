//! Tools that stand for a tool of another backend: the call goes there, with
//! the arguments that the tool set says.

use std::sync::Arc;

use mt_proto::{
    resource::Mcp,
    template::{Scope, Tree},
};
use serde_json::{Map, Value};

use super::{
    call::{Call, CallError},
    with_params,
};
use crate::mcp::Key;

/// The call as the other backend gets it.
///
/// # Errors
/// If an argument is missing that the tool set maps.
pub fn mapped(alias: Option<&Arc<Mcp>>, call: Call) -> Result<Call, CallError> {
    let Some(tree) = alias.and_then(|alias| alias.arguments.as_ref()) else { return Ok(call) };
    let arguments = fill(tree, &call)?;
    let params = call.params.patch().set(Key::Arguments.as_str(), arguments.to_string()).finish();
    Ok(with_params(&call, params))
}

fn fill(tree: &Tree, call: &Call) -> Result<Value, CallError> {
    let given: Map<String, Value> = match call.params.arguments() {
        None => Map::new(),
        Some(raw) => serde_json::from_slice(&raw).map_err(|_| CallError::InvalidParams {
            reason: "params.arguments must be an object".to_owned(),
        })?,
    };
    let scope = Scope { arguments: &given, env: &|name| std::env::var(name).ok() };
    tree.render(scope).map_err(|error| CallError::InvalidParams { reason: error.to_string() })
}
