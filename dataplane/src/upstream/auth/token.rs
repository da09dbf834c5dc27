//! Tokens for one backend, by OAuth 2.1 client credentials (RFC 6749 §4.4).
//!
//! One is fetched at a time, whoever waits for it, and replaced before it ends.
//! A token server that fails is asked less and less often; meanwhile calls fail
//! at once and say why. Redirects are not followed: they would carry the
//! client's secret elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use metrics::Counter;
use mt_proto::resource::{ClientCredentials, HttpTransport, ResourceName};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::form_urlencoded;

use super::credentials::{Credentials, HIDDEN_BYTES_MIN};
use crate::upstream::{
    backoff::Backoff,
    client::Origin,
    excerpt::excerpt,
    message::Outgoing,
    request::{self, AGENT, JSON},
    secrets::{Secrets, resolve},
    shared::Shared,
};

/// How long fetching a token may take, with all attempts.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a token server that is down or overloaded is asked in a row.
const ATTEMPTS_MAX: u32 = 3;
/// The wait before the second attempt; doubled by each.
const ATTEMPT_WAIT: Duration = Duration::from_millis(200);
/// The longest answer of a token server.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a token is used of which nobody says how long it is good.
const LIFE_DEFAULT: Duration = Duration::from_secs(5 * 60);
const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// So long before its end a token is no longer sent, if it lives long enough:
/// it has to be good when it arrives.
const END_MARGIN: Duration = Duration::from_secs(10);
/// After fresh tokens have been refused as well, none is fetched for the next
/// refusal for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Tokens {
    backend: ResourceName,
    terms: ClientCredentials,
    /// What the token is for, unless an audience says that.
    resource: Option<String>,
    uri: Option<Uri>,
    secrets: Secrets,
    origin: Option<Arc<Origin>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    held: ArcSwapOption<Token>,
    /// Whoever has it fetches.
    turn: Arc<AsyncMutex<()>>,
    backoff: Mutex<Backoff>,
    refused: Mutex<Option<Instant>>,
    /// The server wants the client's secret in the form, not in a header.
    in_form: AtomicBool,
    fetched: Counter,
    failed: Counter,
}

struct Token {
    credentials: Arc<Credentials>,
    /// From then on a new one is fetched, while this one is still used.
    renew_at: Instant,
    ends_at: Instant,
}

/// Why there is no token.
enum Failure {
    /// It may be different in a moment.
    Passing(String),
    /// The server wants to be told who asks in another way.
    Client(String),
    Refused(String),
}

#[derive(Deserialize)]
struct Granted<'a> {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    /// A number; some servers send it as a text.
    #[serde(borrow, default)]
    expires_in: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

impl Tokens {
    pub fn new(
        backend: &ResourceName,
        terms: &ClientCredentials,
        transport: &HttpTransport,
        secrets: Secrets,
        shared: &Shared,
    ) -> Arc<Self> {
        let resource = match (&terms.resource, &terms.audience) {
            (Some(resource), _) => Some(resource.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(without_query(&transport.url)),
        };
        let count = |outcome: &'static str| {
            metrics::counter!(
                "mt_upstream_token_fetches_total", "backend" => backend.to_string(), "outcome" => outcome
            )
        };
        let uri: Option<Uri> = terms.token_url.as_str().parse().ok();
        Arc::new(Self {
            backend: backend.clone(),
            resource,
            origin: uri.as_ref().and_then(|uri| shared.origin(uri, transport.connect_timeout)),
            uri,
            terms: terms.clone(),
            secrets,
            tasks: shared.tasks.clone(),
            shutdown: shared.shutdown.clone(),
            held: ArcSwapOption::empty(),
            turn: Arc::default(),
            backoff: Mutex::default(),
            refused: Mutex::default(),
            in_form: AtomicBool::new(false),
            fetched: count("ok"),
            failed: count("failed"),
        })
    }

    /// The token that is held, good or not.
    pub fn held(&self) -> Option<Arc<Credentials>> {
        self.held.load().as_ref().map(|token| token.credentials.clone())
    }

    /// A good token. Dropping it does not end a fetch that others wait for.
    pub async fn get(self: &Arc<Self>) -> Result<Arc<Credentials>, String> {
        let now = Instant::now();
        if let Some(token) = &*self.held.load()
            && now < token.ends_at
        {
            if now >= token.renew_at {
                self.renew_ahead();
            }
            return Ok(token.credentials.clone());
        }
        self.fetch(None).await
    }

    /// Another token than the one that was refused.
    pub async fn renew(self: &Arc<Self>, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        if self.refused.lock().is_some_and(|at| at.elapsed() < REFUSED_PAUSE) {
            return None;
        }
        self.fetch(Some(refused)).await.ok()
    }

    pub fn refused_again(&self) {
        *self.refused.lock() = Some(Instant::now());
    }

