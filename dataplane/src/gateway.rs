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
pub mod bridge;
pub mod call;
pub mod catalog;
mod cursor;
pub mod kind;
pub mod logging;
pub mod offered;
mod page;
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
use tokio::time::Instant;

pub use self::{bridge::within as client_capabilities, results::initialize};
use self::{
    call::{Answer, Call, CallError, Caller, Client},
    catalog::Alias,
    kind::ListKind,
    rewrite::Place,
    view::{GatewayView, Target},
};
use crate::{
    mcp::{Key, Limits, Method, Params, splice::Object},
    node::{Node, Table},
};

/// Answers a call to a gateway. Dropping the future cancels it. The call is
/// edited on its way to the backend: nobody can use it after this.
///
/// # Errors
/// Why there is no answer of a backend; [`CallError::to_rpc`] makes of it what
/// the client sees.
pub async fn answer(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &Arc<GatewayView>,
    call: &mut Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let resource;
    let (target, key, place) = match &call.method {
        Method::Ping => return Ok(Answer::Result(Bytes::from_static(b"{}"))),
        Method::Discover => return Ok(Answer::Result(results::discover(view))),
        Method::ToolsList => return list(node, view, ListKind::Tools, call),
        Method::PromptsList => return list(node, view, ListKind::Prompts, call),
        Method::ResourcesList => return list(node, view, ListKind::Resources, call),
        Method::ResourceTemplatesList => return list(node, view, ListKind::Templates, call),
        Method::ToolsCall => {
            let target = view.tools.get(required_text(&call.params, Key::Name)?.as_ref());
            (named(target, call)?, Key::Name, Place::ToolResult)
        }
        Method::PromptsGet => {
            let target = view.prompts.get(required_text(&call.params, Key::Name)?.as_ref());
            (named(target, call)?, Key::Name, Place::PromptResult)
        }
        Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            let uri = required_text(&call.params, Key::Uri)?;
            let unknown = || CallError::UnknownResource { uri: uri.clone().into_owned() };
            resource = view.resource(&uri).ok_or_else(unknown)?;
            (&resource, Key::Uri, Place::ReadResult)
        }
        // Boxed: these are rare, and every call would carry their state.
        Method::Complete => return Box::pin(complete(node, table, view, call, caller)).await,
        Method::SetLevel => return Box::pin(set_level(node, table, view, call, caller)).await,
        Method::Listen => return Box::pin(subscription::listen(node, view, call, caller)).await,
        _ => {
            return match view.sole_member() {
                Some(only) => Box::pin(forward(node, table, view, only, call, caller)).await,
                None => Err(CallError::UnknownMethod { method: call.method.as_str().to_owned() }),
            };
        }
    };
    if let Some(alias) = &target.alias {
        return Box::pin(answer_as(alias, node, table, view, target, call, caller)).await;
    }
    let known = rename(call, key, &target.own);
    let limit = time_limit(table, view, target);
    let answer = forward_within(node, table, view, &target.backend, limit, call, caller).await;
    match (answer, known) {
        // The client is told the URI that it knows.
        (Err(CallError::UnknownResource { .. }), Some(uri)) if key == Key::Uri => {
            Err(CallError::UnknownResource { uri })
        }
        (answer, _) => Ok(wrap(view, place, target, answer?)),
    }
}

/// Calls the tool that a tool stands for.
async fn answer_as(
    alias: &Alias,
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    target: &Target,
    call: &mut Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let name = call.params.name().unwrap_or_default().into_owned();
    let version = call.client.version;
    let answer = match alias::map(alias, call) {
        Ok(()) => {
            rename(call, Key::Name, &target.own);
            let limit = time_limit(table, view, target).min(alias.timeout);
            forward_within(node, table, view, &target.backend, limit, call, caller).await
        }
        Err(error) => Err(error),
    };
    let answer = alias::outcome(&name, version, answer)?;
    Ok(wrap(view, Place::ToolResult, target, answer))
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
    Ok(Answer::Result(results::page(view, listed, call.client.version, next.as_deref())))
}

/// Names what is called as the backend knows it; gives back the name that the
/// client used, if that is another one.
fn rename(call: &mut Call, key: Key, own: &str) -> Option<String> {
    let asked = call.params.text(key)?;
    if asked == own {
        return None;
    }
    let asked = asked.into_owned();
    call.params = Params::edited(&call.params.patch().set_text(key.as_str(), own).finish());
    Some(asked)
}

