//! NodeService: registration streams. One task each, which ends with the lease.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use mt_proto::pb::node::{
    AttachRequest, AttachResponse, CatalogAccepted, CatalogRefused, CatalogReport, Hello, Leases, Welcome,
    attach_request, attach_response, node_service_server::NodeService,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info, info_span, warn};

use super::status;
use crate::{
    catalog::Assembly,
    catalogs::{self, Catalogs},
    fleet::{Attached, Fleet, HEARTBEAT_INTERVAL, LEASE, NODES_MAX},
};

/// Messages that wait for a node that is slow to read.
const QUEUE_MAX: usize = 16;
/// Longest text in a Hello, and longest label.
const TEXT_BYTES_MAX: usize = 1024;
const NODE_ID_BYTES_MAX: usize = 253;
const LABELS_MAX: usize = 64;
/// How long a node may take to say hello, and to take a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service.
pub struct Service {
    fleet: Fleet,
    catalogs: Catalogs,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Service {
    /// Streams run on `tasks` and end with `shutdown`.
    pub fn new(fleet: Fleet, catalogs: Catalogs, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { fleet, catalogs, slots: Arc::new(Semaphore::new(NODES_MAX)), tasks, shutdown }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Service {
    type AttachStream = Responses;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return Err(status::exhausted(format!("there are {NODES_MAX} nodes")));
        };
        let (responses, receiver) = mpsc::channel(QUEUE_MAX);
        let stream = Registration {
            fleet: self.fleet.clone(),
            catalogs: self.catalogs.clone(),
            requests: request.into_inner(),
            responses,
            assembly: Assembly::default(),
            shutdown: self.shutdown.clone(),
            _slot: slot,
        };
        self.tasks.spawn(stream.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct Registration {
    fleet: Fleet,
    catalogs: Catalogs,
    requests: Streaming<AttachRequest>,
    responses: mpsc::Sender<Result<AttachResponse, Status>>,
    assembly: Assembly,
    shutdown: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Registration {
    async fn run(mut self) {
        let end = match tokio::time::timeout(PATIENCE, self.requests.next()).await {
            Err(_) => Err(Status::deadline_exceeded("the hello did not come in time")),
            Ok(None | Some(Err(_))) => Ok(()),
            Ok(Some(Ok(AttachRequest { message: Some(attach_request::Message::Hello(hello)) }))) => {
                let span = info_span!("attach", node.id = %hello.node_id);
                self.serve(hello).instrument(span).await
            }
            Ok(Some(Ok(_))) => Err(status::argument("hello", "must be the first message")),
        };
        if let Err(status) = end {
            _ = tokio::time::timeout(PATIENCE, self.responses.send(Err(status))).await;
        }
    }

    /// Ends with nothing when the node goes, with a status when it must go.
    async fn serve(&mut self, hello: Hello) -> Result<(), Status> {
        check(&hello)?;
        let version = hello.version.clone();
        let node = self.fleet.attach(hello).map_err(|error| status::exhausted(error.to_string()))?;
        info!(version, "node registered");
        let end = self.follow(&node).await;
        match &end {
            Ok(()) => info!("node went away"),
            Err(status) => info!(reason = status.message(), "registration ended"),
        }
        end
    }

    async fn follow(&mut self, node: &Attached) -> Result<(), Status> {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let welcome = Welcome { heartbeat_interval_ms: millis(HEARTBEAT_INTERVAL), lease_ms: millis(LEASE) };
        self.say(attach_response::Message::Welcome(welcome)).await?;
        let mut leases = node.leases.clone();
        leases.mark_changed();
        let mut silence = std::pin::pin!(tokio::time::sleep(LEASE));
        loop {
            tokio::select! {
                request = self.requests.next() => match request {
                    Some(Ok(request)) => {
                        silence.as_mut().reset(tokio::time::Instant::now() + LEASE);
                        self.hear(node, request).await?;
                    }
                    Some(Err(_)) | None => return Ok(()),
                },
                Ok(()) = leases.changed() => {
                    let backends = leases.borrow_and_update().to_vec();
                    self.say(attach_response::Message::Leases(Leases { backends })).await?;
                }
                () = &mut silence => return Err(Status::deadline_exceeded("the lease ran out in silence")),
                () = self.responses.closed() => return Ok(()),
                () = node.superseded() => {
                    return Err(Status::already_exists("a newer stream has the same node id"));
                }
                () = self.shutdown.cancelled() => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
            }
        }
    }

    async fn hear(&mut self, node: &Attached, request: AttachRequest) -> Result<(), Status> {
        node.heard();
        match request.message {
            None => Ok(()),
            Some(attach_request::Message::Hello(_)) => {
                Err(status::argument("hello", "may only be the first message"))
            }
            Some(attach_request::Message::Status(status)) => {
                node.status(status);
                Ok(())
            }
            Some(attach_request::Message::Catalog(report)) => self.report(node, report).await,
        }
    }

    async fn report(&mut self, node: &Attached, report: CatalogReport) -> Result<(), Status> {
        let sequence = report.sequence;
        let backend = report.catalog.as_ref().map(|catalog| catalog.backend.clone()).unwrap_or_default();
        let taken = match self.assembly.add(report) {
            Ok(None) => return Ok(()),
            Ok(Some(catalog)) => self.catalogs.report(node.node_id(), catalog).await,
            Err(refusal) => Err(refusal.into()),
        };
        let answer = match taken {
            Ok(catalog_revision) => {
                attach_response::Message::CatalogAccepted(CatalogAccepted { sequence, catalog_revision })
            }
            Err(catalogs::Error::Refused(refusal)) => {
                let reason = refusal.to_string();
                warn!(backend, reason, "catalog refused");
                metrics::counter!("mt_catalog_refusals_total").increment(1);
                attach_response::Message::CatalogRefused(CatalogRefused { sequence, reason })
            }
            // The node registers anew and reports again.
            Err(catalogs::Error::Store(error)) => return Err(crate::registry::Error::from(error).into()),
        };
        self.say(answer).await
    }

    /// A node that does not read for long is gone.
    async fn say(&self, message: attach_response::Message) -> Result<(), Status> {
        let response = AttachResponse { message: Some(message) };
        match tokio::time::timeout(PATIENCE, self.responses.send(Ok(response))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::deadline_exceeded("the node does not read")),
        }
    }
}

fn check(hello: &Hello) -> Result<(), Status> {
    if hello.node_id.is_empty() || hello.node_id.len() > NODE_ID_BYTES_MAX {
        return Err(status::argument("hello.node_id", format!("must have 1 to {NODE_ID_BYTES_MAX} bytes")));
    }
    let texts = [&hello.boot_id, &hello.version, &hello.mcp_url, &hello.admin_url, &hello.relay_url];
    let labels = hello.labels.iter().flat_map(|(key, value)| [key, value]);
    if hello.labels.len() > LABELS_MAX
        || texts.into_iter().chain(labels).any(|text| text.len() > TEXT_BYTES_MAX)
    {
        let reason = format!("may have {LABELS_MAX} labels, and texts of {TEXT_BYTES_MAX} bytes");
        return Err(status::argument("hello", reason));
    }
    Ok(())
}
