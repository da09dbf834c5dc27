//! Clients that do not speak MCP: what their doors share.
//!
//! ```text
//!  rest.rs ─┐                                      ┌─► Talk: what the call says, then how it ends
//!           ├─► Wish ─► a modern call ─► Running ─┤
//!  grpc.rs ─┘                                      └─► Watch: changes, and logs of the caller's calls
//! ```
//!
//! Each request becomes an ordinary call of the modern era, so whatever holds
//! for MCP holds here: who may call, limits, errors, the node that serves it.
//! Nothing is decided here that the pipeline decides.

pub mod kind;
pub mod said;
pub mod tail;
pub mod watch;

use bytes::Bytes;
use serde::Deserialize;

use self::{
    kind::Failure,
    said::Said,
    tail::{Tails, Whose},
};
use super::{door::Door, modern, running::Running, step::Step};
use crate::{
    gateway::call::Call,
    mcp::{
        Key, Limits, Message, Method, Outcome, Params, RawId, Request, RpcError,
        meta::{LogLevel, Meta, key},
        splice::Object,
        text,
        version::LATEST_MODERN,
    },
};

/// The token under which a call tells how far it is: it never leaves the door.
const PROGRESS_TOKEN: &str = "progress";

/// What a client wants, in MCP's words.
#[derive(Debug)]
pub struct Wish {
    pub method: Method,
    /// A raw object.
    pub params: Bytes,
    /// Whether to hear how far it is.
    pub progress: bool,
    /// From which level on to hear its log.
    pub level: Option<LogLevel>,
    /// What the client may be asked: a raw object.
    pub capabilities: Bytes,
    /// Its name: a raw object.
    pub client_info: Bytes,
}

impl Wish {
    /// Of a client that is asked nothing and hears nothing before the end.
    pub fn new(method: Method, params: Bytes) -> Self {
        Self {
            method,
            params,
            progress: false,
            level: None,
            capabilities: Bytes::from_static(b"{}"),
            client_info: client_info(),
        }
    }

    /// To call a tool; `arguments` is raw JSON.
    pub fn tool(name: &str, arguments: Option<&[u8]>) -> Self {
        let params =
            Object::default().set_text("name", name).set("arguments", arguments.unwrap_or(b"{}")).finish();
        Self::new(Method::ToolsCall, params)
    }

    /// A page of a list.
    pub fn page(method: Method, cursor: Option<&str>) -> Self {
        let params = match cursor {
            Some(cursor) => Object::default().set_text("cursor", cursor).finish(),
            None => Object::default().finish(),
        };
        Self::new(method, params)
    }

    /// The call that it is; `level` is from where on its log is wanted by anybody.
    fn call(self, door: &Door, level: Option<LogLevel>) -> Result<Call, RpcError> {
        let scanned = Params::scan(&self.params, Limits::CLIENT).map_err(|error| RpcError::from(&error))?;
        let mut patch = scanned
            .patch()
            .set_in("_meta", key::PROTOCOL_VERSION, text::encode(LATEST_MODERN.as_str()))
            .set_in("_meta", key::CLIENT_INFO, self.client_info)
            .set_in("_meta", key::CLIENT_CAPABILITIES, self.capabilities);
        patch = match level {
            Some(level) => patch.set_in("_meta", key::LOG_LEVEL, text::encode(level.as_str())),
            None => patch.remove_in("_meta", key::LOG_LEVEL),
        };
        patch = match self.progress {
            true => patch.set_in("_meta", key::PROGRESS_TOKEN, text::encode(PROGRESS_TOKEN)),
            false => patch.remove_in("_meta", key::PROGRESS_TOKEN),
        };
        let params = Params::scan(&patch.finish(), Limits::CLIENT).map_err(|error| RpcError::from(&error))?;
        let meta = Meta::of(&params)?;
        let request = Request { id: RawId::number(1), method: self.method, params };
        let call = modern::admit(door, None, &request, &meta).map_err(|(_, error)| error)?;
        let param_headers = param_headers(door, &call);
        Ok(Call { param_headers, ..call })
    }
}

/// How a node calls itself where a client has no name.
fn client_info() -> Bytes {
    Object::default()
        .set_text("name", "magictunnel-door")
        .set_text("version", env!("CARGO_PKG_VERSION"))
        .finish()
}

