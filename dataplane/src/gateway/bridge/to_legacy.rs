//! A modern client's call on a backend that speaks only the legacy era.
//!
//! The backend sees a legacy client that can do what this request says; what it
//! asks on the way becomes an ask of the call, and waits for the client as long
//! as it takes: the time limit of a call is for the backend, not for people. What
//! this request did not declare is refused to the backend at once, for it must
//! never wait for somebody who will not be asked.

mod terms;
mod visits;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};

use self::terms::Terms;
use super::translate;
use crate::{
    gateway::{
        call::{Answer, Ask, Call, CallError, Caller, Client, Question, Reply, Scope, ToClient},
        park::machine::LIFE_MAX,
    },
    mcp::{Method, RpcError, splice::Object, version::LATEST_LEGACY},
    upstream::{Borrowed, Upstream},
};

/// How long a backend may take to set its log level. It is not worth more.
const LEVEL_MAX: Duration = Duration::from_secs(5);

/// Runs a modern call at a legacy backend.
///
/// # Errors
/// As [`Upstream::call`]; unknown methods are those that only modern backends have.
pub async fn call(upstream: &Arc<Upstream>, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
    match call.method {
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead | Method::Complete => {}
        Method::Other(_) => {}
        _ => return Err(CallError::UnknownMethod { method: call.method.as_str().to_owned() }),
    }
    let mut fresh = false;
    loop {
        match Crossing::new(upstream, call, caller).run(fresh).await {
            // The session that was borrowed is gone, and nothing of the call was begun.
            Err(CallError::SessionLost { .. }) if !fresh => fresh = true,
            outcome => return outcome,
        }
    }
}

/// A call on its way.
struct Crossing<'a> {
    upstream: &'a Arc<Upstream>,
    caller: &'a Caller,
    call: Call,
    terms: Terms,
    clock: Clock,
    /// Questions that are with the client.
    asks: FuturesUnordered<BoxFuture<'a, ()>>,
    uri: Option<String>,
}

impl<'a> Crossing<'a> {
    fn new(upstream: &'a Arc<Upstream>, call: &Call, caller: &'a Caller) -> Self {
        let terms = Terms::of(call);
        let now = Instant::now();
        Self {
            upstream,
            caller,
            clock: Clock::new(now, call.deadline.saturating_duration_since(now)),
            asks: FuturesUnordered::new(),
            uri: call.params.uri().map(String::from),
            call: Call {
                params: translate::request_to_legacy(&call.params),
                client: Arc::new(Client {
                    version: LATEST_LEGACY,
                    capabilities: terms.capabilities(),
                    scope: Scope::Stateless,
                    events: None,
                    ..Client::clone(&call.client)
                }),
                // Ours is the shorter one, except while the client is asked.
                deadline: now + LIFE_MAX,
                param_headers: Vec::new(),
                ..call.clone()
            },
            terms,
        }
    }

    async fn run(mut self, fresh: bool) -> Result<Answer, CallError> {
        let upstream = self.upstream;
        let mut loan = Loan { upstream, lent: None };
        if self.terms.needs_own_session() {
            loan.lent = upstream.lend(&self.call.client, fresh).await;
        }
        if let Some(lent) = &loan.lent {
            self.call.client = lent.client.clone();
            self.call.id = upstream.lent_id();
        }
        if let Some(level) = self.terms.level {
            _ = timeout(LEVEL_MAX, upstream.raise_level(&self.call.client, level)).await;
        }
        let call = self.call.clone();
        let (inner, mut from_backend) = Caller::channel();
        let running = upstream.call(&call, &inner);
        tokio::pin!(running);
        let answer = loop {
            tokio::select! {
                biased;
                // What was said before the answer goes before it.
                Some(said) = from_backend.recv() => self.pass(said).await?,
                Some(said) = loan.said() => self.pass(said).await?,
                answer = &mut running => break answer?,
                Some(()) = self.asks.next() => {
                    if self.asks.is_empty() {
                        self.clock.go_on(Instant::now());
                    }
                }
                () = self.clock.over() => return Err(self.timed_out()),
            }
        };
        while let Ok(said) = from_backend.try_recv() {
            self.pass(said).await?;
        }
        if let Some(lent) = loan.lent.take() {
            upstream.give_back(lent).await;
        }
        Ok(self.answer(answer))
    }

