//! `subscriptions/listen`: one stream to the client, fed by the node itself
//! (lists) and by the members (resources, tasks).
//!
//! A list is announced when the list that the gateway shows has changed, after
//! the new one is in service; a member's own announcement is never passed on. A
//! member whose stream ends is asked again, and since something may have been
//! missed meanwhile, its resources are announced as updated.
//!
//! ```text
//!  listen ─┬─ the node: lists
//!          └─ member ─┬─ modern: a stream of its own   (member.rs)
//!                     └─ legacy: resources/subscribe   (legacy.rs)
//! ```

mod legacy;
mod member;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use mt_proto::resource::ResourceName;
use serde::Deserialize;
use tokio::{sync::mpsc, time};

use super::{
    call::{Answer, Call, CallError, Caller, SUBSCRIBED_URIS_MAX},
    kind::ListKind,
    uri,
    view::GatewayView,
};
use crate::{
    mcp::{
        Method, RawId,
        meta::key,
        splice::{self, Object},
        text,
    },
    node::Node,
};

/// How long a member may take to acknowledge.
pub const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// Updates of members that wait to be sent.
const UPDATES_MAX: usize = 64;

const LISTS: [(ListKind, Method, &str); 3] = [
    (ListKind::Tools, Method::ToolsListChanged, "toolsListChanged"),
    (ListKind::Prompts, Method::PromptsListChanged, "promptsListChanged"),
    (ListKind::Resources, Method::ResourcesListChanged, "resourcesListChanged"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Vec<String>,
    task_ids: Vec<String>,
}

/// What one member is asked to announce, in its own words.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    uris: Vec<String>,
    task_ids: Vec<String>,
}

/// Runs until the client goes away, the gateway does, or the node drains.
pub async fn listen(
    node: &Arc<Node>,
    view: &Arc<GatewayView>,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let filter = read_filter(call)?;
    let lists = [filter.tools_list_changed, filter.prompts_list_changed, filter.resources_list_changed];
    let wanted = by_member(view, &filter);

    let (updates, mut from_members) = mpsc::channel(UPDATES_MAX);
    let mut members: FuturesUnordered<_> = wanted
        .iter()
        .map(|(backend, wanted)| member::follow(node, view, backend, wanted, call, updates.clone()))
        .collect();
    drop(updates);

    // The members acknowledge first, so that the client is told what is really followed.
    let (acknowledged, early) = gather(&mut members, &mut from_members, wanted.len()).await;
    caller.notify(acknowledgement(&call.id, lists, &filter, view, &acknowledged)).await;
    for message in early {
        caller.notify(message).await;
    }

    let mut in_service = node.watch();
    // A list may have changed while the members were waited for.
    in_service.mark_changed();
    let mut digests = digests(view);
    loop {
        tokio::select! {
            () = node.draining.cancelled() => break,
            changed = in_service.changed() => {
                let snapshot = node.snapshot();
                let Some(now) = snapshot.gateways.get(&view.gateway.name).filter(|_| changed.is_ok()) else { break };
                let new = self::digests(now);
                for (at, (_, method, _)) in LISTS.iter().enumerate() {
                    if lists[at] && new[at] != digests[at] {
                        caller.notify(announcement(method, &call.id)).await;
                    }
                }
                digests = new;
            }
            Some(update) = from_members.recv() => {
                if let Update::Message(message) = update {
                    caller.notify(message).await;
                }
            }
            Some(()) = members.next() => {}
        }
    }
    Ok(Answer::Result(
        Object::default()
            .set_text("resultType", "complete")
            .set("_meta", &Object::default().set(key::SUBSCRIPTION_ID, call.id.as_bytes()).finish())
            .finish(),
    ))
}

/// What the lists of a gateway are now; templates count as resources.
pub fn digests(view: &GatewayView) -> [[[u8; 32]; 2]; 3] {
    let of = |kind| view.list(kind).digest;
    [[of(ListKind::Tools); 2], [of(ListKind::Prompts); 2], [of(ListKind::Resources), of(ListKind::Templates)]]
}

/// The notifications of the lists that differ, for clients that need no
/// subscription.
pub fn changed_lists(before: &[[[u8; 32]; 2]; 3], after: &[[[u8; 32]; 2]; 3]) -> Vec<Bytes> {
    LISTS
        .iter()
        .enumerate()
        .filter(|(at, _)| before[*at] != after[*at])
        .map(|(_, (_, method, _))| splice::notification(method, None))
        .collect()
}

fn read_filter(call: &Call) -> Result<Filter, CallError> {
    let invalid = |reason: String| CallError::InvalidParams { reason };
    let raw = call
        .params
        .get(crate::mcp::Key::Notifications)
        .ok_or_else(|| invalid("params.notifications must be an object".to_owned()))?;
    let filter: Filter =
        serde_json::from_slice(&raw).map_err(|error| invalid(format!("params.notifications: {error}")))?;
    if filter.resource_subscriptions.len() + filter.task_ids.len() > SUBSCRIBED_URIS_MAX {
        return Err(invalid(format!("one stream follows at most {SUBSCRIBED_URIS_MAX} resources and tasks")));
    }
    Ok(filter)
}

