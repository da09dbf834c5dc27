//! The pipes to one backend, whatever carries them: which are open, opening one
//! when it is needed, and when to let it go.
//!
//! The era of a pipe is the era of its first message, for some servers are
//! locked by that. What may lock a server the wrong way (asking a legacy one in
//! the modern era) is only ever tried on a pipe that is thrown away.

mod probing;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mt_proto::resource::{Backend, ResourceName};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    carrier::Carrier,
    connection,
    followers::Followers,
    handshake,
    hints::Hints,
    http::pinned_legacy,
    inherit, level,
    message::{self, Outgoing},
    meters::Meters,
    pending::Failure,
    pipe::{Ended, Open, Pipe, SharedBackoff, Terms},
    shared::Shared,
    sharing::{self, Clients, Owner, PipeKey},
    single::{Opened, Single, Step, wait},
    subscriptions,
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Scope},
    mcp::{
        meta::{self, LogLevel},
        method::Method,
        splice,
        version::{Era, LATEST_LEGACY, ProtocolVersion},
    },
};

/// A pipe that nobody calls for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// The same for the pipe of one session, which may have state of its client.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a call waits for a pipe that broke to be opened again; beyond that
/// it fails at once and says when.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(1);
/// The least time before a pipe is opened again for those who follow.
const REOPEN_WAIT_MIN: Duration = Duration::from_millis(500);

/// The pipes to one backend.
pub struct Pipes {
    backend: ResourceName,
    carrier: Carrier,
    pin: Option<ProtocolVersion>,
    /// Held by the one pipe to a server that bears no more.
    only: Option<Arc<Semaphore>>,
    hints: Arc<Hints>,
    meters: Arc<Meters>,
    shared: Arc<Shared>,
    slots: Mutex<HashMap<PipeKey, Arc<Slot>>>,
    calls: AtomicU64,
}

/// The place of one pipe, which outlives it: so that one that keeps breaking
/// is not opened again and again.
struct Slot {
    key: PipeKey,
    pipe: Single<Pipe>,
    backoff: SharedBackoff,
    followers: Arc<Followers>,
}

/// How a pipe is opened.
struct Opening {
    era: Era,
    clients: Clients,
    version: ProtocolVersion,
    capabilities: Bytes,
    info: Bytes,
    idle_max: Duration,
}

