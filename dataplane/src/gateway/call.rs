//! The waist: what every door turns a request into, and what every backend and
//! agent answers.
//!
//! A [`Call`] holds everything needed to answer it alone. While it runs, the
//! callee speaks to the client through its [`Caller`]: it may notify, and it may
//! ask. It ends with one [`Answer`]. Dropping the future that runs a call
//! cancels it, on every transport: who must not cancel (a legacy client that
//! merely lost its connection) keeps the future alive.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use mt_proto::resource::ResourceName;

use super::{
    logging::{Counts, LogLine},
    rewrite,
};
use crate::mcp::{Method, Params, ProtocolVersion, RawId, RpcError, error::code};

/// Messages to a client that wait until its door takes them. A full queue
/// holds the backend back: nothing is dropped, nothing grows.
pub const TO_CLIENT_QUEUE_MAX: usize = 64;
/// Resources that one stream, or one session, may follow.
pub const SUBSCRIBED_URIS_MAX: usize = 1_000;

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// The client's id: bytes and type as they came.
    pub id: RawId,
    pub method: Method,
    /// The raw `params` (`object()` is `{}` if there were none), and where the
    /// members are that a gateway looks at.
    pub params: Params,
    pub client: Arc<Client>,
    /// When the answer is due at the latest.
    pub deadline: Instant,
    /// `Mcp-Param-*` headers, as they came; forwarded to modern HTTP backends.
    pub param_headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// Who calls, as far as a backend may know it.
#[derive(Clone, Debug)]
pub struct Client {
    pub identity: Arc<Identity>,
    /// Of the client's leg; also tells the era.
    pub version: ProtocolVersion,
    /// `clientInfo`, a raw object; may be empty in the modern era.
    pub info: Bytes,
    /// The client's capabilities, a raw object.
    pub capabilities: Bytes,
    /// What upstream state may be shared with.
    pub scope: Scope,
    /// Where messages go that belong to no call; none: they have no receiver.
    pub events: Option<Caller>,
}

/// Who calls, as the door has found out. Rules, budgets and what is sealed go by
/// the principal; nothing that the client says of itself is in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Unique in the fleet.
    pub principal: Arc<str>,
    /// For rules.
    pub groups: Vec<Arc<str>>,
    pub shown: Shown,
}

/// By what a caller has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    ApiKey,
    Jwt,
    /// It is the node itself.
    Node,
}

impl Identity {
    /// Whoever shows nothing.
    pub fn anonymous() -> Arc<Self> {
        Arc::new(Self { principal: "anonymous".into(), groups: Vec::new(), shown: Shown::Nothing })
    }

    /// The node, as a client of its backends.
    pub fn node() -> Arc<Self> {
        Arc::new(Self { principal: "node".into(), groups: Vec::new(), shown: Shown::Node })
    }
}

/// What owns the upstream state (sessions, processes) that a client's calls need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A session of a legacy client, by its id.
    Session(Arc<str>),
    /// Nothing lasts longer than the call.
    Stateless,
    /// The node itself, which lists what backends offer.
    Node,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The raw `result` value.
    Result(Bytes),
    /// The raw `error` object of the backend.
    Error(Bytes),
}

/// The client's side of a running call (or of a session), for the callee.
#[derive(Clone, Debug)]
pub struct Caller {
    to_client: mpsc::Sender<ToClient>,
    /// What a member says is edited on its way to the client.
    member: Option<Member>,
    /// The log messages that went this way.
    logged: Arc<Counts>,
}

/// The member of a gateway that speaks.
#[derive(Clone, Debug)]
struct Member {
    backend: ResourceName,
    wraps_uris: bool,
    /// Log messages of one logger; none: as many as there are.
    logs_per_minute: Option<NonZeroU32>,
}

/// What a client is sent for one notification of a member.
struct Edited {
    notice: Option<Bytes>,
    message: Option<Bytes>,
}

