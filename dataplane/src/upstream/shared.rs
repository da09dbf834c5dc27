//! What all backends of a node share: connections, tasks, and the end.

use std::{path::Path, sync::Arc, sync::OnceLock, time::Duration};

use http::Uri;
use hyper_rustls::ConfigBuilderExt as _;
use rustls::ClientConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    agents::Files,
    client::{Origin, Pool},
};
use crate::relay::Relay;

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
    pool: Pool,
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
        let pool = Pool::new(tasks.clone(), shutdown.clone());
        Arc::new(Self { tasks, shutdown, relay, files: Files::beneath(files), pool, tls: OnceLock::new() })
    }

    /// The server of a URL, and the connections to it; none if the URL names none.
    pub fn origin(&self, url: &Uri, connect_timeout: Duration) -> Option<Arc<Origin>> {
        self.pool.origin(url, connect_timeout, || self.tls())
    }

    /// How TLS is spoken to backends: to whom the authorities of this system
    /// vouch for, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    fn tls(&self) -> Arc<ClientConfig> {
        self.tls.get_or_init(|| Arc::new(tls_config())).clone()
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
                "no certificates of authorities found on this system, https backends cannot be verified"
            );
            builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
}
