//! Backends behind TLS: whom a node trusts, and what it says of whom it does not.

use std::{path::Path, process::Stdio, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Background, ControlPlane, eventually, mtctl, program};
use crate::fixture::{Fixture, Mode, Transport};
use crate::manifest::{backend, over_http, plain_gateway};
use crate::raw::shows_tool;

/// A front with a certificate for `localhost`, and what is behind it.
struct Front {
    port: u16,
    /// The certificate, as a text.
    pem: String,
    _serving: Background<()>,
}

impl Front {
    async fn of(fixture: &Fixture) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url: reqwest::Url = fixture.url().parse().unwrap();
        let behind = format!("127.0.0.1:{}", url.port().unwrap());
        let serving = Background::run(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                connections.spawn(async move {
                    let mut client = acceptor.accept(socket).await?;
                    copy_bidirectional(&mut client, &mut TcpStream::connect(behind).await?).await
                });
            }
        });
        Self { port, pem: made.cert.pem(), _serving: serving }
    }
}

/// A node that trusts only the certificates in `roots`.
async fn node(folder: &Path, control: &str, roots: &Path) -> (Child, String) {
    let ready = folder.join("node.ready");
    let process = Command::new(program("mt-dataplane"))
        .args(["--node-id", "node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--control", &format!("http://{control}"), "--ready-file"])
        .arg(&ready)
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let bound: Value = eventually("listening", async || {
        let text = std::fs::read_to_string(&ready).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    })
    .await;
    (process, bound["mcp"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_backend_behind_tls_is_reached_if_its_certificate_is_good_for_its_host() {
    let folder = tempfile::tempdir().unwrap();
    let over_http_fixture = Fixture::start(Mode::Dual).await;
    let over_socket_fixture = Fixture::start_over(Transport::WebSocket, Mode::Dual, &[]).await;
    let (front, socket) = (Front::of(&over_http_fixture).await, Front::of(&over_socket_fixture).await);
    let stranger = Front::of(&over_http_fixture).await;
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, format!("{}{}", front.pem, socket.pem)).unwrap();

    let control = ControlPlane::start(folder.path()).await;
    let (_node, mcp) = node(folder.path(), &control.grpc, &roots).await;
    let resources = [
        over_http("good", &format!("https://localhost:{}/mcp", front.port)),
        over_http("elsewhere", &format!("https://127.0.0.1:{}/mcp", front.port)),
        over_http("stranger", &format!("https://localhost:{}/mcp", stranger.port)),
        backend("socket", &json!({"websocket": {"url": format!("wss://localhost:{}/ws", socket.port)}})),
    ];
    let gateways = ["good", "elsewhere", "stranger", "socket"].map(|name| plain_gateway(name, name));
    control.apply(&(resources.concat() + &gateways.concat())).await;
    shows_tool(&format!("http://{mcp}/g/good/mcp"), "echo").await;
    shows_tool(&format!("http://{mcp}/g/socket/mcp"), "echo").await;

    let server = format!("http://{}", control.grpc);
    eventually("the reasons in the status", async || {
        let status = mtctl(folder.path(), &["--server", &server], &["status", "-o", "json"]).await;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let wrong_host = text.contains("certificate not valid for name");
        let refused = text.matches("invalid peer certificate").count();
        if wrong_host && refused >= 2 { Ok(()) } else { Err(text) }
    })
    .await;
}
