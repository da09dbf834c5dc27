//! How a server is reached: names, addresses, TCP and TLS.

use std::{sync::Arc, time::Duration};

use http::Uri;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tower::ServiceExt as _;

use super::{
    Error,
    connection::{Connection, Stream},
    meters::Meters,
};

/// The longest head of an answer, and the most that is read or written at once.
/// An answer of 64 KiB that has come whole is read whole, and is not copied; an
/// idle connection holds no more than this after large ones, 8 KiB otherwise.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// When a silent peer is first asked whether it is still there, and how often then.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES_MAX: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Dial {
    /// Without a path.
    place: Uri,
    by: By,
}

enum By {
    Tcp(HttpConnector),
    Tls(HttpsConnector<HttpConnector>),
}

impl Dial {
    /// Speaks TLS if it is told how; none if `url` names no place.
    pub fn new(url: &Uri, connect_timeout: Duration, tls: Option<Arc<ClientConfig>>) -> Option<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_PROBES_MAX));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let by = match tls {
            None => By::Tcp(tcp),
            Some(config) => By::Tls(
                HttpsConnectorBuilder::new()
                    .with_tls_config(ClientConfig::clone(&config))
                    .https_only()
                    .enable_http1()
                    .wrap_connector(tcp),
            ),
        };
        let place = Uri::builder().scheme(url.scheme()?.clone()).authority(url.authority()?.clone());
        Some(Self { place: place.path_and_query("/").build().ok()?, by })
    }

    /// Opens a connection.
    pub async fn open(&self, meters: Arc<Meters>) -> Result<Box<Connection>, Error> {
        let stream = self.stream().await.map_err(Error::Connect)?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(stream)
            .await
            .map_err(Error::Exchange)?;
        Ok(Connection::new(sender, driver, matches!(self.by, By::Tls(_)), meters))
    }

    async fn stream(&self) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
        let place = self.place.clone();
        match &self.by {
            By::Tcp(tcp) => Ok(MaybeHttpsStream::Http(tcp.clone().oneshot(place).await?)),
            By::Tls(tls) => tls.clone().oneshot(place).await,
        }
    }
}
