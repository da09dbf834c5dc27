//! A stream of messages to a server and one back, whatever carries them: a
//! process or a connection.
//!
//! Calls share the pipe: each has an id of ours, and what comes back is handed
//! out by it. A legacy server that may ask its client runs one call at a time,
//! unless all its calls are of one client anyway, because nothing in a request
//! of its own says which call it is for.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    excerpt::excerpt,
    followers::Followers,
    hints::Hints,
    level::Level,
    message::{self, Outgoing},
    meters::Meters,
    pending::{self, Delivery, Failure, Names, Notice, Pending, Ticket},
    process::LastWords,
    question::{Questions, Replies},
    shared::Shared,
    sharing::Clients,
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller},
    mcp::{
        Key, Params,
        envelope::{Message, Notification, Request, Response},
        error::RpcError,
        id::RawId,
        meta::Meta,
        method::Method,
        scan::Limits,
        version::Era,
    },
};

/// Bytes that wait for a server to read them.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// Messages that wait for it.
const UNREAD_MESSAGES_MAX: usize = 1024;
/// How long a call waits for room among them.
const UNREAD_WAIT: Duration = Duration::from_secs(1);
/// Calls that wait for a server that runs one at a time.
pub const WAITING_CALLS_MAX: usize = 64;
/// How long such a server may take to end a call that nobody waits for. What
/// it asks in that time must not reach the next caller.
const CANCEL_GRACE: Duration = Duration::from_millis(500);
/// How long the end of a pipe is waited for, to say how it ended.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// What a pipe is called whose ends are those of a child process.
pub const PROCESS: &str = "process";
/// What any other is called.
pub const CONNECTION: &str = "connection";

/// An open pipe, as its callers see it.
pub struct Pipe {
    pub backend: ResourceName,
    /// What carries it, in words.
    pub noun: &'static str,
    pub era: Era,
    pub clients: Clients,
    /// What it said to `initialize`.
    pub facts: OnceLock<Bytes>,
    /// From which level on it was told to log.
    pub level: Level,
    pub started: Instant,
    pub pending: Arc<Pending>,
    /// It shall end.
    pub stop: CancellationToken,
    /// How it has ended, if it has.
    ended: watch::Sender<Option<Ended>>,
    backoff: SharedBackoff,
    /// Why it was given up, if it was.
    given_up: OnceLock<&'static str>,
    /// It has brought what is no message.
    has_garbled: AtomicBool,
    /// Who follows resources on it.
    pub followers: Arc<Followers>,
    to_server: mpsc::Sender<Queued>,
    unread: Arc<Semaphore>,
    turns: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    last_used: Mutex<Instant>,
    hints: Arc<Hints>,
    pub meters: Arc<Meters>,
    shared: Arc<Shared>,
}

/// The end of a pipe.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How, in words.
    pub how: Arc<str>,
    /// The node wanted it.
    pub wanted: bool,
}

/// A line on its way, with its share of [`UNREAD_BYTES_MAX`].
pub struct Queued {
    /// With a line end, and none before.
    pub line: Bytes,
    /// The number of the call that it is.
    pub call: Option<u64>,
    _room: OwnedSemaphorePermit,
}

/// Failures of the pipes that follow one another in one place.
pub type SharedBackoff = Arc<Mutex<Backoff>>;

/// What a pipe is made for.
pub struct Terms {
    pub backend: ResourceName,
    pub noun: &'static str,
    pub era: Era,
    pub clients: Clients,
    pub backoff: SharedBackoff,
    pub followers: Arc<Followers>,
    pub hints: Arc<Hints>,
    pub meters: Arc<Meters>,
    pub shared: Arc<Shared>,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The pipe has ended; the server has not seen the message.
    Ended,
    /// The server does not read what it is sent.
    Full,
}

/// A pipe that was just opened.
pub struct Open {
    pub pipe: Arc<Pipe>,
    /// What is said beside it.
    pub words: Option<Arc<LastWords>>,
}

impl Pipe {
    /// A pipe, and the queue that its server is to get.
    pub fn new(terms: Terms) -> (Arc<Self>, mpsc::Receiver<Queued>) {
        let Terms { backend, noun, era, clients, backoff, followers, hints, meters, shared } = terms;
        let (to_server, queue) = mpsc::channel(UNREAD_MESSAGES_MAX);
        let one_at_a_time = era == Era::Legacy && clients.asks && !clients.sole;
        let pipe = Self {
            backend,
            noun,
            era,
            clients,
            facts: OnceLock::new(),
            level: Level::default(),
            started: Instant::now(),
            pending: Arc::default(),
            stop: shared.shutdown.child_token(),
            ended: watch::Sender::new(None),
            backoff,
            given_up: OnceLock::new(),
            has_garbled: AtomicBool::new(false),
            followers,
            to_server,
            unread: Arc::new(Semaphore::new(UNREAD_BYTES_MAX)),
            turns: one_at_a_time.then(|| Arc::new(Semaphore::new(1))),
            waiting: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
            hints,
            meters,
            shared,
        };
        (Arc::new(pipe), queue)
    }

