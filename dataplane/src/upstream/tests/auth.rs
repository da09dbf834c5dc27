//! What backends and token servers are shown, and what follows when they
//! refuse it.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::IntoResponse as _;
use http::StatusCode;
use mt_proto::resource::{BackendAuth, ClientCredentials, QueryParameter, Value as Given};

use super::*;
use crate::upstream::UpstreamState;

/// What a peer got: its path and query, its `Authorization`, its body.
#[derive(Clone, Debug)]
struct Got {
    path: String,
    authorization: String,
    body: String,
}

type Script = dyn Fn(&Got) -> Response + Send + Sync;

/// A backend and its token server in one.
struct Peer {
    address: std::net::SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    async fn start(script: impl Fn(&Got) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (log, script): (_, Arc<Script>) = (got.clone(), Arc::new(script));
        let handler = move |request: Request| {
            let (log, script) = (log.clone(), script.clone());
            async move {
                let (head, body) = request.into_parts();
                let authorization = head.headers.get("authorization").map_or("", |v| v.to_str().unwrap());
                let got = Got {
                    path: head.uri.to_string(),
                    authorization: authorization.to_owned(),
                    body: String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap(),
                };
                log.lock().push(got.clone());
                script(&got)
            }
        };
        let app = Router::new().fallback(handler);
        let task = TaskTracker::new().spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, got, task }
    }

    fn all(&self, path: &str) -> Vec<Got> {
        self.got.lock().iter().filter(|got| got.path.starts_with(path)).cloned().collect()
    }

    fn upstream(&self, auth: BackendAuth) -> Arc<Upstream> {
        self.upstream_with(auth, |name| Ok(format!("value-of-{name}")))
    }

    fn upstream_with(
        &self,
        auth: BackendAuth,
        secrets: impl Fn(&mt_proto::resource::ResourceName) -> Result<String, String> + Send + Sync + 'static,
    ) -> Arc<Upstream> {
        let mut config = backend(Transport::Http(HttpTransport {
            url: format!("http://{}/mcp?x=1", self.address).parse().unwrap(),
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            auth: Some(auth),
            sharing: Sharing::Shared,
        }));
        config.protocol = Protocol::Modern;
        let shared = Shared::new(TaskTracker::new(), CancellationToken::new());
        Upstream::new(Arc::new(config), Arc::new(secrets), shared)
    }

    fn credentials(&self) -> ClientCredentials {
        ClientCredentials {
            token_url: format!("http://{}/token", self.address).parse().unwrap(),
            client_id: "node one".into(),
            client_secret: Given::Secret("client".parse().unwrap()),
            scopes: vec!["a".into(), "b:c".into()],
            resource: None,
            audience: None,
        }
    }

    fn by_token(&self) -> Arc<Upstream> {
        self.upstream(BackendAuth::ClientCredentials(self.credentials()))
    }
}

fn answer(got: &Got) -> Response {
    let id = serde_json::from_str::<Value>(&got.body).unwrap_or_default()["id"].to_string();
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"ok":1}}}}"#);
    ([("content-type", "application/json")], body).into_response()
}

fn token(token: &str) -> Response {
    format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":3600}}"#).into_response()
}

