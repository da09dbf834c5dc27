//! `Mcp-Param-*`: the headers that repeat arguments of a tool, as its input
//! schema demands (2026-07-28, Transports, "Custom Headers from Tool Parameters").
//!
//! A modern client makes them itself and they pass as they are; for a legacy
//! client the node does. What a schema says is read once, when the catalog is.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::translate::member;
use crate::mcp::{
    headers::{self, PARAM_PREFIX},
    text,
};

/// The keyword in a property's schema.
const KEYWORD: &str = "x-mcp-header";
/// Headers of one tool.
const HEADERS_MAX: usize = 32;
/// A longer value is not repeated: servers and proxies refuse such headers.
const VALUE_BYTES_MAX: usize = 4 * 1024;
/// Maps from names to schemas that are not properties of the arguments.
const SCHEMA_MAPS: [&str; 4] = ["$defs", "definitions", "dependentSchemas", "patternProperties"];
/// Members of a schema that hold data and no schema.
const DATA: [&str; 4] = ["default", "const", "enum", "examples"];

/// Which arguments of one tool are repeated in headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeaders(Vec<Repeated>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Repeated {
    /// From the arguments to the value.
    path: Vec<String>,
    header: HeaderName,
}

/// The schema's wishes break the rules; clients must not show such a tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl ParamHeaders {
    /// What a tool's definition demands; none where it demands nothing.
    ///
    /// # Errors
    /// [`Invalid`]
    pub fn of_tool(tool: &Bytes) -> Result<Option<Self>, Invalid> {
        if memchr::memmem::find(tool, KEYWORD.as_bytes()).is_none() {
            return Ok(None);
        }
        let Some(schema) = member(tool, "inputSchema") else { return Ok(None) };
        let Ok(Value::Object(schema)) = serde_json::from_slice(&schema) else { return Ok(None) };
        if schema.contains_key(KEYWORD) || has_elsewhere(&schema, true) {
            return Err(Invalid(format!("{KEYWORD} stands where no argument is")));
        }
        let mut found = Vec::new();
        collect(&schema, &mut Vec::new(), &mut found)?;
        let mut names = HashSet::new();
        if let Some(twice) = found.iter().find(|repeated| !names.insert(repeated.header.clone())) {
            return Err(Invalid(format!("{KEYWORD} names {} twice", twice.header)));
        }
        if found.len() > HEADERS_MAX {
            return Err(Invalid(format!("more than {HEADERS_MAX} arguments have {KEYWORD}")));
        }
        Ok((!found.is_empty()).then_some(Self(found)))
    }

    /// The headers for these arguments, a raw object. An absent or null argument
    /// has none.
    pub fn of_arguments(&self, arguments: &Bytes) -> Vec<(HeaderName, HeaderValue)> {
        let value = |repeated: &Repeated| {
            let found = repeated.path.iter().try_fold(arguments.clone(), |object, key| {
                if object.starts_with(b"{") { member(&object, key) } else { None }
            })?;
            let text = match found.first()? {
                b'"' => text::decode(&found)?,
                b't' | b'f' | b'-' | b'0'..=b'9' => std::str::from_utf8(&found).ok()?.into(),
                _ => return None,
            };
            (text.len() <= VALUE_BYTES_MAX).then(|| (repeated.header.clone(), headers::value(&text)))
        };
        self.0.iter().filter_map(value).collect()
    }
}

