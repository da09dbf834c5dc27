//! A URL.
//!
//! The text around the values is the skeleton. What a value becomes depends on
//! where in it the value stands, and the URL as parsed is compared with the
//! skeleton at the end, so that no difference between this reading and the
//! parser's can be made use of.

use std::borrow::Cow;

use ::url::{Url, form_urlencoded};
use serde_json::Value;

use super::{
    Piece, Pieces, Refused,
    target::{plain, refused},
};

impl Pieces {
    /// As an absolute URL.
    ///
    /// - Scheme, user, host and port are the author's: no value can stand there.
    /// - In the path a value is a segment or a part of one, percent-encoded but
    ///   for unreserved characters. A segment cannot be `.` or `..` or be taken
    ///   for a path with those in it, and cannot be empty for an empty value.
    /// - In the query, and after `#`, a value is percent-encoded likewise. A
    ///   list in `name={{list}}` becomes a pair for each item, or none.
    ///
    /// # Errors
    /// If a value stands where none can, or the text is no URL.
    pub fn url(&self) -> Result<Url, Refused> {
        let mut writer = Writer::default();
        for (i, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Literal(text) => writer.literal(text)?,
                Piece::Value(Value::Array(items)) => {
                    let alone = match self.0.get(i + 1) {
                        None => true,
                        Some(Piece::Literal(after)) => after.starts_with(['&', '#']),
                        Some(_) => false,
                    };
                    writer.list(items, alone)?;
                }
                Piece::Value(Value::Object(_)) if writer.place == Place::Path => {
                    return refused("an object cannot stand in the path of a URL");
                }
                value => writer.value(&value.text())?,
            }
        }
        writer.finish()
    }
}

/// The part of the URL that is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    #[default]
    Scheme,
    Authority,
    Path,
    Query,
    Fragment,
}

#[derive(Default)]
struct Writer {
    place: Place,
    url: String,
    /// Where the path begins, once the authority is over.
    authority_end: usize,
    /// Where the segment or the pair begins that is being written.
    start: usize,
    /// Whether it holds a value.
    valued: bool,
    segments: Vec<Expected>,
    pairs: Vec<Expected>,
    fragment: Option<usize>,
}

/// A segment or a pair as it must be in the parsed URL, still encoded.
struct Expected(String);

impl Writer {
    fn literal(&mut self, text: &str) -> Result<(), Refused> {
        for c in text.chars() {
            match (self.place, c) {
                (Place::Scheme, '/') if self.url.ends_with(":/") => self.place = Place::Authority,
                (Place::Authority, '/' | '?' | '#' | '\\') => {
                    self.authority_end = self.url.len();
                    self.enter(match c {
                        '?' => Place::Query,
                        '#' => Place::Fragment,
                        _ => Place::Path,
                    });
                }
                (Place::Path, '/' | '\\') => self.end_segment()?,
                (Place::Path, '?' | '#') => {
                    self.end_segment()?;
                    self.enter(if c == '?' { Place::Query } else { Place::Fragment });
                }
                (Place::Query, '&') => self.end_pair(),
                (Place::Query, '#') => {
                    self.end_pair();
                    self.enter(Place::Fragment);
                }
                _ => {}
            }
            self.url.push(c);
            if self.starts_part(c) {
                self.start = self.url.len();
                self.valued = false;
            }
        }
        Ok(())
    }

    fn enter(&mut self, place: Place) {
        self.place = place;
        if place == Place::Fragment {
            self.fragment = Some(self.url.len() + 1);
        }
    }

    /// Whether this sign, just written, begins the next segment or pair.
    fn starts_part(&self, c: char) -> bool {
        match self.place {
            Place::Scheme | Place::Authority => false,
            Place::Path => matches!(c, '/' | '\\'),
            Place::Query => c == '&' || (c == '?' && self.pairs_begin()),
            Place::Fragment => c == '#' && self.fragment == Some(self.url.len()),
        }
    }

    /// Whether the `?` just written is the one before the query.
    fn pairs_begin(&self) -> bool {
        self.url[self.authority_end..].find('?') == Some(self.url.len() - self.authority_end - 1)
    }

    fn value(&mut self, text: &str) -> Result<(), Refused> {
        match self.place {
            Place::Scheme | Place::Authority => refused(
                "a value cannot stand in the scheme, the host or the port of a URL; only the tool's author chooses the server",
            ),
            _ => {
                encode(text, &mut self.url);
                self.valued = true;
                Ok(())
            }
        }
    }