    /// Runs one call. Dropping it tells the server that nobody waits.
    pub async fn call(self: &Arc<Self>, call: &Call, caller: &Caller) -> Result<Answer, Failure> {
        let turn = self.turn().await?;
        let names = pending::names(&call.method, &call.id, &call.params);
        let ticket = self.pending.register(names.clone()).ok_or(Failure::Unsent)?;
        let params = pending::params(&call.params, &names, ticket.id);
        let line = Outgoing::request(&RawId::number(ticket.id), &call.method, &params).into_line();
        self.send_call(line, ticket.id).await.map_err(|refused| self.unsent(&refused))?;
        let mut running = Running { pipe: self, ticket: Some(ticket), turn };
        let outcome = running.follow(caller).await;
        running.finish();
        outcome
    }

    /// Asks something on the node's own account.
    pub async fn ask(self: &Arc<Self>, method: &Method, params: &Bytes) -> Result<Answer, CallError> {
        let mut ticket = self.pending.register(Names::default()).ok_or_else(|| self.gone_error(None))?;
        let line = Outgoing::request(&RawId::number(ticket.id), method, params).into_line();
        if self.send_call(line, ticket.id).await.is_err() {
            return Err(self.lost().await);
        }
        match (&mut ticket.answer).await {
            Ok(Ok(outcome)) => Ok(outcome.into()),
            Ok(Err(Failure::Call(error))) => Err(error),
            Ok(Err(Failure::Unsent)) | Err(_) => Err(self.lost().await),
        }
    }

    /// Puts a line into the queue of the server, if there is room now.
    pub fn send(&self, line: Bytes) -> Result<(), Refused> {
        let room =
            Arc::clone(&self.unread).try_acquire_many_owned(share(&line)).map_err(|_| Refused::Full)?;
        self.enqueue(Queued { line, call: None, _room: room })
    }

    /// The same for a call, which waits a little for room: a server that is
    /// slow holds its callers back.
    async fn send_call(&self, line: Bytes, id: u64) -> Result<(), Refused> {
        let room = Arc::clone(&self.unread).acquire_many_owned(share(&line));
        let room = tokio::select! {
            room = timeout(UNREAD_WAIT, room) => {
                room.map_err(|_| Refused::Full)?.map_err(|_| Refused::Ended)?
            }
            () = self.stop.cancelled() => return Err(Refused::Ended),
        };
        self.enqueue(Queued { line, call: Some(id), _room: room })
    }

