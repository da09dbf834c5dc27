//! A backend that is run as child processes: which are running, starting one
//! when it is needed, and when to let it go.
//!
//! The era of a process is the era of its first message, for some servers are
//! locked by that. What may lock a server the wrong way (asking a legacy one in
//! the modern era) is only ever tried on a process that is thrown away.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, ResourceName, StdioTransport, Value},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Secrets, handshake,
    hints::Hints,
    http::pinned_legacy,
    message::{self, Outgoing},
    meters::Meters,
    pipe::{Clients, Ended, Failure, Pipe, SharedBackoff, Terms},
    probe::{self, Finding, Said},
    process::{self, LastWords, Program, Started},
    pump::{self, Pumps},
    repeat,
    shared::Shared,
    sharing::{self, Owner, ProcessKey},
    single::{Opened, Single, Step, wait},
    state::Eras,
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Identity, Scope},
    mcp::{
        meta,
        method::Method,
        splice,
        version::{Era, LATEST_LEGACY, LATEST_MODERN, ProtocolVersion},
    },
};

/// Processes of one backend on this node.
const PROCESSES_MAX: usize = 64;
/// A process that nobody calls for so long is stopped.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// The same for the process of one session, which may have state of its client.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a call waits for a process that died to be started again; beyond
/// that it fails at once and says when.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a server may take to say that it is modern. Some never answer.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The processes of one backend.
pub struct Stdio {
    backend: ResourceName,
    transport: StdioTransport,
    pin: Option<ProtocolVersion>,
    secrets: Secrets,
    hints: Arc<Hints>,
    meters: Arc<Meters>,
    shared: Arc<Shared>,
    slots: Mutex<HashMap<ProcessKey, Arc<Slot>>>,
    calls: AtomicU64,
}

/// The place of one process, which outlives it: so that one that keeps dying
/// is not started again and again.
struct Slot {
    key: ProcessKey,
    pipe: Single<Pipe>,
    backoff: SharedBackoff,
}

/// Names and values.
type Variables = Vec<(String, String)>;

/// How a process is opened.
struct Opening {
    era: Era,
    clients: Clients,
    version: ProtocolVersion,
    capabilities: Bytes,
    info: Bytes,
    idle_max: Duration,
}

