//! A chat as a request over HTTP.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use mt_proto::resource::{Llm, Text, agent::llm::Provider};
use url::Url;

use super::{anthropic, chat::Chat, ollama, openai};
use crate::{Failure, Reason, Run};

/// Ready to be sent, as often as need be.
pub struct Request {
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What must not be repeated to clients.
    pub secrets: Vec<String>,
}

impl Request {
    /// # Errors
    /// If a secret or a variable is missing, or something of the settings
    /// cannot be sent.
    pub fn new(config: &Llm, run: &Run<'_>, chat: &Chat) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut secrets = Vec::new();
        for (name, text) in &config.headers {
            let name: HeaderName = name.parse().map_err(|_| unusable(&format!("header {name:?}")))?;
            let value = fixed(run, text)?;
            headers.insert(name, secret(&value)?);
            secrets.push(value);
        }
        if let Some(key) = &config.api_key {
            let key = fixed(run, key)?.trim().to_owned();
            match config.provider {
                Provider::Anthropic => headers.insert("x-api-key", secret(&key)?),
                Provider::OpenAi | Provider::Ollama => {
                    headers.insert(header::AUTHORIZATION, secret(&format!("Bearer {key}"))?)
                }
            };
            secrets.push(key);
        }
        let (base, path, body) = match config.provider {
            Provider::OpenAi => (openai::BASE_URL, openai::PATH, openai::body(chat)),
            Provider::Anthropic => {
                headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
                (anthropic::BASE_URL, anthropic::PATH, anthropic::body(chat))
            }
            Provider::Ollama => (ollama::BASE_URL, ollama::PATH, ollama::body(chat)),
        };
        let base = match &config.base_url {
            None => base.to_owned(),
            Some(template) => {
                let pieces = template.render(run.scope())?;
                if !pieces.is_literal() {
                    return Err(unusable("`baseUrl`"));
                }
                pieces.text()
            }
        };
        let url = join(&base, path).ok_or_else(|| unusable("`baseUrl`"))?;
        secrets.extend(run.withheld.values());
        Ok(Self { url, headers, body: body.to_string().into(), secrets })
    }
}

fn unusable(what: &str) -> Failure {
    Failure::new(Reason::Misconfigured, format!("the tool's {what} cannot be used"))
}

/// The text of a header, whoever calls.
fn fixed(run: &Run<'_>, text: &Text) -> Result<String, Failure> {
    match text {
        Text::Template(template) if template.shows_values() => Err(unusable("header or key")),
        text => run.text(text),
    }
}

fn secret(value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| unusable("key"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The address of the interface below a base, whether or not the base has the
/// first part of the path already.
fn join(base: &str, path: &str) -> Option<Url> {
    let base = base.trim_end_matches('/');
    let first = path.find('/').and_then(|_| path[1..].find('/')).map_or(path, |end| &path[..=end]);
    let base = base.strip_suffix(first).unwrap_or(base);
    let url = Url::parse(&format!("{base}{path}")).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.has_host()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_may_have_the_version_in_it_or_not() {
        for (base, path, url) in [
            (openai::BASE_URL, openai::PATH, "https://api.openai.com/v1/chat/completions"),
            ("http://127.0.0.1:1/v1/", openai::PATH, "http://127.0.0.1:1/v1/chat/completions"),
            ("https://api.anthropic.com", anthropic::PATH, "https://api.anthropic.com/v1/messages"),
            ("https://api.anthropic.com/v1", anthropic::PATH, "https://api.anthropic.com/v1/messages"),
            ("http://127.0.0.1:11434/api", ollama::PATH, "http://127.0.0.1:11434/api/chat"),
        ] {
            assert_eq!(join(base, path).unwrap().as_str(), url);
        }
        assert_eq!(join("file:///etc", openai::PATH), None);
        assert_eq!(join("http://x/?a=", openai::PATH), None);
    }
}
