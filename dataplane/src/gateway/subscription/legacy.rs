//! A member that speaks only the legacy era, for a modern client that listens:
//! a session of its own, in which the client's resources are subscribed to.
//!
//! A server that was started again, or has ended the session, does not say so:
//! everything is subscribed to again from time to time, and where that fails
//! first, what may have been missed is announced as updated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};

use super::{Update, Wanted, shown, updated};
use crate::{
    gateway::{
        call::{Answer, Call, Caller, Client, Scope, ToClient},
        view::GatewayView,
    },
    mcp::{Limits, Message, Method, Params, RawId, splice::Object, version::LATEST_LEGACY},
    node::Node,
    upstream::Upstream,
};

/// Between two times that everything is subscribed to.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// When that has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a member may take for one resource.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);
/// Resources that are subscribed to side by side.
const SIDE_BY_SIDE_MAX: usize = 8;

/// Follows a member until the client goes away or the member is replaced.
/// `first`: the client waits to hear what is followed.
pub async fn follow(
    node: &Arc<Node>,
    view: &Arc<GatewayView>,
    upstream: &Arc<Upstream>,
    wanted: &Wanted,
    call: &Call,
    first: &mut bool,
    updates: &mpsc::Sender<Update>,
) {
    let backend = &upstream.config().name;
    let (events, mut door) = Caller::channel();
    let session = Session::new(node, upstream, call, events);
    let mut renew = time::interval(RENEW_EVERY);
    renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was missed since it was followed before, by this session or another.
    let mut lost = !*first;
    let mut known: Vec<String> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = updates.closed() => return,
            Some(said) = door.recv() => {
                let ToClient::Notify(message) = said else { continue };
                if let Some(own) = resource(message)
                    && updates.send(Update::Message(updated(&shown(view, backend, &own), &call.id))).await.is_err()
                {
                    return;
                }
            }
            _ = renew.tick() => {
                if !node.upstream(backend).is_some_and(|current| Arc::ptr_eq(&current, upstream)) {
                    return;
                }
                let followed = session.subscribe(&wanted.uris).await;
                let broken = known.iter().any(|own| !followed.contains(own));
                if broken {
                    renew.reset_after(AGAIN_AFTER);
                } else {
                    known.clone_from(&followed);
                }
                if std::mem::take(first) {
                    let followed = Wanted { uris: followed, task_ids: Vec::new() };
                    if updates.send(Update::Acknowledged(backend.clone(), followed)).await.is_err() {
                        return;
                    }
                    continue;
                }
                if lost && !broken {
                    for own in &followed {
                        let message = updated(&shown(view, backend, own), &call.id);
                        if updates.send(Update::Message(message)).await.is_err() {
                            return;
                        }
                    }
                }
                lost = broken;
            }
        }
    }
}

/// A session with the member, as long as this lives.
struct Session {
    node: Arc<Node>,
    upstream: Arc<Upstream>,
    client: Arc<Client>,
    ids: AtomicU64,
}

impl Session {
    fn new(node: &Arc<Node>, upstream: &Arc<Upstream>, call: &Call, events: Caller) -> Self {
        let client = Arc::new(Client {
            version: LATEST_LEGACY,
            capabilities: Bytes::from_static(b"{}"),
            scope: Scope::Session(format!("listen-{}", uuid::Uuid::new_v4()).into()),
            events: Some(events),
            ..Client::clone(&call.client)
        });
        Self { node: node.clone(), upstream: upstream.clone(), client, ids: AtomicU64::new(1) }
    }

    /// Which of the resources the member follows now. One that has lost the
    /// session is asked in a new one.
    async fn subscribe(&self, uris: &[String]) -> Vec<String> {
        let mut followed = Vec::new();
        for some in uris.chunks(SIDE_BY_SIDE_MAX) {
            let outcomes = join_all(some.iter().map(|uri| self.subscribe_to(uri))).await;
            let yes = some.iter().zip(outcomes).filter(|(_, followed)| *followed);
            followed.extend(yes.map(|(uri, _)| uri.clone()));
        }
        followed
    }

    async fn subscribe_to(&self, uri: &str) -> bool {
        let params = Object::default().set_text("uri", uri).finish();
        let Ok(params) = Params::scan(&params, Limits::BACKEND) else { return false };
        let call = Call {
            id: RawId::number(self.ids.fetch_add(1, Ordering::Relaxed)),
            method: Method::ResourcesSubscribe,
            params,
            client: self.client.clone(),
            deadline: Instant::now() + SUBSCRIBE_MAX,
            param_headers: Vec::new(),
        };
        // Nobody is asked, and what is said outside of calls comes by the events.
        let (nobody, _) = Caller::channel();
        matches!(self.upstream.call(&call, &nobody).await, Ok(Answer::Result(_)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (upstream, scope) = (self.upstream.clone(), self.client.scope.clone());
        self.node.tracker.spawn(async move { upstream.end_scope(&scope).await });
    }
}

/// The resource that a notification says has changed.
fn resource(message: Bytes) -> Option<String> {
    match Message::parse(message, Limits::BACKEND) {
        Ok(Message::Notification(told)) if told.method == Method::ResourcesUpdated => {
            told.params.uri().map(|uri| uri.into_owned())
        }
        _ => None,
    }
}