fn by_member(view: &GatewayView, filter: &Filter) -> BTreeMap<ResourceName, Wanted> {
    let mut wanted: BTreeMap<ResourceName, Wanted> = BTreeMap::new();
    for uri in &filter.resource_subscriptions {
        if let Some(target) = view.resource(uri) {
            wanted.entry(target.backend).or_default().uris.push(target.own);
        }
    }
    if let (Some(only), false) = (view.sole_member(), filter.task_ids.is_empty()) {
        wanted.entry(only.clone()).or_default().task_ids.clone_from(&filter.task_ids);
    }
    wanted
}

enum Update {
    /// Which of its URIs and tasks a member follows.
    Acknowledged(ResourceName, Wanted),
    Message(Bytes),
}

/// Waits for every member's first word, or for the time to be over. Also gives
/// what members have announced meanwhile, the same thing once.
async fn gather(
    members: &mut FuturesUnordered<impl Future<Output = ()>>,
    updates: &mut mpsc::Receiver<Update>,
    count: usize,
) -> (BTreeMap<ResourceName, Wanted>, Vec<Bytes>) {
    let mut acknowledged = BTreeMap::new();
    let mut early = Vec::new();
    let deadline = time::sleep(ACKNOWLEDGE_MAX);
    tokio::pin!(deadline);
    while acknowledged.len() < count {
        tokio::select! {
            () = &mut deadline => break,
            Some(()) = members.next() => {}
            Some(update) = updates.recv() => match update {
                Update::Acknowledged(backend, wanted) => _ = acknowledged.insert(backend, wanted),
                Update::Message(message) if early.len() < UPDATES_MAX && !early.contains(&message) => {
                    early.push(message);
                }
                Update::Message(_) => {}
            }
        }
    }
    (acknowledged, early)
}

fn shown(view: &GatewayView, backend: &ResourceName, own: &str) -> String {
    if view.wraps_uris() { uri::wrap(backend, own) } else { own.to_owned() }
}

/// What is honored of what the client asked for.
fn acknowledgement(
    id: &RawId,
    lists: [bool; 3],
    filter: &Filter,
    view: &GatewayView,
    acknowledged: &BTreeMap<ResourceName, Wanted>,
) -> Bytes {
    let mut honored = Object::default();
    for (at, (_, _, name)) in LISTS.iter().enumerate() {
        if lists[at] {
            honored = honored.set(name, &b"true"[..]);
        }
    }
    if !filter.resource_subscriptions.is_empty() {
        let uris: Vec<String> = acknowledged
            .iter()
            .flat_map(|(backend, wanted)| wanted.uris.iter().map(move |own| shown(view, backend, own)))
            .collect();
        honored = honored.set("resourceSubscriptions", &strings(&uris));
    }
    if !filter.task_ids.is_empty() {
        let tasks: Vec<String> = acknowledged.values().flat_map(|wanted| wanted.task_ids.clone()).collect();
        honored = honored.set("taskIds", &strings(&tasks));
    }
    let params = Object::default().set("_meta", &tag(id)).set("notifications", &honored.finish()).finish();
    splice::notification(&Method::SubscriptionsAcknowledged, Some(&params))
}

fn announcement(method: &Method, id: &RawId) -> Bytes {
    splice::notification(method, Some(&Object::default().set("_meta", &tag(id)).finish()))
}

fn updated(uri: &str, id: &RawId) -> Bytes {
    let params = Object::default().set("_meta", &tag(id)).set_text("uri", uri).finish();
    splice::notification(&Method::ResourcesUpdated, Some(&params))
}

fn tag(id: &RawId) -> Bytes {
    Object::default().set(key::SUBSCRIPTION_ID, id.as_bytes()).finish()
}

fn strings(texts: &[String]) -> Bytes {
    let mut out = vec![b'['];
    for (at, item) in texts.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text::write(item, &mut out);
    }
    out.push(b']');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_one_member_announces_while_another_is_waited_for_is_kept() {
        let (updates, mut from_members) = mpsc::channel(UPDATES_MAX);
        let quick: ResourceName = "quick".parse().unwrap();
        let message = Bytes::from_static(b"updated");
        for update in [
            Update::Acknowledged(quick.clone(), Wanted::default()),
            Update::Message(message.clone()),
            Update::Message(message.clone()),
        ] {
            assert!(updates.send(update).await.is_ok());
        }
        let mut members: FuturesUnordered<std::future::Pending<()>> = FuturesUnordered::new();
        let (acknowledged, early) = gather(&mut members, &mut from_members, 2).await;
        assert_eq!(acknowledged.into_keys().collect::<Vec<_>>(), [quick]);
        assert_eq!(early, [message]);
    }
}