impl Pipes {
    pub fn new(
        config: &Backend,
        carrier: Carrier,
        meters: &Arc<Meters>,
        hints: &Arc<Hints>,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend: config.name.clone(),
            carrier,
            pin: pinned_legacy(&config.protocol),
            only: config.single_session.map(|_| Arc::new(Semaphore::new(1))),
            hints: Arc::clone(hints),
            meters: Arc::clone(meters),
            shared: Arc::clone(shared),
            slots: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    /// Runs one call. Dropping it tells the server that nobody waits.
    pub async fn call(self: &Arc<Self>, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let key = sharing::key(self.carrier.sharing(), &call.client, number);
        let _only = matches!(key.owner, Owner::Call(_)).then(|| CloseAfter { pipes: self, key: &key });
        let mut again = true;
        loop {
            let pipe = self.pipe(&key, &call.client).await?;
            let follows = matches!(call.method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe);
            let outcome = if follows && !pipe.clients.sole {
                subscriptions::call(&pipe, call, caller).await
            } else {
                pipe.call(call, caller).await
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(Failure::Call(error)) => return Err(error),
                // It ended before it saw the call, which so may be sent again.
                Err(Failure::Unsent) if std::mem::take(&mut again) => self.release(&key, &pipe),
                Err(Failure::Unsent) => {
                    let noun = self.carrier.noun();
                    return Err(self.unreachable(format!("the {noun} ends as soon as it is opened")));
                }
            }
        }
    }

    /// Passes a client's notification on, if it has a pipe of its own.
    pub fn notify(&self, client: &Client, message: Bytes) {
        let Scope::Session(id) = &client.scope else { return };
        let own = Owner::Session(id.clone());
        let pipe =
            self.slots.lock().values().find(|slot| slot.key.owner == own).and_then(|slot| slot.pipe.get());
        if let Some(pipe) = pipe
            && pipe.send(Outgoing::from(message).into_line()).is_err()
        {
            tracing::debug!(backend = %self.backend, "a client's notification could not be sent");
        }
    }

    /// Has the client's pipe log from this level on, if its server logs, and if
    /// it is known for whom.
    pub async fn raise_level(self: &Arc<Self>, client: &Client, level: LogLevel) {
        let key = sharing::key(self.carrier.sharing(), client, u64::MAX);
        if matches!(key.owner, Owner::Call(_)) {
            return;
        }
        let Ok(pipe) = self.pipe(&key, client).await else { return };
        let logs = pipe.facts.get().is_some_and(|facts| level::is_declared(facts));
        if logs && pipe.has_owner() && pipe.level.raise(level) {
            _ = pipe.ask(&Method::SetLevel, &level::params(level)).await;
        }
    }

    /// Closes the pipes of a scope, in the background, and ends what it follows
    /// on those of others.
    pub fn end(&self, scope: &Scope) {
        let following: Vec<_> =
            self.slots.lock().values().filter(|slot| !slot.followers.is_empty()).cloned().collect();
        for slot in following {
            subscriptions::end(&slot.followers, scope, slot.pipe.get(), &self.backend);
        }
        let owner = match scope {
            Scope::Session(id) => Owner::Session(id.clone()),
            Scope::Node => Owner::Node,
            Scope::Stateless => return,
        };
        self.end_where(|key| key.owner == owner);
    }

    /// Closes every pipe, in the background.
    pub fn end_all(&self) {
        self.end_where(|_| true);
    }

    fn end_where(&self, is: impl Fn(&PipeKey) -> bool) {
        self.slots.lock().retain(|key, slot| {
            if is(key)
                && let Some(pipe) = slot.pipe.end()
            {
                pipe.stop.cancel();
            }
            !is(key)
        });
    }

    /// The open pipe of a key. Opening goes on when the caller that needed it
    /// first goes away.
    async fn pipe(self: &Arc<Self>, key: &PipeKey, client: &Client) -> Result<Arc<Pipe>, CallError> {
        self.pipe_in(&self.slot(key)?, Some(client)).await
    }

    /// The open pipe of a slot. A shared one needs no client.
    async fn pipe_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        client: Option<&Client>,
    ) -> Result<Arc<Pipe>, CallError> {
        loop {
            let opened = match slot.pipe.step() {
                Step::Use(pipe) if pipe.is_over() => {
                    if pipe.given_up().is_some() {
                        // It is being killed, and then noted as a failure.
                        pipe.ended().await;
                    }
                    slot.pipe.gone(&pipe);
                    continue;
                }
                Step::Use(pipe) => return Ok(pipe),
                Step::Wait(opened) => opened,
                Step::Ended => return Err(CallError::SessionLost { backend: self.backend.clone() }),
                Step::Open(tell, opened) => {
                    if let Some(error) = self.too_soon(slot) {
                        slot.pipe.opened(None);
                        return Err(error);
                    }
                    let opening = self.opening(&slot.key, client);
                    self.shared.tasks.spawn(Arc::clone(self).open(slot.clone(), opening, tell));
                    opened
                }
            };
            return match wait(opened).await {
                Some(Ok(pipe)) => Ok(pipe),
                Some(Err(error)) => Err(error.repeat()),
                None => Err(self.unreachable("the node is stopping".to_owned())),
            };
        }
    }

