//! `Session`: many calls on one stream, which may ask their client.
//!
//! ```text
//!  client ─► call, cancel, reply ─► Session ─┬─► call "a": Talk ─► asks? ─► replies ─► Talk again
//!         ◄─ progress, log, ask, result ◄────┴─► call "b": Talk
//! ```
//!
//! A call that asks ends in the modern era, and begins again with the answers;
//! here that goes on behind one id. All calls run inside one task, which ends
//! with the stream: nothing is left of a client that has gone. A client that
//! reads slowly holds back what its calls say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use mt_proto::pb::mcp::{
    self as pb, session_reply, session_request::Message as Asked, session_response::Message as Told,
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    Caller, barred,
    convert::{invalid, level, log, progress, quoted},
    status,
};
use crate::{
    downstream::{
        door::Door,
        plain::{Glance, Talk, Wish, Word, kind::Failure, said::Said},
    },
    mcp::{
        Method, RpcError,
        id::ID_BYTES_MAX,
        meta::LogLevel,
        splice::{Object, Patch},
    },
};

/// Calls of one session that run at the same time.
const CALLS_MAX: usize = 64;
/// Refusals and calls together: a client that goes on beyond it loses the session.
const WORK_MAX: usize = 2 * CALLS_MAX;
/// Messages to the client that wait until they are taken.
const TO_CLIENT_MAX: usize = 16;
/// Replies to one call that wait until they are looked at.
const REPLIES_MAX: usize = 32;
/// Of the replies to all calls that wait: a client that goes on beyond it loses
/// the session.
const REPLIES_BYTES_MAX: usize = 16 << 20;
/// Times that one call may ask.
const ROUNDS_MAX: usize = 32;
/// How long a client may take to answer, and the call of the backend waits.
const REPLY_MAX: Duration = Duration::from_secs(600);
/// How long a client that does not read is told why the session ends.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Opens a session; it ends when its stream is dropped, or all is said.
pub fn open(
    caller: Caller,
    asked: Streaming<pb::SessionRequest>,
) -> BoxStream<'static, Result<pb::SessionResponse, Status>> {
    let (to_client, told) = mpsc::channel(TO_CLIENT_MAX);
    let tracker = caller.door.node.tracker.clone();
    let session = Session {
        caller,
        to_client,
        capabilities: Bytes::from_static(b"{}"),
        client_info: None,
        begun: false,
        calls: HashMap::new(),
        reply_bytes: Arc::new(Semaphore::new(REPLIES_BYTES_MAX)),
        work: FuturesUnordered::new(),
    };
    tracker.spawn(session.run(asked));
    ReceiverStream::new(told).boxed()
}

type ToClient = mpsc::Sender<Result<pb::SessionResponse, Status>>;

/// A reply, and its part of what may wait.
type Reply = (pb::SessionReply, OwnedSemaphorePermit);

struct Session {
    caller: Caller,
    to_client: ToClient,
    /// What its client may be asked.
    capabilities: Bytes,
    client_info: Option<Bytes>,
    /// Whether the client has said anything.
    begun: bool,
    calls: HashMap<String, Handle>,
    /// What is left for replies that wait.
    reply_bytes: Arc<Semaphore>,
    /// Ends with the id of a call that is over.
    work: FuturesUnordered<BoxFuture<'static, Option<String>>>,
}

/// What reaches a call that runs.
struct Handle {
    cancelled: CancellationToken,
    replies: mpsc::Sender<Reply>,
}