    fn list(&mut self, items: &[Value], alone: bool) -> Result<(), Refused> {
        let written = self.url[self.start..].to_owned();
        let name = match written.strip_suffix('=') {
            Some(name) if self.place == Place::Query && alone && !self.valued && !name.contains('=') => {
                written
            }
            _ if self.place == Place::Path => return refused("a list cannot stand in the path of a URL"),
            _ => return self.value(&Value::from(items).to_string()),
        };
        // An empty list leaves no pair, and of the `&` around it one too many,
        // which means nothing.
        self.url.truncate(self.start);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.literal("&")?;
            }
            self.url.push_str(&name);
            self.value(&plain(item))?;
        }
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), Refused> {
        let segment = &self.url[self.start..];
        if self.valued && segment.is_empty() {
            return refused("an empty value cannot be a segment of a URL's path");
        }
        if climbs(segment) {
            return refused("`.` and `..` cannot be segments of a URL's path");
        }
        self.segments.push(Expected(segment.to_owned()));
        Ok(())
    }

    fn end_pair(&mut self) {
        let pair = &self.url[self.start..];
        if !pair.is_empty() {
            self.pairs.push(Expected(pair.to_owned()));
        }
    }

    fn finish(mut self) -> Result<Url, Refused> {
        match self.place {
            Place::Scheme => {}
            Place::Authority => self.authority_end = self.url.len(),
            Place::Path => self.end_segment()?,
            Place::Query => self.end_pair(),
            Place::Fragment => {}
        }
        let invalid = |error| Refused { message: format!("not a URL: {error}") };
        let parsed = Url::parse(&self.url).map_err(invalid)?;
        let skeleton = Url::parse(&self.url[..self.authority_end]).map_err(invalid)?;
        let same = authority(&parsed) == authority(&skeleton)
            && self.same_path(&parsed)
            && self.same_query(&parsed)
            && self.same_fragment(&parsed);
        if !same {
            return refused("the URL would not mean what its template says; write its text percent-encoded");
        }
        Ok(parsed)
    }

    fn same_path(&self, parsed: &Url) -> bool {
        let Some(segments) = parsed.path_segments() else { return self.segments.is_empty() };
        let mut segments = segments.map(decode).collect::<Vec<_>>();
        if self.segments.is_empty() && segments == [b""] {
            segments.clear();
        }
        segments.iter().map(|segment| &**segment).eq(self.segments.iter().map(|segment| decode(&segment.0)))
    }

    fn same_query(&self, parsed: &Url) -> bool {
        let expected = self.pairs.iter().flat_map(|pair| form_urlencoded::parse(pair.0.as_bytes()));
        parsed.query_pairs().eq(expected)
    }

    fn same_fragment(&self, parsed: &Url) -> bool {
        let expected = self.fragment.map(|start| decode(&self.url[start..]));
        parsed.fragment().map(decode) == expected
    }
}

fn authority(url: &Url) -> (&str, &str, Option<&str>, Option<&str>, Option<u16>) {
    (url.scheme(), url.username(), url.password(), url.host_str(), url.port())
}

/// RFC 3986 §2.3: what needs no encoding anywhere.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(byte.into()),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                into.push('%');
                into.push(HEX[usize::from(byte >> 4)].into());
                into.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
}

fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i], digit(i + 1), digit(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                i += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                i += 1;
            }
        }
    }
    decoded
}

/// How often a segment is decoded: no row of servers behind servers is longer.
const DECODED_MAX: usize = 8;