    async fn fetch(self: &Arc<Self>, refused: Option<&Arc<Credentials>>) -> Result<Arc<Credentials>, String> {
        let turn = self.turn.clone().lock_owned().await;
        // Somebody else may have fetched one meanwhile.
        if let Some(token) = &*self.held.load()
            && Instant::now() < token.ends_at
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, &token.credentials))
        {
            return Ok(token.credentials.clone());
        }
        {
            let backoff = self.backoff.lock();
            let wait = backoff.wait(Instant::now());
            if !wait.is_zero() {
                return Err(format!("{}; it is tried again in {} s", backoff.why(), wait.as_secs() + 1));
            }
        }
        let fetching = self.tasks.spawn(Arc::clone(self).fetch_now(turn));
        fetching.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
    }

    fn renew_ahead(self: &Arc<Self>) {
        if let Ok(turn) = self.turn.clone().try_lock_owned()
            && !self.backoff.lock().is_waiting(Instant::now())
        {
            self.tasks.spawn(Arc::clone(self).fetch_now(turn));
        }
    }

    async fn fetch_now(self: Arc<Self>, _turn: OwnedMutexGuard<()>) -> Result<Arc<Credentials>, String> {
        let fetch = timeout(FETCH_TIMEOUT, self.attempts());
        let outcome = match self.shutdown.run_until_cancelled(fetch).await {
            None => return Err("the node is stopping".to_owned()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(format!("no token within {} s", FETCH_TIMEOUT.as_secs())),
        };
        match outcome {
            Ok(token) => {
                self.fetched.increment(1);
                *self.backoff.lock() = Backoff::default();
                let credentials = token.credentials.clone();
                self.held.store(Some(Arc::new(token)));
                Ok(credentials)
            }
            Err(why) => {
                self.failed.increment(1);
                let why = format!("no token from {}: {why}", self.server());
                tracing::warn!(backend = %self.backend, error = why, "fetching a token failed");
                self.backoff.lock().failed(Instant::now(), Duration::ZERO, why.clone(), rand::random());
                Err(why)
            }
        }
    }

    async fn attempts(&self) -> Result<Token, String> {
        let mut attempt = 0;
        loop {
            let in_form = self.in_form.load(Ordering::Relaxed);
            let outcome = match self.ask(in_form).await {
                Err(Failure::Client(why)) if !in_form => match self.ask(true).await {
                    Ok(token) => {
                        self.in_form.store(true, Ordering::Relaxed);
                        Ok(token)
                    }
                    // What it says to the way that it must support.
                    Err(Failure::Client(_) | Failure::Refused(_)) => Err(Failure::Refused(why)),
                    passing => passing,
                },
                outcome => outcome,
            };
            let why = match outcome {
                Ok(token) => return Ok(token),
                Err(Failure::Passing(why)) => why,
                Err(Failure::Client(why) | Failure::Refused(why)) => return Err(why),
            };
            attempt += 1;
            if attempt == ATTEMPTS_MAX {
                return Err(why);
            }
            sleep(ATTEMPT_WAIT.mul_f64(f64::from(1 << (attempt - 1)) * rand::random_range(0.5..1.0))).await;
        }
    }

    async fn ask(&self, in_form: bool) -> Result<Token, Failure> {
        let secret = resolve(&self.secrets, &self.terms.client_secret).map_err(Failure::Refused)?;
        let (origin, request) = self.request(&secret, in_form)?;
        let began = Instant::now();
        let exchange = async {
            let response = origin.send(request).await.map_err(|error| Failure::Passing(error.reason()))?;
            let (head, body) = response.into_parts();
            match request::collect(body, ANSWER_BYTES_MAX).await {
                Ok(body) => Ok((head.status, body)),
                Err(_) => Err(Failure::Passing("its answer broke off or is too long".to_owned())),
            }
        };
        let (status, body) = timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| Failure::Passing(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
        if status == StatusCode::OK { granted(&body, began) } else { Err(denied(status, &body, &secret)) }
    }

    fn request(&self, secret: &str, in_form: bool) -> Result<(&Arc<Origin>, Request<Outgoing>), Failure> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.terms.scopes.is_empty() {
            form.append_pair("scope", &self.terms.scopes.join(" "));
        }
        if let Some(resource) = &self.resource {
            form.append_pair("resource", resource);
        }
        if let Some(audience) = &self.terms.audience {
            form.append_pair("audience", audience);
        }
        if in_form {
            form.append_pair("client_id", &self.terms.client_id).append_pair("client_secret", secret);
        }
        let mut request = Request::new(Outgoing::from(Bytes::from(form.finish())));
        *request.method_mut() = Method::POST;
        let (Some(origin), Some(uri)) = (&self.origin, &self.uri) else {
            return Err(Failure::Refused("its URL cannot be dialled".to_owned()));
        };
        *request.uri_mut() = request::target(uri);
        let headers = request.headers_mut();
        if let Some(host) = request::host(uri) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, JSON);
        headers.insert(USER_AGENT, AGENT);
        if !in_form {
            // RFC 6749 §2.3.1: encoded as in a form, then as in HTTP.
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = STANDARD.encode(format!("{}:{}", encode(&self.terms.client_id), encode(secret)));
            let mut value = HeaderValue::try_from(format!("Basic {pair}")).expect("base64 is printable");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok((origin, request))
    }

    /// Where the token comes from, without its query.
    fn server(&self) -> String {
        without_query(&self.terms.token_url)
    }
}

