//! What the agents have in common that send requests over HTTP: where to, with
//! which headers, query and body.
//!
//! Whom a request goes to and who it comes from is the author's to say: no
//! argument of a call may stand in the host of a URL, or in a header that says
//! who is asking. That is checked here and in `header.rs`, so that no node has to.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{fields::Fields, text::Text},
    credential::Credential,
    header::{check_header, first_argument},
};
use crate::{
    resource::{check::quoted, key_path},
    template::{Template, Tree},
};

/// Of one request.
const HEADERS_MAX: usize = 64;
const PARTS_MAX: usize = 64;
const REDIRECTS_MAX: u64 = 3;
const RETRIES_MAX: u64 = 5;
/// Of the body of an answer: as much as a result may have.
const RESPONSE_BYTES_DEFAULT: u64 = 4 << 20;
/// More can be read where only a part of it is the result.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;

/// What a request may be. The first is for requests without a body.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// A request, before it is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// In capitals.
    pub method: &'static str,
    pub url: Template,
    /// By name, without two of one name.
    pub headers: Vec<(String, Text)>,
    /// Added to the URL's query.
    pub query: Vec<(String, Text)>,
    pub body: Option<Body>,
    pub auth: Option<Credential>,
    /// How often a redirect to the same host is followed.
    pub redirects: u32,
    /// Of the answer's body, after decompression.
    pub response_bytes_max: usize,
    /// Further tries after the first.
    pub retries: u32,
    /// Also where the first try may have had an effect.
    pub retry_unsafe: bool,
}

/// What a request carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Json(Tree),
    /// As it is written; `json`: the values in it are put in as JSON.
    Text {
        text: Template,
        content_type: String,
        json: bool,
    },
    /// `application/x-www-form-urlencoded`.
    Form(Vec<(String, Text)>),
    /// `multipart/form-data`.
    Multipart(Vec<Part>),
}

/// A part of a multipart body.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    pub content: PartContent,
    pub file_name: Option<Template>,
    pub content_type: Option<String>,
}

/// What is in a part.
#[derive(Clone, Debug, PartialEq)]
pub enum PartContent {
    Text(Text),
    /// Bytes, given as base64.
    Base64(Template),
}

/// Reads the settings of a request.
pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Request> {
    let url = url(fields, &["http", "https"], "https://api.example.com/users/{{id}}");
    let headers = headers(fields);
    let body = body(fields, &headers);
    let method = fields.choice("method", &METHODS, if body.is_some() { "POST" } else { "GET" });
    let query = fields.text_map("query");
    let auth = Credential::at(fields, "auth");
    let redirects = fields.count("redirects", 0..=REDIRECTS_MAX, 0);
    let retries = fields.count("retries", 0..=RETRIES_MAX, 0);
    Some(Request {
        method,
        url: url?,
        headers,
        query,
        body,
        auth,
        redirects: u32::try_from(redirects).unwrap_or(0),
        response_bytes_max: response_bytes_max(fields),
        retries: u32::try_from(retries).unwrap_or(0),
        retry_unsafe: fields.bool("retryUnsafe").unwrap_or(false),
    })
}

