//! Who may call, over every transport: keys and tokens, what becomes of what
//! they have opened, and callers from elsewhere.

use std::{
    net::UdpSocket,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest as _};

use crate::cluster::{Cluster, PATIENCE, Process, eventually, printed};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{gateway, over_http, plain_gateway, policy};
use crate::raw::{Events, Session, answer, http, modern, shows_tool};

const LEGACY: &str = "2025-06-18";
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://mcp.example/mcp";

/// Somebody who makes tokens, whose keys are in a file.
struct Issuer(KeyPair);

impl Issuer {
    fn new(jwks: &Path) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
        std::fs::write(jwks, keys.to_string()).unwrap();
        Self(pair)
    }

    fn token(&self, name: &str, audience: &str) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let claims = json!({"iss": ISSUER, "aud": audience, "sub": name, "exp": expires});
        let signed = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": "k"})), part(claims));
        let signature = self.0.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A gateway on one node, where nobody is served who shows nothing, and an issuer.
async fn closed() -> (Cluster, Issuer, String) {
    let cluster = Cluster::start(1).await;
    let jwks = cluster.folder.path().join("jwks.json");
    let issuer = Issuer::new(&jwks);
    let jwt = json!([{"issuer": ISSUER, "audiences": [AUDIENCE], "jwksFile": jwks}]);
    let rule = policy("closed", &json!({"authn": {"anonymous": "refused", "jwt": jwt}}));
    cluster.apply(&(gateway("default", &json!({})) + &rule)).await;
    let url = cluster.nodes[0].url("default");
    (cluster, issuer, url)
}

/// Makes a principal with `mtctl`; its key, once the node knows it.
async fn create(cluster: &Cluster, name: &str) -> String {
    let key = printed(&cluster.mtctl(&["principal", "create", name, "--group", "ops"]).await);
    cluster.in_service(cluster.control.head().await).await;
    key.trim().to_owned()
}

fn list(url: &str) -> RequestBuilder {
    modern(url, 1, "tools/list", json!({}))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn initialize(url: &str) -> RequestBuilder {
    let info = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info});
    http()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
}

fn session_id(response: &Response) -> String {
    assert_eq!(response.status(), 200);
    response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
}

