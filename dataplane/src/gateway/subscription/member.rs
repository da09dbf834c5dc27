//! One member of a gateway that a client listens to.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use super::{Filter, Update, Wanted, legacy, shown, strings, updated};
use crate::{
    gateway::{
        call::{Call, CallError, Caller, ToClient},
        rewrite::{self, Place},
        view::GatewayView,
    },
    mcp::{Era, Message, Method, Params, RawId, scan::Limits, splice::Object},
    node::Node,
    upstream::Upstream,
};

/// How long a member may take to begin its stream.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// Between two tries to listen to a member: doubled while it says nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps a listen open to one member and passes on what it says.
pub async fn follow(
    node: &Arc<Node>,
    view: &Arc<GatewayView>,
    backend: &ResourceName,
    wanted: &Wanted,
    call: &Call,
    updates: mpsc::Sender<Update>,
) {
    let mut first = true;
    let mut wait = RETRY_MIN;
    loop {
        let Some(upstream) = node.upstream(backend) else { return };
        if is_legacy_only(&upstream) {
            legacy::follow(node, view, &upstream, wanted, call, &mut first, &updates).await;
            if updates.is_closed() {
                return;
            }
            time::sleep(RETRY_MIN).await;
            continue;
        }
        let (caller, mut door) = Caller::channel();
        let call = member_call(call, wanted);
        let running = async { upstream.call(&call, &caller).await };
        tokio::pin!(running);
        let outcome = loop {
            tokio::select! {
                biased;
                Some(message) = door.recv() => {
                    let ToClient::Notify(message) = message else { continue };
                    for update in translate(view, backend, wanted, &call.id, message, first) {
                        if updates.send(update).await.is_err() {
                            return;
                        }
                    }
                    first = false;
                    wait = RETRY_MIN;
                }
                outcome = &mut running => break outcome,
            }
        };
        if matches!(outcome, Err(CallError::EraMismatch { .. })) && is_legacy_only(&upstream) {
            continue;
        }
        if first {
            // It does not listen at all: nothing of it is acknowledged.
            first = false;
            if updates.send(Update::Acknowledged(backend.clone(), Wanted::default())).await.is_err() {
                return;
            }
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// The member's share of the client's request, beginning now: the subscription
/// may be older than any call lasts.
fn member_call(call: &Call, wanted: &Wanted) -> Call {
    let mut notifications = Object::default();
    if !wanted.uris.is_empty() {
        notifications = notifications.set("resourceSubscriptions", &strings(&wanted.uris));
    }
    if !wanted.task_ids.is_empty() {
        notifications = notifications.set("taskIds", &strings(&wanted.task_ids));
    }
    let params = call.params.patch().set("notifications", notifications.finish()).finish();
    let params = Params::scan(&params, Limits::CLIENT).unwrap_or(Params::NONE);
    Call { params, deadline: Instant::now() + BEGIN_MAX, ..call.clone() }
}

fn translate(
    view: &GatewayView,
    backend: &ResourceName,
    wanted: &Wanted,
    id: &RawId,
    message: Bytes,
    first: bool,
) -> Vec<Update> {
    let Ok(Message::Notification(notification)) = Message::parse(message.clone(), Limits::BACKEND) else {
        return Vec::new();
    };
    match notification.method {
        Method::SubscriptionsAcknowledged if first => {
            let followed = notification.params.get(crate::mcp::Key::Notifications);
            let followed: Filter =
                followed.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default();
            let followed = Wanted { uris: followed.resource_subscriptions, task_ids: followed.task_ids };
            vec![Update::Acknowledged(backend.clone(), followed)]
        }
        // Listening again: something may have been missed.
        Method::SubscriptionsAcknowledged => {
            wanted.uris.iter().map(|own| Update::Message(updated(&shown(view, backend, own), id))).collect()
        }
        Method::ResourcesUpdated if view.wraps_uris() => {
            vec![Update::Message(rewrite::wrap_uris(Place::Updated, backend, message))]
        }
        Method::ResourcesUpdated | Method::TasksNotification => vec![Update::Message(message)],
        _ => Vec::new(),
    }
}

/// As far as is known.
fn is_legacy_only(upstream: &Upstream) -> bool {
    upstream.eras().is_some_and(|eras| eras.speaks(Era::Legacy) && !eras.speaks(Era::Modern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::call::{Client, Identity, Scope},
        mcp::version::LATEST_MODERN,
    };

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_asked_again_has_time_to_begin() {
        let began = Instant::now();
        let call = Call {
            id: RawId::number(1),
            method: Method::Listen,
            params: Params::NONE,
            client: Arc::new(Client {
                identity: Identity::anonymous(),
                version: LATEST_MODERN,
                info: Bytes::new(),
                capabilities: Bytes::from_static(b"{}"),
                scope: Scope::Stateless,
                events: None,
            }),
            deadline: began,
            param_headers: Vec::new(),
        };
        time::advance(Duration::from_secs(3600)).await;
        assert_eq!(member_call(&call, &Wanted::default()).deadline, Instant::now() + BEGIN_MAX);
    }
}