impl Session {
    async fn run(mut self, mut asked: Streaming<pb::SessionRequest>) {
        let mut barred_now = self.caller.ended();
        let node = self.caller.door.node.clone();
        let mut takes = true;
        while takes || !self.work.is_empty() {
            let end = tokio::select! {
                () = self.to_client.closed() => return,
                () = &mut barred_now => Some(barred()),
                () = node.draining.cancelled(), if takes => {
                    takes = false;
                    None
                }
                Some(over) = self.work.next() => {
                    if let Some(id) = over {
                        self.calls.remove(&id);
                    }
                    None
                }
                message = asked.message(), if takes => match message {
                    Ok(Some(message)) => self.take(message).err().map(|failure| status::of(&failure)),
                    Ok(None) => {
                        takes = false;
                        None
                    }
                    // It cannot be read any further.
                    Err(broken) => Some(broken),
                },
            };
            if let Some(status) = end {
                _ = timeout(FAREWELL_MAX, self.to_client.send(Err(status))).await;
                return;
            }
        }
    }

    /// Takes a message; an error ends the session.
    fn take(&mut self, request: pb::SessionRequest) -> Result<(), Failure> {
        let first = !std::mem::replace(&mut self.begun, true);
        match request.message {
            Some(Asked::Open(open)) if first => {
                if !open.capabilities.is_empty() {
                    self.capabilities = object(&open.capabilities, "capabilities")?;
                }
                if !open.client_info.is_empty() {
                    self.client_info = Some(object(&open.client_info, "client_info")?);
                }
            }
            Some(Asked::Open(_)) => return Err(invalid("open must be the first message")),
            Some(Asked::Call(call)) => self.begin(call)?,
            Some(Asked::Cancel(cancel)) => {
                if let Some(call) = self.calls.get(&cancel.id) {
                    call.cancelled.cancel();
                }
            }
            Some(Asked::Reply(reply)) => {
                // One that nobody waits for comes too late, or too often.
                if let Some(call) = self.calls.get(&reply.id) {
                    let bytes = u32::try_from(reply.encoded_len()).unwrap_or(u32::MAX);
                    let waits = self.reply_bytes.clone().try_acquire_many_owned(bytes);
                    let waits = waits.map_err(|_| Failure::of(&RpcError::overloaded()))?;
                    _ = call.replies.try_send((reply, waits));
                }
            }
            None => {}
        }
        Ok(())
    }

    fn begin(&mut self, call: pb::SessionCall) -> Result<(), Failure> {
        let id = call.id.clone();
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(invalid(format!("the id of a call has 1 to {ID_BYTES_MAX} bytes")));
        }
        if self.calls.contains_key(&id) {
            return Err(invalid(format!("a call {id:?} is under way")));
        }
        if self.work.len() >= WORK_MAX {
            return Err(Failure::of(&RpcError::overloaded()));
        }
        let to_client = self.to_client.clone();
        let wish = self.wish(call);
        let (replies, replied) = mpsc::channel(REPLIES_MAX);
        let cancelled = CancellationToken::new();
        let wish = match wish {
            Ok(_) if self.calls.len() >= CALLS_MAX => Err(Failure::of(&RpcError::overloaded())),
            wish => wish,
        };
        match wish {
            Ok(wish) => {
                self.calls.insert(id.clone(), Handle { cancelled: cancelled.clone(), replies });
                let running = Running { caller: self.caller.clone(), id: id.clone(), to_client, replied };
                self.work.push(Box::pin(async move {
                    running.run(wish, cancelled).await;
                    Some(id)
                }));
            }
            Err(failure) => self.work.push(Box::pin(async move {
                tell(&to_client, &id, Told::Failure(failed(&failure))).await;
                None
            })),
        }
        Ok(())
    }

    fn wish(&self, call: pb::SessionCall) -> Result<Draft, Failure> {
        let method = match call.method.as_str() {
            "" => Method::ToolsCall,
            method => Method::parse(method),
        };
        let params = match call.params.is_empty() {
            true => Bytes::from_static(b"{}"),
            false => object(&call.params, "params")?,
        };
        Ok(Draft {
            method,
            params,
            progress: call.progress,
            level: level(&call.log_level)?,
            capabilities: self.capabilities.clone(),
            client_info: self.client_info.clone(),
        })
    }
}

