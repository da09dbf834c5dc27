//! What is shown to a backend, and hidden wherever the backend repeats it.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use url::form_urlencoded;

/// Shorter values cannot be hidden without hiding everything else.
pub const HIDDEN_BYTES_MIN: usize = 6;

/// What goes with a request. Without `Debug`, so that it cannot be printed.
#[derive(Default)]
pub struct Credentials {
    header: Option<(HeaderName, HeaderValue)>,
    /// `name=value`, percent-encoded.
    query: Option<String>,
    /// The same values, as an answer of the backend could repeat them.
    values: Vec<String>,
}

impl Credentials {
    pub fn bearer(token: &str) -> Result<Self, String> {
        Self::header(AUTHORIZATION, format!("Bearer {token}"), token.to_owned())
    }

    /// `value` is what may be repeated, if that is less than the whole `text`.
    pub fn header(name: HeaderName, text: String, value: String) -> Result<Self, String> {
        let mut sent =
            HeaderValue::try_from(&text).map_err(|_| format!("the value of header {name} cannot be sent"))?;
        sent.set_sensitive(true);
        let values = vec![if value.is_empty() { text } else { value }];
        Ok(Self { header: Some((name, sent)), query: None, values })
    }

    pub fn query(name: &str, value: String) -> Self {
        let encoded = percent_encoded(&value);
        let query = format!("{}={encoded}", percent_encoded(name));
        Self { header: None, query: Some(query), values: vec![encoded, value] }
    }

    /// Whether there is nothing in it that others have not.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        self.values == other.values
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

    pub fn hide(&self, mut text: String) -> String {
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
