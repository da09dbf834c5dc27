//! The backends' side of a node: one [`Upstream`] per backend, whatever its
//! transport and its era.
//!
//! An upstream opens what it needs when a call needs it, keeps it by the
//! call's scope, and closes it when it is idle. It knows nothing of gateways,
//! names for clients, or doors.
//!
//! ```text
//!  call ─► switched off? full? era? ─┬─ http   endpoint ─┬─ legacy   session, follow, events
//!                                    │                   └─ modern
//!                                    └─ pipes ── pipe ── carrier ─┬─ stdio      process, pump
//!                                       who shares one: sharing   ├─ sse        connection
//!                                       who follows what:         └─ websocket
//!                                       followers, subscriptions
//!  probe, state, hints, meters: what is known and told of the backend
//! ```

mod agents;
mod answer;
mod audience;
mod auth;
mod backoff;
mod carrier;
mod client;
mod connection;
mod elsewhere;
mod endpoint;
mod events;
mod excerpt;
mod follow;
mod followers;
mod handshake;
mod hints;
mod http;
mod inherit;
mod leg_key;
mod legacy;
mod lending;
mod level;
mod message;
mod meters;
mod modern;
mod pending;
mod pipe;
mod pipes;
mod probe;
mod process;
mod pump;
mod question;
mod queue;
mod request;
mod secrets;
mod session;
mod shared;
mod sharing;
mod single;
mod sse;
mod state;
mod stdio;
mod stream;
mod subscriptions;
mod websocket;

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, Transport},
};
use tokio::{
    sync::{Mutex, Semaphore, TryAcquireError, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    agents::ToolSetLeg,
    carrier::Carrier,
    endpoint::Endpoint,
    hints::Hints,
    http::Http,
    meters::Meters,
    pipes::Pipes,
    queue::{Queue, Turn},
    secrets::Secrets,
    sse::Sse,
    state::{Known, StateKeeper, era_name},
    stdio::Stdio,
    websocket::WebSocket,
};
pub use self::{
    lending::Borrowed,
    shared::Shared,
    state::{Eras, UpstreamState},
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Scope},
    mcp::{id::RawId, meta::LogLevel, method::Method, version::Era},
};

/// One backend of a node.
pub struct Upstream {
    config: Arc<Backend>,
    leg: Leg,
    hints: Arc<Hints>,
    meters: Arc<Meters>,
    state: StateKeeper,
    /// Where calls wait for a server that bears one at a time.
    queue: Option<Queue>,
    slots: Semaphore,
    /// How many slots there are.
    slots_max: usize,
    /// Subscriptions last as long as their clients, so they take no call's place.
    subscriptions: Semaphore,
    eras: Known,
    /// Sessions that calls borrow one by one.
    lending: lending::Lending,
    /// One probe at a time.
    probing: Mutex<()>,
    /// It is closed: what still runs ends.
    over: CancellationToken,
    tasks: TaskTracker,
    me: Weak<Self>,
}

enum Leg {
    Http(Box<Http>),
    Pipes(Arc<Pipes>),
    Agents(Box<ToolSetLeg>),
}

/// Subscriptions to one backend at a time.
const SUBSCRIPTIONS_MAX: usize = 4_096;
/// How long a probe waits in the line of a server that bears one call at a time.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long an upstream that is being closed still takes calls.
const CLOSE_GRACE: Duration = Duration::from_millis(50);
/// Between the cancellation of a call and the end of the session that was lent to it.
const LENT_GRACE: Duration = Duration::from_secs(1);
/// How long a change of the log level waits in the line of a server that bears one call
/// at a time.
const LEVEL_TURN_MAX: Duration = Duration::from_secs(30);

