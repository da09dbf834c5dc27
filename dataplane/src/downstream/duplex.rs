//! A conversation with one client over a channel that carries messages both
//! ways: a WebSocket, stdin and stdout, an event stream with POSTs beside it.
//!
//! ```text
//!  message ─► decide ─┬─ initialize            opens the session of this connection
//!                     ├─ legacy request        a call of the session (legacy.rs)
//!                     ├─ modern request        a call that stands alone (running.rs)
//!                     └─ cancelled, answers, what is told
//!  queue   ◄─ answers, notifications, questions, each a whole message
//! ```
//!
//! The door frames messages and knows when the client is gone; dropping the
//! [`Duplex`] then cancels every call and ends the session. What a message means
//! is decided in `decide.rs`; which ids are in use, in `flights.rs`.

mod decide;
mod flights;
mod standing;

use std::sync::Arc;

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    decide::{Action, decide},
    flights::{Flights, Ticket},
    standing::Standing,
};
use super::{
    door::{DRAIN_MAX, Door, Doors},
    lasting::Ended,
    legacy,
    meters::Closed,
    modern,
    outlet::{Outlet, Queue},
    pump::Pump,
    reply,
    running::Running,
    session::Session,
    step::Step,
    stream::Reader,
};
use crate::{
    gateway::call::{CallError, Identity, ToClient},
    mcp::{
        BadMessage, Era, Limits, Message, Notification, Params, RawId, Request, RpcError, envelope,
        meta::Meta, splice,
    },
};

/// Notifications of a client that wait for the backends to take them.
const TOLD_MAX: usize = 64;

/// One conversation. Dropping it cancels its calls and ends its session.
pub struct Duplex {
    shared: Arc<Shared>,
    told: mpsc::Sender<Told>,
}

/// What the tasks of a conversation need.
struct Shared {
    doors: Arc<Doors>,
    gateway: ResourceName,
    identity: Arc<Identity>,
    queue: Arc<Queue>,
    flights: Mutex<Flights>,
    /// Told whenever a call is over.
    landed: Notify,
    legacy: Mutex<Option<Legacy>>,
    closed: CancellationToken,
}

/// The session of a connection.
struct Legacy {
    token: String,
    session: Arc<Session>,
    /// Of its `initialize`, to open it again.
    params: Params,
    standing: Standing,
    /// Counts the sessions that this one has taken the place of.
    reopened: u64,
    /// The session is in use for as long as the connection is.
    _attached: Reader,
}

/// A notification of a client, and as it came.
struct Told {
    session: Arc<Session>,
    notification: Notification,
    body: Bytes,
}

