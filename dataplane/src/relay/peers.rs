//! The way to the other nodes: one connection to each, opened when it is first
//! needed, and what may be said of a request that failed on it.
//!
//! That is the point of this file: a request that was never written may be
//! given to another node; one that was written may have taken effect, and is
//! never repeated here.

use std::{error::Error as _, sync::Arc, time::Duration};

use arc_swap::Guard;
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Request, StatusCode};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use mt_proto::pb::node::{
    GetRecordRequest, GetRecordResponse, PutRecordRequest, PutRecordResponse, RelayHead, RelayRequest,
    RelayResponse, RelayShown, SessionRecord, relay_response::Part, relay_service_client::RelayServiceClient,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tracing::debug;

use super::{
    credential::{self, Digest},
    directory::{Directory, Entry, now_seconds},
    server::{self, MESSAGE_BYTES_MAX},
};
use crate::{
    gateway::call::{Identity, Shown},
    seal::KeyRing,
};

/// How long a connection to another node may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the head of a response may take: longer than any call.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(600);
/// A node that could not be reached is left alone for this long.
pub const DOWN_FOR: Duration = Duration::from_secs(2);
/// Requests that one node has given to another and that have not ended; streams
/// that clients hold open are among them.
pub const IN_FLIGHT_MAX: usize = 8_192;
/// A silent connection is asked this often whether the other end is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// What may be under way on one stream, and on all streams of a connection: one
/// that nobody reads must not hold up the others.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// The headers of a request that say something to a door.
const HEADERS: [&str; 5] = ["accept", "content-type", "last-event-id", "traceparent", "tracestate"];
const HEADER_PREFIX: &str = "mcp-";

/// A response of another node.
pub struct Relayed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Ends with an error if something was lost.
    pub body: BoxStream<'static, Result<Bytes, Cut>>,
}

/// The other node went away in the middle of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node that served this went away")]
pub struct Cut;

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was begun; another node, by its tag, has what it is about.
    #[error("another node has it")]
    Moved(Arc<str>),
    /// Nothing was begun.
    #[error("the node cannot be reached: {reason}")]
    Unsent { reason: String },
    /// Nothing was begun: there is too much between the two nodes.
    #[error("there are {IN_FLIGHT_MAX} requests under way to this node")]
    Full,
    /// It may have taken effect.
    #[error("the node went away: {reason}")]
    Lost { reason: String },
}

pub struct Peers {
    by_tag: DashMap<Arc<str>, Arc<Peer>>,
    meters: Meters,
}

struct Peer {
    client: RelayServiceClient<Channel>,
    slots: Arc<Semaphore>,
    down_until: Mutex<Option<Instant>>,
}

struct Meters {
    relayed: Counter,
    unsent: Counter,
    lost: Counter,
    moved: Counter,
    refused: Counter,
    in_flight: Gauge,
    seconds: Histogram,
}

impl Peers {
    pub fn new() -> Self {
        let failed = |reason: &'static str| counter!("mt_relay_failed_total", "reason" => reason);
        let meters = Meters {
            relayed: counter!("mt_relay_requests_total"),
            unsent: failed("unsent"),
            lost: failed("lost"),
            moved: counter!("mt_relay_moved_total"),
            refused: failed("full"),
            in_flight: gauge!("mt_relay_in_flight"),
            seconds: histogram!("mt_relay_head_seconds"),
        };
        Self { by_tag: DashMap::new(), meters }
    }

    /// Closes connections to nodes that are no longer known.
    pub fn keep(&self, directory: &Directory) {
        self.by_tag.retain(|tag, _| directory.knows(tag));
    }

    pub fn is_down(&self, tag: &str, now: Instant) -> bool {
        self.by_tag.get(tag).is_some_and(|peer| peer.down_until.lock().is_some_and(|until| now < until))
    }

    pub fn mark_down(&self, tag: &str) {
        if let Some(peer) = self.by_tag.get(tag) {
            *peer.down_until.lock() = Some(Instant::now() + DOWN_FOR);
        }
    }

