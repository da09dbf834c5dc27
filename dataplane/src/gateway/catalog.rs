//! What one backend offers, read once when a snapshot is built.
//!
//! Entries stay the bytes that the backend sent; beside each stands the one
//! member that identifies it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use mt_proto::{
    pb::discovery::{Catalog as CatalogPb, ServerFacts},
    resource::Mcp,
};
use serde::Deserialize;

use super::{bridge::param_headers::ParamHeaders, call::Call};
use crate::mcp::{Era, Method};

/// One entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The `name` of a tool or prompt, the `uri` of a resource, the
    /// `uriTemplate` of a template.
    pub key: String,
    /// The whole JSON object.
    pub raw: Bytes,
    /// Not listed, but found by its name.
    pub hidden: bool,
    /// It stands for a tool of another backend.
    pub alias: Option<Alias>,
}

/// What a tool stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    pub of: Arc<Mcp>,
    /// Of one call, where the other backend allows more.
    pub timeout: Duration,
}

/// What one backend offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    pub facts: ServerFacts,
    pub tools: Vec<Entry>,
    pub prompts: Vec<Entry>,
    pub resources: Vec<Entry>,
    pub templates: Vec<Entry>,
    /// Entries that could not be shown: not an object, or nothing to identify them by.
    pub unreadable: usize,
    /// By tool, of the few that have arguments which headers repeat.
    param_headers: HashMap<String, ParamHeaders>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    uri: Option<String>,
    uri_template: Option<String>,
}

impl Catalog {
    /// Reads a whole catalog. An entry that cannot be identified is counted and
    /// left out: one bad entry must not take the others away.
    pub fn new(whole: CatalogPb) -> Self {
        let mut unreadable = 0;
        let mut read = |entries: Vec<Bytes>, key: fn(Identity) -> Option<String>| {
            let mut list = Vec::with_capacity(entries.len());
            for raw in entries {
                match serde_json::from_slice::<Identity>(&raw).ok().and_then(key) {
                    Some(key) => list.push(Entry { key, raw, hidden: false, alias: None }),
                    None => unreadable += 1,
                }
            }
            list
        };
        let tools = read(whole.tools, |i| i.name);
        let param_headers = tools
            .iter()
            .filter_map(|tool| Some((tool.key.clone(), ParamHeaders::of_tool(&tool.raw).ok()??)))
            .collect();
        Self {
            tools,
            param_headers,
            prompts: read(whole.prompts, |i| i.name),
            resources: read(whole.resources, |i| i.uri),
            templates: read(whole.resource_templates, |i| i.uri_template),
            facts: whole.server.unwrap_or_default(),
            unreadable,
        }
    }

    /// Of entries that were made here.
    pub fn made(
        facts: ServerFacts,
        tools: Vec<Entry>,
        prompts: Vec<Entry>,
        resources: Vec<Entry>,
        templates: Vec<Entry>,
    ) -> Self {
        Self { facts, tools, prompts, resources, templates, ..Self::default() }
    }

    /// The headers that a call under the backend's own names must have, besides
    /// those of every call.
    pub fn param_headers(&self, call: &Call) -> Vec<(HeaderName, HeaderValue)> {
        if self.param_headers.is_empty() || call.method != Method::ToolsCall {
            return Vec::new();
        }
        let headers = call.params.name().and_then(|name| self.param_headers.get(&*name));
        match (headers, call.params.arguments()) {
            (Some(headers), Some(arguments)) => headers.of_arguments(&arguments),
            _ => Vec::new(),
        }
    }

    /// Whether the backend is known to speak the other era and not this one.
    pub fn lacks(&self, era: Era) -> bool {
        let (legacy, modern) = (self.facts.legacy, !self.facts.modern_versions.is_empty());
        match era {
            Era::Legacy => modern && !legacy,
            Era::Modern => legacy && !modern,
        }
    }

    /// Whether the backend serves resources at all.
    pub fn serves_resources(&self) -> bool {
        !self.resources.is_empty() || !self.templates.is_empty() || self.declares("resources")
    }

    /// Whether the backend has said, in either era, that it has a capability.
    pub fn declares(&self, capability: &str) -> bool {
        [&self.facts.legacy_capabilities, &self.facts.modern_capabilities].into_iter().any(|raw| {
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(raw)
                .is_ok_and(|capabilities| capabilities.contains_key(capability))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_name_is_left_out_and_counted() {
        let catalog = Catalog::new(CatalogPb {
            tools: vec![
                Bytes::from_static(br#"{"name":"a\u0062"}"#),
                Bytes::from_static(b"[]"),
                Bytes::from_static(b"{}"),
            ],
            ..CatalogPb::default()
        });
        assert_eq!(catalog.tools.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["ab"]);
        assert_eq!(catalog.unreadable, 2);
    }

    #[test]
    fn a_capability_counts_in_either_era() {
        let catalog = Catalog::new(CatalogPb {
            server: Some(ServerFacts {
                modern_capabilities: Bytes::from_static(br#"{"resources":{}}"#),
                ..ServerFacts::default()
            }),
            ..CatalogPb::default()
        });
        assert!(catalog.serves_resources());
        assert!(!catalog.declares("completions"));
    }
}
