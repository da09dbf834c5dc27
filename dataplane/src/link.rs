//! The node's registration with the control plane: who it is, how it is doing,
//! what its backends offer; and which backends it is to list.
//!
//! Its loss changes nothing for calls, nor for what is listed: leases hold until
//! others come.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use metrics::counter;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, warn};

use mt_proto::{
    discovery::{MESSAGE_BYTES_MAX, split_catalog},
    pb::{
        discovery::Catalog,
        node::{
            AttachRequest, AttachResponse, BackendState, BackendStatus, CatalogReport, Hello, Status,
            attach_request::Message as Say, attach_response::Message as Told,
            node_service_client::NodeServiceClient,
        },
    },
    resource::ResourceName,
};

use crate::{
    control::Connector,
    discovery::client::OPEN_TIMEOUT,
    lister::{Catalogs, Leases, Listing},
    node::Node,
    upstream::UpstreamState,
};

/// Until the control plane says otherwise, something is said this often.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Changes of the backends' states are told at most this often.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// Messages that wait for the stream to take them.
pub const REQUESTS_QUEUE_MAX: usize = 8;

/// The node's end of the registration.
pub struct Link {
    pub node: Arc<Node>,
    pub hello: Hello,
    pub connector: Connector,
    pub catalogs: Catalogs,
    /// Where the lister learns what it is to list.
    pub leases: watch::Sender<Leases>,
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
    #[error("the node stops")]
    Shutdown,
}

impl Link {
    /// Stays registered until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let pause = match self.session(&shutdown).await {
                Ended::Shutdown => return,
                Ended::Failed(status) if status.code() == Code::AlreadyExists => self.connector.displaced(),
                ended => self.connector.lost(&crate::chain(&ended)),
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn session(&mut self, shutdown: &CancellationToken) -> Ended {
        let mut stream = Stream::new(self.node.clone(), self.hello.clone(), self.catalogs.watch());
        let (requests, outbound) = mpsc::channel(REQUESTS_QUEUE_MAX);
        let open = async {
            let channel = self.connector.connect().await?;
            let mut client = NodeServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            let attached = timeout(OPEN_TIMEOUT, client.attach(ReceiverStream::new(outbound)));
            Ok::<_, Ended>(attached.await.map_err(|_| Ended::NotAccepted)??.into_inner())
        };
        let mut responses = tokio::select! {
            () = shutdown.cancelled() => return Ended::Shutdown,
            opened = open => match opened {
                Ok(responses) => responses,
                Err(ended) => return ended,
            },
        };
        let mut in_service = self.node.watch();
        let mut pulse = interval(STATUS_INTERVAL);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ended::Shutdown,
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        self.connector.settled();
                        self.hear(&mut stream, response);
                    }
                    Ok(None) => return Ended::Closed,
                    Err(status) => return status.into(),
                },
                permit = requests.reserve(), if !stream.queue.is_empty() => match (permit, stream.queue.pop_front()) {
                    (Ok(permit), Some(message)) => permit.send(AttachRequest { message: Some(message) }),
                    _ => return Ended::Closed,
                },
                changed = stream.listings.changed() => if changed.is_err() { return Ended::Shutdown },
                changed = in_service.changed() => {
                    if changed.is_err() {
                        return Ended::Shutdown;
                    }
                    stream.tell_status(Instant::now());
                }
                now = pulse.tick() => stream.tell_status(now),
            }
            stream.report();
        }
    }

    fn hear(&self, stream: &mut Stream, response: AttachResponse) {
        match response.message {
            Some(Told::Welcome(welcome)) => {
                let told = Duration::from_millis(welcome.heartbeat_interval_ms.into());
                // Half of it, so that one late message does not end the registration.
                stream.heartbeat = (told / 2).clamp(STATUS_INTERVAL, HEARTBEAT_INTERVAL);
            }
            Some(Told::Leases(told)) => {
                let leases: Leases = told.backends.iter().filter_map(|name| name.parse().ok()).collect();
                stream.reports.lease(leases.clone());
                self.leases.send_if_modified(|held| std::mem::replace(held, leases.clone()) != leases);
            }
            Some(Told::CatalogAccepted(accepted)) => {
                debug!(catalog_revision = accepted.catalog_revision, "a report is in the catalog");
                stream.reports.answered(accepted.sequence);
            }
            Some(Told::CatalogRefused(refused)) => {
                counter!("mt_link_reports_refused_total").increment(1);
                warn!(reason = refused.reason, "the control plane refuses what a backend offers");
                stream.reports.answered(refused.sequence);
            }
            // From a later version: not for us.
            None => {}
        }
    }
}

