//! What a tool set offers, as a catalog: nobody has to be asked.

use bytes::Bytes;
use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Address, Agent, BoundResource, Prompt, Tool, ToolSet},
};
use serde_json::{Map, Value, json};

use super::catalog::{Alias, Catalog, Entry};
use crate::mcp::version::LATEST_MODERN;

/// The catalog of a tool set.
pub fn catalog(tool_set: &ToolSet) -> Catalog {
    let mut resources = Vec::new();
    let mut templates = Vec::new();
    for resource in &tool_set.resources {
        let list = match &resource.address {
            Address::Uri(_) => &mut resources,
            Address::UriTemplate(_) => &mut templates,
        };
        list.push(entry(resource.address.as_str(), describe(resource), false));
    }
    let prompts: Vec<Entry> = tool_set
        .prompts
        .iter()
        .map(|prompt| entry(&prompt.name, definition(prompt), prompt.hidden))
        .collect();
    let facts = ServerFacts {
        modern_versions: vec![LATEST_MODERN.to_string()],
        modern_capabilities: capabilities(tool_set),
        ..ServerFacts::default()
    };
    Catalog::made(facts, tool_set.tools.iter().map(tool).collect(), prompts, resources, templates)
}

fn tool(tool: &Tool) -> Entry {
    let alias = match &tool.agent {
        Agent::Mcp(proxied) => Some(Alias { of: proxied.clone(), timeout: tool.timeout }),
        _ => None,
    };
    Entry { key: tool.name.clone(), raw: tool.definition.clone(), hidden: tool.hidden, alias }
}

fn entry(key: &str, raw: Map<String, Value>, hidden: bool) -> Entry {
    Entry { key: key.to_owned(), raw: Value::Object(raw).to_string().into(), hidden, alias: None }
}

fn capabilities(tool_set: &ToolSet) -> Bytes {
    let mut declared = Map::from_iter([("tools".to_owned(), json!({}))]);
    if !tool_set.prompts.is_empty() {
        declared.insert("prompts".to_owned(), json!({}));
        declared.insert("completions".to_owned(), json!({}));
    }
    if !tool_set.resources.is_empty() {
        declared.insert("resources".to_owned(), json!({"subscribe": true}));
        declared.insert("completions".to_owned(), json!({}));
    }
    if tool_set.tools.iter().any(|tool| !matches!(tool.agent, Agent::Mcp(_))) {
        declared.insert("logging".to_owned(), json!({}));
    }
    Value::Object(declared).to_string().into()
}

fn describe(resource: &BoundResource) -> Map<String, Value> {
    let mut object = Map::new();
    let key = match &resource.address {
        Address::Uri(_) => "uri",
        Address::UriTemplate(_) => "uriTemplate",
    };
    object.insert(key.to_owned(), resource.address.as_str().into());
    object.insert("name".to_owned(), resource.name.clone().into());
    let texts = [
        ("title", &resource.title),
        ("description", &resource.description),
        ("mimeType", &resource.mime_type),
    ];
    object.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into()))));
    object
}

fn definition(prompt: &Prompt) -> Map<String, Value> {
    let mut object = Map::from_iter([("name".to_owned(), prompt.name.clone().into())]);
    let texts = [("title", &prompt.title), ("description", &prompt.description)];
    object.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into()))));
    let arguments = prompt.arguments.iter().map(|argument| {
        let mut object = Map::from_iter([("name".to_owned(), argument.name.clone().into())]);
        let texts = [("title", &argument.title), ("description", &argument.description)];
        object
            .extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into()))));
        object.insert("required".to_owned(), argument.required.into());
        Value::Object(object)
    });
    object.insert("arguments".to_owned(), arguments.collect());
    object
}
