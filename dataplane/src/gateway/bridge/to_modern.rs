//! A legacy client's call at a modern backend.
//!
//! Each request says all that the session has said, what the backend asks in its
//! result becomes questions on the client's stream, and the call is repeated with
//! the replies until there is an answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use metrics::counter;
use mt_proto::resource::ResourceName;
use tokio::time::{Instant, sleep, timeout};

use super::{
    asked::{self, Asked, Reading, Unaskable},
    content::{failed_tool, visit_text},
    follow,
    speaker::{self, Speaker},
    translate::{error_to_legacy, result_to_legacy},
};
use crate::{
    gateway::{
        call::{Answer, Call, CallError, Caller, Client},
        catalog::Catalog,
    },
    mcp::{Key, Method, RawId, RpcError, error::code, meta::LogLevel, version::LATEST_MODERN},
    node::Node,
    upstream::Upstream,
};

/// How often a backend may ask during one call.
pub const ROUNDS_MAX: u32 = 8;
/// How long a client may take for the questions of one round.
pub const ROUND_MAX: Duration = Duration::from_secs(600);
/// Before a call is repeated that was sent away without a question.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// Runs a call.
///
/// # Errors
/// As [`Upstream::call`], and [`CallError::Rpc`] where the client cannot be
/// asked what the backend has to know.
pub async fn call(
    node: &Arc<Node>,
    catalog: Option<&Catalog>,
    upstream: &Arc<Upstream>,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let backend = &upstream.config().name;
    match &call.method {
        Method::SetLevel => set_level(node, call),
        Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            let kept = node.bridged.of(&call.client.scope)?;
            follow::change(node, backend, &kept, call).await
        }
        // Tasks are no more what they were.
        Method::TasksGet | Method::TasksCancel => Err(unknown(call)),
        method if !method.exists_in(LATEST_MODERN) => Err(unknown(call)),
        _ => rounds(node, catalog, upstream, call, caller).await,
    }
}

fn unknown(call: &Call) -> CallError {
    CallError::UnknownMethod { method: call.method.as_str().to_owned() }
}

/// Remembered, and said with each request from now on.
fn set_level(node: &Arc<Node>, call: &Call) -> Result<Answer, CallError> {
    let level = call.params.text(Key::Level).and_then(|level| LogLevel::parse(&level));
    let level = level.ok_or_else(|| CallError::InvalidParams { reason: "unknown log level".to_owned() })?;
    node.bridged.of(&call.client.scope)?.set_level(level);
    Ok(Answer::Result(Bytes::from_static(b"{}")))
}

async fn rounds(
    node: &Arc<Node>,
    catalog: Option<&Catalog>,
    upstream: &Arc<Upstream>,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let backend = &upstream.config().name;
    let limit = call.deadline.saturating_duration_since(Instant::now());
    let speaker = Speaker::of(node, &call.client);
    let mut modern = Call {
        params: speaker.params(&call.params)?,
        client: speaker.client.clone(),
        param_headers: catalog.map(|catalog| catalog.param_headers(call)).unwrap_or_default(),
        ..call.clone()
    };
    let mut round = 0;
    loop {
        let result = match upstream.call(&modern, caller).await? {
            Answer::Result(result) => result,
            Answer::Error(error) => {
                let error = error_to_legacy(&call.method, error, call.client.version);
                return Ok(Answer::Error(error));
            }
        };
        let asked = match asked::read(&result) {
            Reading::Complete => return Ok(Answer::Result(result_to_legacy(&call.method, result))),
            Reading::Asks(asked) if call.method.may_ask() => asked,
            Reading::Asks(_) => return Err(broken(backend, format!("asks in an answer to {}", call.method))),
            Reading::Broken(why) => return Err(broken(backend, why)),
        };
        round += 1;
        if round > ROUNDS_MAX {
            counter!("mt_bridge_rounds_refused_total", "backend" => backend.to_string()).increment(1);
            return Err(broken(backend, format!("asked more than {ROUNDS_MAX} times during one call")));
        }
        modern.params = match replies(&asked, &call.client, caller).await {
            Ok(replies) => {
                let params = asked.answered(modern.params.patch(), replies).map_err(CallError::Rpc)?;
                speaker::scanned(params)?
            }
            Err(Unasked::Visit { message, url }) if call.method == Method::ToolsCall => {
                return Ok(Answer::Result(failed_tool(&visit_text(&message, &url))));
            }
            Err(unasked) => return Err(CallError::Rpc(unasked.error(backend))),
        };
        modern.id = RawId::text(&format!("magictunnel-round-{round}"));
        // The time that the client took is its own.
        modern.deadline = Instant::now() + limit;
    }
}

fn broken(backend: &ResourceName, reason: String) -> CallError {
    CallError::Protocol { backend: backend.clone(), reason }
}

/// Why there are no replies.
enum Unasked {
    Undeclared(&'static str),
    Visit { message: String, url: String },
    Gone,
    Late,
}

impl From<Unaskable> for Unasked {
    fn from(why: Unaskable) -> Self {
        match why {
            Unaskable::Undeclared(what) => Self::Undeclared(what),
            Unaskable::Visit { message, url } => Self::Visit { message, url },
        }
    }
}

impl Unasked {
    fn error(&self, backend: &ResourceName) -> RpcError {
        match self {
            Self::Undeclared(what) => RpcError::new(
                code::CANNOT_ASK,
                format!("backend {backend} asks for {what}, which the client has not declared"),
            )
            .with_text("missing", what),
            Self::Visit { message, url } => RpcError::new(
                code::CANNOT_ASK,
                format!("backend {backend} wants the user to open a URL, which the client cannot be told"),
            )
            .with_text("ask", message)
            .with_text("url", url),
            Self::Gone => RpcError::cannot_ask("nobody takes questions"),
            Self::Late => RpcError::cannot_ask("it did not reply in time"),
        }
    }
}

async fn replies(
    asked: &Asked,
    client: &Client,
    caller: &Caller,
) -> Result<Vec<crate::gateway::call::Reply>, Unasked> {
    let questions = asked.for_legacy(client, || uuid::Uuid::new_v4().to_string())?;
    if questions.is_empty() {
        // It only wants the call again, with its state.
        sleep(BUSY_WAIT).await;
        return Ok(Vec::new());
    }
    let count = questions.len();
    match timeout(ROUND_MAX, caller.ask(questions)).await {
        Ok(Ok(replies)) if replies.len() == count => Ok(replies),
        Ok(_) => Err(Unasked::Gone),
        Err(_) => Err(Unasked::Late),
    }
}
