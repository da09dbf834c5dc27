//! From the settings of a request to what is sent.
//!
//! Whatever comes from the arguments is a value where it ends up: a segment of
//! a path, a value of the query, of one header line, of JSON. The secrets that
//! go in are remembered, so that no error repeats them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use mt_proto::{
    resource::{
        Credential, ResourceName, Text,
        agent::request::{Body, Part, PartContent, Request, is_one_tag},
    },
    template::{Piece, RenderError, Template, Tree},
};
use reqwest::{RequestBuilder, multipart};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::{Failure, Reason, Run};

/// Where a request goes, and what it shows.
#[derive(Clone, Debug)]
pub struct Filled {
    pub url: Url,
    pub headers: HeaderMap,
    /// What must not be repeated to clients.
    pub secrets: Vec<String>,
}

/// A request that can be sent, more than once.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub method: Method,
    pub filled: Filled,
    pub payload: Payload,
}

/// What it carries.
#[derive(Clone, Debug)]
pub enum Payload {
    Nothing,
    Bytes(Bytes),
    Multipart(Vec<FilledPart>),
}

/// A part of a multipart body.
#[derive(Clone, Debug)]
pub struct FilledPart {
    name: String,
    bytes: Bytes,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl Prepared {
    /// Fills in a request.
    ///
    /// # Errors
    /// If an argument may not stand where it would, or a secret is missing.
    pub fn new(run: &Run<'_>, request: &Request) -> Result<Self, Failure> {
        let method = Method::from_bytes(request.method.as_bytes()).expect("only known methods are read");
        let mut filled = fill(
            run,
            (&request.url, &["http", "https"]),
            &request.headers,
            &request.query,
            request.auth.as_ref(),
        )?;
        let (payload, content_type) = match &request.body {
            None => (Payload::Nothing, None),
            Some(Body::Json(tree)) => {
                (Payload::Bytes(json_of(run, tree)?.to_string().into()), Some("application/json"))
            }
            Some(Body::Text { text, content_type, json }) => {
                let pieces = text.render(run.scope())?;
                let text = if *json { pieces.json_text()? } else { pieces.text() };
                (Payload::Bytes(text.into()), Some(content_type.as_str()))
            }
            Some(Body::Form(entries)) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (name, value) in values(run, entries, &mut filled.secrets)? {
                    form.append_pair(&name, &value);
                }
                (Payload::Bytes(form.finish().into()), Some("application/x-www-form-urlencoded"))
            }
            Some(Body::Multipart(parts)) => {
                let parts =
                    parts.iter().filter_map(|part| part_of(run, part, &mut filled.secrets).transpose());
                (Payload::Multipart(parts.collect::<Result<_, _>>()?), None)
            }
        };
        if matches!(payload, Payload::Multipart(_)) {
            filled.headers.remove(header::CONTENT_TYPE); // It names the boundary.
        } else if let Some(content_type) = content_type
            && !filled.headers.contains_key(header::CONTENT_TYPE)
        {
            let value = HeaderValue::from_str(content_type);
            let value = value.map_err(|_| misconfigured("the content type cannot be put into a header"))?;
            filled.headers.insert(header::CONTENT_TYPE, value);
        }
        filled.secrets.extend(run.withheld.values());
        Ok(Self { method, filled, payload })
    }
}

impl Payload {
    pub fn put_into(&self, request: RequestBuilder) -> Result<RequestBuilder, Failure> {
        Ok(match self {
            Payload::Nothing => request,
            Payload::Bytes(bytes) => request.body(bytes.clone()),
            Payload::Multipart(parts) => {
                let mut form = multipart::Form::new();
                for part in parts {
                    let length = part.bytes.len() as u64;
                    let mut made = multipart::Part::stream_with_length(part.bytes.clone(), length);
                    if let Some(name) = &part.file_name {
                        made = made.file_name(name.clone());
                    }
                    if let Some(kind) = &part.content_type {
                        let typed = made.mime_str(kind);
                        made = typed.map_err(|_| misconfigured("the type of a part is no content type"))?;
                    }
                    form = form.part(part.name.clone(), made);
                }
                request.multipart(form)
            }
        })
    }
}

