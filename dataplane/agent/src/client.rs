//! The HTTP client that all agents of a node share, and what they do with it in
//! the same way: who may be asked, how often, how much is read, and what is said
//! when it goes wrong.
//!
//! No redirect is followed but to the same host, and only where the tool says
//! so: nothing that is shown to one host ever gets to another. What clients of a
//! tool are told holds no address and no secret; the log gets the rest.

mod fill;
mod retry;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    error::Error as StdError,
    fmt::Write as _,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode, header};
use hyper_rustls::ConfigBuilderExt as _;
use metrics::counter;
use mt_proto::resource::agent::request::Request;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use serde_json::json;
use tokio::time::{Instant, sleep};
use url::Url;

pub(crate) use self::fill::{Filled, Payload, Prepared, fill, json_of, message_text};
use self::retry::Trouble;
use crate::{Failure, Level, Reason, Run, hide::hide};

/// For a connection to a service, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept for one host.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is kept: less than the 5 s after which many
/// servers close it, for a request that crosses with the close is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Of the headers of an answer.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Of an answer that says no: so much is read, and so much of it is passed on.
const EXCERPT_BYTES_MAX: usize = 8 * 1024;
const EXCERPT_CHARS_MAX: usize = 500;
/// Causes of an error that are written to the log.
const CAUSES_MAX: usize = 8;

static CLIENT: LazyLock<Option<Client>> = LazyLock::new(|| {
    let mut tls = tls();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let made = Client::builder()
        .user_agent(concat!("magictunnel/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .tcp_nodelay(true)
        .build();
    made.inspect_err(|error| tracing::error!(error = chain(error), "no http client can be made")).ok()
});

/// The client itself, for requests that an agent makes up on its own.
///
/// # Errors
/// If this node can make none.
pub(crate) fn shared() -> Result<&'static Client, Failure> {
    let made = CLIENT.as_ref();
    made.ok_or_else(|| Failure::new(Reason::Misconfigured, "this node can make no http requests"))
}

/// How long the service wants callers to wait.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    retry::after(headers, chrono::Utc::now())
}

/// How TLS is spoken to services: to whom the authorities of this system vouch
/// for, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub(crate) fn tls() -> ClientConfig {
    static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("the provider has cipher suites for the default versions")
        };
        match builder().with_native_roots() {
            Ok(builder) => builder.with_no_client_auth(),
            Err(error) => {
                tracing::error!(%error, "no certificates of authorities found on this system, https services cannot be verified");
                builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
            }
        }
    });
    TLS.clone()
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub response: Response,
    /// What must not be repeated to clients.
    secrets: Vec<String>,
}

/// How often something is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// Redirects that are followed in one try.
    pub redirects: u32,
    /// Further tries after the first.
    pub retries: u32,
    /// Also where the first one may have had an effect.
    pub retry_unsafe: bool,
}

impl Tries {
    pub fn of(request: &Request) -> Self {
        let Request { redirects, retries, retry_unsafe, .. } = *request;
        Self { redirects, retries, retry_unsafe }
    }

    /// Whether a request that may have had its effect can be sent again.
    pub fn may_repeat(self, method: &Method) -> bool {
        retry::is_idempotent(method) || self.retry_unsafe
    }
}

/// Sends a request, as often as the tool says. A status that is no success is a
/// failure. Dropping the future ends it.
pub(crate) async fn send(
    run: &Run<'_>,
    prepared: &Prepared,
    limits: Tries,
    deadline: Instant,
    is_success: impl Fn(StatusCode) -> bool,
) -> Result<Answer, Failure> {
    let repeatable = limits.may_repeat(&prepared.method);
    let mut tries = 0;
    loop {
        let tried = once(prepared, limits.redirects, &is_success).await;
        let (failure, trouble) = match tried {
            Ok(answer) if is_success(answer.response.status()) => return Ok(answer),
            Ok(answer) => {
                let status = answer.response.status();
                let after = retry_after(answer.response.headers());
                (answer.refused().await, Trouble::Status { status, after })
            }
            Err(failure) if failure.reason == Reason::Unreachable => (failure, Trouble::Unreachable),
            Err(failure) if failure.reason == Reason::Broken => (failure, Trouble::Broken),
            Err(failure) => return Err(failure),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let pause = (tries < limits.retries)
            .then(|| retry::pause(tries, &trouble, repeatable, left, rand::random()))
            .flatten();
        let Some(pause) = pause else { return Err(failure) };
        tries += 1;
        counter!("mt_agent_http_retries_total").increment(1);
        run.reporter.log(
            Level::Warning,
            json!({"message": "trying again", "after": failure.message, "try": tries + 1}),
        );
        sleep(pause).await;
    }
}

/// One try, with the redirects that are followed.
async fn once(
    prepared: &Prepared,
    redirects: u32,
    is_success: &impl Fn(StatusCode) -> bool,
) -> Result<Answer, Failure> {
    let client = shared()?;
    let mut url = prepared.filled.url.clone();
    let mut method = prepared.method.clone();
    let mut with_body = true;
    let mut followed = 0;
    loop {
        let mut request =
            client.request(method.clone(), url.clone()).headers(prepared.filled.headers.clone());
        if with_body {
            request = prepared.payload.put_into(request)?;
        }
        let response = request.send().await.map_err(failure_of)?;
        // A tool that names the status as a success wants this very answer.
        let elsewhere = location(&response, &url).filter(|_| !is_success(response.status()));
        let Some(next) = elsewhere else {
            return Ok(Answer { response, secrets: prepared.filled.secrets.clone() });
        };
        if redirects == 0 {
            let message = "the service sends callers elsewhere, and the tool follows no redirects";
            return Err(Failure::new(Reason::Refused, message).detail(format!("to {}", without_query(&next))));
        }
        if followed == redirects {
            let message = format!("the service sends callers elsewhere more than {redirects} times");
            return Err(Failure::new(Reason::Refused, message));
        }
        if !same_host(&url, &next) {
            let message = "the service sends callers to another host, which the tool does not follow";
            return Err(Failure::new(Reason::Refused, message).detail(format!("to {}", without_query(&next))));
        }
        followed += 1;
        let status = response.status();
        let becomes_get = status == StatusCode::SEE_OTHER && method != Method::HEAD
            || matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND) && method == Method::POST;
        if becomes_get {
            method = Method::GET;
            with_body = false;
        }
        url = next;
    }
}