/// How much of an answer is read.
pub(super) fn response_bytes_max(fields: &mut Fields<'_, '_>) -> usize {
    let bytes = fields.count("responseBytesMax", 1..=RESPONSE_BYTES_MAX, RESPONSE_BYTES_DEFAULT);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The URL, under `url` or `endpoint`: one of these schemes, and a host that no
/// argument decides.
pub(super) fn url(fields: &mut Fields<'_, '_>, schemes: &[&str], example: &str) -> Option<Template> {
    let name = if fields.has("endpoint") { "endpoint" } else { "url" };
    if !fields.has(name) {
        fields.missing("url", &format!("for example `url: {example}`"));
    }
    let template = fields.template(name)?;
    match check_url(template.text(), schemes) {
        Ok(()) => fields.fits(name, &template, template.check_url()).then_some(template),
        Err((message, hint)) => {
            fields.problem(name, message, Some(hint));
            None
        }
    }
}

fn check_url(text: &str, schemes: &[&str]) -> Result<(), (String, String)> {
    const ARGUMENTS_HINT: &str = "arguments can stand in the path, in `query`, in `headers` and in the body";
    let in_host = || ("an argument decides which host is asked".to_owned(), ARGUMENTS_HINT.to_owned());
    let (fixed, has_arguments) = match first_argument(text) {
        Some(at) => (&text[..at], true),
        None => (text, false),
    };
    // A variable may hold the scheme and the host; the node checks those.
    let rest = match fixed.strip_prefix("{{env.") {
        Some(tail) => tail.split_once("}}").map_or("", |(_, rest)| rest),
        None => match fixed.split_once("://") {
            Some((scheme, rest)) if schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme)) => rest,
            None if has_arguments => return Err(in_host()),
            _ => {
                let message = format!("{} is not a url that can be asked", quoted(text));
                return Err((message, format!("urls start with {}://", schemes.join(":// or "))));
            }
        },
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if has_arguments && authority.len() == rest.len() {
        return Err(in_host());
    }
    if authority.contains('@') {
        let hint = "write `auth: {basic: {username, password: {secret: name}}}`";
        return Err(("a url holds no user name and no password".to_owned(), hint.to_owned()));
    }
    if first_tag(text).is_none()
        && let Err(error) = url::Url::parse(text)
    {
        return Err((
            format!("{} is not a url: {error}", quoted(text)),
            String::from("for example `https://api.example.com`"),
        ));
    }
    Ok(())
}

fn first_tag(text: &str) -> Option<usize> {
    text.find("{{")
}

/// The headers of a request, by literal names.
pub(super) fn headers(fields: &mut Fields<'_, '_>) -> Vec<(String, Text)> {
    let headers = fields.text_map("headers");
    if headers.len() > HEADERS_MAX {
        fields.problem("headers", format!("at most {HEADERS_MAX} headers are sent"), None);
    }
    let path = fields.path("headers");
    let mut seen = BTreeSet::new();
    for (name, value) in &headers {
        let mut found = check_header(name, value);
        if found.is_none() && !seen.insert(name.to_ascii_lowercase()) {
            found = Some(("the header is there twice".to_owned(), None));
        }
        if let Some((message, hint)) = found {
            fields.checker.report(&key_path(&path, name), message, hint);
        }
    }
    headers
}

/// The body, from whichever setting says it.
fn body(fields: &mut Fields<'_, '_>, headers: &[(String, Text)]) -> Option<Body> {
    let written: Vec<&str> =
        ["body", "bodyText", "form", "multipart"].into_iter().filter(|name| fields.has(name)).collect();
    if let [first, second, ..] = written[..] {
        fields.problem(second, format!("a request has one body, and `{first}` is it already"), None);
    }
    let content_type = fields.text("contentType").or_else(|| {
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        header.and_then(|(_, value)| match value {
            Text::Template(template) => template.literal().map(str::to_owned),
            Text::Secret(_) => None,
        })
    });
    if content_type.as_ref().is_some_and(|text| text.contains(|c: char| !(' '..='~').contains(&c))) {
        fields.problem("contentType", "`contentType` must be one line of ASCII", None);
    }
    let body = text_or_json(fields, "body", content_type.clone());
    let text = fields.template("bodyText").map(|text| text_body(text, content_type));
    let (has_form, has_parts) = (fields.has("form"), fields.has("multipart"));
    let form = Body::Form(fields.text_map("form"));
    let parts = Body::Multipart(parts(fields));
    body.or(text).or(has_form.then_some(form)).or(has_parts.then_some(parts))
}

/// A text that is more than one tag is sent as it is written; anything else is
/// a value of JSON.
pub(super) fn text_or_json(
    fields: &mut Fields<'_, '_>,
    name: &'static str,
    content_type: Option<String>,
) -> Option<Body> {
    match fields.peek(name) {
        Some(Value::String(text)) if !is_one_tag(text) => {
            fields.template(name).map(|text| text_body(text, content_type))
        }
        _ => fields.tree(name).map(Body::Json),
    }
}

/// Whether a template is a single tag, such as `{{name}}`.
pub fn is_one_tag(text: &str) -> bool {
    let inside = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inside.is_some_and(|inside| !inside.contains("{{") && !inside.contains("}}"))
}

