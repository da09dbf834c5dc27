//! Where a description comes from: a file, stdin, or an address, read within a
//! limit.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use mt_capabilities::generate::{INTROSPECTION, SOURCE_BYTES_MAX};
use reqwest::{
    Response,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect::{Attempt, Policy},
};
use serde_json::json;
use url::Url;

use crate::{
    args::DescribedArgs,
    client::deepest,
    output::{Exit, Failure, shorten},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 5;
/// Of an answer that says no.
const REASON_CHARS_MAX: usize = 200;

/// What an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What is there.
    Document,
    /// The schema of a GraphQL service.
    Introspection,
}

/// A description that is to be read.
pub struct Fetch<'a> {
    source: &'a str,
    headers: HeaderMap,
    timeout: Duration,
}

impl<'a> Fetch<'a> {
    /// # Errors
    /// When a header is none.
    pub fn new(args: &'a DescribedArgs) -> Result<Self, Failure> {
        Ok(Self { source: &args.source, headers: headers(&args.header)?, timeout: args.timeout })
    }

    /// # Errors
    /// When it cannot be read, is too large, or is not text.
    pub async fn text(&self, asked: Asked) -> Result<String, Failure> {
        let bytes = self.bytes(asked).await?;
        String::from_utf8(bytes).map_err(|_| {
            Failure::new(Exit::Failed, format!("{} is not UTF-8 text", without_secrets(self.source)))
        })
    }

    /// # Errors
    /// When it cannot be read, or is too large.
    pub async fn bytes(&self, asked: Asked) -> Result<Vec<u8>, Failure> {
        if is_address(self.source) {
            return self.address(asked).await;
        }
        let read =
            if self.source == "-" { limited(io::stdin().lock()) } else { file(Path::new(self.source)) };
        let bytes = read.map_err(|error| {
            let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
            Failure::new(exit, format!("cannot read {}", self.source)).cause(error)
        })?;
        if bytes.len() > SOURCE_BYTES_MAX {
            return Err(too_large(self.source));
        }
        Ok(bytes)
    }

    async fn address(&self, asked: Asked) -> Result<Vec<u8>, Failure> {
        let shown = without_secrets(self.source);
        let failed = |error: reqwest::Error| {
            Failure::new(Exit::Unreachable, format!("cannot fetch {shown}")).cause(deepest(&error))
        };
        let url = Url::parse(self.source)
            .map_err(|error| Failure::new(Exit::Usage, format!("{shown} is not an address")).cause(error))?;
        // Headers that were given may be credentials, and stay with their host.
        let strict = !self.headers.is_empty();
        let policy = Policy::custom(move |attempt| follow(attempt, strict));
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.timeout)
            .redirect(policy)
            .user_agent(concat!("mtctl/", env!("CARGO_PKG_VERSION")));
        if url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(failed)?;
        let request = match asked {
            Asked::Document => client.get(url),
            Asked::Introspection => client.post(url).json(&json!({"query": INTROSPECTION})),
        };
        let response = request.headers(self.headers.clone()).send().await.map_err(failed)?;
        let status = response.status();
        let body = limited_body(response).await.map_err(failed)?;
        if !status.is_success() {
            let exit = if matches!(status.as_u16(), 401 | 403) { Exit::Auth } else { Exit::Failed };
            let failure = Failure::new(exit, format!("{shown} answered with {status}"))
                .cause(shorten(&String::from_utf8_lossy(&body), REASON_CHARS_MAX));
            return Err(match exit {
                Exit::Auth => failure.try_this("--header 'Authorization: Bearer …'"),
                _ => failure,
            });
        }
        if body.len() > SOURCE_BYTES_MAX {
            return Err(too_large(&shown));
        }
        Ok(body)
    }
}

/// Follows to http and https only, never from https back to http, and with
/// headers of the user's only on the same host.
fn follow(attempt: Attempt<'_>, strict: bool) -> reqwest::redirect::Action {
    let (from, to) = (attempt.previous().last(), attempt.url());
    let weaker = from.is_some_and(|from| from.scheme() == "https") && to.scheme() != "https";
    let elsewhere = from.is_some_and(|from| from.host_str() != to.host_str());
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error("too many redirects");
    }
    if weaker || !matches!(to.scheme(), "http" | "https") {
        return attempt.error("the redirect goes to another scheme");
    }
    if strict && elsewhere {
        return attempt.error("the redirect goes to another host, which the headers are not for");
    }
    attempt.follow()
}

/// At most one byte more than is allowed, so that it can be seen.
async fn limited_body(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = (SOURCE_BYTES_MAX + 1).saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() > SOURCE_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

fn limited(reader: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn file(path: &Path) -> io::Result<Vec<u8>> {
    limited(fs::File::open(path)?)
}

fn too_large(source: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{source} is larger than {} MiB", SOURCE_BYTES_MAX >> 20))
        .note("take out what is not needed")
}

/// Headers as they are typed.
///
/// # Errors
/// When one is none.
pub fn headers(typed: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in typed {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse::<HeaderName>().ok()?, value))
        });
        let (name, value) = parsed.ok_or_else(|| {
            Failure::new(Exit::Usage, "a header cannot be read").note("headers are written as 'Name: value'")
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

pub fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// An address without what may be secret in it; anything else as it is.
pub fn without_secrets(source: &str) -> String {
    match Url::parse(source) {
        Ok(mut url) if is_address(source) => {
            // Fails only for addresses without a host, which these are not.
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        _ => source.to_owned(),
    }
}

/// What a source is called, without what all sources are called.
pub fn stem(source: &str) -> String {
    if source == "-" {
        return "tools".to_owned();
    }
    if is_address(source) {
        let host = Url::parse(source).ok().and_then(|url| url.host_str().map(str::to_owned));
        return host.unwrap_or_else(|| "tools".to_owned());
    }
    let stem = Path::new(source).file_stem().unwrap_or_default().to_string_lossy();
    stem.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names_and_keep_no_secrets() {
        assert_eq!(stem("specs/shop.v2.yaml"), "shop.v2");
        assert_eq!(stem("https://api.example.com/openapi.json"), "api.example.com");
        assert_eq!(stem("-"), "tools");
        assert_eq!(without_secrets("https://u:p@h/x?key=1#f"), "https://h/x");
        assert_eq!(without_secrets("a?b"), "a?b");
    }

    #[test]
    fn headers_are_read_as_they_are_typed() {
        let typed = ["Authorization: Bearer a:b".to_owned(), "X-A:1".to_owned()];
        let headers = headers(&typed).unwrap();
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!(headers["x-a"], "1");
        assert_eq!(super::headers(&["nothing".to_owned()]).unwrap_err().exit, Exit::Usage);
    }
}
