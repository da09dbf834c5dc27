//! Carries the streams of discovery: bytes and time in, bytes out.
//!
//! Decides nothing about what is pushed: that is `machine.rs`. Each stream is
//! one task with one machine; what it holds is bounded by the machine's limits
//! and one response on its way.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use mt_proto::pb::{
    ads::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_server::AggregatedDiscoveryService,
    },
    envoy::config::core::v3::Node,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    View,
    machine::{Close, Machine, Reply},
};
use crate::{
    fleet::{Discovered, Fleet},
    publisher::Published,
};

/// Streams at a time.
pub const STREAMS_MAX: usize = 4096;
/// How long a client may take to say who it is.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the machine is told the time.
const TICK: Duration = Duration::from_secs(5);
/// Longest id of a node, and longest label.
const NODE_ID_BYTES_MAX: usize = 253;
/// Labels of a node.
const LABELS_MAX: usize = 64;

/// The aggregated discovery service.
#[derive(Clone)]
pub struct Ads {
    published: watch::Receiver<Arc<Published>>,
    facts: watch::Receiver<Arc<View>>,
    fleet: Fleet,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Ads {
    /// Streams run on `tasks` and end with `shutdown`.
    pub fn new(
        published: watch::Receiver<Arc<Published>>,
        facts: watch::Receiver<Arc<View>>,
        fleet: Fleet,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { published, facts, fleet, slots: Arc::new(Semaphore::new(STREAMS_MAX)), tasks, shutdown }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("there are {STREAMS_MAX} discovery streams")));
        };
        let (responses, receiver) = mpsc::channel(1);
        let stream = Pipe {
            ads: self.clone(),
            requests: request.into_inner(),
            responses,
            machine: Machine::default(),
            began: Instant::now(),
            _slot: slot,
        };
        self.tasks.spawn(stream.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct Pipe {
    ads: Ads,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    machine: Machine,
    began: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Pipe {
    async fn run(mut self) {
        let Some((node, first)) = self.first().await else { return };
        let span = info_span!("discovery", node.id = %node.id);
        async {
            info!(labels = ?node.labels, "node follows the configuration");
            let registration = self.ads.fleet.discovering(&node.id, &node.labels);
            let end = self.serve(&node, first, &registration).await;
            match end {
                End::Gone => info!("node no longer follows the configuration"),
                End::Status(status) => {
                    info!(reason = status.message(), "discovery stream ended");
                    // The client may not be reading; then the end of the stream says it.
                    _ = tokio::time::timeout(TICK, self.responses.send(Err(status))).await;
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// The first request, which says who asks (R2).
    async fn first(&mut self) -> Option<(NodeFacts, DeltaDiscoveryRequest)> {
        let status = match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, self.requests.next()).await {
            Err(_) => Status::deadline_exceeded("the first request did not come in time"),
            Ok(None | Some(Err(_))) => return None,
            Ok(Some(Ok(mut request))) => match NodeFacts::parse(request.node.take()) {
                Ok(node) => return Some((node, request)),
                Err(status) => status,
            },
        };
        debug!(reason = status.message(), "discovery stream refused");
        _ = self.responses.try_send(Err(status));
        None
    }

    async fn serve(&mut self, node: &NodeFacts, first: DeltaDiscoveryRequest, told: &Discovered) -> End {
        let mut published = self.ads.published.clone();
        let mut facts = self.ads.facts.clone();
        let mut tick = tokio::time::interval(TICK);
        let responses = self.responses.clone();
        // Whatever there is already counts as new.
        published.mark_changed();
        facts.mark_changed();
        if let Err(end) = self.request(first, told) {
            return end;
        }
        let mut waiting = self.machine.next(self.began.elapsed());
        loop {
            // A response that waits for room is made only once; newer views
            // meanwhile reach the machine, which drops what is no longer due.
            let room = async {
                match &waiting {
                    Some(_) => responses.reserve().await.ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                permit = room => {
                    let (Some(permit), Some(outgoing)) = (permit, waiting.take()) else { return End::Gone };
                    permit.send(Ok(outgoing.response));
                    metrics::counter!("mt_discovery_responses_total").increment(1);
                    if let Some(stamp) = outgoing.completes {
                        debug!(version = %stamp, "view sent");
                        told.sent(stamp);
                    }
                }
                request = self.requests.next() => match request {
                    Some(Ok(request)) => if let Err(end) = self.request(request, told) {
                        return end;
                    },
                    Some(Err(_)) | None => return End::Gone,
                },
                Ok(()) = published.changed() => {
                    let now = published.borrow_and_update().clone();
                    self.machine.on_view(now.view_for(&node.labels));
                }
                Ok(()) = facts.changed() => self.machine.on_facts(facts.borrow_and_update().clone()),
                _ = tick.tick() => if let Err(close) = self.machine.on_tick(self.began.elapsed()) {
                    metrics::counter!("mt_discovery_slow_nodes_total").increment(1);
                    return close.into();
                },
                () = responses.closed() => return End::Gone,
                () = told.superseded() => {
                    return End::Status(Status::already_exists("a newer stream has the same node id"));
                }
                () = self.ads.shutdown.cancelled() => {
                    return End::Status(Status::unavailable("the control plane is stopping"));
                }
            }
            if waiting.is_none() {
                waiting = self.machine.next(self.began.elapsed());
            }
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest, told: &Discovered) -> Result<(), End> {
        match self.machine.on_request(request)? {
            Reply::None | Reply::Acked(None) => {}
            Reply::Acked(Some(stamp)) => {
                debug!(version = %stamp, "view in service");
                told.acked(stamp);
            }
            Reply::Refused { stamp, reason } => {
                metrics::counter!("mt_discovery_refusals_total").increment(1);
                let version = stamp.map(|stamp| stamp.to_string());
                warn!(version, reason, "node refused what it was sent");
                if let Some(stamp) = stamp {
                    told.refused(stamp, reason);
                }
            }
            Reply::UnknownType(type_url) => debug!(type_url, "request for an unknown type"),
        }
        Ok(())
    }
}

/// Why a stream ends.
enum End {
    Gone,
    Status(Status),
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Status(match close {
            Close::TooManyNames | Close::TooManyVersions => Status::resource_exhausted(close.to_string()),
            Close::Unanswered => Status::deadline_exceeded(close.to_string()),
        })
    }
}

/// Who asks.
struct NodeFacts {
    id: String,
    labels: BTreeMap<String, String>,
}

impl NodeFacts {
    fn parse(node: Option<Node>) -> Result<Self, Status> {
        let node = node.unwrap_or_default();
        if node.id.is_empty() || node.id.len() > NODE_ID_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "the first request must have node.id, of 1 to {NODE_ID_BYTES_MAX} bytes"
            )));
        }
        let labels = labels(node.metadata.unwrap_or_default()).ok_or_else(|| {
            Status::invalid_argument(format!(
                "node.metadata.labels must be an object of at most {LABELS_MAX} strings"
            ))
        })?;
        Ok(Self { id: node.id, labels })
    }
}

fn labels(mut metadata: prost_types::Struct) -> Option<BTreeMap<String, String>> {
    use prost_types::value::Kind;
    let object = match metadata.fields.remove("labels").and_then(|value| value.kind) {
        None | Some(Kind::NullValue(_)) => return Some(BTreeMap::new()),
        Some(Kind::StructValue(object)) if object.fields.len() <= LABELS_MAX => object,
        Some(_) => return None,
    };
    let text = |(key, value): (String, prost_types::Value)| match value.kind {
        Some(Kind::StringValue(text)) if text.len().max(key.len()) <= NODE_ID_BYTES_MAX => Some((key, text)),
        _ => None,
    };
    object.fields.into_iter().map(text).collect()
}