/// A wish that may be made again, with answers.
struct Draft {
    method: Method,
    params: Bytes,
    progress: bool,
    level: Option<LogLevel>,
    capabilities: Bytes,
    client_info: Option<Bytes>,
}

impl Draft {
    fn wish(&self, params: Bytes) -> Wish {
        let own = Wish::new(self.method.clone(), params);
        Wish {
            progress: self.progress,
            level: self.level,
            capabilities: self.capabilities.clone(),
            client_info: self.client_info.clone().unwrap_or(own.client_info),
            ..own
        }
    }
}

/// One call.
struct Running {
    caller: Caller,
    id: String,
    to_client: ToClient,
    replied: mpsc::Receiver<Reply>,
}

impl Running {
    async fn run(mut self, draft: Draft, cancelled: CancellationToken) {
        let outcome = cancelled.run_until_cancelled_owned(self.drive(&draft)).await;
        let last = match outcome {
            Some(Ok(result)) => Told::Result(result),
            Some(Err(failure)) => Told::Failure(failed(&failure)),
            None => Told::Failure(failed(&Failure::of(&RpcError::cancelled()))),
        };
        tell(&self.to_client, &self.id, last).await;
    }

    async fn drive(&mut self, draft: &Draft) -> Result<Bytes, Failure> {
        let mut params = draft.params.clone();
        for _ in 0..ROUNDS_MAX {
            let result = self.talk(draft.wish(params)).await?;
            if !Glance::at(&result).asks() {
                return Ok(result);
            }
            params = self.ask(draft, &result).await?;
        }
        Err(Failure::of(&RpcError::cannot_ask("the call has asked too often")))
    }

    /// One request of the modern era.
    async fn talk(&self, wish: Wish) -> Result<Bytes, Failure> {
        let door = &self.caller.door;
        // Each goes by what is in service now.
        let now = door.doors.enter(door.view.gateway.name.as_str(), door.identity.clone());
        let now = now.map_err(|(_, error)| Failure::of(&error))?;
        let mut talk = Talk::start(Door { local: door.local, ..now }, wish)?;
        loop {
            let told = match talk.next().await {
                Some(Word::Ended(outcome)) => return outcome,
                Some(Word::Said(Said::Progress(said))) => Told::Progress(progress(said)),
                Some(Word::Said(Said::Log(said))) => Told::Log(log(said)),
                Some(Word::Said(Said::Other(message))) => Told::Notification(message),
                Some(Word::Said(said)) => match notification(said) {
                    Some(message) => Told::Notification(message),
                    None => continue,
                },
                None => return Err(Failure::of(&RpcError::internal())),
            };
            tell(&self.to_client, &self.id, told).await;
        }
    }

    /// Puts the questions of a result to the client; the params with its answers.
    async fn ask(&mut self, draft: &Draft, result: &Bytes) -> Result<Bytes, Failure> {
        let asks: Asks<'_> = serde_json::from_slice(result)
            .map_err(|_| Failure::of(&RpcError::cannot_ask("its questions cannot be read")))?;
        let mut waiting: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
        for (key, question) in &asks.input_requests {
            waiting.insert(key.clone(), None);
            let params = question
                .params
                .map_or(Bytes::from_static(b"{}"), |raw| result.slice_ref(raw.get().as_bytes()));
            let ask = pb::SessionAsk { key: key.clone(), method: question.method.clone(), params };
            tell(&self.to_client, &self.id, Told::Ask(ask)).await;
        }
        let answering = async {
            while waiting.values().any(Option::is_none) {
                // The session holds the sender as long as this runs.
                let Some((reply, _)) = self.replied.recv().await else { return Err(RpcError::cancelled()) };
                let Some(answer) = waiting.get_mut(&reply.key) else { continue };
                match reply.reply {
                    Some(session_reply::Reply::Result(result)) => match object(&result, "result") {
                        Ok(result) => *answer = Some(result),
                        Err(failure) => return Err(RpcError::invalid_params(failure.message)),
                    },
                    Some(session_reply::Reply::Refusal(why)) => {
                        return Err(RpcError::cannot_ask(&format!("it has refused: {why}")));
                    }
                    None => {}
                }
            }
            Ok(())
        };
        let answered = timeout(REPLY_MAX, answering).await;
        answered
            .unwrap_or_else(|_| Err(RpcError::cannot_ask("it did not answer in time")))
            .map_err(|error| Failure::of(&error))?;
        let mut responses = Object::default();
        for (key, answer) in &waiting {
            if let Some(answer) = answer {
                responses = responses.set(key, answer);
            }
        }
        let invalid_params = |_| invalid("params must be a JSON object");
        let mut patch =
            Patch::of(&draft.params).map_err(invalid_params)?.set("inputResponses", responses.finish());
        patch = match &asks.request_state {
            Some(state) => patch.set("requestState", quoted(state)),
            None => patch.remove("requestState"),
        };
        Ok(patch.finish())
    }
}

