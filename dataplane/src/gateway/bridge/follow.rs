//! Resources of a modern backend that a legacy session follows.
//!
//! The backend knows no `resources/subscribe`: it announces changes on a stream
//! that is opened for a set of URIs. So each session has one such stream per
//! backend, which is opened anew when the set changes, and again when it breaks;
//! since something may have been missed then, everything is announced as updated.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use serde::Deserialize;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    kept::{Followed, Kept},
    speaker::Speaker,
    translate::request_to_legacy,
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, SUBSCRIBED_URIS_MAX, ToClient},
    mcp::{
        Key, Limits, Message, Method, Params, RawId, RpcError,
        splice::{self, Object},
        text,
    },
    node::Node,
};

/// How long a backend may take to begin its stream.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// Between two tries to open a stream: doubled while it says nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// `resources/subscribe` and `resources/unsubscribe`.
pub async fn change(
    node: &Arc<Node>,
    backend: &ResourceName,
    kept: &Kept,
    call: &Call,
) -> Result<Answer, CallError> {
    let uri = call.params.uri().map(|uri| uri.into_owned());
    let uri =
        uri.ok_or_else(|| CallError::InvalidParams { reason: "params.uri must be a string".to_owned() })?;
    let mut followed = kept.followed.lock().await;
    let mut uris = followed.get(backend).map(|followed| followed.uris().clone()).unwrap_or_default();
    let changes = if call.method == Method::ResourcesSubscribe {
        let others: usize = followed.values().map(|followed| followed.uris().len()).sum();
        if others >= SUBSCRIBED_URIS_MAX {
            let reason = format!("one session follows at most {SUBSCRIBED_URIS_MAX} resources");
            return Err(CallError::InvalidParams { reason });
        }
        uris.insert(uri.clone())
    } else {
        uris.remove(&uri)
    };
    let done = Ok(Answer::Result(Bytes::from_static(b"{}")));
    let Some(events) = call.client.events.clone().filter(|_| changes) else { return done };
    if uris.is_empty() {
        followed.remove(backend);
        return done;
    }
    let stop = CancellationToken::new();
    let (tell, begun) = oneshot::channel();
    let stream = Stream {
        node: node.clone(),
        backend: backend.clone(),
        speaker: Speaker::of(node, &call.client),
        uris: uris.clone(),
        events,
    };
    node.tracker.spawn(stop.clone().run_until_cancelled_owned(stream.run(tell)));
    let stop = stop.drop_guard();
    match timeout_at(call.deadline, begun).await {
        Ok(Ok(Ok(honored))) if call.method == Method::ResourcesSubscribe && !honored.contains(&uri) => {
            let why = format!("backend {backend} does not announce changes of this resource");
            Err(CallError::Rpc(RpcError::invalid_params(why).with_text("uri", &uri)))
        }
        // The stream before it ends only now, so that nothing is missed between.
        Ok(Ok(Ok(_))) => {
            followed.insert(backend.clone(), Followed::new(uris, stop));
            done
        }
        Ok(Ok(Err(outcome))) => outcome,
        Ok(Err(_)) => {
            Err(CallError::Lost { backend: backend.clone(), reason: "the node is stopping".to_owned() })
        }
        Err(_) => Err(CallError::Timeout { backend: backend.clone(), limit: BEGIN_MAX }),
    }
}

/// Which URIs the backend follows, or how it has refused.
type Begun = Result<Vec<String>, Result<Answer, CallError>>;

struct Stream {
    node: Arc<Node>,
    backend: ResourceName,
    speaker: Speaker,
    uris: BTreeSet<String>,
    /// The client's, where the backend's URIs become those that it knows.
    events: Caller,
}

impl Stream {
    /// Until it is stopped, the client is gone, or the backend is.
    async fn run(self, begun: oneshot::Sender<Begun>) {
        let mut begun = Some(begun);
        let mut wait = RETRY_MIN;
        while !self.events.is_gone() && !self.node.draining.is_cancelled() {
            let Some(upstream) = self.node.upstream(&self.backend) else { return };
            let call = self.call();
            let (caller, mut said) = Caller::channel();
            let running = upstream.call(&call, &caller);
            tokio::pin!(running);
            let outcome = loop {
                tokio::select! {
                    biased;
                    Some(said) = said.recv() => {
                        let ToClient::Notify(message) = said else { continue };
                        self.take(message, &mut begun).await;
                        wait = RETRY_MIN;
                    }
                    outcome = &mut running => break outcome,
                }
            };
            if let Some(begun) = begun.take() {
                let refused = match outcome {
                    Ok(Answer::Result(_)) => Err(CallError::Protocol {
                        backend: self.backend.clone(),
                        reason: "ended a subscription before it began".to_owned(),
                    }),
                    other => other,
                };
                _ = begun.send(Err(refused));
                return;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.node.draining.cancelled() => return,
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn call(&self) -> Call {
        let wanted = Object::default().set("resourceSubscriptions", &list(&self.uris)).finish();
        let params = Object::default().set("notifications", &wanted).finish();
        let params = Params::scan(&params, Limits::BACKEND).unwrap_or(Params::NONE);
        Call {
            id: RawId::text("magictunnel-follow"),
            method: Method::Listen,
            // It adds only what every request says, which has been read before.
            params: self.speaker.params(&params).unwrap_or(params),
            client: self.speaker.client.clone(),
            deadline: Instant::now() + BEGIN_MAX,
            param_headers: Vec::new(),
        }
    }

    async fn take(&self, message: Bytes, begun: &mut Option<oneshot::Sender<Begun>>) {
        let Ok(Message::Notification(told)) = Message::parse(message, Limits::BACKEND) else { return };
        match told.method {
            Method::SubscriptionsAcknowledged => match begun.take() {
                Some(begun) => _ = begun.send(Ok(honored(&told.params))),
                // Listening again: something may have been missed.
                None => {
                    for uri in &self.uris {
                        let params = Object::default().set_text("uri", uri).finish();
                        let updated = splice::notification(&Method::ResourcesUpdated, Some(&params));
                        self.events.notify(updated).await;
                    }
                }
            },
            Method::ResourcesUpdated => {
                let params = request_to_legacy(&told.params);
                let updated = splice::notification(&Method::ResourcesUpdated, Some(&params));
                self.events.notify(updated).await;
            }
            _ => {}
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Honored {
    resource_subscriptions: Vec<String>,
}

fn honored(params: &Params) -> Vec<String> {
    let read = params.get(Key::Notifications).and_then(|raw| serde_json::from_slice::<Honored>(&raw).ok());
    read.unwrap_or_default().resource_subscriptions
}

fn list(uris: &BTreeSet<String>) -> Bytes {
    let mut out = vec![b'['];
    for (at, uri) in uris.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text::write(uri, &mut out);
    }
    out.push(b']');
    out.into()
}