/// Whether a segment is, or could be taken for, a way out of its place: decoded
/// as servers behind servers do, it has a part that is `.` or `..`, or it can be
/// decoded so often that nobody knows what it will be.
fn climbs(segment: &str) -> bool {
    let mut text = Cow::Borrowed(segment);
    for _ in 0..DECODED_MAX {
        let mut parts = text.split(['/', '\\']).map(|part| part.split(';').next().unwrap_or_default());
        if parts.any(|part| matches!(part, "." | "..")) {
            return true;
        }
        let decoded = String::from_utf8_lossy(&decode(&text)).into_owned();
        if decoded == *text {
            return false;
        }
        text = Cow::Owned(decoded);
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::render, *};

    fn check(text: &str, value: Value, wanted: &str) {
        let url =
            render(text, json!({"x": value})).url().unwrap_or_else(|refused| panic!("{text}: {refused}"));
        assert_eq!(url.as_str(), wanted, "{text}");
    }

    fn is_refused(text: &str, value: Value) {
        let url = render(text, json!({"x": value, "empty": ""})).url();
        assert!(url.is_err(), "{text} {value}: {url:?}");
    }

    #[test]
    fn a_value_in_the_path_is_a_segment() {
        check(
            "http://h/a/{{x}}/b",
            json!("c d/e?f#g%2f\\é&="),
            "http://h/a/c%20d%2Fe%3Ff%23g%252f%5C%C3%A9%26%3D/b",
        );
        check("http://h/{{x}}.json", json!(""), "http://h/.json");
        check("http://h/{{x}}.json", json!(".."), "http://h/...json");
        check("http://h/{{x}}", json!(7), "http://h/7");
        check("http://h", json!(7), "http://h/");
        check("http://h/", json!(7), "http://h/");
        check("https://{{env.HOST}}:8443/v1/{{x}}", json!("a"), "https://api.example.com:8443/v1/a");
        check("http://u:p@h/a b/{{x}}", json!("c"), "http://u:p@h/a%20b/c");
    }

    #[test]
    fn a_value_that_decodes_for_ever_is_refused_at_once() {
        is_refused("http://h/a/{{x}}", json!(format!("%{}2e%2e", "25".repeat(500_000))));
        check("http://h/{{x}}", json!("100%25"), "http://h/100%2525");
    }

    #[test]
    fn no_value_leaves_its_place_in_the_path() {
        for climbing in [
            "..",
            ".",
            "%2e%2e",
            "%2E.",
            ".%2e",
            "%252e%252e",
            "../../etc/passwd",
            "..\\..",
            "%2e%2e%2f",
            "a/../b",
            "..%2f",
            "..;/x",
            "..%5c",
        ] {
            is_refused("http://h/a/{{x}}", json!(climbing));
            is_refused("http://h/a/{{x}}/b?c=d", json!(climbing));
        }
        is_refused("http://h/a/.{{x}}", json!("."));
        is_refused("http://h/a/%2e{{x}}", json!("."));
        is_refused("http://h/a/{{x}}", json!(""));
        is_refused("http://h/a/{{x}}/", json!(null));
        is_refused("http://h/a/{{x}}{{empty}}/", json!(""));
        is_refused("http://h/a/{{x}}", json!(["a"]));
        is_refused("http://h/a/{{x}}", json!({"a": 1}));
    }

    #[test]
    fn the_server_is_the_authors() {
        for text in [
            "{{x}}",
            "{{x}}/a",
            "{{x}}://h/",
            "http://{{x}}/",
            "http://h{{x}}/",
            "http://h:{{x}}/",
            "http://{{x}}@h/",
            "http://h{{x}}",
            "http:/{{x}}",
            "{{env.HOST}}{{x}}",
        ] {
            for value in ["evil", "http://evil", ".evil.com", "@evil", "/evil", "80"] {
                is_refused(text, json!(value));
            }
        }
    }

    #[test]
    fn a_value_in_the_query_is_a_value() {
        check("http://h/?q={{x}}&r=1", json!("a&b=c+d #e%20"), "http://h/?q=a%26b%3Dc%2Bd%20%23e%2520&r=1");
        check("http://h?q={{x}}", json!(""), "http://h/?q=");
        check("http://h/a?q={{x}}#f", json!(["a", "b&", 1]), "http://h/a?q=a&q=b%26&q=1#f");
        check("http://h/a?p=1&q={{x}}&r=2", json!(["a", "b"]), "http://h/a?p=1&q=a&q=b&r=2");
        check("http://h/a?q={{x}}", json!([]), "http://h/a?");
        check("http://h/a?q=v{{x}}", json!(["a"]), "http://h/a?q=v%5B%22a%22%5D");
        check("http://h/a?q={{x}}", json!({"a": 1}), "http://h/a?q=%7B%22a%22%3A1%7D");
        check("http://h/a?q=?{{x}}", json!("?"), "http://h/a?q=?%3F");
        check("http://h/a?{{#if x}}q={{x}}{{/if}}", json!(null), "http://h/a?");
        check("http://h/#a{{x}}", json!("b#c"), "http://h/#ab%23c");
    }

    #[test]
    fn what_the_author_writes_means_what_it_says() {
        for text in [
            "http://h/a/../{{x}}",
            "http://h/a\\{{x}}/../c",
            "nonsense",
            "http:///{{x}}",
            "http://h/%2e%2e/{{x}}",
        ] {
            is_refused(text, json!("a"));
        }
    }
}