/// A result that asks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asks<'a> {
    #[serde(borrow, default)]
    input_requests: BTreeMap<String, Question<'a>>,
    #[serde(default)]
    request_state: Option<String>,
}

#[derive(Deserialize)]
struct Question<'a> {
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// What has no words of its own in a session, as a message.
fn notification(said: Said) -> Option<Bytes> {
    use crate::{downstream::plain::said::List, mcp::splice};
    let method = match said {
        Said::ListChanged(List::Tools) => Method::ToolsListChanged,
        Said::ListChanged(List::Prompts) => Method::PromptsListChanged,
        Said::ListChanged(List::Resources) => Method::ResourcesListChanged,
        Said::ResourceUpdated(uri) => {
            let params = Object::default().set_text("uri", &uri).finish();
            return Some(splice::notification(&Method::ResourcesUpdated, Some(&params)));
        }
        Said::Acknowledged(raw) => {
            let params = Object::default().set("notifications", &raw).finish();
            return Some(splice::notification(&Method::SubscriptionsAcknowledged, Some(&params)));
        }
        Said::Progress(_) | Said::Log(_) | Said::Other(_) => return None,
    };
    Some(splice::notification(&method, None))
}

/// A client that is gone hears nothing; the session notices by itself.
async fn tell(to_client: &ToClient, id: &str, message: Told) {
    let response = pb::SessionResponse { id: id.to_owned(), message: Some(message) };
    _ = to_client.send(Ok(response)).await;
}

fn failed(failure: &Failure) -> pb::SessionFailure {
    pb::SessionFailure {
        status: failure.kind.grpc() as i32,
        message: failure.message.clone(),
        error: failure.error.clone(),
    }
}

/// One JSON object and nothing else.
fn object(raw: &Bytes, field: &str) -> Result<Bytes, Failure> {
    let trimmed = raw.trim_ascii();
    if trimmed.starts_with(b"{") && serde_json::from_slice::<&RawValue>(trimmed).is_ok() {
        return Ok(raw.slice_ref(trimmed));
    }
    Err(invalid(format!("{field} must be a JSON object")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_from_a_result() {
        let asks: Asks<'_> = serde_json::from_str(
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"s\u0041"}"#,
        )
        .unwrap();
        assert_eq!(asks.input_requests["k"].method, "roots/list");
        assert_eq!(asks.request_state.as_deref(), Some("sA"));
        let empty: Asks<'_> = serde_json::from_str(r#"{"resultType":"input_required"}"#).unwrap();
        assert!(empty.input_requests.is_empty() && empty.request_state.is_none());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(object(&Bytes::from_static(b" {} "), "x").unwrap(), "{}");
        for bad in [&b"[]"[..], b"{}{}", b"", b"{\"a\":}"] {
            assert!(object(&Bytes::from_static(bad), "x").is_err());
        }
    }
}