/// Where an answer sends its caller.
fn location(response: &Response, from: &Url) -> Option<Url> {
    let redirects = [301, 302, 303, 307, 308];
    if !redirects.contains(&response.status().as_u16()) {
        return None;
    }
    let to = response.headers().get(header::LOCATION)?.to_str().ok()?;
    from.join(to).ok()
}

/// Also the same port, and no less encrypted.
fn same_host(from: &Url, to: &Url) -> bool {
    from.host() == to.host()
        && from.port_or_known_default() == to.port_or_known_default()
        && from.scheme() == to.scheme()
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

impl Answer {
    /// The type of the body, in lower case, without parameters.
    pub fn content_type(&self) -> Option<String> {
        content_type(self.response.headers())
    }

    /// The whole body, after decompression.
    ///
    /// # Errors
    /// If it is larger, or breaks off.
    pub async fn read(mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        if self.response.content_length().is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(too_large(bytes_max));
        }
        while let Some(chunk) = self.response.chunk().await.map_err(failure_of)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The failure that a status stands for, with the beginning of what the
    /// service says.
    pub async fn refused(mut self) -> Failure {
        let mut body = Vec::new();
        while body.len() < EXCERPT_BYTES_MAX
            && let Ok(Some(chunk)) = self.response.chunk().await
        {
            body.extend_from_slice(&chunk[..chunk.len().min(EXCERPT_BYTES_MAX - body.len())]);
        }
        let status = self.response.status();
        let mut message = format!("the service answered {}", status.as_u16());
        if let Some(reason) = status.canonical_reason() {
            _ = write!(message, " {reason}");
        }
        let excerpt = self.excerpt(&String::from_utf8_lossy(&body));
        if !excerpt.is_empty() {
            _ = write!(message, ": {excerpt}");
        }
        Failure::new(Reason::Refused, message)
    }

    /// A text of the service as it may be passed on in an error.
    pub fn excerpt(&self, text: &str) -> String {
        excerpt(text, &self.secrets)
    }
}

/// One short line, without what must not be repeated.
pub(crate) fn excerpt(text: &str, secrets: &[String]) -> String {
    let text = hide(text, secrets);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words = plain.split_whitespace();
    let mut line = words.next().unwrap_or_default().to_owned();
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
    match line.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The type of a body, in lower case, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

pub(crate) fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Reason::TooLarge, format!("the service answers more than {bytes_max} bytes"))
}

/// What a client may know of an error, and what the log gets.
pub(crate) fn failure_of(error: reqwest::Error) -> Failure {
    let error = error.without_url(); // It holds arguments, and maybe a secret.
    let (reason, message) = if error.is_connect() {
        (Reason::Unreachable, "the service cannot be reached")
    } else if error.is_timeout() {
        (Reason::Timeout, "the service did not answer in time")
    } else if error.is_builder() {
        (Reason::Misconfigured, "the request cannot be made")
    } else if error.is_decode() {
        (Reason::Broken, "the service's answer cannot be decompressed")
    } else {
        (Reason::Broken, "the service broke off")
    };
    Failure::new(reason, message).detail(chain(&error))
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_host_port_and_scheme_are_the_same() {
        let from = Url::parse("https://a.example/x").unwrap();
        for (to, same) in [
            ("https://a.example/y", true),
            ("https://a.example:443/y", true),
            ("https://A.EXAMPLE/y", true),
            ("http://a.example/y", false),
            ("https://a.example:8443/y", false),
            ("https://b.example/y", false),
            ("https://a.example@b.example/y", false),
            ("ftp://a.example/y", false),
        ] {
            assert_eq!(same_host(&from, &Url::parse(to).unwrap()), same, "{to}");
        }
    }

    #[test]
    fn an_excerpt_is_one_short_line_without_secrets() {
        let secrets = ["s3cret".to_owned(), String::new()];
        assert_eq!(excerpt("  bad\r\n token s3cret, s3cret\0!", &secrets), "bad token ***, *** !");
        assert_eq!(excerpt(&"ä".repeat(600), &[]).chars().count(), EXCERPT_CHARS_MAX + 1);
    }
}