fn without_query(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn granted(body: &[u8], began: Instant) -> Result<Token, Failure> {
    let refused = |why: &str| Failure::Refused(why.to_owned());
    let granted: Granted<'_> =
        serde_json::from_slice(body).map_err(|_| refused("it answered with no token"))?;
    if granted.access_token.is_empty() {
        return Err(refused("it answered with an empty token"));
    }
    if let Some(kind) = granted.token_type.filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        let kind = excerpt(kind.as_bytes());
        return Err(Failure::Refused(format!(
            "its tokens are of the type {kind:?}, which is not known here"
        )));
    }
    let credentials = Credentials::bearer(&granted.access_token)
        .map_err(|_| refused("its token is no text that a header can hold"))?;
    let seconds = granted.expires_in.and_then(|raw| raw.get().trim_matches('"').parse::<f64>().ok());
    let life = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LIFE_MAX).min(LIFE_MAX),
        None => LIFE_DEFAULT,
    };
    Ok(Token {
        credentials: Arc::new(credentials),
        renew_at: began + life.mul_f64(0.75),
        ends_at: began + life - END_MARGIN.min(life / 10),
    })
}

fn denied(status: StatusCode, body: &[u8], secret: &str) -> Failure {
    let code = status.as_u16();
    // Before anything is cut off: half of a secret is not found any more.
    let mut body = String::from_utf8_lossy(body).into_owned();
    if secret.len() >= HIDDEN_BYTES_MIN && body.contains(secret) {
        body = body.replace(secret, "***");
    }
    let denied: Option<Denied> = serde_json::from_str(&body).ok();
    let why = match &denied {
        Some(Denied { error, error_description: Some(words) }) => {
            format!("{}: {} (HTTP {code})", excerpt(error.as_bytes()), excerpt(words.as_bytes()))
        }
        Some(Denied { error, .. }) => format!("{} (HTTP {code})", excerpt(error.as_bytes())),
        None if status.is_redirection() => {
            format!("it redirects elsewhere (HTTP {code}), which is not followed")
        }
        None => format!("HTTP {code}"),
    };
    match denied {
        Some(Denied { error, .. }) if error == "invalid_client" => Failure::Client(why),
        // Some say nothing but that.
        None if status == StatusCode::UNAUTHORIZED => Failure::Client(why),
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Failure::Passing(why),
        _ => Failure::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(body: &str) -> Option<Duration> {
        let began = Instant::now();
        granted(body.as_bytes(), began).ok().map(|token| token.ends_at - began)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_a_little_before_it_ends() {
        let secs = Duration::from_secs;
        assert_eq!(life(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#), Some(secs(3590)));
        assert_eq!(life(r#"{"access_token":"t","expires_in":"50"}"#), Some(secs(45)));
        assert_eq!(life(r#"{"access_token":"t"}"#), Some(LIFE_DEFAULT - END_MARGIN));
        assert_eq!(life(r#"{"access_token":"t","expires_in":-3}"#), Some(Duration::ZERO));
        assert_eq!(life(r#"{"access_token":"t","expires_in":1e99}"#), Some(LIFE_MAX - END_MARGIN));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_bearer_token_is_refused() {
        assert_eq!(life(r#"{"access_token":"t","token_type":"DPoP"}"#), None);
        assert_eq!(life(r#"{"access_token":""}"#), None);
        assert_eq!(life(r#"{"access_token":"a\nb"}"#), None);
        assert_eq!(life("<html>"), None);
    }

    #[test]
    fn a_denial_is_said_without_the_secret() {
        let body = br#"{"error":"invalid_scope","error_description":"client hunter2secret may not"}"#;
        let Failure::Refused(why) = denied(StatusCode::BAD_REQUEST, body, "hunter2secret") else { panic!() };
        assert_eq!(why, "invalid_scope: client *** may not (HTTP 400)");
        assert!(matches!(denied(StatusCode::BAD_GATEWAY, b"", "s"), Failure::Passing(_)));
        assert!(matches!(denied(StatusCode::UNAUTHORIZED, b"", "s"), Failure::Client(_)));
    }
}
