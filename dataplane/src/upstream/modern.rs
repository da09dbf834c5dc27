//! Modern MCP over streamable HTTP: each request stands alone, its stream
//! brings notifications and then the answer, and closing it cancels the call.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method as HttpMethod, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::is_answer,
    client::Incoming,
    endpoint::{Endpoint, Refusal, Reply},
    hints::Hints,
    message::Outgoing,
    stream::{Cursor, EventStream},
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller},
    mcp::{
        envelope::{Message, Outcome, Response},
        headers,
        id::RawId,
        method::Method,
        params::Params,
        scan::Limits,
        version::ProtocolVersion,
    },
};

/// The modern side of an HTTP backend.
pub struct Modern {
    pub endpoint: Arc<Endpoint>,
    pub hints: Arc<Hints>,
}

/// How a modern request ended.
pub enum Verdict {
    Answered(Answer),
    /// Perhaps the backend does not speak this era at all; if it does, this is
    /// the outcome.
    NotUnderstood(Result<Answer, CallError>),
}

impl Modern {
    /// Runs one call. Dropping it closes the stream, which cancels it.
    pub async fn call(&self, call: &Call, caller: &Caller) -> Result<Verdict, CallError> {
        let mut headers = self.headers(call.client.version, &call.method, &call.params)?;
        for (name, value) in &call.param_headers {
            headers.append(name.clone(), value.clone());
        }
        let body = Outgoing::request(&call.id, &call.method, &call.params.object());
        // A subscription may last for long, but not the wait for its beginning.
        let limit = call.deadline.saturating_duration_since(Instant::now());
        let sent = timeout_at(call.deadline, self.endpoint.send(HttpMethod::POST, headers, body)).await;
        let response =
            sent.map_err(|_| CallError::Timeout { backend: self.endpoint.backend.clone(), limit })??;
        match self.endpoint.read(response).await? {
            Reply::Message(bytes) => self.answer(bytes, &call.id).map(Verdict::Answered),
            Reply::Events(body) => {
                caller.begin().await;
                Box::pin(self.follow(body, &call.id, caller)).await.map(Verdict::Answered)
            }
            Reply::Accepted => Err(self.endpoint.protocol("took a request and gave no answer".to_owned())),
            Reply::Refused(refusal) => self.refused(&refusal, &call.id),
        }
    }

    /// Asks something on the node's own account.
    pub async fn ask(
        &self,
        version: ProtocolVersion,
        method: &Method,
        params: &Params,
    ) -> Result<Reply, CallError> {
        let headers = self.headers(version, method, params)?;
        let body = Outgoing::request(&RawId::number(1), method, &params.object());
        let response = self.endpoint.send(HttpMethod::POST, headers, body).await?;
        self.endpoint.read(response).await
    }

    fn headers(
        &self,
        version: ProtocolVersion,
        method: &Method,
        params: &Params,
    ) -> Result<HeaderMap, CallError> {
        let mut map = self.endpoint.headers()?;
        let name = method.name_param().and_then(|key| params.text(key));
        headers::write(&mut map, version.as_str(), method, name.as_deref());
        Ok(map)
    }

    pub fn answer(&self, bytes: Bytes, id: &RawId) -> Result<Answer, CallError> {
        match Message::parse(bytes, Limits::BACKEND) {
            Ok(Message::Response(response)) if is_answer(&response, id) => Ok(response.outcome.into()),
            Ok(_) => {
                self.endpoint.meters.strays.increment(1);
                Err(self.endpoint.protocol("answered something else".to_owned()))
            }
            Err(error) => {
                self.endpoint.meters.garbage.increment(1);
                Err(self.endpoint.protocol(format!("answered with no message: {error}")))
            }
        }
    }

    pub async fn follow(&self, body: Incoming, id: &RawId, caller: &Caller) -> Result<Answer, CallError> {
        let mut stream = EventStream::new(body);
        let mut cursor = Cursor::default();
        loop {
            let bytes = match stream.next(&mut cursor).await {
                Ok(bytes) => bytes,
                Err(end) => return Err(self.endpoint.lost(end.to_string())),
            };
            match Message::parse(bytes.clone(), Limits::BACKEND) {
                Ok(Message::Response(response)) if is_answer(&response, id) => {
                    return Ok(response.outcome.into());
                }
                Ok(Message::Notification(told)) => {
                    self.hints.pass(&told.method, &bytes);
                    caller.tell(&told.method, bytes).await;
                }
                Ok(Message::Request(request)) => {
                    let method = super::excerpt::excerpt(request.method.as_str().as_bytes());
                    return Err(self.endpoint.protocol(format!(
                        "sent the request {method:?}, which this revision does not allow"
                    )));
                }
                Ok(Message::Response(_)) => self.endpoint.meters.strays.increment(1),
                Err(_) => self.endpoint.meters.garbage.increment(1),
            }
        }
    }

    fn refused(&self, refusal: &Refusal, id: &RawId) -> Result<Verdict, CallError> {
        let status = refusal.status;
        // These say nothing about what was asked, whatever their bodies say.
        if matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        ) {
            return Err(self.endpoint.refused(refusal));
        }
        let rpc = refusal.rpc();
        // Our id in it: somebody has read the request.
        let understood = rpc.as_ref().and_then(|rpc| rpc.id.as_ref()).is_some_and(|own| own.same_value(id));
        let outcome = match rpc {
            Some(Response { outcome: Outcome::Error(error), .. }) => Ok(Answer::Error(error)),
            _ => Err(self.endpoint.refused(refusal)),
        };
        if understood || status.is_server_error() {
            return outcome.map(Verdict::Answered);
        }
        Ok(Verdict::NotUnderstood(outcome))
    }
}