impl Upstream {
    /// Opens nothing yet.
    pub fn new(config: Arc<Backend>, secrets: Secrets, shared: Arc<Shared>) -> Arc<Self> {
        let meters = Arc::new(Meters::new(config.name.as_str()));
        let hints = Arc::new(Hints::default());
        let pipes = |carrier| Leg::Pipes(Pipes::new(&config, carrier, &meters, &hints, &shared));
        let endpoint = |transport, secrets| {
            Endpoint::new(config.name.clone(), transport, secrets, Arc::clone(&meters), &shared)
        };
        let leg = match &config.transport {
            Transport::Http(transport) => {
                Leg::Http(Box::new(Http::new(&config, transport, secrets, &meters, &hints, &shared)))
            }
            Transport::Sse(transport) => {
                pipes(Carrier::sse(Sse::new(endpoint(transport, secrets), transport), transport))
            }
            Transport::WebSocket(transport) => {
                let reached = endpoint(&websocket::over_http(transport), secrets);
                pipes(Carrier::websocket(WebSocket::new(reached), transport))
            }
            Transport::Stdio(transport) => {
                pipes(Carrier::process(Stdio::new(config.name.clone(), transport, secrets)))
            }
            Transport::Agents(tool_set) => {
                let name = config.name.clone();
                Leg::Agents(Box::new(ToolSetLeg::new(name, tool_set, secrets, shared.files.clone())))
            }
        };
        let queue = config.single_session.map(|terms| Queue::new(&config.name, terms));
        // Who waits in the line is in flight too; it is the line that says no.
        let waiting = config.single_session.map_or(0, |terms| terms.queue_max + 1);
        let slots_max = config.concurrent_calls_max.max(waiting);
        let upstream = Self {
            leg,
            queue,
            hints,
            meters,
            state: StateKeeper::new(config.disabled),
            slots: Semaphore::new(slots_max),
            slots_max,
            subscriptions: Semaphore::new(SUBSCRIPTIONS_MAX),
            eras: Known::default(),
            lending: lending::Lending::default(),
            probing: Mutex::new(()),
            over: shared.shutdown.child_token(),
            tasks: shared.tasks.clone(),
            me: Weak::new(),
            config,
        };
        if let Some(eras) = Eras::fixed(&upstream.config) {
            upstream.eras.learn(eras);
        }
        Arc::new_cyclic(|me| Self { me: me.clone(), ..upstream })
    }

    pub fn config(&self) -> &Arc<Backend> {
        &self.config
    }

    /// Runs one call to its answer. Dropping the future cancels the call at
    /// the backend, as its transport and era have it.
    ///
    /// # Errors
    /// Why there is no answer; [`CallError::Lost`] and [`CallError::Timeout`]
    /// leave open whether the call has taken effect.
    pub async fn call(&self, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let running = self.meters.begin();
        let outcome = self.run(call, caller).await;
        match &outcome {
            Ok(_) => self.state.answered(),
            Err(error) => {
                tracing::debug!(backend = %self.config.name, %error, "call failed");
                self.state.failed(error);
            }
        }
        running.end(&outcome);
        outcome
    }

    async fn run(&self, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        if self.config.disabled {
            return Err(CallError::Disabled { backend: self.config.name.clone() });
        }
        // Listing, and listening for what changes, must not take a client's place.
        let places = if call.client.scope == Scope::Node { 0 } else { 1 };
        let (slots, limit) = match call.method {
            Method::Listen => (&self.subscriptions, SUBSCRIPTIONS_MAX),
            _ => (&self.slots, self.slots_max),
        };
        let _slot = slots.try_acquire_many(places).map_err(|error| match error {
            TryAcquireError::NoPermits => CallError::Overloaded { backend: self.config.name.clone(), limit },
            TryAcquireError::Closed => CallError::Unreachable {
                backend: self.config.name.clone(),
                reason: "its configuration has been replaced".to_owned(),
            },
        })?;
        let era = call.client.version.era();
        // A subscription lasts, so it would keep everybody else away.
        let _turn = match call.method {
            Method::Listen => None,
            _ => self.turn(call.deadline).await?,
        };
        let time = call.deadline.saturating_duration_since(Instant::now());
        let timed_out = || CallError::Timeout { backend: self.config.name.clone(), limit: time };
        if matches!((&self.leg, era), (Leg::Pipes(_), Era::Modern)) && self.eras().is_none() {
            // A legacy server could take a modern request for one of its own.
            timeout_at(call.deadline, Box::pin(self.learn())).await.map_err(|_| timed_out())??;
        }
        self.look_again();
        self.expect_era(era)?;
        self.hints.listen(&call.client);
        // In place: whatever takes a future by value copies all of it.
        let mut work = pin!(self.carry(era, call, caller));
        tokio::select! {
            biased;
            answer = &mut work => answer,
            () = self.over.cancelled() => Err(self.lost("the node has closed it")),
            () = sleep_until(call.deadline), if call.method != Method::Listen => Err(timed_out()),
        }
    }