/// What reaches the client's door while a call runs.
#[derive(Debug)]
pub enum ToClient {
    /// The backend answers with a stream. A door that can stream begins to, so
    /// that a client that loses its connection can come back.
    Begin,
    /// A whole JSON-RPC notification.
    Notify(Bytes),
    /// Questions; the door answers on the sender.
    Ask(Ask),
    /// The backend has closed the stream of this call for now and goes on later.
    /// A door whose client can resume may do the same; others ignore it.
    Pause { retry: Option<Duration> },
}

/// A set of questions that belong together.
#[derive(Debug)]
pub struct Ask {
    pub questions: Vec<Question>,
    /// One reply for each question, in order. Dropped: the client is gone.
    pub replies: oneshot::Sender<Vec<Reply>>,
}

/// One question: `sampling/createMessage`, `elicitation/create`, `roots/list`,
/// or anything else a backend requests of a client.
#[derive(Clone, Debug)]
pub struct Question {
    /// Tells it from the others of its set.
    pub key: String,
    pub method: Method,
    /// The raw `params` object.
    pub params: Bytes,
}

/// The client's raw `result`, or its raw `error` object.
pub type Reply = Result<Bytes, Bytes>;

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl Caller {
    /// A caller, and the end that its door reads.
    pub fn channel() -> (Caller, mpsc::Receiver<ToClient>) {
        let (to_client, door) = mpsc::channel(TO_CLIENT_QUEUE_MAX);
        (Caller { to_client, member: None, logged: Arc::default() }, door)
    }

    /// As a member of a gateway speaks to the client: its resources have the
    /// URIs that the client knows, and its lists are the gateway's to announce.
    #[must_use]
    pub fn of_member(&self, backend: &ResourceName, wraps_uris: bool) -> Caller {
        let member = Some(Member { backend: backend.clone(), wraps_uris, logs_per_minute: None });
        Caller { member, ..self.clone() }
    }

    /// Each of the member's loggers has so many messages a minute, counted
    /// together with what goes by `other`: a session's calls count as one client.
    #[must_use]
    pub fn limiting_logs(mut self, per_minute: Option<NonZeroU32>, other: Option<&Caller>) -> Caller {
        if let Some(member) = &mut self.member {
            member.logs_per_minute = per_minute;
        }
        if let Some(other) = other {
            self.logged = other.logged.clone();
        }
        self
    }

    /// Sends a whole JSON-RPC notification; waits while the queue is full.
    /// A client that is gone is not an error: the call goes on or is dropped.
    pub async fn notify(&self, message: Bytes) {
        let Edited { notice, message } = self.edited(message);
        for message in [notice, message].into_iter().flatten() {
            // The door closed: whoever owns the call decides what that means.
            _ = self.to_client.send(ToClient::Notify(message)).await;
        }
    }

    /// As [`notify`](Self::notify), of a message whose method is known: most are
    /// such that nothing in them is edited or counted, and are not looked into.
    pub async fn tell(&self, method: &Method, message: Bytes) {
        match method {
            Method::LogMessage
            | Method::ToolsListChanged
            | Method::PromptsListChanged
            | Method::ResourcesListChanged
            | Method::ResourcesUpdated => self.notify(message).await,
            _ => _ = self.to_client.send(ToClient::Notify(message)).await,
        }
    }

    /// As [`notify`](Self::notify), but gives up at once when the queue is full.
    /// For messages that nobody may wait for. True if it was taken.
    pub fn try_notify(&self, message: Bytes) -> bool {
        let Edited { notice, message } = self.edited(message);
        let mut messages = [notice, message].into_iter().flatten();
        messages.all(|message| self.to_client.try_send(ToClient::Notify(message)).is_ok())
    }

    /// Tells the client how much was dropped of what the member has logged, as
    /// far as it has not been told. For the end of a call.
    pub async fn tell_dropped(&self) {
        let Some(member) = &self.member else { return };
        for notice in self.logged.untold(&member.backend, Instant::now()) {
            _ = self.to_client.send(ToClient::Notify(notice)).await;
        }
    }

    /// What the client is told of a member's notification.
    fn edited(&self, message: Bytes) -> Edited {
        let Some(member) = &self.member else { return Edited { notice: None, message: Some(message) } };
        if let Some(per_minute) = member.logs_per_minute
            && let Some(line) = LogLine::of(&message)
        {
            let admitted = self.logged.admit(&member.backend, &line, per_minute, Instant::now());
            if admitted.is_dropped {
                counter!("mt_log_messages_dropped_total", "backend" => member.backend.to_string())
                    .increment(1);
            }
            return Edited { notice: admitted.notice, message: (!admitted.is_dropped).then_some(message) };
        }
        let message = rewrite::notification(&member.backend, member.wraps_uris, message);
        Edited { notice: None, message }
    }

    /// Says that the backend has begun a stream.
    pub async fn begin(&self) {
        _ = self.to_client.send(ToClient::Begin).await;
    }

    /// Says that the backend's stream pauses.
    pub async fn pause(&self, retry: Option<Duration>) {
        _ = self.to_client.send(ToClient::Pause { retry }).await;
    }

    /// Asks the client a set of questions and waits for its replies, one for
    /// each, in order. The caller bounds the wait.
    ///
    /// # Errors
    /// [`Gone`] if the client went away or its door cannot ask.
    pub async fn ask(&self, questions: Vec<Question>) -> Result<Vec<Reply>, Gone> {
        let (replies, answer) = oneshot::channel();
        self.to_client.send(ToClient::Ask(Ask { questions, replies })).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Whether both reach the same door.
    pub fn is_same(&self, other: &Self) -> bool {
        self.to_client.same_channel(&other.to_client)
    }

    /// Whether nobody reads what is sent.
    pub fn is_gone(&self) -> bool {
        self.to_client.is_closed()
    }
}

/// Why there is no answer of the backend.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Also what a forbidden tool answers.
    #[error("unknown tool {name:?}")]
    UnknownTool { name: String },
    #[error("unknown prompt {name:?}")]
    UnknownPrompt { name: String },
    #[error("unknown resource {uri:?}")]
    UnknownResource { uri: String },
    #[error("method {method:?} is not served here")]
    UnknownMethod { method: String },
    /// The request itself is wrong.
    #[error("{reason}")]
    InvalidParams { reason: String },
    #[error("backend {backend} did not answer within {limit:?}")]
    Timeout { backend: ResourceName, limit: Duration },
    /// Nothing of the call has reached it.
    #[error("backend {backend} is unreachable: {reason}")]
    Unreachable { backend: ResourceName, reason: String },
    /// The call may have taken effect.
    #[error("backend {backend} went away before it answered: {reason}")]
    Lost { backend: ResourceName, reason: String },
    #[error("backend {backend} broke the protocol: {reason}")]
    Protocol { backend: ResourceName, reason: String },
    /// The reason is the operator's: clients hear the status.
    #[error("backend {backend} does not let the node in: {reason}")]
    NeedsAuth { backend: ResourceName, status: u16, reason: String },
    #[error("backend {backend} is at its limit of {limit} calls in flight")]
    Overloaded { backend: ResourceName, limit: usize },
    /// It bears one call at a time, and too many wait for it.
    #[error("backend {backend} is busy and {limit} calls wait for it")]
    QueueFull { backend: ResourceName, limit: usize },
    /// It bears one call at a time, and was busy for too long.
    #[error("backend {backend} was busy with other calls for {waited:?}")]
    QueueTimeout { backend: ResourceName, waited: Duration },
    #[error("backend {backend} is switched off")]
    Disabled { backend: ResourceName },
    /// A session of the backend that held state of this client is gone; the client must start again.
    #[error("backend {backend} has ended the session")]
    SessionLost { backend: ResourceName },
    /// The backend does not speak the era in which it was called, which is the one
    /// that its configuration demands, or the one that it spoke before.
    #[error(
        "backend {backend} does not speak the {client_era} protocol, in which it is called, but the {backend_era} one; check its protocol setting"
    )]
    EraMismatch { backend: ResourceName, backend_era: &'static str, client_era: &'static str },
    /// An error that is already what the client shall see.
    #[error("{}", .0.message)]
    Rpc(RpcError),
}