    /// The way to a node. Connects when something is sent.
    fn peer(&self, to: &Entry) -> Result<Arc<Peer>, Failure> {
        if let Some(peer) = self.by_tag.get(&to.tag) {
            return Ok(peer.clone());
        }
        let endpoint = Endpoint::from_shared(to.url.clone())
            .map_err(|error| Failure::Unsent { reason: error.to_string() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let client = RelayServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let peer = Arc::new(Peer { client, slots, down_until: Mutex::new(None) });
        Ok(self.by_tag.entry(to.tag.clone()).or_insert(peer).value().clone())
    }

    /// Has a request served there, up to the head of its response.
    pub async fn relay(
        &self,
        keys: &Guard<Arc<KeyRing>>,
        to: &Entry,
        request: &Request<Bytes>,
        identity: &Identity,
    ) -> Result<Relayed, Failure> {
        let peer = self.peer(to)?;
        let slot = peer.slots.clone().try_acquire_owned().map_err(|_| {
            self.meters.refused.increment(1);
            Failure::Full
        })?;
        let flight = Flight::begin(&self.meters.in_flight, slot);
        let head = Bytes::from(head(request, identity).encode_to_vec());
        let body = request.body().clone();
        let content = Digest::of(&[&head, &body]);
        let credential = credential::seal(keys, &to.tag, content, now_seconds());
        let began = Instant::now();
        self.meters.relayed.increment(1);
        let answer = async {
            let mut parts =
                peer.client.clone().relay(RelayRequest { credential, head, body }).await?.into_inner();
            let first = parts.message().await?;
            Ok::<_, Status>((first, parts))
        };
        let failed = |failure: Failure| {
            match &failure {
                Failure::Unsent { .. } => {
                    self.meters.unsent.increment(1);
                    self.mark_down(&to.tag);
                }
                Failure::Lost { .. } => self.meters.lost.increment(1),
                Failure::Moved(_) => self.meters.moved.increment(1),
                Failure::Full => self.meters.refused.increment(1),
            }
            debug!(node = to.node_id, error = %failure, "a request could not be relayed");
            failure
        };
        let lost = |reason: &str| Failure::Lost { reason: reason.to_owned() };
        let (first, parts) = match timeout(HEAD_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => return Err(failed(failure(&status))),
            Err(_) => return Err(failed(lost("it did not answer in time"))),
        };
        self.meters.seconds.record(began.elapsed().as_secs_f64());
        let head = match first.and_then(|response| response.part) {
            Some(Part::Head(head)) => head,
            Some(Part::Moved(moved)) => return Err(failed(Failure::Moved(moved.owner.into()))),
            Some(Part::Draining(_)) => return Err(failed(Failure::Unsent { reason: "it stops".into() })),
            Some(Part::Chunk(_) | Part::End(_)) | None => {
                return Err(failed(lost("its response has no head")));
            }
        };
        let status = u16::try_from(head.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or_else(|| failed(lost("its response has no status")))?;
        let headers = server::header_map(head.headers);
        Ok(Relayed { status, headers, body: body_of(parts, flight) })
    }

    pub async fn put_record(
        &self,
        keys: &KeyRing,
        to: &Entry,
        record: &SessionRecord,
    ) -> Result<PutRecordResponse, Failure> {
        let record = Bytes::from(record.encode_to_vec());
        let credential = credential::seal(keys, &to.tag, Digest::of(&[&record]), now_seconds());
        let request = PutRecordRequest { credential, record };
        let mut client = self.peer(to)?.client.clone();
        client.put_record(request).await.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }

    pub async fn get_record(
        &self,
        keys: &KeyRing,
        to: &Entry,
        session: &str,
    ) -> Result<GetRecordResponse, Failure> {
        let credential = credential::seal(keys, &to.tag, Digest::of(&[session.as_bytes()]), now_seconds());
        let request = GetRecordRequest { credential, id: session.to_owned() };
        let mut client = self.peer(to)?.client.clone();
        let got = client.get_record(request).await.map(tonic::Response::into_inner);
        got.map_err(|status| {
            let failure = failure(&status);
            if matches!(failure, Failure::Unsent { .. }) {
                self.mark_down(&to.tag);
            }
            failure
        })
    }
}

/// A request that is under way; it is no more when this is dropped.
struct Flight {
    in_flight: Gauge,
    _slot: OwnedSemaphorePermit,
}

impl Flight {
    fn begin(in_flight: &Gauge, slot: OwnedSemaphorePermit) -> Self {
        in_flight.increment(1.0);
        Self { in_flight: in_flight.clone(), _slot: slot }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
    }
}

fn body_of(parts: Streaming<RelayResponse>, flight: Flight) -> BoxStream<'static, Result<Bytes, Cut>> {
    let state = Some((parts, flight));
    stream::unfold(state, |state| async move {
        let (mut parts, flight) = state?;
        match parts.message().await.map(|part| part.and_then(|part| part.part)) {
            Ok(Some(Part::Chunk(chunk))) => Some((Ok(chunk), Some((parts, flight)))),
            Ok(Some(Part::End(_))) => None,
            Ok(_) | Err(_) => Some((Err(Cut), None)),
        }
    })
    .boxed()
}

fn head(request: &Request<Bytes>, identity: &Identity) -> RelayHead {
    let says = |name: &str| name.starts_with(HEADER_PREFIX) || HEADERS.contains(&name);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    RelayHead {
        method: request.method().as_str().to_owned(),
        path: path.to_owned(),
        headers: server::header_list(request.headers(), says),
        principal: identity.principal.to_string(),
        groups: identity.groups.iter().map(ToString::to_string).collect(),
        shown: match identity.shown {
            Shown::ApiKey => RelayShown::ApiKey,
            Shown::Jwt => RelayShown::Jwt,
            Shown::Nothing | Shown::Node => RelayShown::Unspecified,
        }
        .into(),
    }
}

/// Whether a request that failed may have been begun. Only where it certainly
/// was not is that said.
fn failure(status: &Status) -> Failure {
    let reason = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted => return Failure::Full,
        // Refused before anything was begun: the keys or the clocks differ.
        Code::Unauthenticated | Code::Unimplemented => return Failure::Unsent { reason },
        _ => {}
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        let canceled = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if canceled || error.is::<tonic::ConnectError>() {
            return Failure::Unsent { reason };
        }
        cause = error.source();
    }
    Failure::Lost { reason }
}