impl Stdio {
    pub fn new(
        config: &Backend,
        transport: &StdioTransport,
        secrets: Secrets,
        meters: &Arc<Meters>,
        hints: &Arc<Hints>,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend: config.name.clone(),
            transport: transport.clone(),
            pin: pinned_legacy(&config.protocol),
            secrets,
            hints: Arc::clone(hints),
            meters: Arc::clone(meters),
            shared: Arc::clone(shared),
            slots: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    /// Runs one call. Dropping it tells the process that nobody waits.
    pub async fn call(self: &Arc<Self>, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let key = sharing::key(self.transport.sharing, &call.client, number);
        let _only = matches!(key.owner, Owner::Call(_)).then(|| StopAfter { stdio: self, key: &key });
        let mut again = true;
        loop {
            let pipe = self.pipe(&key, &call.client).await?;
            match pipe.call(call, caller).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Call(error)) => return Err(error),
                // It ended before it saw the call, which so may be sent again.
                Err(Failure::Unsent) if std::mem::take(&mut again) => self.release(&key, &pipe),
                Err(Failure::Unsent) => {
                    return Err(self.unreachable("the process ends as soon as it starts".to_owned()));
                }
            }
        }
    }

    /// Passes a client's notification on, if it has a process of its own.
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

    /// Stops the processes of a scope, in the background.
    pub fn end(&self, scope: &Scope) {
        let owner = match scope {
            Scope::Session(id) => Owner::Session(id.clone()),
            Scope::Node => Owner::Node,
            Scope::Stateless => return,
        };
        self.end_where(|key| key.owner == owner);
    }

    /// Stops every process, in the background.
    pub fn end_all(&self) {
        self.end_where(|_| true);
    }

    fn end_where(&self, is: impl Fn(&ProcessKey) -> bool) {
        self.slots.lock().retain(|key, slot| {
            if is(key)
                && let Some(pipe) = slot.pipe.end()
            {
                pipe.stop.cancel();
            }
            !is(key)
        });
    }

    /// Asks in the eras that are wanted: the legacy one on the process that
    /// then goes on working, the modern one on a process that is thrown away.
    pub async fn probe(self: &Arc<Self>, wanted: Eras) -> Result<ServerFacts, CallError> {
        let unasked = || Finding::Not(CallError::Disabled { backend: self.backend.clone() });
        let began = Instant::now();
        let legacy = if wanted.legacy { self.probe_legacy().await } else { unasked() };
        if let Finding::Unclear(error @ CallError::Unreachable { .. }) = legacy {
            return Err(error);
        }
        // What the first start has taken is a measure for the second.
        let patience = if wanted.legacy {
            (began.elapsed() * 2).max(DISCOVER_TIMEOUT)
        } else {
            self.transport.start_timeout
        };
        let modern = if wanted.modern {
            Box::pin(self.probe_modern(patience.min(self.transport.start_timeout.max(DISCOVER_TIMEOUT))))
                .await
        } else {
            unasked()
        };
        probe::conclude(&self.backend, legacy, modern)
    }

    async fn probe_legacy(self: &Arc<Self>) -> Finding {
        let node = node_client();
        let key = sharing::key(self.transport.sharing, &node, 0);
        let pipe = match self.pipe(&key, &node).await {
            Ok(pipe) => pipe,
            Err(error) => return probe::sort(error),
        };
        match pipe.facts.get().and_then(|facts| Said::by_initialize(facts)) {
            Some(said) => Finding::Speaks(said),
            None => Finding::Not(self.protocol("answered initialize with something else".to_owned())),
        }
    }

    async fn probe_modern(self: &Arc<Self>, patience: Duration) -> Finding {
        let clients = Clients { sole: false, asks: false, events: None };
        let (pipe, _) = match self.start(Era::Modern, clients, IDLE_MAX, Arc::default()) {
            Ok(started) => started,
            Err(error) => return Finding::Unclear(error),
        };
        // Also when nobody waits for the outcome any more.
        let _thrown_away = pipe.stop.clone().drop_guard();
        let asked = timeout(patience, pipe.ask(&Method::Discover, &message::own_params(LATEST_MODERN))).await;
        match asked {
            Ok(Ok(answer)) => probe::discovered(&self.backend, answer),
            // Some old servers end when they are asked what they do not know.
            Ok(Err(_)) | Err(_) => Finding::Not(self.protocol("does not answer server/discover".to_owned())),
        }
    }

    /// The running process of a key. Starting goes on when the caller that
    /// needed it first goes away.
    async fn pipe(self: &Arc<Self>, key: &ProcessKey, client: &Client) -> Result<Arc<Pipe>, CallError> {
        loop {
            let slot = self.slot(key)?;
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
                    if let Some(error) = self.too_soon(&slot) {
                        slot.pipe.opened(None);
                        return Err(error);
                    }
                    let opening = self.opening(key, client);
                    self.shared.tasks.spawn(Arc::clone(self).open(slot, opening, tell));
                    opened
                }
            };
            return match wait(opened).await {
                Some(Ok(pipe)) => Ok(pipe),
                Some(Err(error)) => Err(repeat(&error)),
                None => Err(self.unreachable("the node is stopping".to_owned())),
            };
        }
    }

    fn slot(&self, key: &ProcessKey) -> Result<Arc<Slot>, CallError> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return Ok(slot.clone());
        }
        if slots.len() >= PROCESSES_MAX {
            slots.retain(|_, slot| !slot.pipe.is_idle() || slot.backoff.lock().is_waiting(Instant::now()));
        }
        if slots.len() >= PROCESSES_MAX {
            return Err(CallError::Overloaded { backend: self.backend.clone(), limit: PROCESSES_MAX });
        }
        let slot = Arc::new(Slot { key: key.clone(), pipe: Single::default(), backoff: Arc::default() });
        slots.insert(key.clone(), slot.clone());
        Ok(slot)
    }

    fn too_soon(&self, slot: &Slot) -> Option<CallError> {
        let backoff = slot.backoff.lock();
        let wait = backoff.wait(Instant::now());
        (wait > RESTART_WAIT_MAX).then(|| {
            self.unreachable(format!("{}; it is started again in {} s", backoff.why(), wait.as_secs() + 1))
        })
    }

    fn opening(&self, key: &ProcessKey, client: &Client) -> Opening {
        let sole = key.owner.is_sole();
        Opening {
            era: key.era,
            clients: sharing::clients(key, client),
            version: self.pin.unwrap_or(if sole { client.version } else { LATEST_LEGACY }),
            capabilities: sharing::capabilities(key, client),
            info: if sole && !client.info.is_empty() { client.info.clone() } else { message::own_info() },
            idle_max: if sole { SESSION_IDLE_MAX } else { IDLE_MAX },
        }
    }

    async fn open(self: Arc<Self>, slot: Arc<Slot>, opening: Opening, tell: watch::Sender<Opened<Pipe>>) {
        let (not_before, failures) = {
            let backoff = slot.backoff.lock();
            (backoff.not_before(), backoff.failures())
        };
        if let Some(not_before) = not_before {
            self.meters.restarts.increment(1);
            sleep_until(not_before).await;
        }
        let outcome = match self.begin(opening, &slot.backoff).await {
            Ok(pipe) if slot.pipe.opened(Some(&pipe)) => {
                let watching = Arc::clone(&self).watch(slot.clone(), pipe.clone());
                self.shared.tasks.spawn(watching);
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

    /// Notes how a process ends.
    async fn watch(self: Arc<Self>, slot: Arc<Slot>, pipe: Arc<Pipe>) {
        let Ended { how, wanted } = pipe.ended().await;
        slot.pipe.gone(&pipe);
        if wanted {
            tracing::debug!(backend = %self.backend, how = &*how, "process stopped");
            self.forget_idle(&slot);
            return;
        }
        tracing::warn!(
            backend = %self.backend, process = sharing::describe(&self.backend, &slot.key), how = &*how,
            "process ended by itself"
        );
    }

    /// A slot without a process and without a reason to remember it.
    fn forget_idle(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let same = slots.get(&slot.key).is_some_and(|own| Arc::ptr_eq(own, slot));
        if same && slot.pipe.is_idle() && slot.backoff.lock().not_before().is_none() {
            slots.remove(&slot.key);
        }
    }

    fn release(&self, key: &ProcessKey, pipe: &Arc<Pipe>) {
        let slot = self.slots.lock().get(key).cloned();
        if let Some(slot) = slot {
            slot.pipe.gone(pipe);
        }
    }

    /// Starts a process and, in the legacy era, shakes hands.
    async fn begin(&self, opening: Opening, backoff: &SharedBackoff) -> Result<Arc<Pipe>, CallError> {
        let Opening { era, clients, version, capabilities, info, idle_max } = opening;
        let (pipe, words) = self.start(era, clients, idle_max, backoff.clone())?;
        if era == Era::Modern {
            return Ok(pipe);
        }
        let params = meta::initialize_params(version, &capabilities, &info);
        let limit = self.transport.start_timeout;
        let shaken = match timeout(limit, pipe.ask(&Method::Initialize, &params)).await {
            Ok(Ok(answer)) => handshake::read(&self.backend, answer),
            Ok(Err(CallError::Lost { reason, .. })) => Err(self.unreachable(reason)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let garbled = if pipe.has_garbled() { ", and writes to stdout what is not MCP" } else { "" };
                let silent = format!(
                    "the process did not answer initialize within {} s{garbled}",
                    limit.as_secs_f32()
                );
                Err(self.unreachable(match words.text() {
                    words if words.is_empty() => silent,
                    words => format!("{silent}; its last words: {words}"),
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

    /// Starts a process with the tasks that serve it.
    fn start(
        &self,
        era: Era,
        clients: Clients,
        idle_max: Duration,
        backoff: SharedBackoff,
    ) -> Result<(Arc<Pipe>, Arc<LastWords>), CallError> {
        let (env, hidden) = self.env()?;
        let program = Program {
            command: &self.transport.command,
            args: &self.transport.args,
            env,
            cwd: self.transport.cwd.as_deref(),
        };
        let Started { process, stdin, stdout, stderr } = process::start(program).map_err(|error| {
            self.unreachable(format!("{:?} cannot be started: {error}", self.transport.command))
        })?;
        tracing::debug!(backend = %self.backend, command = self.transport.command, "process started");
        let (pipe, queue) = Pipe::new(Terms {
            backend: self.backend.clone(),
            era,
            clients,
            backoff,
            hints: Arc::clone(&self.hints),
            meters: Arc::clone(&self.meters),
            shared: Arc::clone(&self.shared),
        });
        let words = LastWords::new(hidden);
        let tasks = &self.shared.tasks;
        let pumps = Pumps {
            wrote: tasks.spawn(pump::write(pipe.clone(), queue, stdin)),
            read: tasks.spawn(pump::read(pipe.clone(), stdout, self.transport.line_bytes_max)),
            drained: tasks.spawn(process::drain_stderr(stderr, words.clone(), self.backend.to_string())),
        };
        tasks.spawn(pump::supervise(pipe.clone(), process, pumps, words.clone(), idle_max));
        Ok((pipe, words))
    }

    /// The variables of the configuration, and which of their values are secret.
    fn env(&self) -> Result<(Variables, Vec<String>), CallError> {
        let mut env = Vec::with_capacity(self.transport.env.len());
        let mut hidden = Vec::new();
        for (name, value) in &self.transport.env {
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::Secret(secret) => {
                    let value = (self.secrets)(secret).map_err(|why| self.unreachable(why))?;
                    hidden.push(value.clone());
                    value
                }
            };
            env.push((name.clone(), value));
        }
        Ok((env, hidden))
    }

    fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { backend: self.backend.clone(), reason }
    }

    fn protocol(&self, reason: String) -> CallError {
        CallError::Protocol { backend: self.backend.clone(), reason }
    }
}

/// Stops the process of one call when the call is over.
struct StopAfter<'a> {
    stdio: &'a Stdio,
    key: &'a ProcessKey,
}

impl Drop for StopAfter<'_> {
    fn drop(&mut self) {
        self.stdio.end_where(|key| key == self.key);
    }
}

/// The node as a client of its own.
fn node_client() -> Client {
    Client {
        identity: Identity::node(),
        version: LATEST_LEGACY,
        info: message::own_info(),
        capabilities: Bytes::from_static(b"{}"),
        scope: Scope::Node,
        events: None,
    }
}