    fn enqueue(&self, queued: Queued) -> Result<(), Refused> {
        self.to_server.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Ended,
        })
    }

    /// For how long nobody has called; none while somebody does.
    pub fn idle_for(&self) -> Option<Duration> {
        (self.pending.len() == 0).then(|| self.last_used.lock().elapsed())
    }

    /// Whether it can go, as nobody has called for so long and nobody listens.
    /// If so, it takes no more calls.
    pub fn close_if_idle(&self, idle_max: Duration) -> bool {
        self.idle_for().is_some_and(|idle| idle >= idle_max)
            && self.followers.is_empty()
            && self.pending.close_if_empty()
    }

    /// It has ended. Whoever hears of it finds it noted as a failure already,
    /// if it is one.
    pub fn set_ended(&self, ended: Ended) {
        if !ended.wanted {
            let why = format!("the {} ended: {}", self.noun, ended.how);
            self.backoff.lock().failed(Instant::now(), self.started.elapsed(), why, rand::random());
        }
        self.pending.close();
        self.stop.cancel();
        self.ended.send_replace(Some(ended));
    }

    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
        how.unwrap_or_else(|| Ended { how: "an unknown end".into(), wanted: true })
    }

    /// Why it was given up, if it was.
    pub fn given_up(&self) -> Option<&'static str> {
        self.given_up.get().copied()
    }

    pub fn give_up(&self, why: &'static str) {
        tracing::warn!(backend = %self.backend, carrier = self.noun, reason = why, "pipe is given up");
        _ = self.given_up.set(why);
        self.stop.cancel();
    }

    /// Does something with the pipe that outlives whoever wants it.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> F,
    ) {
        // Without a runtime the node itself is going.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.shared.tasks.spawn_on(work(Arc::clone(self)), &runtime);
        }
    }

    async fn turn(&self) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let Some(turns) = &self.turns else { return Ok(None) };
        let place = Waiting::new(&self.waiting);
        if place.ahead >= WAITING_CALLS_MAX {
            let error = CallError::Overloaded { backend: self.backend.clone(), limit: WAITING_CALLS_MAX };
            return Err(Failure::Call(error));
        }
        tokio::select! {
            // It may have ended with the turn before.
            biased;
            () = self.stop.cancelled() => Err(Failure::Unsent),
            // First come, first served: the semaphore is fair.
            turn = Arc::clone(turns).acquire_owned() => turn.map(Some).map_err(|_| Failure::Unsent),
        }
    }

    fn unsent(&self, refused: &Refused) -> Failure {
        match refused {
            Refused::Ended => Failure::Unsent,
            Refused::Full => Failure::Call(CallError::Unreachable {
                backend: self.backend.clone(),
                reason: format!("the {} does not read its input", self.peer()),
            }),
        }
    }

    async fn lost(&self) -> CallError {
        let how = if self.is_over() { timeout(EXIT_WAIT, self.ended()).await.ok() } else { None };
        self.gone_error(how.as_ref().map(|ended| &*ended.how))
    }

    fn gone_error(&self, how: Option<&str>) -> CallError {
        let reason = match (self.given_up(), how) {
            (Some(why), _) => why.to_owned(),
            (None, Some(how)) => format!("the {} ended: {how}", self.noun),
            (None, None) if self.is_over() => format!("the {} was closed", self.noun),
            (None, None) => "its messages came faster than they were taken".to_owned(),
        };
        CallError::Lost { backend: self.backend.clone(), reason }
    }

    /// Who is at the other end, in words.
    fn peer(&self) -> &'static str {
        if self.noun == PROCESS { PROCESS } else { "backend" }
    }

    /// Whether it has brought what is no message: from a server of something
    /// else, or one that logs to the wrong place.
    pub fn has_garbled(&self) -> bool {
        self.has_garbled.load(Ordering::Relaxed)
    }

    /// Takes a message of the server. False: it was none.
    pub fn take(&self, line: Bytes) -> bool {
        match Message::parse(line.clone(), Limits::BACKEND) {
            Ok(Message::Response(response)) => self.take_response(response),
            Ok(Message::Notification(told)) => self.take_notification(told, line),
            Ok(Message::Request(request)) => self.take_request(request),
            Err(error) => {
                self.meters.garbage.increment(1);
                self.has_garbled.store(true, Ordering::Relaxed);
                tracing::debug!(backend = %self.backend, line = excerpt(&line), %error, "no message");
                return false;
            }
        }
        true
    }

    fn take_response(&self, response: Response) {
        let id = response.id.as_ref().and_then(RawId::as_u64);
        if !id.is_some_and(|id| self.pending.complete(id, response.outcome)) {
            // Late, repeated, or about something that was not a call.
            self.meters.strays.increment(1);
        }
    }

    fn take_notification(&self, told: Notification, line: Bytes) {
        let hint = self.hints.pass(&told.method, &line);
        let subscription = (self.era == Era::Modern)
            .then(|| Meta::of(&told.params).ok()?.subscription_id()?.as_u64())
            .flatten();
        let delivery = match (&told.method, subscription) {
            (_, Some(id)) => {
                let delivery = self.pending.subscribed(id, &told);
                if delivery == Delivery::Full {
                    // A gap in a subscription must be seen: its client subscribes again.
                    self.pending.forget(id);
                }
                delivery
            }
            (Method::Progress, _) => self.pending.progress(&told),
            (Method::Cancelled, _) => self.take_cancelled(told.params),
            // Whoever subscribed: the call that runs now may be another client's.
            (Method::ResourcesUpdated, _) if !self.clients.sole => self.followers.tell(&told, &line),
            _ if self.has_owner() => match self.pending.notify_latest(Notice::Told(line.clone())) {
                Delivery::Nobody => self.tell_client(line),
                delivery => delivery,
            },
            _ => Delivery::Nobody,
        };
        if delivery != Delivery::Done && !hint {
            self.meters.strays.increment(1);
            tracing::debug!(backend = %self.backend, method = %told.method, ?delivery, "notification was not delivered");
        }
    }

    fn take_cancelled(&self, params: Params) -> Delivery {
        if self.era == Era::Modern {
            let id = params.id(Key::RequestId).and_then(|id| id.as_u64());
            return match id {
                Some(id) if self.pending.end_subscription(id) => Delivery::Done,
                _ => Delivery::Nobody,
            };
        }
        if self.has_owner() {
            self.pending.notify_latest(Notice::Withdrawn(params))
        } else {
            Delivery::Nobody
        }
    }

    fn take_request(&self, request: Request) {
        let id = request.id.clone();
        let refusal = match (self.era, &request.method) {
            (Era::Modern, _) => {
                // Not allowed at all, and neither would be an answer.
                self.meters.strays.increment(1);
                return;
            }
            (Era::Legacy, Method::Ping) => Ok(Bytes::from_static(b"{}")),
            (Era::Legacy, method) => {
                let refusal = RpcError::method_not_found(method.as_str()).to_json();
                if self.clients.asks && self.pending.notify_latest(Notice::Asked(request)) == Delivery::Done {
                    return;
                }
                Err(refusal)
            }
        };
        self.reply(message::response(&id, &refusal));
    }

    fn reply(&self, message: Bytes) {
        if self.send(Outgoing::from(message).into_line()).is_err() {
            tracing::debug!(backend = %self.backend, "a reply could not be sent");
        }
    }

    /// Whether what names no call can only be for one client.
    pub fn has_owner(&self) -> bool {
        self.clients.sole || self.turns.is_some()
    }

    fn tell_client(&self, line: Bytes) -> Delivery {
        match &self.clients.events {
            Some(events) if events.try_notify(line) => Delivery::Done,
            Some(_) => Delivery::Full,
            None => Delivery::Nobody,
        }
    }
}