impl CallError {
    /// The same for another caller who waited for it too.
    pub fn repeat(&self) -> Self {
        match self {
            CallError::Timeout { backend, limit } => {
                CallError::Timeout { backend: backend.clone(), limit: *limit }
            }
            CallError::Unreachable { backend, reason } => {
                CallError::Unreachable { backend: backend.clone(), reason: reason.clone() }
            }
            CallError::Lost { backend, reason } => {
                CallError::Lost { backend: backend.clone(), reason: reason.clone() }
            }
            CallError::NeedsAuth { backend, status, reason } => {
                CallError::NeedsAuth { backend: backend.clone(), status: *status, reason: reason.clone() }
            }
            CallError::Overloaded { backend, limit } => {
                CallError::Overloaded { backend: backend.clone(), limit: *limit }
            }
            CallError::QueueFull { backend, limit } => {
                CallError::QueueFull { backend: backend.clone(), limit: *limit }
            }
            CallError::QueueTimeout { backend, waited } => {
                CallError::QueueTimeout { backend: backend.clone(), waited: *waited }
            }
            CallError::SessionLost { backend } => CallError::SessionLost { backend: backend.clone() },
            CallError::EraMismatch { backend, backend_era, client_era } => {
                CallError::EraMismatch { backend: backend.clone(), backend_era, client_era }
            }
            CallError::Protocol { backend, reason } => {
                CallError::Protocol { backend: backend.clone(), reason: reason.clone() }
            }
            CallError::Disabled { backend } => CallError::Disabled { backend: backend.clone() },
            CallError::Rpc(error) => CallError::Rpc(error.clone()),
            CallError::UnknownTool { name } => CallError::UnknownTool { name: name.clone() },
            CallError::UnknownPrompt { name } => CallError::UnknownPrompt { name: name.clone() },
            CallError::UnknownResource { uri } => CallError::UnknownResource { uri: uri.clone() },
            CallError::UnknownMethod { method } => CallError::UnknownMethod { method: method.clone() },
            CallError::InvalidParams { reason } => CallError::InvalidParams { reason: reason.clone() },
        }
    }