    async fn carry(&self, era: Era, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        match (&self.leg, era) {
            (Leg::Http(http), Era::Legacy) => {
                http.legacy.call(call, caller).await.map_err(|error| http.explain(error))
            }
            (Leg::Http(http), Era::Modern) => match http.modern.call(call, caller).await? {
                modern::Verdict::Answered(answer) => Ok(answer),
                modern::Verdict::NotUnderstood(outcome) => {
                    // Only now, so that the common case costs no probe.
                    _ = Box::pin(self.learn()).await;
                    self.expect_era(era)?;
                    outcome
                }
            },
            // Boxed: a call over HTTP would carry their state.
            (Leg::Pipes(pipes), _) => Box::pin(pipes.call(call, caller)).await,
            (Leg::Agents(agents), _) => Box::pin(agents.call(call, caller)).await,
        }
    }

    /// Passes a client's notification on to a leg that is already open for it.
    pub async fn notify(&self, client: &Arc<Client>, message: Bytes) {
        match &self.leg {
            Leg::Http(http) => http.legacy.notify(client, message).await,
            Leg::Pipes(pipes) => pipes.notify(client, message),
            // What runs is told by dropping it.
            Leg::Agents(_) => {}
        }
    }

    /// Closes what is open for a scope, in the background.
    pub async fn end_scope(&self, scope: &Scope) {
        match &self.leg {
            Leg::Http(http) => http.legacy.end(scope),
            Leg::Pipes(pipes) => pipes.end(scope),
            Leg::Agents(_) => {}
        }
    }

    /// Has what serves this client log from `level` on, if it logs. That it does
    /// not is no failure: whoever wants log lines gets those that there are.
    pub async fn raise_level(&self, client: &Arc<Client>, level: LogLevel) {
        let Ok(_turn) = self.turn(Instant::now() + LEVEL_TURN_MAX).await else { return };
        match &self.leg {
            Leg::Http(http) => http.legacy.raise_level(client, level).await,
            Leg::Pipes(pipes) => pipes.raise_level(client, level).await,
            // A call says its level itself.
            Leg::Agents(_) => {}
        }
    }

    /// Lends a session for a call, where the backend has sessions of which
    /// several can be open; opens nothing yet.
    /// `fresh`: one that nobody has had.
    pub async fn lend(&self, client: &Client, fresh: bool) -> Option<Borrowed> {
        if !matches!(self.leg, Leg::Http(_)) || self.config.single_session.is_some() {
            return None;
        }
        let (mut lent, old) = self.lending.take(client, fresh);
        for old in old {
            self.end_scope(&old.client.scope).await;
        }
        lent.forget();
        Some(lent)
    }

    /// Takes a session back after a call that has ended by itself.
    pub async fn give_back(&self, lent: Borrowed) {
        if let Some(old) = self.lending.keep(lent) {
            self.end_scope(&old.client.scope).await;
        }
    }

    /// Ends a session in which something may still run: what it asks is refused,
    /// and it has a moment to hear that it is cancelled.
    pub fn discard(self: &Arc<Self>, lent: Borrowed) {
        // Without a runtime the node itself is going.
        if let (Leg::Http(_), Ok(runtime)) = (&self.leg, tokio::runtime::Handle::try_current()) {
            let (upstream, scope) = (Arc::clone(self), lent.client.scope.clone());
            let end = async move {
                sleep(LENT_GRACE).await;
                upstream.end_scope(&scope).await;
            };
            self.tasks.spawn_on(end, &runtime);
        }
    }

    /// An id that no call in a lent session has had.
    pub fn lent_id(&self) -> RawId {
        self.lending.id()
    }