    async fn pass(&mut self, said: ToClient) -> Result<(), CallError> {
        let caller = self.caller;
        match said {
            ToClient::Begin => self.in_time(caller.begin()).await,
            ToClient::Pause { retry } => self.in_time(caller.pause(retry)).await,
            ToClient::Notify(message) if self.terms.lets_pass(&message) => {
                self.in_time(caller.notify(message)).await
            }
            ToClient::Notify(_) => Ok(()),
            ToClient::Ask(ask) => {
                self.ask(ask);
                Ok(())
            }
        }
    }

    /// A client that does not take what it is told must not hold the call for ever.
    async fn in_time(&mut self, work: impl Future<Output = ()>) -> Result<(), CallError> {
        tokio::select! {
            () = work => Ok(()),
            () = self.clock.over() => Err(self.timed_out()),
        }
    }

    fn ask(&mut self, ask: Ask) {
        let Ask { questions, mut replies } = ask;
        let refusals: Vec<Option<Reply>> =
            questions.iter().map(|question| self.terms.refusal(question).map(Err)).collect();
        let asked: Vec<Question> = questions
            .into_iter()
            .zip(&refusals)
            .filter(|(_, no)| no.is_none())
            .map(|(q, _)| terms::modern(q))
            .collect();
        if asked.is_empty() {
            _ = replies.send(refusals.into_iter().flatten().collect());
            return;
        }
        self.clock.stop(Instant::now());
        let caller = self.caller.clone();
        self.asks.push(Box::pin(async move {
            tokio::select! {
                answered = caller.ask(asked) => if let Ok(answered) = answered {
                    let mut answered = answered.into_iter();
                    let all = refusals.into_iter().map(|refusal| refusal.or_else(|| answered.next()));
                    _ = replies.send(all.map(|reply| reply.unwrap_or_else(|| Err(nothing()))).collect());
                },
                // The backend does not want to know any more.
                () = replies.closed() => {}
            }
        }));
    }

    fn answer(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Result(result) => {
                Answer::Result(translate::result_to_modern(&self.call.method, result, &own_info()))
            }
            Answer::Error(error) if self.call.method.may_ask() && self.terms.visits_urls() => {
                match visits::required(&error) {
                    Some(questions) => Answer::Result(questions),
                    None => self.failure(error),
                }
            }
            Answer::Error(error) => self.failure(error),
        }
    }

    fn failure(&self, error: Bytes) -> Answer {
        Answer::Error(translate::error_to_modern(error, self.uri.as_deref()))
    }

    fn timed_out(&self) -> CallError {
        CallError::Timeout { backend: self.upstream.config().name.clone(), limit: self.clock.limit }
    }
}

/// A session that a call has borrowed. One that is not given back may still be
/// busy with it, and is of no use to others.
struct Loan<'a> {
    upstream: &'a Arc<Upstream>,
    lent: Option<Borrowed>,
}

impl Loan<'_> {
    /// What the backend says in it outside of the call.
    async fn said(&mut self) -> Option<ToClient> {
        match &mut self.lent {
            Some(lent) => lent.events.recv().await,
            None => None,
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.upstream.discard(lent);
        }
    }
}

fn nothing() -> Bytes {
    RpcError::cannot_ask("it gave no answer").to_json()
}

/// Who answers for a backend that does not say who it is with each result.
fn own_info() -> Bytes {
    Object::default().set_text("name", "magictunnel").set_text("version", env!("CARGO_PKG_VERSION")).finish()
}

/// The time of a backend, which stands still while the client is asked.
#[derive(Clone, Copy, Debug)]
struct Clock {
    limit: Duration,
    state: Time,
}

#[derive(Clone, Copy, Debug)]
enum Time {
    Until(Instant),
    Left(Duration),
}

impl Clock {
    fn new(now: Instant, limit: Duration) -> Self {
        Self { limit, state: Time::Until(now + limit) }
    }

    fn stop(&mut self, now: Instant) {
        if let Time::Until(end) = self.state {
            self.state = Time::Left(end.saturating_duration_since(now));
        }
    }

    fn go_on(&mut self, now: Instant) {
        if let Time::Left(left) = self.state {
            self.state = Time::Until(now + left);
        }
    }

    async fn over(self) {
        match self.state {
            Time::Until(end) => sleep_until(end).await,
            Time::Left(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
