//! The pipe of discovery: carries what the machine wants sent, feeds it what
//! comes, and does what it says. Decides nothing.
//!
//! It runs beside the calls, not among them (the runtime of `lib.rs`), and the
//! costly part of a push, checking and indexing it, on a thread of its own.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::counter;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{info, warn};

use mt_proto::{
    discovery::{MESSAGE_BYTES_MAX, TYPE_ITEM},
    pb::{
        ads::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
        discovery::{FleetFact, KeyRing, fleet_fact::Fact},
    },
};

use super::{
    View,
    machine::{Action, Broken, Machine},
};
use crate::{
    cache::Keep,
    control::Connector,
    node::Node,
    seal,
    snapshot::{Refusal, Snapshot},
};

/// Requests that wait for the stream to take them: one that is stuck is given up.
pub const REQUESTS_QUEUE_MAX: usize = 64;
/// How long the control plane may take to accept the stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Puts views and facts into service: where discovery ends.
#[derive(Clone)]
pub struct Target {
    pub node: Arc<Node>,
    /// Of the runtime that calls run on: what a snapshot starts belongs there.
    pub calls: Handle,
    pub keep: Keep,
    /// Whether anything is in service.
    pub serving: Arc<AtomicBool>,
}

impl Target {
    /// Builds a snapshot of a view and puts it into service; it is when this
    /// returns.
    ///
    /// # Errors
    /// Why this node cannot serve it; then nothing has changed.
    pub async fn apply(&self, view: Arc<View>) -> Result<(), Vec<Refusal>> {
        let Self { node, calls, serving, .. } = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let before = node.snapshot();
            let (generation, revision) = (view.generation, view.catalog_revision);
            let snapshot = Snapshot::build_after(&before, generation, revision, &view.items())?;
            let _in_calls = calls.enter();
            node.install(Arc::new(snapshot));
            serving.store(true, Ordering::Release);
            Ok(())
        });
        // A configuration that makes this version panic must not take the node down.
        work.await.unwrap_or_else(|error| {
            let reason = format!("the node failed to read it: {error}");
            Err(vec![Refusal { resource: "*".to_owned(), reason }])
        })
    }

    /// Seals with these keys from now on.
    ///
    /// # Errors
    /// If they are not a usable ring; then nothing has changed.
    pub fn set_keys(&self, ring: &KeyRing) -> Result<(), seal::InvalidKeyRing> {
        self.node.set_keys(seal::KeyRing::from_pb(ring)?);
        Ok(())
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    #[error("the stream was not accepted within {OPEN_TIMEOUT:?}")]
    NotAccepted,
    #[error("the stream failed: {}", .0.message())]
    Failed(#[from] tonic::Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read")]
    Stuck,
    #[error(transparent)]
    Broken(Broken),
    #[error("the node stops")]
    Shutdown,
}

/// Keeps what is in service the newest, until `shutdown`.
pub async fn run(
    mut machine: Machine,
    target: Target,
    mut connector: Connector,
    shutdown: CancellationToken,
) {
    loop {
        let ended = session(&mut machine, &target, &mut connector, &shutdown).await;
        machine.disconnected();
        counter!("mt_discovery_streams_ended_total").increment(1);
        let pause = match ended {
            Ended::Shutdown => return,
            Ended::Failed(status) if status.code() == Code::AlreadyExists => connector.displaced(),
            ended => connector.lost(&crate::chain(&ended)),
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One stream, from its opening to its end. Dropped or shut down at any moment
/// it leaves nothing half applied.
async fn session(
    machine: &mut Machine,
    target: &Target,
    connector: &mut Connector,
    shutdown: &CancellationToken,
) -> Ended {
    let open = async {
        let channel = connector.connect().await?;
        let (requests, outbound) = mpsc::channel(REQUESTS_QUEUE_MAX);
        for action in machine.connected() {
            // At the start there is nothing to do but to subscribe.
            if let Action::Send(request) = action {
                requests.try_send(request).map_err(|_| Ended::Stuck)?;
            }
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let stream = timeout(OPEN_TIMEOUT, client.delta_aggregated_resources(ReceiverStream::new(outbound)));
        Ok::<_, Ended>((requests, stream.await.map_err(|_| Ended::NotAccepted)??.into_inner()))
    };
    let (requests, mut responses) = tokio::select! {
        () = shutdown.cancelled() => return Ended::Shutdown,
        opened = open => match opened {
            Ok(opened) => opened,
            Err(ended) => return ended,
        },
    };
    loop {
        let response = tokio::select! {
            () = shutdown.cancelled() => return Ended::Shutdown,
            response = responses.message() => match response {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Closed,
                Err(status) => return status.into(),
            },
        };
        counter!("mt_discovery_responses_total").increment(1);
        if let Err(ended) = take(machine, target, connector, &requests, response).await {
            return ended;
        }
    }
}

async fn take(
    machine: &mut Machine,
    target: &Target,
    connector: &mut Connector,
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    response: DeltaDiscoveryResponse,
) -> Result<(), Ended> {
    let mut actions: VecDeque<Action> = machine.on_response(response).into();
    while let Some(action) = actions.pop_front() {
        match action {
            Action::Send(request) => {
                if let Some(status) = &request.error_detail {
                    counter!("mt_discovery_refused_total").increment(1);
                    warn!(reason = %status.message, "a push is refused, what was in service stays");
                }
                // Facts alone are no sign that the rest goes well.
                let settles = request.type_url == TYPE_ITEM;
                requests.try_send(request).map_err(|_| Ended::Stuck)?;
                if settles {
                    connector.settled();
                }
            }
            Action::Apply(view) => {
                let result = target.apply(view.clone()).await;
                if result.is_ok() {
                    announce(&view);
                }
                actions.extend(machine.applied(result));
            }
            Action::Keep(view) => target.keep.view(view),
            Action::Fact(fact) => take_fact(target, fact),
            Action::Reconnect(broken) => {
                counter!("mt_discovery_broken_total").increment(1);
                return Err(Ended::Broken(broken));
            }
        }
    }
    Ok(())
}

/// Says what is in service now.
pub fn announce(view: &View) {
    info!(
        generation = view.generation,
        catalog_revision = view.catalog_revision,
        items = view.entries.len(),
        "in service"
    );
}

fn take_fact(target: &Target, fact: FleetFact) {
    match fact.fact {
        Some(Fact::KeyRing(ring)) => match target.set_keys(&ring) {
            Ok(()) => target.keep.keys(ring),
            Err(error) => warn!(%error, "a key ring is not usable, the one before stays"),
        },
        Some(Fact::Nodes(directory)) => target.node.relay().set_directory(&directory),
        // From a later version: not for us.
        None => {}
    }
}