/// The status of a WebSocket handshake, and the socket if there is one.
async fn websocket(
    url: &str,
    secret: Option<&str>,
) -> (
    u16,
    Option<impl futures_util::Stream<Item = Result<tokio_tungstenite::tungstenite::Message, Error>> + Unpin>,
) {
    let mut request = format!("{}/ws", url.replace("http", "ws")).into_client_request().unwrap();
    if let Some(secret) = secret {
        request.headers_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => (101, Some(socket)),
        Err(Error::Http(response)) => (response.status().as_u16(), None),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_key_and_a_token_open_every_door_and_nothing_opens_none() {
    let (cluster, issuer, url) = closed().await;
    let key = create(&cluster, "alice").await;
    let token = issuer.token("bob", AUDIENCE);
    let sse = format!("{url}/sse");

    let refused = list(&url).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    assert_eq!(answer(refused).await["error"]["code"], -31015);
    // Also before the message is read, and whatever the method is.
    assert_eq!(status(http().post(&url).body("no JSON")).await, 401);
    assert_eq!(status(http().get(&url)).await, 401);
    assert_eq!(status(http().delete(&url)).await, 401);
    assert_eq!(status(initialize(&url)).await, 401);
    assert_eq!(status(http().get(&sse)).await, 401);
    assert_eq!(websocket(&url, None).await.0, 401);
    // What is in the URL is not looked at.
    assert_eq!(status(list(&format!("{url}?api_key={key}&access_token={token}"))).await, 401);

    for secret in [&key, &token] {
        assert_eq!(status(list(&url).bearer_auth(secret)).await, 200);
        let opened = initialize(&url).bearer_auth(secret).send().await.unwrap();
        let id = session_id(&opened);
        let ended = http().delete(&url).header("mcp-session-id", id).bearer_auth(secret);
        assert!(status(ended).await < 300);
        let stream = http().get(&sse).header("accept", "text/event-stream").bearer_auth(secret);
        assert_eq!(status(stream).await, 200);
        assert_eq!(websocket(&url, Some(secret)).await.0, 101);
    }
    assert_eq!(status(list(&url).header("x-api-key", &key)).await, 200);

    for wrong in ["mt_wrong", &issuer.token("bob", "https://other.example"), "a.b.c"] {
        let refused = list(&url).bearer_auth(wrong).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{wrong}");
        let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
        assert_eq!(websocket(&url, Some(wrong)).await.0, 401, "{wrong}");
    }
    assert_eq!(status(list(&url).bearer_auth(&key).header("x-api-key", &key)).await, 400);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_what_it_has_opened_ends() {
    let (cluster, _issuer, url) = closed().await;
    let key = create(&cluster, "alice").await;
    let opened = initialize(&url).bearer_auth(&key).send().await.unwrap();
    let id = session_id(&opened);
    let stream = http().get(&url).header("accept", "text/event-stream");
    let stream = stream.header("mcp-session-id", &id).header("mcp-protocol-version", LEGACY);
    let mut stream = Events::of(stream.bearer_auth(&key).send().await.unwrap());
    let events = http().get(format!("{url}/sse")).header("accept", "text/event-stream");
    let mut events = events.bearer_auth(&key).send().await.unwrap();
    assert_eq!(events.status(), 200);
    let mut socket = websocket(&url, Some(&key)).await.1.expect("a socket");

    printed(&cluster.mtctl(&["principal", "revoke", "alice"]).await);
    eventually("the key refused", async || match status(list(&url).bearer_auth(&key)).await {
        401 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let ends = async {
        assert_eq!(stream.next_or_end().await, None);
        while let Ok(Some(_)) = events.chunk().await {}
        while let Some(Ok(_)) = socket.next().await {}
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("what the key has opened ends");
}

#[tokio::test]
async fn a_rotated_key_works_beside_the_new_one_until_it_is_revoked() {
    let (cluster, _issuer, url) = closed().await;
    let old = create(&cluster, "alice").await;
    let rotated = cluster.mtctl(&["principal", "rotate", "alice"]).await;
    let words = String::from_utf8_lossy(&rotated.stderr).into_owned();
    let new = printed(&rotated).trim().to_owned();
    let id = words.split("--key ").nth(1).unwrap().split_whitespace().next().unwrap();
    let both = async |old_status: u16| {
        eventually("both keys as they should be", async || {
            let found =
                (status(list(&url).bearer_auth(&old)).await, status(list(&url).bearer_auth(&new)).await);
            if found == (old_status, 200) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    both(200).await;
    printed(&cluster.mtctl(&["principal", "revoke", "alice", "--key", id]).await);
    both(401).await;
    let twice = cluster.mtctl(&["principal", "create", "alice"]).await;
    assert_eq!(twice.status.code(), Some(6));
    let nobody = cluster.mtctl(&["principal", "revoke", "carol"]).await;
    assert_eq!(nobody.status.code(), Some(5));
    // The client that people type.
    let tools = ["tools", "list", "--url", &url];
    assert_eq!(cluster.mtctl(&tools).await.status.code(), Some(4));
    printed(&cluster.mtctl(&[&tools[..], &["--api-key", &new]].concat()).await);
}

#[tokio::test]
async fn the_session_of_one_is_no_session_for_another() {
    let (cluster, issuer, url) = closed().await;
    let alice = create(&cluster, "alice").await;
    // The same name, but another issuer of names.
    let other_alice = issuer.token("alice", AUDIENCE);
    let opened = initialize(&url).bearer_auth(&alice).send().await.unwrap();
    let mut session = Session::of(&url, &session_id(&opened), LEGACY);
    for (secret, expected) in [(&alice, 200), (&other_alice, 404), (&alice, 200)] {
        assert_eq!(status(session.request("tools/list", json!({})).bearer_auth(secret)).await, expected);
    }
    let delete = http().delete(&url).headers(session.headers.clone());
    assert_eq!(status(delete.bearer_auth(&other_alice)).await, 404);
    assert_eq!(status(session.request("tools/list", json!({})).bearer_auth(&alice)).await, 200);
    assert_eq!(status(session.request("tools/list", json!({}))).await, 401);
}

#[tokio::test]
async fn the_question_of_one_is_not_answered_by_another() {
    const TOOL: &str = "test_input_required_result_request_state";
    let (old, new) = tokio::join!(Fixture::start(Mode::Legacy), Fixture::start(Mode::Modern));
    let cluster = Cluster::start(1).await;
    let backends = over_http("old", old.url()) + &over_http("new", new.url());
    cluster.apply(&(backends + &plain_gateway("old", "old") + &plain_gateway("new", "new"))).await;
    let (alice, bob) = (create(&cluster, "alice").await, create(&cluster, "bob").await);
    // Parked on the node, and kept by the backend itself.
    for name in ["old", "new"] {
        let url = cluster.nodes[0].url(name);
        shows_tool(&url, TOOL).await;
        let call = async |key: &str, mut params: Value| {
            params["name"] = TOOL.into();
            params["arguments"] = json!({});
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {}});
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
            let request = http().post(&url).bearer_auth(key).json(&body);
            let request = request.header("accept", "application/json, text/event-stream");
            let request = request.header("mcp-protocol-version", "2026-07-28");
            let request = request.header("mcp-method", "tools/call").header("mcp-name", TOOL);
            answer(request.send().await.unwrap()).await
        };
        let asked = call(&alice, json!({})).await;
        let questions = asked["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("{asked}"));
        let accepted = json!({"action": "accept", "content": {"ok": true}});
        let replies: serde_json::Map<_, _> =
            questions.keys().map(|key| (key.clone(), accepted.clone())).collect();
        let retry = json!({"inputResponses": replies, "requestState": asked["result"]["requestState"]});
        let stolen = call(&bob, retry.clone()).await;
        assert_eq!(stolen["error"]["code"], -32602, "{name}: {stolen}");
        let own = call(&alice, retry).await;
        assert_eq!(own["result"]["resultType"], "complete", "{name}: {own}");
    }
}

/// An address of this machine that others could reach.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only chooses the way.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[tokio::test]
async fn callers_from_elsewhere_need_a_key_where_nothing_is_said() {
    let cluster = Cluster::start(1).await;
    cluster.apply(&gateway("default", &json!({}))).await;
    let url = cluster.nodes[0].url("default");
    assert_eq!(status(list(&url)).await, 200);
    assert_eq!(status(list(&url).header("x-forwarded-for", "203.0.113.9")).await, 401);
    let key = create(&cluster, "alice").await;

    let address = own_address().expect("this machine has an address besides loopback");
    let folder = cluster.folder.path();
    let (ready, cache) = (folder.join("open.ready"), folder.join("open").display().to_string());
    let control = format!("http://{}", cluster.control.grpc);
    let arguments =
        ["--node-id", "open", "--control", &control, "--cache-dir", &cache, "--admin", "127.0.0.1:0"];
    let more = ["--listen", "0.0.0.0:0", "--insecure", "--allow-host", &address, "--ready-file"];
    let mut arguments: Vec<String> = arguments.iter().chain(&more).map(|a| (*a).to_owned()).collect();
    arguments.push(ready.display().to_string());
    let _node = Process::start("mt-dataplane", folder.join("open.log"), &arguments);
    let port = eventually("listening", async || {
        let text = std::fs::read_to_string(&ready).map_err(|error| error.to_string())?;
        let bound: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(bound["mcp"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned())
    })
    .await;
    let (here, there) = (format!("http://127.0.0.1:{port}/mcp"), format!("http://{address}:{port}/mcp"));
    eventually("a configuration", async || match status(list(&here)).await {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(status(list(&there)).await, 401);
    assert_eq!(status(list(&there).bearer_auth(&key)).await, 200);
    // Which gateways there are is not told to strangers.
    assert_eq!(status(list(&format!("http://{address}:{port}/g/other/mcp"))).await, 401);
    tokio::time::timeout(Duration::from_secs(5), async {
        assert_eq!(websocket(&there, None).await.0, 401);
        assert_eq!(websocket(&there, Some(&key)).await.0, 101);
    })
    .await
    .expect("handshakes are answered");
}

#[tokio::test]
async fn a_page_is_judged_before_its_credentials() {
    let (cluster, _issuer, url) = closed().await;
    let key = create(&cluster, "alice").await;
    let asked = |origin: &str| {
        http()
            .request(reqwest::Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,mcp-param-city")
    };
    let allowed = asked("http://localhost:5173").send().await.unwrap();
    assert_eq!(allowed.status(), 204);
    let headers = allowed.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(headers.contains("authorization") && headers.contains("mcp-param-city"), "{headers}");
    assert_eq!(status(asked("https://evil.example")).await, 403);
    assert_eq!(status(list(&url).header("origin", "https://evil.example").bearer_auth(&key)).await, 403);
    let refused = list(&url).header("origin", "http://localhost:5173").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], "http://localhost:5173");
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("www-authenticate"), "{exposed}");
}
