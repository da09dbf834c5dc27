//! Follows the event stream that answers a legacy call, from its first message
//! to the response, over as many connections as that takes.

use std::{sync::Arc, time::Duration};

use http::Method as HttpMethod;
use tokio::time::sleep;

use super::{
    answer::is_answer,
    client::Incoming,
    endpoint::Reply,
    legacy::{Legacy, PostReplies},
    question::Questions,
    session::Session,
    stream::{Cursor, EventStream},
};
use crate::{
    gateway::call::{Answer, CallError, Caller},
    mcp::{envelope::Message, id::RawId, method::Method, scan::Limits},
};

/// Connections in a row that bring no message and no event.
const RESUMES_MAX: usize = 5;
/// The wait before a stream is taken up again, where the server names none.
const RESUME_WAIT: Duration = Duration::from_secs(1);
/// What a server may ask for as a wait.
const RESUME_WAIT_MIN: Duration = Duration::from_millis(20);
const RESUME_WAIT_MAX: Duration = Duration::from_secs(60);
/// Messages on one stream that are none, or not ours.
const VIOLATIONS_MAX: usize = 100;

pub struct Follow<'a> {
    legacy: &'a Arc<Legacy>,
    session: Option<&'a Arc<Session>>,
    id: &'a RawId,
    caller: Option<&'a Caller>,
    questions: Questions<PostReplies>,
    cursor: Cursor,
    violations: usize,
}

impl<'a> Follow<'a> {
    pub fn new(
        legacy: &'a Arc<Legacy>,
        session: Option<&'a Arc<Session>>,
        id: &'a RawId,
        caller: Option<&'a Caller>,
    ) -> Self {
        let replies = PostReplies { legacy: Arc::clone(legacy), session: session.cloned() };
        Self {
            legacy,
            session,
            id,
            caller,
            questions: Questions::new(replies),
            cursor: Cursor::default(),
            violations: 0,
        }
    }

    /// Until the answer.
    pub async fn run(mut self, body: Incoming) -> Result<Answer, CallError> {
        let mut stream = EventStream::new(body);
        loop {
            let end = loop {
                match self.questions.beside(stream.next(&mut self.cursor)).await {
                    Ok(message) => {
                        if let Some(answer) = self.take(message).await? {
                            return Ok(answer);
                        }
                    }
                    Err(end) => break end,
                }
            };
            let (Some(_), Some(session)) = (&self.cursor.last_event_id, self.session) else {
                return Err(self.legacy.endpoint.lost(end.to_string()));
            };
            let (id, session) = (self.id, Arc::clone(session));
            tokio::select! {
                biased;
                outcome = session.elsewhere.wait(id) => return Ok(outcome.into()),
                body = self.resume(&session) => stream = EventStream::new(body?),
            }
        }
    }

    async fn take(&mut self, bytes: bytes::Bytes) -> Result<Option<Answer>, CallError> {
        match Message::parse(bytes.clone(), Limits::BACKEND) {
            Ok(Message::Response(response)) if is_answer(&response, self.id) => {
                return Ok(Some(response.outcome.into()));
            }
            Ok(Message::Notification(told)) if told.method == Method::Cancelled => {
                self.questions.withdraw(&told.params);
            }
            Ok(Message::Notification(told)) => {
                self.legacy.hints.pass(&told.method, &bytes);
                if let Some(caller) = self.caller {
                    self.questions.beside(caller.tell(&told.method, bytes)).await;
                }
            }
            Ok(Message::Request(request)) => self.questions.take(request, self.caller),
            Ok(Message::Response(_)) => {
                self.legacy.endpoint.meters.strays.increment(1);
                self.violation()?;
            }
            Err(_) => {
                self.legacy.endpoint.meters.garbage.increment(1);
                self.violation()?;
            }
        }
        Ok(None)
    }

    fn violation(&mut self) -> Result<(), CallError> {
        self.violations += 1;
        if self.violations > VIOLATIONS_MAX {
            return Err(self
                .legacy
                .endpoint
                .protocol("sends messages that are none, or answers to nothing".to_owned()));
        }
        Ok(())
    }

    /// Waits as long as the server wants, and takes the stream up after its
    /// last event.
    async fn resume(&mut self, session: &Arc<Session>) -> Result<Incoming, CallError> {
        let endpoint = &self.legacy.endpoint;
        if let Some(caller) = self.caller {
            caller.pause(self.cursor.retry).await;
        }
        let mut failure = None;
        for attempt in 0..RESUMES_MAX {
            let wait = self.cursor.retry.unwrap_or(RESUME_WAIT).clamp(RESUME_WAIT_MIN, RESUME_WAIT_MAX);
            self.questions.beside(sleep(wait * (1 << attempt.min(4)))).await;
            let headers = self.legacy.stream_headers(session, self.cursor.last_event_id.as_ref())?;
            let open = async {
                let response = endpoint.send(HttpMethod::GET, headers, Default::default()).await?;
                endpoint.read(response).await
            };
            match self.questions.beside(open).await {
                Ok(Reply::Events(body)) => return Ok(body),
                Ok(Reply::Refused(refusal)) if refusal.status.is_server_error() => {
                    failure = Some(endpoint.refused(&refusal));
                }
                Ok(_) => {
                    return Err(endpoint.lost("the stream broke off and cannot be taken up again".to_owned()));
                }
                Err(error) => failure = Some(error),
            }
        }
        let reason = failure.map_or_else(String::new, |failure| failure.to_string());
        Err(endpoint.lost(format!("the stream broke off and could not be taken up again: {reason}")))
    }
}