/// The headers that a modern backend wants of this call: a client of MCP would
/// have sent them.
fn param_headers(door: &Door, call: &Call) -> Vec<(http::HeaderName, http::HeaderValue)> {
    if call.method != Method::ToolsCall {
        return Vec::new();
    }
    let target = call.params.name().and_then(|name| door.view.tools.get(&*name));
    let Some(target) = target.filter(|target| target.alias.is_none()) else { return Vec::new() };
    let Some(catalog) = door.table.snapshot.catalogs.get(&target.backend) else { return Vec::new() };
    if call.params.name().as_deref() == Some(target.own.as_str()) {
        return catalog.param_headers(call);
    }
    let renamed = call.params.patch().set_text(Key::Name.as_str(), &target.own).finish();
    match Params::scan(&renamed, Limits::CLIENT) {
        Ok(params) => catalog.param_headers(&Call { params, ..call.clone() }),
        Err(_) => Vec::new(),
    }
}

/// What comes of a call next.
#[derive(Debug)]
pub enum Word {
    Said(Said),
    /// Nothing follows.
    Ended(Result<Bytes, Failure>),
}

/// A call that runs for a client without MCP. Dropping it cancels the call.
pub struct Talk {
    running: Running,
    /// From which level on the client itself wants the log.
    level: Option<LogLevel>,
    tails: std::sync::Arc<Tails>,
    whose: Option<Whose>,
    /// Whether a name that is wrong is one that the gateway does not have.
    unknown_name: bool,
}

impl Talk {
    /// Starts a call; it runs while its words are waited for.
    ///
    /// # Errors
    /// If it is no request that a gateway takes.
    pub fn start(door: Door, wish: Wish) -> Result<Self, Failure> {
        let tails = door.doors.tails.clone();
        let whose = door.tailed();
        let followed = whose.as_ref().and_then(|whose| tails.level(whose));
        let own = wish.level;
        let level = match (own, followed) {
            (Some(own), Some(followed)) => Some(own.min(followed)),
            (own, followed) => own.or(followed),
        };
        let call = wish.call(&door, level).map_err(|error| Failure::of(&error))?;
        let unknown_name = is_unknown(&door, &call);
        Ok(Self { running: Running::start(door, call), level: own, tails, whose, unknown_name })
    }

    /// What comes next; none after the end. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Word> {
        loop {
            match self.running.next().await? {
                Step::Said(message) => {
                    let said = Said::read(message);
                    if let Said::Log(log) = &said {
                        if let Some(whose) = &self.whose {
                            self.tails.publish(whose, log);
                        }
                        if self.level.is_none_or(|level| log.level < level) {
                            continue;
                        }
                    }
                    return Some(Word::Said(said));
                }
                Step::Ended { message, .. } => return Some(Word::Ended(self.outcome(message.joined()))),
            }
        }
    }

    /// How it ends, for whom it does not matter what is said before.
    pub async fn end(mut self) -> Result<Bytes, Failure> {
        loop {
            match self.next().await {
                Some(Word::Said(_)) => {}
                Some(Word::Ended(outcome)) => return outcome,
                None => return Err(Failure::of(&RpcError::internal())),
            }
        }
    }

    fn outcome(&self, message: Bytes) -> Result<Bytes, Failure> {
        match Message::parse(message, Limits::BACKEND) {
            Ok(Message::Response(response)) => match response.outcome {
                Outcome::Result(result) => Ok(result),
                Outcome::Error(error) => Err(Failure::read(error, self.unknown_name)),
            },
            _ => Err(Failure::of(&RpcError::internal())),
        }
    }
}

/// Whether a call names what the gateway does not have: the protocol has no code
/// of its own for that.
fn is_unknown(door: &Door, call: &Call) -> bool {
    let name = call.params.name();
    match call.method {
        Method::ToolsCall => name.is_some_and(|name| !door.view.tools.contains_key(&*name)),
        Method::PromptsGet => name.is_some_and(|name| !door.view.prompts.contains_key(&*name)),
        _ => false,
    }
}

/// What doors look at in the result of a call.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Glance {
    #[serde(default)]
    pub is_error: bool,
    #[serde(default)]
    result_type: Option<String>,
}

impl Glance {
    /// Looks at a result.
    pub fn at(result: &[u8]) -> Self {
        serde_json::from_slice(result).unwrap_or_default()
    }

    /// Whether the call goes on only when the client has answered questions.
    pub fn asks(&self) -> bool {
        self.result_type.as_deref() == Some("input_required")
    }
}

/// As [`Talk::end`], for clients that cannot be asked: a result that asks is a
/// failure.
///
/// # Errors
/// Why there is no result.
pub fn unasked(result: Bytes) -> Result<(Bytes, Glance), Failure> {
    let glance = Glance::at(&result);
    if glance.asks() {
        return Err(Failure::of(&RpcError::cannot_ask("this door has no way to put a question")));
    }
    Ok((result, glance))
}