/// Of [`UNREAD_BYTES_MAX`]. What is longer takes all of it.
fn share(line: &Bytes) -> u32 {
    u32::try_from(line.len().min(UNREAD_BYTES_MAX)).unwrap_or(u32::MAX)
}

/// A place in the line for a turn.
struct Waiting<'a> {
    waiting: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        Self { waiting, ahead: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Replies to the server's own requests go into its queue.
#[derive(Clone)]
struct PipeReplies(Arc<Pipe>);

impl Replies for PipeReplies {
    async fn send(&self, message: Bytes) {
        self.0.reply(message);
    }
}

/// A call that the server has been sent. Unless it has ended, dropping it
/// cancels it there.
struct Running<'a> {
    pipe: &'a Arc<Pipe>,
    ticket: Option<Ticket>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Running<'_> {
    async fn follow(&mut self, caller: &Caller) -> Result<Answer, Failure> {
        let ticket = self.ticket.as_mut().expect("only taken at the end");
        let mut questions = Questions::new(PipeReplies(Arc::clone(self.pipe)));
        let outcome = loop {
            let next = async {
                tokio::select! {
                    // What was said before the answer comes before it.
                    biased;
                    Some(notice) = ticket.notices.recv() => Ok(notice),
                    outcome = &mut ticket.answer => Err(outcome),
                }
            };
            match questions.beside(next).await {
                Ok(Notice::Told(message)) => questions.beside(caller.notify(message)).await,
                Ok(Notice::Asked(request)) => questions.take(request, Some(caller)),
                Ok(Notice::Withdrawn(params)) => questions.withdraw(&params),
                Err(outcome) => break outcome,
            }
        };
        match outcome {
            Ok(outcome) => outcome.map(Answer::from),
            Err(_closed) => Err(Failure::Call(self.pipe.lost().await)),
        }
    }

    /// The call is over for the server too.
    fn finish(&mut self) {
        self.ticket = None;
        *self.pipe.last_used.lock() = Instant::now();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        *self.pipe.last_used.lock() = Instant::now();
        if self.pipe.is_over() {
            return;
        }
        self.pipe.reply(message::cancelled(&RawId::number(ticket.id)));
        let (Some(turn), Ok(runtime)) = (self.turn.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let end = Arc::clone(self.pipe).end_of_turn(ticket, turn);
        self.pipe.shared.tasks.spawn_on(end, &runtime);
    }
}

impl Pipe {
    /// The next call's turn comes when the server is done with this one. If it
    /// does not get done, its questions could reach the wrong client.
    async fn end_of_turn(self: Arc<Self>, mut ticket: Ticket, turn: OwnedSemaphorePermit) {
        let done = async {
            loop {
                tokio::select! {
                    biased;
                    Some(notice) = ticket.notices.recv() => if let Notice::Asked(request) = notice {
                        let refusal = RpcError::cannot_ask("the call was cancelled").to_json();
                        self.reply(message::response(&request.id, &Err(refusal)));
                    },
                    _ = &mut ticket.answer => return,
                }
            }
        };
        if timeout(CANCEL_GRACE, done).await.is_err() {
            // Most servers say nothing more of a cancelled call, so there is no
            // blame in it; and what it still asks has nobody to reach.
            tracing::debug!(backend = %self.backend, "a cancelled call was not ended, the next gets a new pipe");
            self.stop.cancel();
        }
        drop(turn);
    }
}