/// Follows `properties`, and nothing else.
fn collect(
    schema: &Map<String, Value>,
    path: &mut Vec<String>,
    found: &mut Vec<Repeated>,
) -> Result<(), Invalid> {
    let Some(Value::Object(properties)) = schema.get("properties") else { return Ok(()) };
    for (name, property) in properties {
        let Value::Object(property) = property else { continue };
        path.push(name.clone());
        if let Some(wish) = property.get(KEYWORD) {
            let shown = path.join(".");
            let Some(wish) = wish.as_str().filter(|wish| !wish.is_empty()) else {
                return Err(Invalid(format!("{KEYWORD} of {shown} must be a text")));
            };
            let header = HeaderName::from_bytes(format!("{PARAM_PREFIX}{wish}").as_bytes())
                .map_err(|_| Invalid(format!("{KEYWORD} of {shown} is no header name")))?;
            if !matches!(property.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"))
            {
                return Err(Invalid(format!("{shown} has {KEYWORD} and is no string, integer or boolean")));
            }
            found.push(Repeated { path: path.clone(), header });
        }
        collect(property, path, found)?;
        path.pop();
    }
    Ok(())
}

/// Whether the keyword stands where only a part of a schema is. The depth is
/// that of the tool's definition, which the scanner has bounded.
fn has_elsewhere(schema: &Map<String, Value>, on_path: bool) -> bool {
    let in_value = |value: &Value, on_path: bool| match value {
        Value::Object(schema) => has_elsewhere(schema, on_path),
        Value::Array(items) => {
            items.iter().any(|item| item.as_object().is_some_and(|schema| has_elsewhere(schema, false)))
        }
        _ => false,
    };
    schema.iter().any(|(key, value)| match key.as_str() {
        KEYWORD => !on_path,
        "properties" => value.as_object().is_some_and(|map| map.values().any(|v| in_value(v, on_path))),
        key if SCHEMA_MAPS.contains(&key) => {
            value.as_object().is_some_and(|map| map.values().any(|value| in_value(value, false)))
        }
        key if DATA.contains(&key) => false,
        _ => in_value(value, false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(schema: &str) -> Bytes {
        Bytes::from(format!(r#"{{"name":"t","inputSchema":{schema}}}"#))
    }

    fn shown(headers: &[(HeaderName, HeaderValue)]) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn arguments_are_repeated_as_their_schema_demands() {
        let headers = ParamHeaders::of_tool(&tool(
            r#"{"type":"object","properties":{
                "region":{"type":"string","x-mcp-header":"Region"},"plain":{"type":"string"},
                "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"},
                                                      "b":{"type":"boolean","x-mcp-header":"B"}}}}}"#,
        ))
        .unwrap()
        .unwrap();
        let of = |arguments: &'static str| {
            let mut headers = shown(&headers.of_arguments(&Bytes::from_static(arguments.as_bytes())));
            headers.sort();
            headers
        };
        assert_eq!(
            of(r#"{"region":"é","plain":"x","deep":{"n":9007199254740991,"b":true}}"#),
            ["mcp-param-b: true", "mcp-param-n: 9007199254740991", "mcp-param-region: =?base64?w6k=?="]
        );
        assert_eq!(of(r#"{"region":null,"deep":[]}"#), Vec::<String>::new());
        assert_eq!(of(r#"{"region":"a\u0062"}"#), ["mcp-param-region: ab"]);
        assert_eq!(of("[]"), Vec::<String>::new());
    }

    #[test]
    fn most_tools_demand_nothing() {
        assert_eq!(ParamHeaders::of_tool(&tool(r#"{"type":"object"}"#)), Ok(None));
        assert_eq!(ParamHeaders::of_tool(&tool(r#"{"description":"about x-mcp-header"}"#)), Ok(None));
        assert_eq!(ParamHeaders::of_tool(&tool(r#"{"default":{"x-mcp-header":"A"}}"#)), Ok(None));
    }

    #[test]
    fn wishes_against_the_rules_are_invalid() {
        for properties in [
            r#""a":{"type":"number","x-mcp-header":"A"}"#,
            r#""a":{"type":"string","x-mcp-header":""}"#,
            r#""a":{"type":"string","x-mcp-header":7}"#,
            r#""a":{"type":"string","x-mcp-header":"not a token"}"#,
            r#""a":{"type":"string","x-mcp-header":"X"},"b":{"type":"string","x-mcp-header":"x"}"#,
            r#""a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#,
            r#""a":{"anyOf":[{"type":"string","x-mcp-header":"A"}]}"#,
        ] {
            let schema = format!(r#"{{"properties":{{{properties}}}}}"#);
            assert!(ParamHeaders::of_tool(&tool(&schema)).is_err(), "{properties}");
        }
        assert!(ParamHeaders::of_tool(&tool(r#"{"x-mcp-header":"A","properties":{}}"#)).is_err());
    }
}
