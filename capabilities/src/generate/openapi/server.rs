//! Where a service is.

use serde_json::Value;
use url::Url;

use crate::generate::{GenerateError, Options, bounded, unusable};

const URL_BYTES_MAX: usize = 2_048;

/// Where the operations of a document go.
pub struct Servers {
    /// Of the whole document, or whatever the user says.
    default: Result<String, String>,
    /// The user has said it.
    fixed: bool,
    /// What relative addresses are relative to.
    document: Option<Url>,
}

impl Servers {
    /// # Errors
    /// If nobody says where the service is, or what the user says is no
    /// address.
    pub fn new(root: &Value, options: &Options) -> Result<Self, GenerateError> {
        let document =
            Url::parse(&options.source).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if let Some(base) = &options.base_url {
            let base = address(base, None)
                .map_err(|why| unusable(why, "for example --base-url https://api.example.com"))?;
            return Ok(Self { default: Ok(base), fixed: true, document });
        }
        let default = of(&root["servers"], document.as_ref())
            .unwrap_or_else(|| Err("the document does not say where the service is".to_owned()));
        let paths = root["paths"].as_object();
        let elsewhere = |item: &Value| {
            item.get("servers").is_some()
                || item.as_object().is_some_and(|item| item.values().any(|o| o.get("servers").is_some()))
        };
        if let Err(why) = &default
            && !paths.is_some_and(|paths| paths.values().any(elsewhere))
        {
            return Err(unusable(why.clone(), "say it: --base-url https://api.example.com"));
        }
        Ok(Self { default, fixed: false, document })
    }

    /// Where an operation goes, without a slash at the end.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn of(&self, item: &Value, operation: &Value) -> Result<String, String> {
        if self.fixed {
            return self.default.clone();
        }
        let own = [operation, item].into_iter().find_map(|at| of(&at["servers"], self.document.as_ref()));
        own.unwrap_or_else(|| self.default.clone())
    }
}

/// The first of a list of servers; none if there is none.
fn of(servers: &Value, document: Option<&Url>) -> Option<Result<String, String>> {
    let server = servers.as_array()?.first()?;
    let template = server["url"].as_str()?;
    let mut url = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((name, after)) = tail.split_once('}') else { break };
        url.push_str(before);
        let value = match &server["variables"][name]["default"] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                return Some(Err(format!(
                    "the address of the service has no default for `{}`",
                    bounded(name, 60)
                )));
            }
        };
        url.push_str(&value);
        rest = after;
        if url.len() > URL_BYTES_MAX {
            break;
        }
    }
    url.push_str(rest);
    Some(address(&url, document))
}

/// An address without a query, whose path no template can begin in.
fn address(text: &str, document: Option<&Url>) -> Result<String, String> {
    let shown = bounded(text, 120);
    if text.len() > URL_BYTES_MAX {
        return Err(format!("the address of the service is longer than {URL_BYTES_MAX} bytes"));
    }
    let parsed = match (Url::parse(text), document) {
        (Err(url::ParseError::RelativeUrlWithoutBase), Some(document)) => document.join(text),
        (Err(url::ParseError::RelativeUrlWithoutBase), None) => {
            return Err(format!("the address of the service, `{shown}`, is relative"));
        }
        (parsed, _) => parsed,
    };
    let mut url = parsed.map_err(|error| format!("`{shown}` is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("`{shown}` is not the address of a service over http or https"));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url.as_str().trim_end_matches('/').replace('{', "%7B").replace('}', "%7D"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(servers: &Value, source: &str, expected: Result<&str, &str>) {
        let options = Options { source: source.into(), ..Options::default() };
        let found = Servers::new(&json!({"servers": servers}), &options)
            .map_err(|error| error.to_string())
            .and_then(|servers| servers.of(&json!({}), &json!({})));
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{servers}");
    }

    #[test]
    fn the_first_server_counts_with_its_variables() {
        check(
            &json!([{"url": "https://a.example/v1/"}, {"url": "https://b"}]),
            "f",
            Ok("https://a.example/v1"),
        );
        let variables = json!({"host": {"default": "eu"}, "port": {"default": 8080}});
        let url = "https://{host}.example:{port}/";
        check(&json!([{"url": url, "variables": variables}]), "f", Ok("https://eu.example:8080"));
        check(
            &json!([{"url": "https://{x}.example"}]),
            "f",
            Err("the address of the service has no default for `x`"),
        );
    }

    #[test]
    fn a_relative_address_is_relative_to_the_document() {
        check(&json!([{"url": "/api/v3"}]), "https://h.example/docs/o.json", Ok("https://h.example/api/v3"));
        check(&json!([{"url": "../v1"}]), "http://h/docs/x/o.json", Ok("http://h/docs/v1"));
        check(&json!([{"url": "/v1"}]), "o.json", Err("the address of the service, `/v1`, is relative"));
        check(&json!([]), "o.json", Err("the document does not say where the service is"));
        let ftp = "`ftp://h` is not the address of a service over http or https";
        check(&json!([{"url": "ftp://h"}]), "o.json", Err(ftp));
    }

    #[test]
    fn what_the_user_says_counts_for_all() {
        let options = Options { base_url: Some("http://127.0.0.1:1/x?y#z".into()), ..Options::default() };
        let servers = Servers::new(&json!({}), &options).unwrap();
        let own = json!({"servers": [{"url": "https://other"}]});
        assert_eq!(servers.of(&own, &own).as_deref(), Ok("http://127.0.0.1:1/x"));
    }
}