/// Hands the call to a member as a whole: nothing in it names something of the member's.
async fn forward(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    backend: &ResourceName,
    call: &mut Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let limit = smallest_limit(table, view, backend, "");
    forward_within(node, table, view, backend, limit, call, caller).await
}

/// Hands the call to a member's upstream, with the time that it may take.
async fn forward_within(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    backend: &ResourceName,
    limit: Duration,
    call: &mut Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let upstream = table.upstream(backend).ok_or_else(|| CallError::Disabled { backend: backend.clone() })?;
    call.deadline = Instant::now() + limit;
    let caller = {
        let session = call.client.events.as_ref();
        let logs_per_minute = node.settings.log_messages_per_minute;
        let edited = |caller: &Caller| {
            caller.of_member(backend, view.wraps_uris_of(backend)).limiting_logs(logs_per_minute, session)
        };
        let edited_caller = edited(caller);
        // What the backend says outside of calls reaches the session edited too.
        if let Some(events) = session {
            call.client = Arc::new(Client { events: Some(edited(events)), ..Client::clone(&call.client) });
        }
        edited_caller
    };
    let answer = bridge::call(node, table, upstream, call, &caller).await;
    caller.tell_dropped().await;
    answer
}

/// How long a call of this target may take. It follows from the configuration
/// and from nothing that a caller is or says, so it is found out once a snapshot.
fn time_limit(table: &Table, view: &GatewayView, target: &Target) -> Duration {
    *target.limit.get_or_init(|| smallest_limit(table, view, &target.backend, &target.own))
}

/// The smallest of what the backend and the policies allow.
fn smallest_limit(table: &Table, view: &GatewayView, backend: &ResourceName, tool: &str) -> Duration {
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

/// `completion/complete`: the member is in what is completed. A member that
/// cannot complete has nothing to suggest.
async fn complete(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    call: &mut Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let invalid = || {
        CallError::InvalidParams {
        reason: "params.ref must name a prompt ({\"type\":\"ref/prompt\",\"name\":…}) or a resource ({\"type\":\"ref/resource\",\"uri\":…})".to_owned(),
    }
    };
    let raw = call.params.get(Key::Ref).ok_or_else(invalid)?;
    // By the rules for keys of params: the backend must not read another name.
    let reference = Params::scan(&raw, Limits::CLIENT).map_err(|_| invalid())?;
    let (named, key, target) = match (reference.name(), reference.uri()) {
        (Some(name), _) => (name.clone(), Key::Name, view.prompts.get(&*name).cloned()),
        (None, Some(uri)) => (uri.clone(), Key::Uri, view.resource(&uri)),
        (None, None) => return Err(invalid()),
    };
    let target = target.ok_or_else(|| match key {
        Key::Name => CallError::UnknownPrompt { name: named.to_string() },
        _ => CallError::UnknownResource { uri: named.to_string() },
    })?;
    let can = table.snapshot.catalogs.get(&target.backend).is_none_or(|c| c.declares("completions"));
    if !can {
        return Ok(Answer::Result(results::no_completion(call.client.version)));
    }
    if *named != *target.own {
        let own = crate::mcp::text::encode(&target.own);
        call.params = Params::edited(&call.params.patch().set_in("ref", key.as_str(), own).finish());
    }
    forward(node, table, view, &target.backend, call, caller).await
}

/// `logging/setLevel`: for every member that logs, side by side. It fails only
/// where all of them do: one that is dead, or of the other era, has no logs to
/// choose from anyway.
async fn set_level(
    node: &Arc<Node>,
    table: &Arc<Table>,
    view: &GatewayView,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let logs = |backend: &&ResourceName| {
        table.snapshot.catalogs.get(*backend).is_some_and(|catalog| catalog.declares("logging"))
    };
    let members = view.members.iter().filter(logs);
    let set = |backend| -> BoxFuture<'_, Result<Answer, CallError>> {
        let mut call = call.clone();
        Box::pin(async move { forward(node, table, view, backend, &mut call, caller).await })
    };
    let answers = join_all(members.map(set)).await;
    let set = answers.is_empty() || answers.iter().any(|answer| matches!(answer, Ok(Answer::Result(_))));
    match answers.into_iter().next() {
        Some(refused) if !set => refused,
        _ => Ok(Answer::Result(Object::default().finish())),
    }
}