    fn slot(&self, key: &PipeKey) -> Result<Arc<Slot>, CallError> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return Ok(slot.clone());
        }
        let limit = self.carrier.pipes_max();
        if slots.len() >= limit {
            slots.retain(|_, slot| slot.is_remembered(Instant::now()));
        }
        if slots.len() >= limit {
            return Err(CallError::Overloaded { backend: self.backend.clone(), limit });
        }
        let slot = Arc::new(Slot {
            key: key.clone(),
            pipe: Single::default(),
            backoff: Arc::default(),
            followers: Arc::default(),
        });
        slots.insert(key.clone(), slot.clone());
        Ok(slot)
    }

    fn too_soon(&self, slot: &Slot) -> Option<CallError> {
        let backoff = slot.backoff.lock();
        let wait = backoff.wait(Instant::now());
        (wait > RESTART_WAIT_MAX).then(|| {
            self.unreachable(format!(
                "{}; it is {} again in {} s",
                backoff.why(),
                self.carrier.opened(),
                wait.as_secs() + 1
            ))
        })
    }

    fn opening(&self, key: &PipeKey, client: Option<&Client>) -> Opening {
        let sole = key.owner.is_sole();
        let own = client.filter(|_| sole);
        let info = own.map(|client| client.info.clone()).filter(|info| !info.is_empty());
        let idle_max = self.carrier.idle_max().unwrap_or(if sole { SESSION_IDLE_MAX } else { IDLE_MAX });
        Opening {
            era: key.era,
            clients: sharing::clients(key, client),
            version: self.pin.unwrap_or(own.map_or(LATEST_LEGACY, |client| client.version)),
            capabilities: sharing::capabilities(key, client),
            info: info.unwrap_or_else(message::own_info),
            idle_max,
        }
    }

    async fn open(self: Arc<Self>, slot: Arc<Slot>, opening: Opening, tell: watch::Sender<Opened<Pipe>>) {
        if let Some(lost) = inherit::lost(&self.shared, &slot.key, &self.backend) {
            slot.pipe.opened(None);
            tell.send_replace(Some(Err(Arc::new(lost))));
            return;
        }
        let (not_before, failures) = {
            let backoff = slot.backoff.lock();
            (backoff.not_before(), backoff.failures())
        };
        if let Some(not_before) = not_before {
            self.meters.restarts.increment(1);
            sleep_until(not_before).await;
        }
        let outcome = match self.begin(opening, &slot).await {
            Ok(pipe) if slot.pipe.opened(Some(&pipe)) => {
                inherit::note_pipe(&self.shared, &slot.key, &self.backend).await;
                let watching = Arc::clone(&self).watch(slot.clone(), pipe.clone());
                self.shared.tasks.spawn(watching);
                if pipe.era == Era::Legacy {
                    self.shared.tasks.spawn(connection::heartbeat(pipe.clone()));
                }
                if not_before.is_some() || !slot.followers.is_empty() {
                    self.opened_again(&slot, &pipe);
                }
                Ok(pipe)
            }
            Ok(unwanted) => {
                unwanted.stop.cancel();
                Err(Arc::new(CallError::SessionLost { backend: self.backend.clone() }))
            }
            Err(error) => {
                self.meters.connect_errors.increment(1);
                let mut backoff = slot.backoff.lock();
                // A crash has noted itself; a server of the other era is no
                // worse for that.
                if backoff.failures() == failures && !matches!(error, CallError::EraMismatch { .. }) {
                    // Without the backend's name: it is said again with the next refusal.
                    let why = match &error {
                        CallError::Unreachable { reason, .. }
                        | CallError::Lost { reason, .. }
                        | CallError::Protocol { reason, .. } => reason.clone(),
                        other => other.to_string(),
                    };
                    backoff.failed(Instant::now(), Duration::ZERO, why, rand::random());
                }
                drop(backoff);
                slot.pipe.opened(None);
                Err(Arc::new(error))
            }
        };
        tell.send_replace(Some(outcome));
    }

    /// What a server has said while there was no pipe is lost.
    fn opened_again(&self, slot: &Slot, pipe: &Arc<Pipe>) {
        self.hints.missed();
        if !slot.followers.is_empty() {
            pipe.spawn(|pipe| async move { subscriptions::renew(&pipe).await });
        }
    }

    /// Notes how a pipe ends, and opens it again if somebody follows what is on
    /// it: the next call may be far away.
    async fn watch(self: Arc<Self>, slot: Arc<Slot>, pipe: Arc<Pipe>) {
        let Ended { how, wanted } = pipe.ended().await;
        slot.pipe.gone(&pipe);
        if wanted {
            tracing::debug!(backend = %self.backend, how = &*how, "pipe closed");
            self.forget_idle(&slot);
        } else {
            tracing::warn!(
                backend = %self.backend, pipe = sharing::describe(&self.backend, &slot.key), how = &*how,
                "pipe ended by itself"
            );
        }
        if self.only.is_some() {
            // It could take the place of the one that somebody uses.
            return;
        }
        let shutdown = self.shared.shutdown.clone();
        _ = shutdown.run_until_cancelled(self.reopen(slot)).await;
    }

    /// Boxed, because opening is also what begins to watch.
    fn reopen(self: Arc<Self>, slot: Arc<Slot>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.keep_open(&slot).await })
    }

    async fn keep_open(self: &Arc<Self>, slot: &Arc<Slot>) {
        while !slot.followers.is_empty() && self.has(slot) {
            let not_before = slot.backoff.lock().not_before();
            sleep_until(not_before.unwrap_or_else(Instant::now).max(Instant::now() + REOPEN_WAIT_MIN)).await;
            // Who follows what may have gone meanwhile.
            if slot.followers.is_empty() || !self.has(slot) || self.pipe_in(slot, None).await.is_ok() {
                return;
            }
        }
    }

    fn has(&self, slot: &Arc<Slot>) -> bool {
        self.slots.lock().get(&slot.key).is_some_and(|own| Arc::ptr_eq(own, slot))
    }

    /// A slot without a pipe and without a reason to remember it.
    fn forget_idle(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let same = slots.get(&slot.key).is_some_and(|own| Arc::ptr_eq(own, slot));
        if same && !slot.is_remembered(Instant::now()) && slot.backoff.lock().not_before().is_none() {
            slots.remove(&slot.key);
        }
    }

    fn release(&self, key: &PipeKey, pipe: &Arc<Pipe>) {
        let slot = self.slots.lock().get(key).cloned();
        if let Some(slot) = slot {
            slot.pipe.gone(pipe);
        }
    }

    /// Opens a pipe and, in the legacy era, shakes hands.
    async fn begin(&self, opening: Opening, slot: &Slot) -> Result<Arc<Pipe>, CallError> {
        let Opening { era, clients, version, capabilities, info, idle_max } = opening;
        let Open { pipe, words } = self.start(era, clients, idle_max, Some(slot)).await?;
        if era == Era::Modern {
            return Ok(pipe);
        }
        let params = meta::initialize_params(version, &capabilities, &info);
        let limit = self.carrier.open_timeout();
        let shaken = match timeout(limit, pipe.ask(&Method::Initialize, &params)).await {
            Ok(Ok(answer)) => handshake::read(&self.backend, answer),
            Ok(Err(CallError::Lost { reason, .. })) => Err(self.unreachable(reason)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let garbled = if pipe.has_garbled() { self.carrier.garbled() } else { "" };
                let silent = format!(
                    "the {} did not answer initialize within {} s{garbled}",
                    self.carrier.server(),
                    limit.as_secs_f32()
                );
                let words = words.map(|words| words.text()).unwrap_or_default();
                Err(self.unreachable(if words.is_empty() {
                    silent
                } else {
                    format!("{silent}; its last words: {words}")
                }))
            }
        };
        match shaken {
            Ok(negotiated) => {
                _ = pipe.facts.set(negotiated.facts);
                // There is room: it is the second message.
                _ = pipe.send(Outgoing::from(splice::notification(&Method::Initialized, None)).into_line());
                Ok(pipe)
            }
            Err(error) => {
                pipe.stop.cancel();
                Err(error)
            }
        }
    }

    /// Opens a pipe, without a word on it.
    async fn start(
        &self,
        era: Era,
        clients: Clients,
        idle_max: Duration,
        slot: Option<&Slot>,
    ) -> Result<Open, CallError> {
        let only = self.only().await?;
        let open = self
            .carrier
            .open(
                Terms {
                    backend: self.backend.clone(),
                    noun: self.carrier.noun(),
                    era,
                    clients,
                    backoff: slot.map(|slot| slot.backoff.clone()).unwrap_or_default(),
                    followers: slot.map(|slot| slot.followers.clone()).unwrap_or_default(),
                    hints: Arc::clone(&self.hints),
                    meters: Arc::clone(&self.meters),
                    shared: Arc::clone(&self.shared),
                },
                idle_max,
            )
            .await?;
        if let Some(only) = only {
            open.pipe.spawn(|pipe| async move {
                pipe.ended().await;
                drop(only);
            });
        }
        Ok(open)
    }

    /// The right to have the one pipe that a server bears, if it is such a
    /// one. Whatever is open is closed first.
    async fn only(&self) -> Result<Option<OwnedSemaphorePermit>, CallError> {
        let Some(only) = &self.only else { return Ok(None) };
        for slot in self.slots.lock().values() {
            if let Some(pipe) = slot.pipe.get() {
                pipe.stop.cancel();
            }
        }
        match timeout(self.carrier.open_timeout(), Arc::clone(only).acquire_owned()).await {
            Ok(Ok(only)) => Ok(Some(only)),
            _ => Err(self.unreachable(format!("the {} before does not end", self.carrier.noun()))),
        }
    }

    fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { backend: self.backend.clone(), reason }
    }

    fn protocol(&self, reason: String) -> CallError {
        CallError::Protocol { backend: self.backend.clone(), reason }
    }
}

impl Slot {
    /// Whether there is a pipe, or a reason not to forget that there was one.
    fn is_remembered(&self, now: Instant) -> bool {
        !self.pipe.is_idle() || self.backoff.lock().is_waiting(now) || !self.followers.is_empty()
    }
}

/// Closes the pipe of one call when the call is over.
struct CloseAfter<'a> {
    pipes: &'a Pipes,
    key: &'a PipeKey,
}

impl Drop for CloseAfter<'_> {
    fn drop(&mut self) {
        self.pipes.end_where(|key| key == self.key);
    }
}