fn status(status: u16, body: &'static str) -> Response {
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn ask(upstream: &Upstream) -> Result<Answer, CallError> {
    run(upstream, &tool(&modern_client(), "1", "t")).await
}

fn reason(error: CallError) -> String {
    match error {
        CallError::NeedsAuth { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all() {
    let peer =
        Peer::start(|got| if got.path.starts_with("/token") { token("t1") } else { answer(got) }).await;
    let upstream = peer.by_token();
    let calls = (0..20).map(|_| ask(&upstream));
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    let fetched = peer.all("/token");
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    // "node+one:value-of-client"
    assert_eq!(fetched[0].authorization, "Basic bm9kZStvbmU6dmFsdWUtb2YtY2xpZW50");
    let resource = format!("http%3A%2F%2F127.0.0.1%3A{}%2Fmcp", peer.address.port());
    assert_eq!(fetched[0].body, format!("grant_type=client_credentials&scope=a+b%3Ac&resource={resource}"));
    let asked = peer.all("/mcp");
    assert_eq!(asked.len(), 20);
    assert!(asked.iter().all(|got| got.authorization == "Bearer t1" && got.path == "/mcp?x=1"));
}

#[tokio::test]
async fn a_server_that_wants_the_secret_in_the_form_gets_it_there() {
    let peer = Peer::start(|got| match got.path.as_str() {
        "/token" if got.body.contains("client_secret=value-of-client") => token("t1"),
        "/token" => status(400, r#"{"error":"invalid_client"}"#),
        _ => answer(got),
    })
    .await;
    let mut terms = peer.credentials();
    terms.audience = Some("api".into());
    let upstream = peer.upstream(BackendAuth::ClientCredentials(terms));
    ask(&upstream).await.unwrap();
    let fetched = peer.all("/token");
    assert_eq!(fetched.len(), 2);
    assert!(fetched[1].authorization.is_empty(), "once is enough");
    let audience_only = "grant_type=client_credentials&scope=a+b%3Ac&audience=api&client_id=node+one";
    assert!(fetched[1].body.starts_with(audience_only), "{}", fetched[1].body);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_and_the_call_sent_once_more() {
    let fetched = AtomicUsize::new(0);
    let peer = Peer::start(move |got| match got.path.as_str() {
        "/token" => token(&format!("t{}", fetched.fetch_add(1, Ordering::Relaxed))),
        _ if got.authorization == "Bearer t0" => status(401, ""),
        _ => answer(got),
    })
    .await;
    let upstream = peer.by_token();
    assert_eq!(ask(&upstream).await.unwrap(), result(r#"{"ok":1}"#));
    let asked = peer.all("/mcp");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body);
    ask(&upstream).await.unwrap();
    assert_eq!((peer.all("/token").len(), peer.all("/mcp").len()), (2, 3));
}

#[tokio::test]
async fn a_backend_that_refuses_every_token_does_not_make_the_node_fetch_more_and_more() {
    let peer =
        Peer::start(|got| if got.path == "/token" { token("t") } else { status(401, "no, not t") }).await;
    let upstream = peer.by_token();
    for _ in 0..5 {
        let reason = reason(ask(&upstream).await.unwrap_err());
        assert_eq!(reason, "it refuses the credentials of the node (HTTP 401)");
    }
    assert_eq!(peer.all("/token").len(), 2);
    assert_eq!(peer.all("/mcp").len(), 6, "one of five calls was sent twice");
}

#[tokio::test]
async fn a_token_server_that_refuses_is_named_with_its_reason() {
    let peer = Peer::start(|got| match got.path.as_str() {
        "/token" => status(400, r#"{"error":"invalid_scope","error_description":"not for value-of-client"}"#),
        _ => answer(got),
    })
    .await;
    let upstream = peer.by_token();
    let first = reason(ask(&upstream).await.unwrap_err());
    let server = format!("http://{}/token", peer.address);
    assert_eq!(first, format!("no token from {server}: invalid_scope: not for *** (HTTP 400)"));
    assert_eq!(*upstream.state().borrow(), UpstreamState::NeedsAuth { reason: first.clone() });
    // At once, without asking again.
    let second = reason(ask(&upstream).await.unwrap_err());
    assert_eq!(second, format!("{first}; it is tried again in 1 s"));
    assert_eq!(peer.all("/token").len(), 1);
    assert!(peer.all("/mcp").is_empty());
}

#[tokio::test]
async fn a_token_server_that_hiccups_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let peer = Peer::start(move |got| match got.path.as_str() {
        "/token" if asked.fetch_add(1, Ordering::Relaxed) < 2 => status(503, "busy"),
        "/token" => token("t"),
        _ => answer(got),
    })
    .await;
    ask(&peer.by_token()).await.unwrap();
    assert_eq!(peer.all("/token").len(), 3);
}

#[tokio::test]
async fn the_client_secret_follows_no_redirect_and_no_long_answer_is_read() {
    let peer = Peer::start(|got| match got.path.as_str() {
        "/token" => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        _ => answer(got),
    })
    .await;
    let reason_of = reason(ask(&peer.by_token()).await.unwrap_err());
    assert!(reason_of.ends_with("it redirects elsewhere (HTTP 307), which is not followed"), "{reason_of}");
    assert!(peer.all("/elsewhere").is_empty());
    let peer = Peer::start(|_| "x".repeat(1 << 20).into_response()).await;
    let reason = reason(ask(&peer.by_token()).await.unwrap_err());
    assert!(reason.ends_with("its answer broke off or is too long"), "{reason}");
}

#[tokio::test]
async fn a_token_goes_on_being_fetched_when_its_first_caller_leaves() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let peer = Peer::start(move |got| {
        if got.path != "/token" {
            return answer(got);
        }
        let mut gate = gate.clone();
        let late = futures_util::stream::once(async move {
            _ = gate.wait_for(|open| *open).await;
            Ok::<_, Infallible>(Bytes::from_static(br#"{"access_token":"t"}"#))
        });
        Response::new(Body::from_stream(late))
    })
    .await;
    let upstream = peer.by_token();
    let impatient = timeout(Duration::from_millis(100), ask(&upstream)).await;
    assert!(impatient.is_err());
    open.send(true).unwrap();
    ask(&upstream).await.unwrap();
    assert_eq!(peer.all("/token").len(), 1);
}

#[tokio::test]
async fn a_rotated_secret_costs_no_call() {
    let secret = Arc::new(Mutex::new("old-value"));
    let now = secret.clone();
    let peer = Peer::start(move |got| {
        if got.authorization == format!("Bearer {}", *now.lock()) { answer(got) } else { status(401, "") }
    })
    .await;
    let read = Arc::new(Mutex::new("old-value"));
    let source = read.clone();
    let auth = BackendAuth::Bearer(Given::Secret("key".parse().unwrap()));
    let upstream = peer.upstream_with(auth, move |_| Ok((*source.lock()).to_owned()));
    ask(&upstream).await.unwrap();
    (*secret.lock(), *read.lock()) = ("new-value", "new-value");
    ask(&upstream).await.unwrap();
    assert_eq!(peer.got.lock().len(), 3);
    // Nothing else to show: it is not sent twice.
    *secret.lock() = "another";
    reason(ask(&upstream).await.unwrap_err());
    assert_eq!(peer.got.lock().len(), 4);
}

#[tokio::test]
async fn a_key_in_the_query_is_in_no_error() {
    let peer =
        Peer::start(|got| (StatusCode::NOT_FOUND, format!("Cannot POST {}", got.path)).into_response()).await;
    let key = QueryParameter { name: "key".into(), value: Given::Text("hunter2 secret".into()) };
    let upstream = peer.upstream(BackendAuth::Query(key));
    let error = ask(&upstream).await.unwrap_err().to_string();
    assert_eq!(peer.got.lock()[0].path, "/mcp?x=1&key=hunter2%20secret");
    assert!(error.contains("Cannot POST /mcp?x=1&key=***"), "{error}");
    let state = format!("{:?}", *upstream.state().borrow());
    assert!(!state.contains("hunter2"), "{state}");
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named() {
    let peer = Peer::start(answer).await;
    let auth = BackendAuth::Bearer(Given::Secret("key".parse().unwrap()));
    let upstream = peer.upstream_with(auth, |name| Err(format!("secret {name}: no such file")));
    assert_eq!(reason(ask(&upstream).await.unwrap_err()), "secret key: no such file");
    assert!(peer.got.lock().is_empty());
}
