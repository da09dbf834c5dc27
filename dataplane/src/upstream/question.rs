//! What a legacy backend asks of the client while a call runs: each request
//! becomes an ask, and each reply goes back to the backend with its own id.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};

use super::message;
use crate::{
    gateway::call::{Caller, Question},
    mcp::{Key, Params, envelope::Request, error::RpcError, id::RawId, method::Method},
};

/// Questions of one stream that wait for replies at the same time.
pub const QUESTIONS_MAX: usize = 32;
/// Replies of one stream that are on their way, with those that only refuse.
/// A backend that asks faster than it takes replies gets none.
const REPLIES_MAX: usize = 4 * QUESTIONS_MAX;
/// How long a client may think about one, where no call bounds it: a little
/// longer than a parked call waits, which knows better what to say.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(660);

/// How a reply reaches the backend.
pub trait Replies: Clone + Send + Sync + 'static {
    fn send(&self, message: Bytes) -> impl Future<Output = ()> + Send;
}

/// The open questions of one stream. Dropping them takes them back.
pub struct Questions<R> {
    replies: R,
    /// Most streams have no question ever.
    running: Option<FuturesUnordered<Abortable<BoxFuture<'static, RawId>>>>,
    open: Vec<(RawId, AbortHandle)>,
}

impl<R: Replies> Questions<R> {
    pub fn new(replies: R) -> Self {
        Self { replies, running: None, open: Vec::new() }
    }

    /// Takes a request of the backend. Without a caller it is refused at once:
    /// a backend must never wait for somebody who is not there.
    pub fn take(&mut self, request: Request, caller: Option<&Caller>) {
        let Request { id, method, params } = request;
        if self.open.len() >= REPLIES_MAX {
            return;
        }
        let outcome: BoxFuture<'static, Result<Bytes, Bytes>> = match caller {
            _ if method == Method::Ping => Box::pin(async { Ok(Bytes::from_static(b"{}")) }),
            _ if self.open.len() >= QUESTIONS_MAX => {
                Box::pin(async { Err(RpcError::cannot_ask("too many questions are open").to_json()) })
            }
            None => Box::pin(async move { Err(RpcError::method_not_found(method.as_str()).to_json()) }),
            Some(caller) => {
                let caller = caller.clone();
                let question = Question { key: id.to_string(), method, params: params.object() };
                Box::pin(async move { ask(&caller, question).await })
            }
        };
        let replies = self.replies.clone();
        let (abort, registration) = AbortHandle::new_pair();
        self.open.push((id.clone(), abort));
        let run: BoxFuture<'static, RawId> = Box::pin(async move {
            let outcome = outcome.await;
            replies.send(message::response(&id, &outcome)).await;
            id
        });
        self.running.get_or_insert_default().push(Abortable::new(run, registration));
    }

    /// Takes a question back, as `notifications/cancelled` of the backend asks.
    pub fn withdraw(&mut self, cancelled: &Params) {
        let Some(id) = cancelled.id(Key::RequestId) else { return };
        self.open.retain(|(open, abort)| {
            let hit = open.same_value(&id);
            if hit {
                abort.abort();
            }
            !hit
        });
    }

    /// Goes on with the open questions while it waits for something else.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                // What the caller waits for comes first: it may end the questions.
                biased;
                done = &mut work => return done,
                () = self.step() => {}
            }
        }
    }

    async fn step(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        match running.next().await {
            Some(Ok(done)) => self.open.retain(|(id, _)| *id != done),
            Some(Err(_withdrawn)) => {}
            None => self.running = None,
        }
    }
}

async fn ask(caller: &Caller, question: Question) -> Result<Bytes, Bytes> {
    let method = question.method.clone();
    match tokio::time::timeout(QUESTION_TIMEOUT, caller.ask(vec![question])).await {
        Ok(Ok(replies)) => {
            replies.into_iter().next().unwrap_or_else(|| Err(RpcError::cannot_ask(method.as_str()).to_json()))
        }
        Ok(Err(_gone)) => Err(RpcError::cannot_ask(method.as_str()).to_json()),
        Err(_elapsed) => Err(RpcError::cannot_ask("it did not reply in time").to_json()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::params::Params;

    /// Never gets a reply through.
    #[derive(Clone)]
    struct Stuck;

    impl Replies for Stuck {
        async fn send(&self, _: Bytes) {
            std::future::pending().await
        }
    }

    #[test]
    fn a_flood_of_questions_does_not_grow() {
        let mut questions = Questions::new(Stuck);
        for number in 0..10 * REPLIES_MAX as u64 {
            let request = Request { id: RawId::number(number), method: Method::Ping, params: Params::NONE };
            questions.take(request, None);
        }
        assert_eq!(questions.open.len(), REPLIES_MAX);
    }
}
