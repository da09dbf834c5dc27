//! The servers that the tools of a set call: one connection for each, made when
//! it is first needed, and the types that each has told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mt_proto::resource::{Grpc, agent::grpc::find};
use parking_lot::Mutex;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::time::{Instant, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{metadata::Shown, reflection, status::chain};
use crate::{Failure, Reason};

/// Of one tool set; the one that was used longest ago goes.
const SERVERS_MAX: usize = 64;
/// Services of one server whose types are kept; likewise.
const SERVICES_MAX: usize = 64;
const CA_BYTES_MAX: u64 = 1 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);
const REFLECTION_MAX: Duration = Duration::from_secs(10);
/// So old types are asked for again, for a server may have been replaced.
const TYPES_AGE_MAX: Duration = Duration::from_secs(300);
/// No sooner are they asked for again, whatever is missing in them.
const TYPES_AGE_MIN: Duration = Duration::from_secs(2);

/// What a connection depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    address: String,
    ca_file: Option<String>,
    domain: Option<String>,
}

/// The servers of one tool set.
#[derive(Default)]
pub struct Servers {
    known: Mutex<HashMap<Place, (Arc<Server>, Instant)>>,
}

/// One server.
pub struct Server {
    pub channel: Channel,
    services: Mutex<HashMap<String, Types>>,
    /// Only one call asks for types at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Types {
    pool: DescriptorPool,
    since: Instant,
}

impl Servers {
    /// The server at an address. Connects when it is first called, and anew
    /// whenever the connection is lost.
    ///
    /// # Errors
    /// If the address is none, or the certificates cannot be read.
    pub async fn at(&self, address: String, config: &Grpc) -> Result<Arc<Server>, Failure> {
        let place = Place { address, ca_file: config.ca_file.clone(), domain: config.domain.clone() };
        if let Some((server, used)) = self.known.lock().get_mut(&place) {
            *used = Instant::now();
            return Ok(server.clone());
        }
        let server = Arc::new(Server {
            channel: open(&place).await?,
            services: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        });
        let mut known = self.known.lock();
        make_room(&mut known, SERVERS_MAX, |(_, used)| *used);
        let (server, _) = known.entry(place).or_insert((server, Instant::now()));
        Ok(server.clone())
    }
}

fn make_room<K: Clone + Eq + std::hash::Hash, V>(
    entries: &mut HashMap<K, V>,
    most: usize,
    used: impl Fn(&V) -> Instant,
) {
    if entries.len() < most {
        return;
    }
    let oldest = entries.iter().min_by_key(|(_, value)| used(value)).map(|(key, _)| key.clone());
    oldest.map(|key| entries.remove(&key));
}

async fn open(place: &Place) -> Result<Channel, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(Reason::Misconfigured, "the tool's `endpoint` is not the address of a gRPC server")
            .detail(error)
    };
    let endpoint = Endpoint::from_shared(place.address.clone()).map_err(|error| wrong(&error))?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
        return Err(wrong(&"neither http:// nor https://"));
    }
    let mut endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_ANSWER_MAX)
        .user_agent("magictunnel")
        .map_err(|error| wrong(&error))?;
    if endpoint.uri().scheme_str() == Some("https") {
        let mut tls = ClientTlsConfig::new();
        tls = match &place.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(certificates(path).await?)),
            None => tls.with_native_roots(),
        };
        if let Some(domain) = &place.domain {
            tls = tls.domain_name(domain);
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&chain(&error)))?;
    }
    Ok(endpoint.connect_lazy())
}

async fn certificates(path: &str) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::new(Reason::Misconfigured, "the node cannot read the file of `tls.ca`")
            .detail(format!("{path}: {error}"))
    };
    read_file(path, CA_BYTES_MAX).await.map_err(|error| unreadable(&error))
}

/// A file of the node, as long as it is not too large.
pub async fn read_file(path: &str, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let length = tokio::fs::metadata(path).await?.len();
    if length > bytes_max {
        return Err(std::io::Error::other(format!("{length} bytes are more than {bytes_max}")));
    }
    tokio::fs::read(path).await
}

impl Server {
    /// A method, as the server itself describes it. What it has said before is
    /// taken for it, unless the method is not in that, or `anew` is set.
    ///
    /// # Errors
    /// If the server cannot be asked, or has no such method.
    pub async fn method(
        &self,
        config: &Grpc,
        shown: &Shown<'_>,
        anew: bool,
    ) -> Result<MethodDescriptor, Failure> {
        let (service, method) = (&config.service, &config.method);
        if !anew
            && let Some(found) =
                self.known(service, TYPES_AGE_MAX).and_then(|pool| find(&pool, service, method).ok())
        {
            return Ok(found);
        }
        let _only = self.asking.lock().await;
        // Another call may have asked in the meantime.
        let pool = match self.known(service, TYPES_AGE_MIN) {
            Some(pool) => pool,
            None => self.ask(service, shown).await?,
        };
        find(&pool, service, method).map_err(|hint| {
            let message = format!("the gRPC server has no method {service}/{method}; {hint}");
            Failure::new(Reason::Misconfigured, message)
        })
    }

    fn known(&self, service: &str, age_max: Duration) -> Option<DescriptorPool> {
        let services = self.services.lock();
        services.get(service).filter(|types| types.since.elapsed() < age_max).map(|types| types.pool.clone())
    }

    async fn ask(&self, service: &str, shown: &Shown<'_>) -> Result<DescriptorPool, Failure> {
        let asked = timeout(REFLECTION_MAX, reflection::types(self.channel.clone(), shown, service)).await;
        let asked = asked.unwrap_or_else(|_| Err(Failure::timeout(REFLECTION_MAX)));
        let pool = match asked {
            Ok(pool) => pool,
            // What was true before is better than nothing, while the server cannot say.
            Err(failure) => return self.known(service, Duration::MAX).ok_or(failure),
        };
        let mut services = self.services.lock();
        if !services.contains_key(service) {
            make_room(&mut services, SERVICES_MAX, |types| types.since);
        }
        services.insert(service.to_owned(), Types { pool: pool.clone(), since: Instant::now() });
        Ok(pool)
    }
}