fn text_body(text: Template, content_type: Option<String>) -> Body {
    let content_type = content_type.unwrap_or_else(|| {
        let json =
            text.text().trim_start().starts_with(['{', '[']) && !text.text().trim_start().starts_with("{{");
        let name = if json { "application/json" } else { "text/plain; charset=utf-8" };
        name.to_owned()
    });
    Body::Text { json: is_json(&content_type), text, content_type }
}

/// `application/json`, `application/vnd.api+json; charset=utf-8`.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

fn parts(fields: &mut Fields<'_, '_>) -> Vec<Part> {
    let parts = fields.objects("multipart", part);
    if parts.len() > PARTS_MAX {
        fields.problem("multipart", format!("at most {PARTS_MAX} parts are sent"), None);
    }
    parts
}

fn part(fields: &mut Fields<'_, '_>) -> Option<Part> {
    let name = fields.text("name").filter(|name| !name.is_empty() && !name.contains(['\r', '\n', '"']));
    if name.is_none() {
        fields.missing("name", "for example `name: file`");
    }
    let value = fields.text_or_secret("value").map(PartContent::Text);
    let data = fields.template("data").map(PartContent::Base64);
    if value.is_some() == data.is_some() {
        fields.problem("", "a part has either a `value` or `data` in base64", None);
    }
    let file_name = fields.template("fileName");
    let content_type = fields.text("contentType");
    Some(Part { name: name?, content: value.or(data)?, file_name, content_type })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Names;

    fn wrong(text: &str) -> Option<String> {
        check_url(text, &["http", "https"]).err().map(|(message, _)| message)
    }

    #[test]
    fn a_url_says_itself_whom_it_asks() {
        for text in [
            "https://api.example.com",
            "https://api.example.com/users/{{id}}?full={{full}}",
            "HTTP://localhost:8080/{{id}}",
            "{{env.API}}/users/{{id}}",
            "https://{{env.HOST}}:{{env.PORT}}/users/{{ id }}",
            "{{env.API}}",
        ] {
            assert_eq!(wrong(text), None, "{text}");
        }
        for text in [
            "https://{{host}}/users",
            "{{url}}",
            "https://api.example.com{{path}}",
            "https://{{tenant}}.example.com/",
            "https://api.example.com:{{port}}/",
            "{{scheme}}://api.example.com/",
            "{{env.API}}{{path}}",
            "{{#if internal}}http://a{{else}}http://b{{/if}}/x",
        ] {
            assert_eq!(wrong(text).as_deref(), Some("an argument decides which host is asked"), "{text}");
        }
        for text in ["ftp://example.com/", "file:///etc/passwd", "/users", "https://"] {
            assert!(wrong(text).is_some(), "{text}");
        }
        assert_eq!(
            wrong("https://me:secret@example.com/").as_deref(),
            Some("a url holds no user name and no password")
        );
    }

    #[test]
    fn arguments_decide_about_no_header_that_says_who_asks() {
        let names = Names { env: &["TOKEN".to_owned()] };
        let text = |text: &str| Text::Template(Template::compile(text, names).unwrap());
        let message = |name: &str, value: &str| check_header(name, &text(value)).map(|(message, _)| message);
        for name in ["Authorization", "cookie", "HOST", "X-Forwarded-For", "Forwarded"] {
            assert!(message(name, "x {{token}}").is_some(), "{name}");
            assert_eq!(message(name, "x"), None, "{name}");
            assert_eq!(message(name, "Bearer {{env.TOKEN}}"), None, "{name}");
        }
        for name in ["Content-Length", "connection", "Transfer-Encoding", "Upgrade", "Sec-WebSocket-Key"] {
            assert!(message(name, "x").is_some(), "{name}");
        }
        for name in ["", "a b", "a:b", "a\r\nb", "{{name}}"] {
            assert!(message(name, "x").is_some(), "{name}");
        }
        assert_eq!(message("X-Tenant", "{{tenant}}"), None);
        assert!(message("X-Tenant", "a\r\nb: c").is_some());
    }

    #[test]
    fn a_text_is_one_tag_or_more() {
        for (text, one) in [
            ("{{a}}", true),
            (" {{ a }} ", true),
            ("{{a}}{{b}}", false),
            ("x{{a}}", false),
            ("{\"a\":1}", false),
        ] {
            assert_eq!(is_one_tag(text), one, "{text}");
        }
    }
}