/// Fills in a URL of one of these schemes, headers, and what is shown to be let
/// in.
///
/// # Errors
/// If an argument may not stand where it would, or a secret is missing.
pub fn fill(
    run: &Run<'_>,
    (url, schemes): (&Template, &[&str]),
    headers: &[(String, Text)],
    query: &[(String, Text)],
    auth: Option<&Credential>,
) -> Result<Filled, Failure> {
    let mut secrets = Vec::new();
    let mut url = url.render(run.scope())?.url()?;
    if !schemes.contains(&url.scheme()) || !url.has_host() {
        return Err(misconfigured("the url of this tool names no service that can be asked"));
    }
    url.set_fragment(None);
    let pairs = values(run, query, &mut secrets)?;
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    let mut map = HeaderMap::with_capacity(headers.len() + 2);
    for (name, text) in headers {
        if let Some((name, value)) = header_of(run, name, text, &mut secrets)? {
            map.insert(name, value);
        }
    }
    match auth {
        None => {}
        Some(Credential::Bearer(token)) => {
            let token = shown(run, token, &mut secrets)?;
            map.insert(header::AUTHORIZATION, hidden(&format!("Bearer {token}"))?);
        }
        Some(Credential::Basic { username, password }) => {
            let pair =
                format!("{}:{}", shown(run, username, &mut secrets)?, shown(run, password, &mut secrets)?);
            let encoded = BASE64.encode(pair);
            map.insert(header::AUTHORIZATION, hidden(&format!("Basic {encoded}"))?);
            secrets.push(encoded);
        }
        Some(Credential::Header { name, value }) => {
            let name = name_of(name)?;
            map.insert(name, hidden(&shown(run, value, &mut secrets)?)?);
        }
        Some(Credential::Query { name, value }) => {
            let value = shown(run, value, &mut secrets)?;
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    secrets.extend(run.withheld.values());
    Ok(Filled { url, headers: map, secrets })
}

/// A credential's text. Whatever it comes from, it is not repeated.
fn shown(run: &Run<'_>, text: &Text, secrets: &mut Vec<String>) -> Result<String, Failure> {
    let value = run.text(text)?.trim_end_matches(['\r', '\n']).to_owned();
    secrets.push(value.clone());
    Ok(value)
}

fn secret(run: &Run<'_>, name: &ResourceName, secrets: &mut Vec<String>) -> Result<String, Failure> {
    shown(run, &Text::Secret(name.clone()), secrets)
}

/// None: it reads an argument that is not there.
fn header_of(
    run: &Run<'_>,
    name: &str,
    text: &Text,
    secrets: &mut Vec<String>,
) -> Result<Option<(HeaderName, HeaderValue)>, Failure> {
    let value = match text {
        Text::Secret(secret_name) => hidden(&secret(run, secret_name, secrets)?)?,
        Text::Template(template) => match template.render(run.scope()) {
            Err(RenderError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(pieces) if pieces.is_empty() => return Ok(None),
            Ok(pieces) => {
                let line = pieces.header()?;
                HeaderValue::from_bytes(line.as_bytes()).map_err(|_| {
                    Failure::new(Reason::InvalidArguments, format!("the header {name} cannot hold this"))
                })?
            }
        },
    };
    Ok(Some((name_of(name)?, value)))
}

fn name_of(name: &str) -> Result<HeaderName, Failure> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| misconfigured("a header has no proper name"))
}

/// A header's value that no log shows.
fn hidden(text: &str) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::from_bytes(text.as_bytes());
    let mut value = value.map_err(|_| misconfigured("a secret cannot be put into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The entries of a query or a form: a list becomes several, and what is null
/// or not there becomes none.
fn values(
    run: &Run<'_>,
    entries: &[(String, Text)],
    secrets: &mut Vec<String>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs = Vec::with_capacity(entries.len());
    for (name, text) in entries {
        let template = match text {
            Text::Secret(secret_name) => {
                pairs.push((name.clone(), secret(run, secret_name, secrets)?));
                continue;
            }
            Text::Template(template) => template,
        };
        let pieces = match template.render(run.scope()) {
            Err(RenderError::Missing { .. }) => continue,
            rendered => rendered?,
        };
        match pieces.0.as_slice() {
            [] | [Piece::Value(Value::Null)] => {}
            [Piece::Value(Value::Array(items))] => {
                pairs.extend(
                    items.iter().filter(|item| !item.is_null()).map(|item| (name.clone(), plain(item))),
                );
            }
            _ => pairs.push((name.clone(), pieces.text())),
        }
    }
    Ok(pairs)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// None: what is in it is an argument that is null or not there.
fn part_of(run: &Run<'_>, part: &Part, secrets: &mut Vec<String>) -> Result<Option<FilledPart>, Failure> {
    if let PartContent::Text(Text::Template(template)) | PartContent::Base64(template) = &part.content {
        match template.render(run.scope()) {
            Err(RenderError::Missing { .. }) => return Ok(None),
            Ok(pieces) if matches!(pieces.0.as_slice(), [Piece::Value(Value::Null)]) => return Ok(None),
            _ => {}
        }
    }
    let bytes = match &part.content {
        PartContent::Text(Text::Secret(name)) => secret(run, name, secrets)?.into(),
        PartContent::Text(text) => run.text(text)?.into(),
        PartContent::Base64(template) => {
            let text = template.render(run.scope())?.text();
            let bytes = BASE64.decode(text.trim());
            let message = || format!("part {:?} is not in base64", part.name);
            bytes.map_err(|_| Failure::new(Reason::InvalidArguments, message()))?.into()
        }
    };
    let file_name = match &part.file_name {
        None => None,
        Some(template) => Some(one_line(&template.render(run.scope())?.text())),
    };
    Ok(Some(FilledPart {
        name: part.name.clone(),
        bytes,
        file_name,
        content_type: part.content_type.clone(),
    }))
}

/// The name of a file as browsers send it (HTML Standard, "multipart form
/// data"): neither the quotes around it nor its line can be left.
fn one_line(name: &str) -> String {
    let mut line = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '"' => line.push_str("%22"),
            '\r' => line.push_str("%0D"),
            '\n' => line.push_str("%0A"),
            '\0' => {}
            other => line.push(other),
        }
    }
    line
}

/// Fills in a tree. An entry or an item that is nothing but an argument which
/// is not there is left out.
pub fn json_of(run: &Run<'_>, tree: &Tree) -> Result<Value, Failure> {
    Ok(some_of(run, tree)?.unwrap_or(Value::Null))
}

fn some_of(run: &Run<'_>, tree: &Tree) -> Result<Option<Value>, RenderError> {
    Ok(Some(match tree {
        Tree::List(items) => {
            let items = items.iter().filter_map(|item| some_of(run, item).transpose());
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Tree::Map(entries) => {
            let mut map = Map::new();
            for (key, tree) in entries {
                map.extend(some_of(run, tree)?.map(|value| (key.clone(), value)));
            }
            Value::Object(map)
        }
        Tree::Text(template) => match template.render(run.scope()) {
            Err(RenderError::Missing { .. }) if is_one_tag(template.text()) => return Ok(None),
            rendered => match rendered?.is_empty() {
                true => return Ok(None),
                false => tree.render(run.scope())?,
            },
        },
        Tree::Fixed(value) => value.clone(),
    }))
}

/// A message of a conversation: a text as it is, anything else as JSON.
pub fn message_text(run: &Run<'_>, body: &Body) -> Result<String, Failure> {
    match body {
        Body::Json(tree) => Ok(plain(&json_of(run, tree)?)),
        Body::Text { text, json, .. } => {
            let pieces = text.render(run.scope())?;
            if *json { Ok(pieces.json_text()?) } else { Ok(pieces.text()) }
        }
        Body::Form(_) | Body::Multipart(_) => Err(misconfigured("a message is a text or JSON")),
    }
}

fn misconfigured(message: &str) -> Failure {
    Failure::new(Reason::Misconfigured, message)
}
