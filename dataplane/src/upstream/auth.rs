//! What a node shows to a backend to be let in.
//!
//! All of it is the operator's: what a client has shown to the node never comes
//! here, for a token belongs to the one it was made out to. Values are read
//! when they are needed and again when the backend refuses them. None is ever
//! logged; an error names the secret, not what is in it.

mod token;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use mt_proto::resource::{BackendAuth, HttpTransport, ResourceName, Value};
use url::form_urlencoded;

use self::token::Tokens;
use super::{Secrets, shared::Shared};

/// Shorter values cannot be hidden without hiding everything else.
const HIDDEN_BYTES_MIN: usize = 6;

/// How one backend is shown who asks.
pub struct Auth {
    how: How,
    secrets: Secrets,
    /// What was shown last, unless it is a token.
    current: ArcSwapOption<Credentials>,
}

enum How {
    Nothing,
    Given(BackendAuth),
    Token(Arc<Tokens>),
}

/// What goes with a request. Without `Debug`, so that it cannot be printed.
#[derive(Default)]
pub struct Credentials {
    header: Option<(HeaderName, HeaderValue)>,
    /// `name=value`, percent-encoded.
    query: Option<String>,
    /// The same values, as an answer of the backend could repeat them.
    values: Vec<String>,
}

impl Auth {
    pub fn new(backend: &ResourceName, transport: &HttpTransport, secrets: Secrets, shared: &Shared) -> Self {
        let how = match &transport.auth {
            None => How::Nothing,
            Some(BackendAuth::ClientCredentials(terms)) => {
                How::Token(Tokens::new(backend, terms, transport, secrets.clone(), shared))
            }
            Some(given) => How::Given(given.clone()),
        };
        Self { how, secrets, current: ArcSwapOption::empty() }
    }

    /// Whether nothing is shown at all.
    pub fn is_none(&self) -> bool {
        matches!(self.how, How::Nothing)
    }

    /// What to show now. A token is fetched if there is none that is good.
    ///
    /// # Errors
    /// Why there is nothing to show, without any value.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, String> {
        match &self.how {
            How::Token(tokens) => tokens.get().await,
            _ => match self.current.load_full() {
                Some(current) => Ok(current),
                None => self.read(),
            },
        }
    }

    /// Something else to show than what was refused; none if there is nothing
    /// else. A request that was refused was not begun, so it can be sent again.
    pub async fn renew(&self, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        match &self.how {
            How::Token(tokens) => tokens.renew(refused).await,
            How::Given(_) | How::Nothing => self.reread(refused),
        }
    }

    /// The same without asking anybody: whether what is written down somewhere
    /// has changed.
    pub fn reread(&self, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        match &self.how {
            How::Given(_) => self.read().ok().filter(|read| read.values != refused.values),
            How::Token(_) | How::Nothing => None,
        }
    }

    /// What was shown in place of something refused is refused as well.
    pub fn refused_again(&self) {
        if let How::Token(tokens) = &self.how {
            tokens.refused_again();
        }
    }

    /// Removes what is shown to the backend from what it says.
    pub fn hide(&self, text: String) -> String {
        let shown = match &self.how {
            How::Token(tokens) => tokens.held(),
            _ => self.current.load_full(),
        };
        shown.map_or(text.clone(), |shown| shown.hide(text))
    }

    fn read(&self) -> Result<Arc<Credentials>, String> {
        let read = match &self.how {
            How::Given(BackendAuth::Bearer(value)) => Credentials::bearer(&self.value(value)?)?,
            How::Given(BackendAuth::ApiKey(header)) => {
                let name = HeaderName::try_from(&header.name)
                    .map_err(|_| format!("{:?} is no header name", header.name))?;
                Credentials::header(name, self.value(&header.value)?, String::new())?
            }
            How::Given(BackendAuth::Query(parameter)) => {
                Credentials::query(&parameter.name, self.value(&parameter.value)?)
            }
            How::Given(BackendAuth::ClientCredentials(_)) | How::Token(_) | How::Nothing => {
                Credentials::default()
            }
        };
        let read = Arc::new(read);
        self.current.store(Some(read.clone()));
        Ok(read)
    }

    fn value(&self, value: &Value) -> Result<String, String> {
        resolve(&self.secrets, value)
    }
}

fn resolve(secrets: &Secrets, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Secret(secret) => secrets(secret),
    }
}

impl Credentials {
    fn bearer(token: &str) -> Result<Self, String> {
        Self::header(AUTHORIZATION, format!("Bearer {token}"), token.to_owned())
    }

    /// `value` is what may be repeated, if that is less than the whole `text`.
    fn header(name: HeaderName, text: String, value: String) -> Result<Self, String> {
        let mut sent =
            HeaderValue::try_from(&text).map_err(|_| format!("the value of header {name} cannot be sent"))?;
        sent.set_sensitive(true);
        let values = vec![if value.is_empty() { text } else { value }];
        Ok(Self { header: Some((name, sent)), query: None, values })
    }

    fn query(name: &str, value: String) -> Self {
        let encoded = percent_encoded(&value);
        let query = format!("{}={encoded}", percent_encoded(name));
        Self { header: None, query: Some(query), values: vec![encoded, value] }
    }

    /// Puts them on a request.
    pub fn apply(&self, uri: &Uri, headers: &mut HeaderMap) -> Uri {
        if let Some((name, value)) = &self.header {
            headers.insert(name.clone(), value.clone());
        }
        match &self.query {
            Some(query) => with_query(uri, query).unwrap_or_else(|| uri.clone()),
            None => uri.clone(),
        }
    }

    fn hide(&self, mut text: String) -> String {
        for value in self.values.iter().filter(|value| value.len() >= HIDDEN_BYTES_MIN) {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), "***");
            }
        }
        text
    }
}

/// As in a form, except that a space is `%20`: servers that read queries by
/// RFC 3986 take a plus for a plus.
fn percent_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{target}{joint}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_appended_whatever_is_in_it() {
        let mut headers = HeaderMap::new();
        let key = Credentials::query("api key", "a+b&c=d e/ü".to_owned());
        for (before, after) in [
            ("https://h/mcp", "https://h/mcp?api%20key=a%2Bb%26c%3Dd%20e%2F%C3%BC"),
            ("https://h:1/mcp?x=1", "https://h:1/mcp?x=1&api%20key=a%2Bb%26c%3Dd%20e%2F%C3%BC"),
            ("https://h", "https://h/?api%20key=a%2Bb%26c%3Dd%20e%2F%C3%BC"),
        ] {
            assert_eq!(key.apply(&before.parse().unwrap(), &mut headers).to_string(), after);
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn what_a_backend_repeats_of_a_key_is_hidden() {
        let key = Credentials::query("k", "hunter2 secret".to_owned());
        let said = "Cannot POST /mcp?k=hunter2%20secret, 'hunter2 secret' is unknown";
        assert_eq!(key.hide(said.to_owned()), "Cannot POST /mcp?k=***, '***' is unknown");
        let token = Credentials::bearer("abcdef123").unwrap();
        assert_eq!(token.hide("bad token abcdef123".to_owned()), "bad token ***");
    }

    #[test]
    fn a_value_that_no_header_can_hold_is_not_shown_in_the_error() {
        let error = Credentials::bearer("two\nlines").err().unwrap();
        assert_eq!(error, "the value of header authorization cannot be sent");
    }
}
