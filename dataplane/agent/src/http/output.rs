//! What the body of an answer becomes, by its content type or by what the tool
//! says.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, header};
use mt_proto::resource::{Http, agent::http::HttpOutput};
use serde_json::{Value, json};

use crate::{Content, Failure, Output, Reason, client, collect::extracted};

/// What an answer says of its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// In lower case, without parameters; empty: it says nothing.
    pub content_type: String,
    /// Each byte is a character.
    latin: bool,
}

impl Kind {
    pub fn of(headers: &HeaderMap) -> Self {
        let whole =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let charset = whole.to_ascii_lowercase();
        let latin = charset.contains("charset=iso-8859-1") || charset.contains("charset=windows-1252");
        Self { content_type: client::content_type(headers).unwrap_or_default(), latin }
    }

    fn is_json(&self) -> bool {
        is_json(&self.content_type)
    }

    fn is_text(&self) -> bool {
        let kind = self.content_type.as_str();
        let others = [
            "application/xml",
            "application/javascript",
            "application/yaml",
            "application/x-yaml",
            "application/toml",
            "application/sql",
            "application/x-www-form-urlencoded",
            "application/x-ndjson",
            "application/jsonl",
            "application/json-seq",
        ];
        kind.starts_with("text/")
            || kind.ends_with("+xml")
            || kind.ends_with("+yaml")
            || others.contains(&kind)
    }
}

/// Whether a type without its parameters is one of JSON.
pub fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

/// The result that a body is.
///
/// # Errors
/// If it is not what the tool says that it is.
pub fn of(config: &Http, kind: &Kind, body: Vec<u8>) -> Result<Output, Failure> {
    let output = match config.output {
        HttpOutput::Auto if config.extract.is_some() => HttpOutput::Json,
        other => other,
    };
    match output {
        HttpOutput::Json => {
            let value = parsed(&body)?;
            extracted(value, config.extract.as_ref()).map(Output::value)
        }
        HttpOutput::Text => Ok(Output::text(text(kind, body))),
        HttpOutput::Base64 => Ok(encoded(kind, &body)),
        HttpOutput::Auto => Ok(auto(kind, body)),
    }
}

fn auto(kind: &Kind, body: Vec<u8>) -> Output {
    // Some servers say JSON of an empty body, or of what is none.
    if kind.is_json()
        && let Ok(value) = parsed(&body)
    {
        return Output::value(value);
    }
    let media = |make: fn(String, String) -> Content| Output {
        content: vec![make(BASE64.encode(&body), kind.content_type.clone())],
        ..Output::default()
    };
    match kind.content_type.split('/').next() {
        // A drawing is a text that models read.
        Some("image") if kind.content_type != "image/svg+xml" => {
            media(|data, mime_type| Content::Image { data, mime_type })
        }
        Some("audio") => media(|data, mime_type| Content::Audio { data, mime_type }),
        _ if kind.is_text() || kind.is_json() => Output::text(text(kind, body)),
        _ => match String::from_utf8(body) {
            Ok(text) if !text.contains('\0') => Output::text(text),
            Ok(text) => encoded(kind, text.as_bytes()),
            Err(error) => encoded(kind, error.as_bytes()),
        },
    }
}

fn parsed(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(Reason::Broken, "the service's answer is not JSON").detail(error))
}

fn text(kind: &Kind, body: Vec<u8>) -> String {
    if kind.latin {
        return body.into_iter().map(char::from).collect();
    }
    String::from_utf8(body).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn encoded(kind: &Kind, body: &[u8]) -> Output {
    let content_type = match kind.content_type.as_str() {
        "" => "application/octet-stream",
        known => known,
    };
    Output::value(json!({"contentType": content_type, "bytes": body.len(), "base64": BASE64.encode(body)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(content_type: &str) -> Kind {
        Kind::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]))
    }

    #[test]
    fn json_is_a_value_for_programs_and_a_text_for_the_others() {
        for content_type in ["application/json", "application/problem+json; charset=utf-8"] {
            let output = auto(&kind(content_type), br#"{"a": [1]}"#.to_vec());
            assert_eq!(output.structured, Some(json!({"a": [1]})));
            assert_eq!(output.content, [Content::Text(r#"{"a":[1]}"#.to_owned())]);
        }
        assert_eq!(auto(&kind("application/json"), Vec::new()), Output::text(""));
    }

    #[test]
    fn pictures_and_sounds_are_what_they_are() {
        let image = Content::Image { data: "AQI=".to_owned(), mime_type: "image/png".to_owned() };
        assert_eq!(auto(&kind("image/png"), vec![1, 2]).content, [image]);
        let audio = Content::Audio { data: "AQI=".to_owned(), mime_type: "audio/wav".to_owned() };
        assert_eq!(auto(&kind("Audio/WAV"), vec![1, 2]).content, [audio]);
        assert_eq!(auto(&kind("image/svg+xml"), b"<svg/>".to_vec()), Output::text("<svg/>"));
    }

    #[test]
    fn texts_are_read_by_their_character_set() {
        assert_eq!(auto(&kind("text/plain; charset=ISO-8859-1"), vec![0xe4]), Output::text("ä"));
        assert_eq!(auto(&kind("text/plain"), "ä".into()), Output::text("ä"));
        assert_eq!(auto(&Kind::default(), "plain".into()), Output::text("plain"));
    }

    #[test]
    fn bytes_without_a_meaning_are_base64() {
        let expected = json!({"contentType": "application/octet-stream", "bytes": 2, "base64": "/wA="});
        assert_eq!(auto(&Kind::default(), vec![0xff, 0]).structured, Some(expected));
        assert!(auto(&kind("application/zip"), vec![b'P', b'K', 0]).structured.is_some());
    }
}