    /// The one place where a failure becomes something a client can see. The
    /// reasons of failed connections hold addresses, and stay in the log.
    pub fn to_rpc(&self, version: ProtocolVersion) -> RpcError {
        match self {
            CallError::UnknownTool { name } => RpcError::unknown_tool(name),
            CallError::UnknownPrompt { name } => RpcError::unknown_prompt(name),
            CallError::UnknownResource { uri } => RpcError::resource_not_found(version, uri),
            CallError::UnknownMethod { method } => RpcError::method_not_found(method),
            CallError::InvalidParams { reason } => RpcError::invalid_params(reason.clone()),
            CallError::Timeout { backend, limit } => RpcError::upstream_timeout(backend.as_str(), *limit),
            CallError::Unreachable { backend, .. } => RpcError::upstream_unreachable(backend.as_str()),
            CallError::Lost { backend, .. } => RpcError::upstream_lost(backend.as_str(), true),
            CallError::Protocol { backend, .. } => RpcError::upstream_invalid(backend.as_str()),
            CallError::NeedsAuth { backend, status, .. } => {
                RpcError::upstream_refused(backend.as_str(), *status)
            }
            CallError::Overloaded { backend, .. } => RpcError::upstream_overloaded(backend.as_str()),
            CallError::QueueFull { backend, .. } => RpcError::upstream_queue_full(backend.as_str()),
            CallError::QueueTimeout { backend, waited } => {
                RpcError::upstream_queue_timeout(backend.as_str(), *waited)
            }
            CallError::Disabled { backend } => RpcError::upstream_unreachable(backend.as_str()),
            CallError::SessionLost { .. } => RpcError::session_not_found(),
            CallError::EraMismatch { .. } => RpcError::new(code::ERA_MISMATCH, self.to_string()),
            CallError::Rpc(error) => error.clone(),
        }
    }
}
