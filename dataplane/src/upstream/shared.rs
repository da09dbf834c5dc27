//! What all backends of a node share: connections, tasks, and the end.

use std::{collections::HashMap, path::Path, sync::Arc, sync::OnceLock, time::Duration};

use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{agents::Files, message::Outgoing};
use crate::relay::Relay;

/// Idle connections kept for one authority.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long an idle connection without TLS is kept: less than the 5 s after
/// which Node's and Python's servers close it, for a request that crosses with
/// the close is lost.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// The same with TLS, where opening one is dear and a front proxy keeps it longer.
const IDLE_TLS: Duration = Duration::from_secs(50);
/// When a silent peer is first asked whether it is still there, and how often then.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES_MAX: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// A pooled HTTP client that follows no redirects.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Outgoing>;

/// One per node.
#[derive(Default)]
pub struct Shared {
    /// Everything that outlives the call that needed it.
    pub tasks: TaskTracker,
    /// The node stops: processes end, streams close.
    pub shutdown: CancellationToken,
    /// What is open for a session is noted there, for the node after this one.
    pub relay: Arc<Relay>,
    /// What resources are read from.
    pub files: Arc<Files>,
    clients: Mutex<HashMap<(bool, Duration), HttpClient>>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Shared {
    /// Of a node that is alone.
    pub fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Arc<Self> {
        Self::of_node(tasks, shutdown, Arc::default(), Path::new("."))
    }

    /// Of a node among others, whose files are beneath a directory.
    pub fn of_node(
        tasks: TaskTracker,
        shutdown: CancellationToken,
        relay: Arc<Relay>,
        files: &Path,
    ) -> Arc<Self> {
        Arc::new(Self { tasks, shutdown, relay, files: Files::beneath(files), ..Self::default() })
    }

    /// The client for backends with this scheme and connect timeout.
    pub fn client(&self, tls: bool, connect_timeout: Duration) -> HttpClient {
        let mut clients = self.clients.lock();
        clients
            .entry((tls, connect_timeout))
            .or_insert_with(|| self.make_client(tls, connect_timeout))
            .clone()
    }

    /// How TLS is spoken to backends: to whom the authorities of this system
    /// vouch for, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls.get_or_init(|| Arc::new(tls_config(true))).clone()
    }

    fn make_client(&self, tls: bool, connect_timeout: Duration) -> HttpClient {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_PROBES_MAX));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        // Reading the system's certificates takes a while: only for who needs them.
        let config = if tls { ClientConfig::clone(&self.tls()) } else { tls_config(false) };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(if tls { IDLE_TLS } else { IDLE_PLAIN })
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector)
    }
}

fn tls_config(roots: bool) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for the default versions")
    };
    if roots {
        match builder().with_native_roots() {
            Ok(builder) => return builder.with_no_client_auth(),
            Err(error) => tracing::error!(
                error = %error,
                "no certificates of authorities found on this system, https backends cannot be verified"
            ),
        }
    }
    builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}
