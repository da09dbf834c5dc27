//! The pipeline: from a call to its answer.
//!
//! ```text
//!  call ─► what is it? ─┬─ answered here: ping, discover, lists (from the view)
//!                       ├─ for one member: by tool, prompt, URI, completion's ref
//!                       ├─ for several members: log level, listen
//!                       └─ for the sole member: what nobody here knows
//! ```
//!
//! Everything before [`forward`] is pure: it reads the view and edits names.
//! A door brings the call in, an [`Upstream`](crate::upstream::Upstream) takes
//! it out; this file knows neither transports nor eras.

mod alias;
mod bridge;
pub mod call;
pub mod catalog;
mod cursor;
pub mod logging;
mod offered;
pub mod park;
mod results;
pub mod rewrite;
pub mod subscription;
mod uri;
pub mod view;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use mt_proto::resource::{ResourceName, Rule};
use serde::Deserialize;
use tokio::time::Instant;

pub use self::{
    bridge::{KeptSessions, within as client_capabilities},
    offered::catalog as offered,
    results::initialize,
};
use self::{
    call::{Answer, Call, CallError, Caller, Client},
    rewrite::Place,
    view::{GatewayView, ListKind, Target},
};
use crate::{
    mcp::{Key, Method, Params, splice::Object},
    node::{Node, Table},
};

/// Answers a call to a gateway. Dropping the future cancels it.
///
/// # Errors
/// Why there is no answer of a backend; [`CallError::to_rpc`] makes of it what
/// the client sees.
pub async fn answer(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &Arc<GatewayView>,
    call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    match &call.method {
        Method::Ping => Ok(Answer::Result(Bytes::from_static(b"{}"))),
        Method::Discover => Ok(Answer::Result(results::discover(view))),
        Method::ToolsList => list(node, view, ListKind::Tools, &call),
        Method::PromptsList => list(node, view, ListKind::Prompts, &call),
        Method::ResourcesList => list(node, view, ListKind::Resources, &call),
        Method::ResourceTemplatesList => list(node, view, ListKind::Templates, &call),
        Method::ToolsCall => {
            let target = named(view.tools.get(required_text(&call.params, Key::Name)?.as_ref()), &call)?;
            let Some(alias) = &target.alias else {
                let answer = send_renamed(node, table, view, target, Key::Name, call, caller).await?;
                return Ok(wrap(view, Place::ToolResult, target, answer));
            };
            let name = call.params.name().unwrap_or_default().into_owned();
            let version = call.client.version;
            let answer = match alias::mapped(alias, call) {
                Ok(call) => send_renamed(node, table, view, target, Key::Name, call, caller).await,
                Err(error) => Err(error),
            };
            let answer = alias::outcome(&name, version, answer)?;
            Ok(wrap(view, Place::ToolResult, target, answer))
        }
        Method::PromptsGet => {
            let target = named(view.prompts.get(required_text(&call.params, Key::Name)?.as_ref()), &call)?;
            let answer = send_renamed(node, table, view, target, Key::Name, call, caller).await?;
            Ok(wrap(view, Place::PromptResult, target, answer))
        }
        Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            let uri = required_text(&call.params, Key::Uri)?;
            let target = view
                .resource(&uri)
                .ok_or_else(|| CallError::UnknownResource { uri: uri.clone().into_owned() })?;
            let uri = uri.into_owned();
            let answer = send_renamed(node, table, view, &target, Key::Uri, call, caller).await;
            match answer {
                // The client is told the URI that it knows.
                Err(CallError::UnknownResource { .. }) => Err(CallError::UnknownResource { uri }),
                answer => Ok(wrap(view, Place::ReadResult, &target, answer?)),
            }
        }
        Method::Complete => complete(node, table, view, call, caller).await,
        Method::SetLevel => set_level(node, table, view, call, caller).await,
        Method::Listen => subscription::listen(node, view, call, caller).await,
        _ => match view.sole_member() {
            Some(only) => forward(node, table, view, only, "", call, caller).await,
            None => Err(CallError::UnknownMethod { method: call.method.as_str().to_owned() }),
        },
    }
}

