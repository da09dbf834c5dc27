//! How keys come: from a file, or over HTTP.
//!
//! A small document from a place that the operator has named: one request,
//! bounded in time and size, without a redirect (it could lead anywhere) and
//! without anything of a caller in it.

use std::{io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mt_proto::resource::KeySource;
use rustls::ClientConfig;
use serde::Deserialize;
use url::Url;

/// Of a document.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Of one request, with its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("magictunnel/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json, application/jwk-set+json");

/// What was there.
#[derive(Debug)]
pub struct Document {
    /// None: what was there before.
    pub body: Option<Bytes>,
    /// For how long its source says that it is good.
    pub max_age: Option<Duration>,
    /// By what to ask whether it has changed, and of what.
    pub tag: Option<Tag>,
}

/// A version of a document at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    url: Url,
    etag: HeaderValue,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("it is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("there was no answer within {REQUEST_MAX:?}")]
    Timeout,
    #[error("cannot be reached")]
    Send(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is HTTP {0}")]
    Status(StatusCode),
    #[error("the metadata of the issuer cannot be read")]
    Metadata(#[source] serde_json::Error),
    #[error("the metadata is that of another issuer")]
    OtherIssuer,
    #[error("the metadata has no address of keys that is safe to use")]
    NoAddress,
    #[error("the address cannot be dialled")]
    Address(#[source] http::Error),
}

/// Fetches documents.
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Option<String>,
}

impl Fetcher {
    /// Reading the system's certificates takes a while: one for a node.
    pub fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(REQUEST_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // It is asked once in minutes: a connection would be stale by then.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client }
    }

    /// The keys of an issuer, as bytes.
    ///
    /// # Errors
    /// If they cannot be had; the URLs are not in it.
    pub async fn keys(&self, issuer: &str, source: &KeySource, tag: Option<&Tag>) -> Result<Document, Error> {
        match source {
            KeySource::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(path)).await;
                read.unwrap_or(Err(Error::Timeout))
            }
            KeySource::Url(url) => self.get(url, tag).await,
            KeySource::Discovered { metadata: at } => {
                let body = self.get(at, None).await?.body.unwrap_or_default();
                let metadata: Metadata = serde_json::from_slice(&body).map_err(Error::Metadata)?;
                if metadata.issuer != issuer {
                    return Err(Error::OtherIssuer);
                }
                let url = metadata.jwks_uri.and_then(|text| Url::parse(&text).ok());
                // An issuer elsewhere must not send the node to itself.
                let url = url.filter(|url| url.scheme() == "https" || same_origin(url, at));
                self.get(&url.ok_or(Error::NoAddress)?, tag).await
            }
        }
    }

    async fn get(&self, url: &Url, tag: Option<&Tag>) -> Result<Document, Error> {
        tokio::time::timeout(REQUEST_MAX, self.get_unbounded(url, tag)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn get_unbounded(&self, url: &Url, tag: Option<&Tag>) -> Result<Document, Error> {
        let tag = tag.filter(|tag| tag.url == *url);
        let mut request = Request::get(url.as_str()).header(ACCEPT, JSON).header(USER_AGENT, AGENT);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, &tag.etag);
        }
        let request = request.body(Empty::new()).map_err(Error::Address)?;
        let (head, body) = self.client.request(request).await.map_err(Error::Send)?.into_parts();
        let max_age = max_age(&head.headers);
        let body = match head.status {
            StatusCode::OK => {
                Some(Limited::new(body, DOCUMENT_BYTES_MAX).collect().await.map_err(cut)?.to_bytes())
            }
            StatusCode::NOT_MODIFIED if tag.is_some() => None,
            status => return Err(Error::Status(status)),
        };
        let etag = head.headers.get(ETAG).or(tag.filter(|_| body.is_none()).map(|tag| &tag.etag));
        let tag = etag.map(|etag| Tag { url: url.clone(), etag: etag.clone() });
        Ok(Document { body, max_age, tag })
    }
}

fn cut(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    if error.is::<LengthLimitError>() { Error::TooLong } else { Error::Read(error) }
}

fn same_origin(url: &Url, other: &Url) -> bool {
    url.origin() == other.origin()
}

/// What a source says of how long its answer is good (RFC 9111 §5.2.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    directives.find_map(|directive| {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        let (name, seconds) = directive.split_once('=')?;
        let seconds = seconds.trim_matches('"').parse().ok();
        seconds.filter(|_| name.eq_ignore_ascii_case("max-age")).map(Duration::from_secs)
    })
}

fn read_file(path: PathBuf) -> Result<Document, Error> {
    let mut body = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut body));
    match read {
        Err(source) => Err(Error::File { path, source }),
        Ok(_) if body.len() > DOCUMENT_BYTES_MAX => Err(Error::TooLong),
        Ok(_) => Ok(Document { body: Some(body.into()), max_age: None, tag: None }),
    }
}

fn tls_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for the default versions")
    };
    match builder().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::error!(
                error = %error,
                "no certificates of authorities found on this system, issuers of tokens cannot be reached"
            );
            builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_is_good_is_read_leniently() {
        for (value, expected) in [
            ("max-age=60", Some(60)),
            ("public, Max-Age=3600, must-revalidate", Some(3600)),
            ("max-age=\"5\"", Some(5)),
            ("no-store", Some(0)),
            ("private", None),
            ("max-age=x", None),
            ("s-maxage=7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{value}");
        }
    }
}