/// What is said on one stream.
struct Stream {
    node: Arc<Node>,
    listings: watch::Receiver<BTreeMap<ResourceName, Listing>>,
    reports: Reports,
    /// A status, and the parts of one report.
    queue: VecDeque<Say>,
    heartbeat: Duration,
    told: Option<(Status, Instant)>,
}

impl Stream {
    fn new(
        node: Arc<Node>,
        hello: Hello,
        mut listings: watch::Receiver<BTreeMap<ResourceName, Listing>>,
    ) -> Self {
        // A late reader is told of what is there already.
        listings.mark_changed();
        Self {
            node,
            listings,
            reports: Reports::default(),
            queue: [Say::Hello(hello)].into(),
            heartbeat: HEARTBEAT_INTERVAL,
            told: None,
        }
    }

    /// Tells the status if it has changed, or if nothing was said for long.
    fn tell_status(&mut self, now: Instant) {
        let status = status(&self.node, &self.reports.leased, &self.listings.borrow());
        let due = self.told.as_ref().is_none_or(|(last, at)| *last != status || now >= *at + self.heartbeat);
        if !due {
            return;
        }
        self.told = Some((status.clone(), now));
        // An older one that still waits is of no use any more; a report may wait
        // longer, but the hello is the first of all.
        self.queue.retain(|waiting| !matches!(waiting, Say::Status(_)));
        let at = usize::from(matches!(self.queue.front(), Some(Say::Hello(_))));
        self.queue.insert(at, Say::Status(status));
    }

    /// Queues the next report, if the one before is answered.
    fn report(&mut self) {
        let next = self.reports.next(&self.listings.borrow_and_update());
        let Some((sequence, catalog)) = next else { return };
        match split_catalog(Catalog::clone(&catalog)) {
            Ok(parts) => {
                let reports = parts.into_iter().zip(0..);
                self.queue.extend(reports.map(|(catalog, part)| {
                    Say::Catalog(CatalogReport { sequence, catalog: Some(catalog), part })
                }));
            }
            Err(error) => {
                warn!(%error, "what a backend offers cannot be reported");
                self.reports.answered(sequence);
            }
        }
    }
}

/// Which listings the control plane has heard of, on one stream. One report is
/// under way at a time, so that a large fleet of backends takes its turn.
#[derive(Debug, Default)]
struct Reports {
    leased: Leases,
    sequence: u64,
    /// By backend, the hash of what was reported last, accepted or not.
    reported: BTreeMap<ResourceName, [u8; 32]>,
    under_way: Option<u64>,
}

impl Reports {
    /// Only what is leased is reported; a new lease is reported whatever was
    /// before.
    fn lease(&mut self, leases: Leases) {
        self.reported.retain(|backend, _| leases.contains(backend) && self.leased.contains(backend));
        self.leased = leases;
    }

    fn next(&mut self, listings: &BTreeMap<ResourceName, Listing>) -> Option<(u64, Arc<Catalog>)> {
        if self.under_way.is_some() {
            return None;
        }
        let (backend, listed) = self.leased.iter().find_map(|backend| {
            let listed = listings.get(backend)?.last_good.as_ref()?;
            (self.reported.get(backend) != Some(&listed.hash)).then_some((backend, listed))
        })?;
        self.reported.insert(backend.clone(), listed.hash);
        self.sequence += 1;
        self.under_way = Some(self.sequence);
        Some((self.sequence, listed.catalog.clone()))
    }

    fn answered(&mut self, sequence: u64) {
        if self.under_way == Some(sequence) {
            self.under_way = None;
        }
    }
}

fn status(node: &Node, leased: &Leases, listings: &BTreeMap<ResourceName, Listing>) -> Status {
    let snapshot = node.snapshot();
    let mut upstreams = node.upstreams();
    upstreams.sort_by(|a, b| a.config().name.cmp(&b.config().name));
    let backends = upstreams.iter().map(|upstream| {
        let name = &upstream.config().name;
        let tools = snapshot.catalogs.get(name).map_or(0, |catalog| catalog.tools.len());
        let failure = listings.get(name).and_then(|listing| listing.failure.as_deref());
        let (state, reason) = explain(&upstream.state().borrow(), leased.contains(name), failure);
        BackendStatus {
            backend: name.to_string(),
            state: state.into(),
            reason,
            tools: u32::try_from(tools).unwrap_or(u32::MAX),
        }
    });
    Status {
        generation: snapshot.generation,
        catalog_revision: snapshot.catalog_revision,
        backends: backends.collect(),
    }
}

