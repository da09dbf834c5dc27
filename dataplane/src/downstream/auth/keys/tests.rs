//! With a real server of keys, which is slow, gone, wrong, or elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time};

use super::*;
use crate::downstream::auth::{
    tests::signer::{Signer, jwks},
    token,
};

type Script = dyn Fn(usize, &Request) -> Response + Send + Sync;

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request by its number, from 0.
    async fn start(script: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, script): (_, Arc<Script>) = (requests.clone(), Arc::new(script));
        let handler = move |request: Request| {
            let response = script(count.fetch_add(1, Ordering::SeqCst), &request);
            async move { response }
        };
        let app = Router::new().fallback(handler);
        let task = TaskTracker::new().spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requests, task }
    }

    fn keys(&self) -> Arc<KeySet> {
        self.set(KeySource::Url(format!("{}/jwks", self.url).parse().unwrap()))
    }

    fn discovered(&self) -> Arc<KeySet> {
        let metadata = format!("{}/.well-known/openid-configuration", self.url).parse().unwrap();
        self.set(KeySource::Discovered { metadata })
    }

    fn set(&self, source: KeySource) -> Arc<KeySet> {
        KeySet::new(self.url.clone(), source, Arc::new(Fetcher::new()), TaskTracker::new())
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn check(keys: &Arc<KeySet>, signer: &Signer) -> Result<(), Refusal> {
    let text = signer.token("EdDSA", &json!({"iss": "x"}));
    keys.check(&token::parse(&text).unwrap()).await
}

/// Only where no socket is waited for: paused time jumps.
async fn pass(time: Duration) {
    time::pause();
    time::advance(time).await;
    time::resume();
}

fn document(signers: &[&Signer]) -> String {
    jwks(&signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>())
}

const UNKNOWN: Result<(), Refusal> = Err(Refusal::Token(Invalid::UnknownKey));

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_goes() {
    let (old, new, never) = (Signer::ed("1"), Signer::ed("2"), Signer::ed("3"));
    let documents = [document(&[&old]), document(&[&new])];
    let server = Server::start(move |n, _| documents[n.min(1)].clone().into_response()).await;
    let keys = server.keys();
    assert_eq!(check(&keys, &old).await, Ok(()));
    assert_eq!(check(&keys, &old).await, Ok(()));
    assert_eq!(server.requests(), 1);
    pass(REFETCH_MIN).await;
    assert_eq!(check(&keys, &new).await, Ok(()));
    assert_eq!(check(&keys, &old).await, UNKNOWN);
    // However many tokens of unknown keys come, the issuer is left in peace.
    for _ in 0..50 {
        assert_eq!(check(&keys, &never).await, UNKNOWN);
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn keys_outlive_their_source_for_a_day() {
    let signer = Signer::ed("1");
    let good = document(&[&signer]);
    let server = Server::start(move |n, _| match n {
        0 => good.clone().into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
    .await;
    let keys = server.keys();
    assert_eq!(check(&keys, &signer).await, Ok(()));
    for _ in 0..3 {
        pass(FRESH_MAX).await;
        assert_eq!(check(&keys, &signer).await, Ok(()));
    }
    pass(STALE_MAX).await;
    assert_eq!(check(&keys, &signer).await, Err(Refusal::Unavailable));
}

#[tokio::test]
async fn stale_keys_are_asked_for_by_their_version() {
    let signer = Signer::ed("1");
    let good = document(&[&signer]);
    let asked = Arc::new(AtomicUsize::new(0));
    let tagged = asked.clone();
    let server = Server::start(move |_, request| {
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"v1\"") {
            tagged.fetch_add(1, Ordering::SeqCst);
            return StatusCode::NOT_MODIFIED.into_response();
        }
        ([("etag", "\"v1\""), ("cache-control", "max-age=60")], good.clone()).into_response()
    })
    .await;
    let keys = server.keys();
    for round in 0..3 {
        assert_eq!(check(&keys, &signer).await, Ok(()));
        // From the second round on there is a fetch in the background.
        let asked = async {
            while asked.load(Ordering::SeqCst) < round {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(Duration::from_secs(10), asked).await.expect("the keys are asked for");
        // Its outcome is kept a moment later.
        let fetch = keys.fetching.lock().running.clone();
        if let Some(mut done) = fetch {
            _ = time::timeout(Duration::from_secs(10), done.changed()).await;
        }
        pass(FRESH_MIN).await;
    }
    assert_eq!(check(&keys, &signer).await, Ok(()));
}

#[tokio::test]
async fn many_callers_make_one_request() {
    let signer = Signer::ed("1");
    let good = document(&[&signer]);
    let server = Server::start(move |_, _| good.clone().into_response()).await;
    let keys = server.keys();
    let all = futures_util::future::join_all((0..50).map(|_| check(&keys, &signer))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_fetch() {
    let signer = Signer::ed("1");
    let good = document(&[&signer]);
    let server = Server::start(move |_, _| good.clone().into_response()).await;
    let keys = server.keys();
    assert!(futures_util::FutureExt::now_or_never(check(&keys, &signer)).is_none());
    while keys.usable().is_none() {
        time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(check(&keys, &signer).await, Ok(()));
    assert_eq!(server.requests(), 1);
}

// Time jumps while the socket is silent, which is what this waits for.
#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_answer_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let source = KeySource::Url(url.parse().unwrap());
    let keys = KeySet::new("x".into(), source, Arc::new(Fetcher::new()), TaskTracker::new());
    let began = Instant::now();
    assert_eq!(check(&keys, &Signer::ed("1")).await, Err(Refusal::Unavailable));
    assert!(began.elapsed() <= WAIT_MAX);
}

#[tokio::test]
async fn what_is_no_proper_set_of_keys_is_not_taken() {
    let signer = Signer::ed("1");
    let good = document(&[&signer]);
    let padded = format!("{good}{}", " ".repeat(super::super::fetch::DOCUMENT_BYTES_MAX));
    let (moved, fits) = (good.clone(), good.clone());
    let responses: Vec<(&str, Box<Script>)> = vec![
        (
            "a redirect",
            Box::new(move |_, request| match request.uri().path() {
                "/moved" => moved.clone().into_response(),
                _ => (StatusCode::FOUND, [("location", "/moved")]).into_response(),
            }),
        ),
        ("too long", Box::new(move |_, _| padded.clone().into_response())),
        (
            "endless",
            Box::new(|_, _| {
                let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
                Response::new(Body::from_stream(chunks))
            }),
        ),
        ("another document", Box::new(|_, _| "{}".into_response())),
        ("no keys", Box::new(|_, _| jwks(&[]).into_response())),
        ("another status", Box::new(move |_, _| (StatusCode::CREATED, fits.clone()).into_response())),
        ("not changed from nothing", Box::new(|_, _| StatusCode::NOT_MODIFIED.into_response())),
    ];
    for (what, script) in responses {
        let server = Server::start(script).await;
        assert_eq!(check(&server.keys(), &signer).await, Err(Refusal::Unavailable), "{what}");
        assert_eq!(server.requests(), 1, "{what}");
    }
}

#[tokio::test]
async fn an_issuer_says_itself_where_its_keys_are() {
    let signer = Signer::ed("1");
    // The address is only known when the server runs, so it answers by its Host.
    for (jwks_uri, issuer, expected) in [
        ("http://HOST/keys", "http://HOST", Ok(())),
        ("http://HOST/keys", "http://HOST/", Err(Refusal::Unavailable)),
        ("http://HOST/keys", "https://evil.example", Err(Refusal::Unavailable)),
        ("http://127.0.0.1:9/keys", "http://HOST", Err(Refusal::Unavailable)),
        ("file:///etc/passwd", "http://HOST", Err(Refusal::Unavailable)),
        ("/keys", "http://HOST", Err(Refusal::Unavailable)),
    ] {
        let good = document(&[&signer]);
        let server = Server::start(move |_, request| {
            let host = request.headers()["host"].to_str().unwrap();
            match request.uri().path() {
                "/keys" => good.clone().into_response(),
                "/.well-known/openid-configuration" => {
                    json!({"issuer": issuer.replace("HOST", host), "jwks_uri": jwks_uri.replace("HOST", host)})
                        .to_string()
                        .into_response()
                }
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        })
        .await;
        assert_eq!(check(&server.discovered(), &signer).await, expected, "{jwks_uri} {issuer}");
    }
}
