//! Settings of the agent that listens to server-sent events.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::fields::Fields,
    collect::{self, Collect},
    http::{TIMEOUT_MAX, TIMEOUT_MIN},
    path::JsonPath,
    request::{self, Request},
};

/// A stream of events, and how much of it is the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Sse {
    pub request: Request,
    pub timeout: Duration,
    pub collect: Collect,
    /// The names of the events that are part of the result; empty: all.
    pub events: Vec<String>,
    /// The part of the list of events that is the result.
    pub extract: Option<JsonPath>,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Sse> {
    let request = request::read(fields);
    let timeout = fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT_MAX);
    let bytes_max = request.as_ref().map_or(0, |request| request.response_bytes_max);
    let collect = collect::read(fields, "maxEvents", bytes_max);
    let path = fields.path("events");
    let mut events = Vec::new();
    for (i, name) in fields.list("events").into_iter().enumerate() {
        match name {
            Value::String(name) => events.push(name),
            _ => fields.checker.problem(&format!("{path}[{i}]"), "must be the name of an event"),
        }
    }
    let extract = collect::json_path(fields, "extract");
    Some(Sse { request: request?, timeout, collect, events, extract })
}