/// Passes a client's notification on to the members that may want it.
pub async fn notify(
    table: &Arc<Table>,
    view: &GatewayView,
    client: &Arc<Client>,
    method: &Method,
    message: Bytes,
) {
    // A progress token of a question says nothing about who asked.
    if *method == Method::Progress && view.sole_member().is_none() {
        return;
    }
    for backend in &view.members {
        // What one era tells has no meaning in the other.
        if let Some(upstream) = table.upstream(backend)
            && upstream.eras().is_none_or(|eras| eras.speaks(client.version.era()))
        {
            upstream.notify(client, message.clone()).await;
        }
    }
}

/// A client's session is over: its legs are closed. All upstreams are told, for
/// the gateway may have had other members when the session used them.
pub async fn end_session(node: &Node, client: &Client) {
    node.bridged.end(&client.scope);
    for upstream in node.upstreams() {
        upstream.end_scope(&client.scope).await;
    }
}

fn required_text(params: &Params, key: Key) -> Result<std::borrow::Cow<'_, str>, CallError> {
    params.text(key).ok_or_else(|| CallError::InvalidParams {
        reason: format!("params.{} must be a string", key.as_str()),
    })
}

fn named<'a>(target: Option<&'a Target>, call: &Call) -> Result<&'a Target, CallError> {
    target.ok_or_else(|| {
        let name = call.params.name().unwrap_or_default().into_owned();
        match call.method {
            Method::PromptsGet => CallError::UnknownPrompt { name },
            _ => CallError::UnknownTool { name },
        }
    })
}

/// A page of a list, from the snapshot: no backend is asked.
fn list(node: &Node, view: &GatewayView, kind: ListKind, call: &Call) -> Result<Answer, CallError> {
    let keys = node.keys();
    let list = view.list_in(call.client.version.era(), kind);
    let page = match call.params.cursor() {
        None => 0,
        Some(cursor) => cursor::open(&keys, view, kind, &call.client.identity.principal, &cursor)?,
    };
    let listed = list.result(page).ok_or_else(cursor::stale)?;
    let next = (page + 1 < list.pages.len())
        .then(|| cursor::seal(&keys, view, kind, &call.client.identity.principal, page + 1));
    Ok(Answer::Result(listed.result(call.client.version, view, next.as_deref())))
}

/// Sends a call under the name that the backend knows.
async fn send_renamed(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    target: &Target,
    key: Key,
    call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let call = if call.params.text(key).as_deref() == Some(target.own.as_str()) {
        call
    } else {
        with_params(&call, call.params.patch().set_text(key.as_str(), &target.own).finish())
    };
    let limit = target.alias.as_ref().map_or(Duration::MAX, |alias| alias.timeout);
    forward_within(node, table, view, (&target.backend, &target.own), limit, call, caller).await
}

/// The call with other params.
fn with_params(call: &Call, params: Bytes) -> Call {
    let params = Params::scan(&params, crate::mcp::Limits::CLIENT)
        .expect("params that were scanned once and got another text in one member scan again");
    Call { params, ..call.clone() }
}

/// Hands the call to a member's upstream, with the time that it may take.
async fn forward(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    backend: &ResourceName,
    tool: &str,
    call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    forward_within(node, table, view, (backend, tool), Duration::MAX, call, caller).await
}

/// The same, within less time where the limit is less.
async fn forward_within(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    (backend, tool): (&ResourceName, &str),
    limit: Duration,
    mut call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let upstream = table.upstream(backend).ok_or_else(|| CallError::Disabled { backend: backend.clone() })?;
    call.deadline = Instant::now() + time_limit(table, view, backend, tool).min(limit);
    let session = call.client.events.clone();
    let edited = |caller: &Caller| {
        let logs_per_minute = node.settings.log_messages_per_minute;
        caller
            .of_member(backend, view.wraps_uris_of(backend))
            .limiting_logs(logs_per_minute, session.as_ref())
    };
    // What the backend says outside of calls reaches the session edited too.
    if let Some(events) = &session {
        call.client = Arc::new(Client { events: Some(edited(events)), ..Client::clone(&call.client) });
    }
    let caller = edited(caller);
    let answer = bridge::call(node, table, upstream, call, &caller).await;
    caller.tell_dropped().await;
    answer
}