/// A state in one word, and why. A backend that this node does not list may
/// not have been asked at all.
fn explain(
    state: &UpstreamState,
    listed_here: bool,
    listing_failure: Option<&str>,
) -> (BackendState, String) {
    match (state, listing_failure) {
        // It takes calls, but nobody knows what it offers now.
        (UpstreamState::Ready, Some(failure)) => (BackendState::Degraded, failure.to_owned()),
        (UpstreamState::Ready, None) => (BackendState::Ready, String::new()),
        (UpstreamState::Starting, _) if listed_here => (BackendState::Starting, String::new()),
        (UpstreamState::Starting, _) => (BackendState::Unspecified, String::new()),
        (UpstreamState::Degraded { reason }, _) => (BackendState::Degraded, reason.clone()),
        (UpstreamState::Unavailable { reason }, _) => (BackendState::Unavailable, reason.clone()),
        (UpstreamState::NeedsAuth { reason }, _) => (BackendState::NeedsAuth, reason.clone()),
        (UpstreamState::Disabled, _) => (BackendState::Disabled, "switched off by configuration".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lister::Listed;

    fn name(text: &str) -> ResourceName {
        text.parse().unwrap()
    }

    fn listings(of: &[(&str, usize)]) -> BTreeMap<ResourceName, Listing> {
        let listing = |tools| {
            let tools = vec![bytes::Bytes::from_static(b"{}"); tools];
            let catalog = Catalog { tools, parts: 1, ..Default::default() };
            Listing { last_good: Some(Listed::new(catalog)), failure: None }
        };
        of.iter().map(|(backend, tools)| (name(backend), listing(*tools))).collect()
    }

    fn leases(of: &[&str]) -> Leases {
        of.iter().map(|backend| name(backend)).collect()
    }

    #[test]
    fn only_leased_backends_are_reported_one_after_the_other() {
        let mut reports = Reports::default();
        let listings = listings(&[("a", 1), ("b", 2), ("c", 3)]);
        assert!(reports.next(&listings).is_none());
        reports.lease(leases(&["b", "c"]));
        let (first, catalog) = reports.next(&listings).unwrap();
        assert_eq!(catalog.tools.len(), 2);
        assert!(reports.next(&listings).is_none());
        reports.answered(first);
        let (second, catalog) = reports.next(&listings).unwrap();
        assert_eq!((second, catalog.tools.len()), (first + 1, 3));
        reports.answered(second);
        assert!(reports.next(&listings).is_none());
    }

    #[test]
    fn a_change_is_reported_and_the_same_again_is_not() {
        let mut reports = Reports::default();
        reports.lease(leases(&["a"]));
        let (sequence, _) = reports.next(&listings(&[("a", 1)])).unwrap();
        reports.answered(sequence);
        assert!(reports.next(&listings(&[("a", 1)])).is_none());
        assert!(reports.next(&listings(&[("a", 2)])).is_some());
    }

    #[test]
    fn a_lease_that_comes_back_is_reported_again() {
        let mut reports = Reports::default();
        let listings = listings(&[("a", 1)]);
        for _ in 0..2 {
            reports.lease(leases(&["a"]));
            let (sequence, _) = reports.next(&listings).unwrap();
            reports.answered(sequence);
            reports.lease(leases(&[]));
        }
    }

    #[test]
    fn a_backend_whose_listing_fails_is_degraded_and_says_why() {
        let (state, reason) = explain(&UpstreamState::Ready, true, Some("tools/list failed: no"));
        assert_eq!((state, reason.as_str()), (BackendState::Degraded, "tools/list failed: no"));
        let down = UpstreamState::Unavailable { reason: "refused".into() };
        assert_eq!(explain(&down, true, Some("x")), (BackendState::Unavailable, "refused".to_owned()));
    }

    #[test]
    fn of_a_backend_that_was_never_asked_nothing_is_said() {
        assert_eq!(explain(&UpstreamState::Starting, true, None).0, BackendState::Starting);
        assert_eq!(explain(&UpstreamState::Starting, false, None).0, BackendState::Unspecified);
    }
}