impl Duplex {
    /// Begins a conversation with a gateway; what is said to the client goes to
    /// the queue.
    pub fn begin(
        doors: &Arc<Doors>,
        gateway: ResourceName,
        identity: Arc<Identity>,
        queue: Arc<Queue>,
    ) -> Self {
        let shared = Arc::new(Shared {
            doors: doors.clone(),
            gateway,
            identity,
            queue,
            flights: Mutex::default(),
            landed: Notify::new(),
            legacy: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let (told, telling) = mpsc::channel(TOLD_MAX);
        doors.node.tracker.spawn(tell(shared.clone(), telling));
        Self { shared, told }
    }

    /// Takes a message of the client. Waits for nothing but room in the queue
    /// for what it answers itself.
    pub async fn take(&self, message: Bytes) {
        if envelope::is_batch(&message) {
            return self.batch(message).await;
        }
        match Message::parse(message.clone(), Limits::CLIENT) {
            Ok(parsed) => self.take_parsed(parsed, message).await,
            Err(error) => self.malformed(&error).await,
        }
    }

    /// As [`take`](Self::take), of a message that is parsed already.
    pub async fn take_parsed(&self, message: Message, body: Bytes) {
        let shared = &self.shared;
        let has_session = shared.legacy.lock().is_some();
        match decide(message, has_session) {
            Action::Open(request) => shared.open(request).await,
            Action::Legacy(request) => shared.run_legacy(request).await,
            Action::Modern(request, meta) => shared.run_modern(request, &meta).await,
            Action::Pong(id) => shared.say(splice::response(&id, &b"{}"[..])).await,
            Action::Cancel(id) => {
                shared.flights.lock().cancel(&id);
                if let Some(session) = shared.session() {
                    session.cancel(&id);
                }
            }
            Action::Tell(notification) => {
                let Some(session) = shared.session() else { return };
                shared.attend(&session);
                if self.told.try_send(Told { session, notification, body }).is_err() {
                    shared.doors.meters.notifications_dropped.increment(1);
                }
            }
            Action::Answered(response) => {
                if let Some(session) = shared.session() {
                    legacy::replied(&session, response);
                }
            }
            Action::Refuse(id, error) => shared.refuse(Some(&id), &error).await,
            Action::Ignore => {}
        }
    }

    /// A batch runs beside what follows it: its calls may wait for answers that do.
    async fn batch(&self, body: Bytes) {
        let shared = &self.shared;
        let door = match shared.enter() {
            Ok(door) => door,
            Err(error) => return shared.refuse(None, &error).await,
        };
        let Some(session) = shared.session() else {
            let error = RpcError::invalid_request("there are no batches before initialize");
            return shared.refuse(None, &error).await;
        };
        // A batch is one of the calls that the connection may have, under an id of ours.
        let id = RawId::text(&format!("batch.{}", uuid::Uuid::new_v4().simple()));
        let (ticket, cancelled) = match shared.depart(&id) {
            Ok(flight) => flight,
            Err(error) => return shared.refuse(None, &error).await,
        };
        shared.attend(&session);
        let (shared, tracker) = (shared.clone(), door.node.tracker.clone());
        tracker.spawn(cancelled.run_until_cancelled_owned(async move {
            let _landing = Landing { shared: shared.clone(), ticket };
            let outlet = Outlet::Messages(shared.queue.clone());
            match legacy::batch(&door, &session, &body, Some(&outlet)).await {
                Ok(Some(answers)) => shared.say(answers).await,
                Ok(None) => {}
                Err(error) => shared.refuse(None, &error).await,
            }
        }));
    }

    /// Answers what is no message.
    pub async fn malformed(&self, error: &BadMessage) {
        self.shared.refuse(error.id.as_ref(), &RpcError::from(error)).await;
    }

    /// Answers what nobody could read the id of.
    pub async fn refuse(&self, error: &RpcError) {
        self.shared.refuse(None, error).await;
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        loop {
            let landing = self.shared.landed.notified();
            if self.shared.flights.lock().is_empty() {
                return;
            }
            landing.await;
        }
    }

    /// Ends when the node is about to stop and the calls that were under way are
    /// done, or have had their time. Then the door closes.
    pub async fn drained(&self) {
        self.shared.doors.node.draining.cancelled().await;
        _ = timeout(DRAIN_MAX, self.idle()).await;
    }

    /// Why it has to be closed, if the queue has ended by itself.
    pub fn why(&self) -> Closed {
        match self.shared.queue.end() {
            Some(super::outlet::End::Stalled) => Closed::Stalled,
            _ => Closed::Client,
        }
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.queue.finish();
        if let Some(legacy) = self.shared.legacy.lock().take() {
            legacy.end(&self.shared.doors);
        }
    }
}

impl Legacy {
    fn end(&self, doors: &Doors) {
        doors.sessions.end(&self.token);
        // Also if its record is gone already.
        self.session.end();
        legacy::close_upstream(&doors.node, &self.session);
    }
}

impl Shared {
    /// What the next message is served with.
    fn enter(&self) -> Result<Door, RpcError> {
        self.doors.enter(self.gateway.as_str(), self.identity.clone()).map_err(|(_, error)| error)
    }

    /// What a call is served with, which is not taken any more when the node is
    /// about to stop.
    fn enter_call(&self) -> Result<Door, RpcError> {
        if self.doors.node.draining.is_cancelled() {
            return Err(RpcError::draining());
        }
        self.enter()
    }

    async fn say(&self, message: Bytes) {
        _ = self.queue.push(message).await;
    }

    /// Refuses a message. An id that a call has is not repeated: the refusal
    /// would be taken for its answer.
    async fn refuse(&self, id: Option<&RawId>, error: &RpcError) {
        let id = id.filter(|id| !self.flights.lock().is_in_use(id));
        self.say(splice::error_response(id, error)).await;
    }

    /// Notes a call.
    fn depart(&self, id: &RawId) -> Result<(Ticket, CancellationToken), RpcError> {
        let cancelled = self.closed.child_token();
        match self.flights.lock().begin(id, cancelled.clone()) {
            Ok(ticket) => Ok((ticket, cancelled)),
            Err(refused) => Err(RpcError::invalid_request(refused.to_string())),
        }
    }

    /// Answers a call, unless it was cancelled.
    async fn answer(&self, ticket: &Ticket, message: Bytes) {
        if self.flights.lock().claim(ticket) {
            self.say(message).await;
        }
    }

    async fn open(&self, request: Request) {
        let opened = self
            .enter_call()
            .and_then(|door| legacy::open(&door, &request.params).map_err(|(_, error)| error));
        let opened = match opened {
            Ok(opened) if !self.flights.lock().is_in_use(&request.id) => opened,
            Ok(_) => {
                let error = RpcError::invalid_request("a request with this id is under way");
                return self.refuse(None, &error).await;
            }
            Err(error) => return self.refuse(Some(&request.id), &error).await,
        };
        let legacy = Legacy {
            _attached: opened.session.inbox().attach(None),
            token: opened.token,
            session: opened.session,
            params: request.params,
            standing: Standing::default(),
            reopened: 0,
        };
        // A client that starts again has left its session.
        if let Some(left) = self.legacy.lock().replace(legacy) {
            left.end(&self.doors);
        }
        self.say(splice::response(&request.id, &opened.result)).await;
    }

    /// The session of now.
    fn session(&self) -> Option<Arc<Session>> {
        let session = self.legacy.lock().as_ref()?.session.clone();
        session.touch();
        // It may have grown too old, or a backend has lost what it held of it.
        if session.ended.is_cancelled() { self.reopen(&session) } else { Some(session) }
    }

    /// Opens a session in the place of one that was lost, as the client has
    /// opened it: a connection cannot be told to initialize again.
    fn reopen(&self, lost: &Arc<Session>) -> Option<Arc<Session>> {
        let door = self.enter().ok()?;
        let mut slot = self.legacy.lock();
        let legacy = slot.as_mut()?;
        if !Arc::ptr_eq(&legacy.session, lost) {
            return Some(legacy.session.clone());
        }
        let opened = legacy::open(&door, &legacy.params).ok()?;
        legacy.end(&self.doors);
        legacy.token = opened.token;
        legacy._attached = opened.session.inbox().attach(None);
        legacy.session = opened.session;
        legacy.reopened += 1;
        debug!(session = %legacy.session.id, "a session takes the place of a lost one");
        let again = legacy.standing.again(&format!("reopened.{}", legacy.reopened));
        let session = legacy.session.clone();
        drop(slot);
        self.attend(&session);
        for request in again {
            // Its answer is for nobody: the client has had one.
            drop(legacy::start(&door, &session, request));
        }
        Some(session)
    }

    /// From now on a backend may hold state of this session, and say something
    /// that belongs to no call.
    fn attend(&self, session: &Arc<Session>) {
        if session.mark_upstream() {
            let outlet = Outlet::Messages(self.queue.clone());
            legacy::attend(self.doors.node.clone(), session.clone(), outlet);
        }
    }

    async fn run_legacy(self: &Arc<Self>, request: Request) {
        let began = Instant::now();
        let session = self.session();
        let (door, session, ticket) = match (self.enter_call(), session) {
            (Ok(door), Some(session)) => match self.depart(&request.id) {
                Ok((ticket, _)) => (door, session, ticket),
                Err(error) => return self.refuse(Some(&request.id), &error).await,
            },
            (Err(error), _) => return self.refuse(Some(&request.id), &error).await,
            (Ok(_), None) => return self.refuse(Some(&request.id), &RpcError::session_not_found()).await,
        };
        let landing = Landing { shared: self.clone(), ticket };
        self.attend(&session);
        let Some(started) = legacy::start(&door, &session, request.clone()) else {
            drop(landing);
            let error = RpcError::invalid_request("too many requests are under way");
            return self.refuse(Some(&request.id), &error).await;
        };
        let shared = self.clone();
        let closed = self.closed.clone();
        door.node.tracker.clone().spawn(closed.run_until_cancelled_owned(async move {
            let answer = shared.carry(door, session.clone(), &request, started).await;
            let (message, ok) = reply::message(&request.id, session.version, &answer);
            shared.answer(&landing.ticket, message).await;
            shared.doors.meters.answered(Era::Legacy, ok, began.elapsed());
        }));
    }

    /// Carries what a legacy call says, up to its answer. One that finds the
    /// session lost runs once more in the next: that it was lost means that
    /// nobody has seen the call.
    async fn carry(
        &self,
        door: Door,
        session: Arc<Session>,
        request: &Request,
        started: (JoinHandle<Ended>, mpsc::Receiver<ToClient>),
    ) -> Result<crate::gateway::call::Answer, CallError> {
        let answer = self.follow(&session, started).await;
        let answer = match answer {
            Err(CallError::SessionLost { .. }) => match self.reopen(&session) {
                Some(session) => match legacy::start(&door, &session, request.clone()) {
                    Some(started) => self.follow(&session, started).await,
                    None => answer,
                },
                None => answer,
            },
            answer => answer,
        };
        if matches!(answer, Ok(crate::gateway::call::Answer::Result(_)))
            && let Some(legacy) = self.legacy.lock().as_mut()
        {
            legacy.standing.granted(request);
        }
        answer
    }

    async fn follow(
        &self,
        session: &Arc<Session>,
        (task, from_call): (JoinHandle<Ended>, mpsc::Receiver<ToClient>),
    ) -> Result<crate::gateway::call::Answer, CallError> {
        let pump = Pump { session: session.clone(), outlet: Outlet::Messages(self.queue.clone()) };
        pump.run(None, from_call).await;
        match task.await {
            Ok(Some(answer)) => answer,
            // If the client has cancelled it, this answer goes nowhere.
            Ok(None) => Err(CallError::Rpc(RpcError::cancelled())),
            Err(_) => Err(CallError::Rpc(RpcError::internal())),
        }
    }

    async fn run_modern(self: &Arc<Self>, request: Request, meta: &Meta) {
        let admitted = self.enter_call().and_then(|door| {
            let call = modern::admit(&door, None, &request, meta).map_err(|(_, error)| error)?;
            Ok((door, call))
        });
        let (door, call) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return self.refuse(Some(&request.id), &error).await,
        };
        let (ticket, cancelled) = match self.depart(&request.id) {
            Ok(flight) => flight,
            Err(error) => return self.refuse(Some(&request.id), &error).await,
        };
        let landing = Landing { shared: self.clone(), ticket };
        let tracker = door.node.tracker.clone();
        let mut running = Running::start(door, call);
        tracker.spawn(cancelled.run_until_cancelled_owned(async move {
            let shared = &landing.shared;
            while let Some(step) = running.next().await {
                match step {
                    Step::Said(message) => shared.say(message).await,
                    Step::Ended { message, .. } => shared.answer(&landing.ticket, message.joined()).await,
                }
            }
        }));
    }
}

/// Takes a call off the table when its task ends, however it ends.
struct Landing {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.flights.lock().end(&self.ticket);
        self.shared.landed.notify_waiters();
    }
}

/// Passes on what a client tells, in its order, until the conversation ends.
async fn tell(shared: Arc<Shared>, mut telling: mpsc::Receiver<Told>) {
    while let Some(Told { session, notification, body }) = telling.recv().await {
        // Nothing is passed on without a configuration, and nobody waits for it.
        if let Ok(door) = shared.enter() {
            let passed = legacy::notified(&door, &session, notification, body);
            shared.closed.run_until_cancelled(passed).await;
        }
    }
}