/// The smallest of what the backend and the policies allow.
fn time_limit(table: &Table, view: &GatewayView, backend: &ResourceName, tool: &str) -> Duration {
    let config = &table.snapshot.config;
    let Some(member) = config.backends.get(backend) else { return Duration::ZERO };
    let mut limit = member.call_timeout;
    for policy in &config.policies {
        let applies = has_labels(&view.gateway.labels, &policy.gateways)
            && has_labels(&member.labels, &policy.backends)
            && policy.tools.as_ref().is_none_or(|tools| tools.is_match(tool));
        if let Rule::Timeout(bound) = &policy.rule
            && applies
        {
            limit = limit.min(*bound);
        }
    }
    limit
}

fn has_labels(
    have: &std::collections::BTreeMap<String, String>,
    wanted: &std::collections::BTreeMap<String, String>,
) -> bool {
    wanted.iter().all(|(key, value)| have.get(key) == Some(value))
}

fn wrap(view: &GatewayView, place: Place, target: &Target, answer: Answer) -> Answer {
    match answer {
        Answer::Result(raw) if view.wraps_uris_of(&target.backend) => {
            Answer::Result(rewrite::wrap_uris(place, &target.backend, raw))
        }
        other => other,
    }
}

#[derive(Deserialize)]
struct Reference {
    name: Option<String>,
    uri: Option<String>,
}

/// `completion/complete`: the member is in what is completed. A member that
/// cannot complete has nothing to suggest.
async fn complete(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let invalid = || {
        CallError::InvalidParams {
        reason: "params.ref must name a prompt ({\"type\":\"ref/prompt\",\"name\":…}) or a resource ({\"type\":\"ref/resource\",\"uri\":…})".to_owned(),
    }
    };
    let raw = call.params.get(Key::Ref).ok_or_else(invalid)?;
    let reference: Reference = serde_json::from_slice(&raw).map_err(|_| invalid())?;
    let (target, key) = match (&reference.name, &reference.uri) {
        (Some(name), _) => {
            let target = view.prompts.get(name.as_str()).cloned();
            (target.ok_or_else(|| CallError::UnknownPrompt { name: name.clone() })?, "name")
        }
        (None, Some(uri)) => {
            (view.resource(uri).ok_or_else(|| CallError::UnknownResource { uri: uri.clone() })?, "uri")
        }
        (None, None) => return Err(invalid()),
    };
    let can = table.snapshot.catalogs.get(&target.backend).is_none_or(|c| c.declares("completions"));
    if !can {
        return Ok(Answer::Result(results::no_completion(call.client.version)));
    }
    let mut call = call;
    if reference.name.as_deref().or(reference.uri.as_deref()) != Some(target.own.as_str()) {
        let params = call.params.patch().set_in("ref", key, crate::mcp::text::encode(&target.own)).finish();
        call = with_params(&call, params);
    }
    forward(node, table, view, &target.backend, "", call, caller).await
}

/// `logging/setLevel`: for every member that logs, side by side. It fails only
/// where all of them do: one that is dead, or of the other era, has no logs to
/// choose from anyway.
async fn set_level(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    call: Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let logs = |backend: &&ResourceName| {
        table.snapshot.catalogs.get(*backend).is_some_and(|catalog| catalog.declares("logging"))
    };
    let members = view.members.iter().filter(logs);
    let set = |backend| -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(forward(node, table, view, backend, "", call.clone(), caller))
    };
    let answers = join_all(members.map(set)).await;
    let set = answers.is_empty() || answers.iter().any(|answer| matches!(answer, Ok(Answer::Result(_))));
    match answers.into_iter().next() {
        Some(refused) if !set => refused,
        _ => Ok(Answer::Result(Object::default().finish())),
    }
}