    /// Asks the backend which eras it speaks and what it says of itself, as
    /// far as the configuration leaves that open, and remembers the answer.
    ///
    /// # Errors
    /// Why nothing is known of it.
    pub async fn probe(&self) -> Result<ServerFacts, CallError> {
        if self.config.disabled {
            return Err(CallError::Disabled { backend: self.config.name.clone() });
        }
        // In this order, as calls have it that have to find out first.
        let _turn = self.turn(Instant::now() + PROBE_WAIT_MAX).await?;
        let _one_at_a_time = self.probing.lock().await;
        self.probe_now().await
    }

    /// The turn of a call, where the server bears one at a time.
    async fn turn(&self, deadline: Instant) -> Result<Option<Turn>, CallError> {
        match &self.queue {
            Some(queue) => queue.enter(deadline).await.map(Some),
            None => Ok(None),
        }
    }

    async fn probe_now(&self) -> Result<ServerFacts, CallError> {
        let wanted = Eras::fixed(&self.config).unwrap_or(Eras { legacy: true, modern: true });
        let outcome = match &self.leg {
            Leg::Http(http) => http.probe(wanted, self.eras.get()).await,
            Leg::Pipes(pipes) => Box::pin(pipes.probe(wanted)).await,
            // There is nothing to find out that the configuration does not say.
            Leg::Agents(_) => Ok(ServerFacts::default()),
        };
        match &outcome {
            Ok(facts) => {
                if let Some(eras) = Eras::of(facts)
                    && Eras::fixed(&self.config).is_none()
                {
                    self.eras.learn(eras);
                }
                self.state.answered();
            }
            Err(error) => self.state.failed(error),
        }
        outcome
    }

    /// Probes once if nothing is known.
    pub(crate) async fn learn(&self) -> Result<(), CallError> {
        let _one_at_a_time = self.probing.lock().await;
        if self.eras().is_none() {
            self.probe_now().await?;
        }
        Ok(())
    }

    /// Which eras the backend is known to speak.
    pub fn eras(&self) -> Option<Eras> {
        self.eras.get()
    }

    /// Takes over what somebody else has found out.
    pub fn set_facts(&self, facts: &ServerFacts) {
        if let Some(eras) = Eras::of(facts)
            && Eras::fixed(&self.config).is_none()
        {
            self.eras.hear(eras);
        }
    }

    /// Looks again, beside the calls, where what is known is old.
    fn look_again(&self) {
        if Eras::fixed(&self.config).is_none() && self.eras.is_due(self.config.probe_max_age) {
            self.probe_beside();
        }
    }

    #[cold]
    fn probe_beside(&self) {
        let Some(upstream) = self.me.upgrade() else { return };
        self.tasks.spawn(async move {
            let looked = upstream.over.run_until_cancelled(upstream.probe()).await;
            if let Some(Err(error)) = looked {
                tracing::debug!(backend = %upstream.config.name, %error, "looking again has led to nothing");
            }
        });
    }

    fn expect_era(&self, era: Era) -> Result<(), CallError> {
        match self.eras() {
            Some(eras) if !eras.speaks(era) => Err(CallError::EraMismatch {
                backend: self.config.name.clone(),
                backend_era: era_name(if era == Era::Legacy { Era::Modern } else { Era::Legacy }),
                client_era: era_name(era),
            }),
            _ => Ok(()),
        }
    }

    /// How the backend is doing, as it changes.
    pub fn state(&self) -> watch::Receiver<UpstreamState> {
        self.state.subscribe()
    }

    /// Takes no new calls, lets those that run finish for up to `deadline`, and
    /// closes what is open.
    pub async fn close(&self, deadline: Duration) {
        // A call that has just chosen this upstream may not have begun.
        sleep(CLOSE_GRACE.min(deadline)).await;
        let all = u32::try_from(self.slots_max).unwrap_or(u32::MAX);
        let drained = timeout(deadline, self.slots.acquire_many(all)).await;
        if drained.is_err() {
            tracing::warn!(backend = %self.config.name, "calls were cut off, they took too long");
        }
        self.slots.close();
        self.subscriptions.close();
        self.over.cancel();
        match &self.leg {
            Leg::Http(http) => http.legacy.end_all(),
            Leg::Pipes(pipes) => pipes.end_all(),
            Leg::Agents(_) => {}
        }
    }

    fn lost(&self, reason: &str) -> CallError {
        CallError::Lost { backend: self.config.name.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests;
