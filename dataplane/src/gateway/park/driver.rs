//! Drives one call that has asked: what it says goes to whoever listens, what it
//! asks to the client, and the client's answers back to it.
//!
//! This file carries bytes; what happens when is decided in `machine.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    attachment::{Heard, Outcome, lost},
    machine::{Action, Denial, Machine, ROUND_TTL},
    state::{self, Ticket},
    subject::Subject,
    table::{Place, Retry},
};
use crate::{
    gateway::{
        bridge::translate::each_member,
        call::{Answer, Ask, CallError, Question, Reply, ToClient},
    },
    mcp::{Key, ProtocolVersion, RpcError, splice::Object, version::LATEST_MODERN},
    node::Node,
};

/// What speaks to modern clients only says it in their words.
const VERSION: ProtocolVersion = LATEST_MODERN;

/// A call that runs, and what it says.
pub struct Work {
    pub call: BoxFuture<'static, Result<Answer, CallError>>,
    pub from_call: mpsc::Receiver<ToClient>,
}

pub(super) struct Driver {
    node: Arc<Node>,
    place: Place,
    subject: Subject,
    machine: Machine,
    /// None once the call is over.
    work: Option<Work>,
    retries: mpsc::Receiver<Retry>,
    listeners: Vec<mpsc::Sender<Heard>>,
    replies: HashMap<u64, oneshot::Sender<Vec<Reply>>>,
    sets: u64,
    /// What was last put to the client.
    questions: Option<Bytes>,
    outcome: Option<Outcome>,
}

/// What the driver waits for.
enum Event {
    Said(ToClient),
    Ended(Outcome),
    Retried(Retry),
    Left,
    Time,
    Draining,
}

impl Driver {
    pub fn new(
        node: Arc<Node>,
        place: Place,
        subject: Subject,
        work: Work,
        retries: mpsc::Receiver<Retry>,
        listener: mpsc::Sender<Heard>,
        first: Ask,
    ) -> Self {
        let mut driver = Self {
            node,
            place,
            subject,
            machine: Machine::new(Instant::now()),
            work: Some(work),
            retries,
            listeners: vec![listener],
            replies: HashMap::new(),
            sets: 0,
            questions: None,
            outcome: None,
        };
        _ = driver.ask(first);
        driver
    }

    /// Until nothing is left to be had.
    pub async fn run(mut self) {
        while !self.machine.is_over() {
            let event = self.next().await;
            self.withdraw();
            let now = Instant::now();
            let actions = match event {
                Event::Said(ToClient::Notify(message)) => {
                    self.tell(&message).await;
                    Vec::new()
                }
                Event::Said(ToClient::Ask(ask)) => self.ask(ask),
                Event::Said(ToClient::Begin | ToClient::Pause { .. }) => Vec::new(),
                Event::Ended(outcome) => {
                    self.conclude(outcome).await;
                    self.machine.ended(now)
                }
                Event::Retried(retry) => {
                    self.retried(now, retry).await;
                    Vec::new()
                }
                Event::Left => {
                    counter!("mt_parks_ended_total", "how" => "cancelled").increment(1);
                    self.outcome = Some(Err(RpcError::cancelled()));
                    self.machine.left(now)
                }
                Event::Time => self.machine.tick(now),
                Event::Draining => return,
            };
            if !self.carry_out(actions, None).await {
                return;
            }
        }
    }

    /// Safe to drop while it waits.
    async fn next(&mut self) -> Event {
        let wake = self.machine.wake();
        let attended = self.machine.has_listener();
        let Self { node, work, retries, listeners, .. } = self;
        let working = async {
            match work {
                Some(Work { call, from_call }) => tokio::select! {
                    biased;
                    // What was said before the answer goes before it.
                    Some(said) = from_call.recv() => Event::Said(said),
                    answer = call => Event::Ended(answer.map_err(|error| error.to_rpc(VERSION))),
                },
                None => std::future::pending().await,
            }
        };
        let left = async {
            for listener in listeners.iter() {
                listener.closed().await;
            }
        };
        let time = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = working => event,
            // A repeat may come as its first connection goes.
            Some(retry) = retries.recv() => Event::Retried(retry),
            () = left, if attended => Event::Left,
            () = time => Event::Time,
            () = node.draining.cancelled(), if !attended => Event::Draining,
        }
    }

    fn ask(&mut self, ask: Ask) -> Vec<Action> {
        let Ask { questions, replies } = ask;
        let bytes = questions.iter().map(|question| question.params.len()).sum();
        // Dropping the sender tells whoever asked.
        if !self.place.keep(bytes) {
            return Vec::new();
        }
        self.sets += 1;
        self.replies.insert(self.sets, replies);
        let now = Instant::now();
        let actions = self.machine.asked(now, self.sets, questions);
        for action in &actions {
            if let Action::Refuse { set } = action {
                counter!("mt_parks_refused_total", "limit" => "questions").increment(1);
                self.replies.remove(set);
            }
        }
        actions
    }

    /// Forgets what nobody wants to know any more.
    fn withdraw(&mut self) {
        let machine = &mut self.machine;
        self.replies.retain(|set, replies| {
            let wanted = !replies.is_closed();
            if !wanted {
                machine.withdrawn(*set);
            }
            wanted
        });
    }

    /// The call is over: what it said last goes before its outcome.
    async fn conclude(&mut self, outcome: Outcome) {
        let Some(Work { mut from_call, .. }) = self.work.take() else { return };
        while let Ok(said) = from_call.try_recv() {
            if let ToClient::Notify(message) = said {
                self.tell(&message).await;
            }
        }
        counter!("mt_parks_ended_total", "how" => "answered").increment(1);
        let outcome = match outcome {
            Ok(Answer::Result(result)) => {
                state::wrap(&self.node.keys(), &self.subject, result).map(Answer::Result)
            }
            other => other,
        };
        self.outcome = Some(outcome);
    }

    async fn tell(&mut self, message: &Bytes) {
        for listener in &self.listeners {
            // One that is gone is noticed by the machine.
            _ = listener.send(Heard::Said(message.clone())).await;
        }
    }

    async fn retried(&mut self, now: Instant, retry: Retry) {
        let Retry { round, responses, listener } = retry;
        let digest = blake3::hash(&state::canonical(&responses));
        let answers = answers(&responses);
        let actions = self.machine.retried(now, round, *digest.as_bytes(), &answers);
        _ = self.carry_out(actions, Some(listener)).await;
    }

    /// False: nothing is left to be had.
    async fn carry_out(&mut self, actions: Vec<Action>, mut who: Option<mpsc::Sender<Heard>>) -> bool {
        for action in actions {
            match action {
                Action::Reply { set, replies } => {
                    if let Some(to) = self.replies.remove(&set) {
                        // It may have been withdrawn this moment.
                        _ = to.send(replies);
                    }
                }
                Action::Refuse { set } => _ = self.replies.remove(&set),
                Action::Attach => {
                    count_retry("attached");
                    self.listeners.extend(who.take());
                }
                Action::Present { round } => {
                    let questions = self.present(round);
                    self.questions = Some(questions.clone());
                    self.end_for_all(&Ok(Answer::Result(questions))).await;
                }
                Action::Conclude => {
                    let outcome = self.outcome();
                    self.end_for_all(&outcome).await;
                    if !self.rest() {
                        return false;
                    }
                }
                Action::GiveQuestions => {
                    count_retry("repeated");
                    let questions = self.questions.clone().ok_or_else(lost).map(Answer::Result);
                    give(who.take(), questions).await;
                }
                Action::GiveOutcome => {
                    count_retry("outcome");
                    give(who.take(), self.outcome()).await;
                }
                Action::Deny(denial) => {
                    count_retry("denied");
                    give(who.take(), Err(denied(denial))).await;
                }
                Action::Drop => {
                    self.work = None;
                    self.replies.clear();
                    self.listeners.clear();
                    if !self.rest() {
                        return false;
                    }
                }
                Action::Forget => {
                    if self.outcome.is_none() {
                        counter!("mt_parks_ended_total", "how" => "expired").increment(1);
                    }
                    return false;
                }
            }
        }
        // It has ended while its client was away.
        if self.work.is_none() && self.place.is_live() {
            return self.rest();
        }
        true
    }

    /// Keeps no more than the outcome.
    fn rest(&mut self) -> bool {
        self.questions = None;
        self.place.let_go();
        let bytes = match &self.outcome {
            Some(Ok(Answer::Result(bytes) | Answer::Error(bytes))) => bytes.len(),
            Some(Err(_)) | None => 0,
        };
        self.place.rest() && self.place.keep(bytes)
    }

    fn outcome(&self) -> Outcome {
        self.outcome.clone().unwrap_or_else(|| Err(lost()))
    }

    async fn end_for_all(&mut self, outcome: &Outcome) {
        for listener in self.listeners.drain(..) {
            give(Some(listener), outcome.clone()).await;
        }
    }

    /// The result that puts the open questions to the client.
    fn present(&self, round: u32) -> Bytes {
        counter!("mt_park_rounds_total").increment(1);
        let ticket = Ticket {
            node: self.node.tag().as_ref().to_owned(),
            park: self.place.id,
            round,
            digest: state::digest(&self.subject.method, &self.subject.params),
            expires: state::expires_in(ROUND_TTL),
        };
        let sealed = state::seal_ticket(&self.node.keys(), &self.subject, ticket);
        Object::default()
            .set_text("resultType", "input_required")
            .set("inputRequests", &requests(self.machine.questions()))
            .set_text(Key::RequestState.as_str(), &sealed)
            .finish()
    }
}

async fn give(listener: Option<mpsc::Sender<Heard>>, outcome: Outcome) {
    if let Some(listener) = listener {
        // One that is gone may come again.
        _ = listener.send(Heard::Ended(outcome)).await;
    }
}

fn count_retry(outcome: &'static str) {
    counter!("mt_park_retries_total", "outcome" => outcome).increment(1);
}

/// `inputRequests`.
fn requests<'a>(questions: impl Iterator<Item = &'a Question>) -> Bytes {
    questions
        .fold(Object::default(), |requests, Question { key, method, params }| {
            let request = Object::default().set_text("method", method.as_str()).set("params", params);
            requests.set(key, &request.finish())
        })
        .finish()
}

/// The members of `inputResponses`. Only an object is an answer.
fn answers(responses: &Bytes) -> BTreeMap<String, Bytes> {
    let mut answers = BTreeMap::new();
    let read = each_member(responses, |key, raw| {
        if raw.starts_with(b"{") {
            answers.insert(key.into_owned(), raw);
        }
    });
    match read {
        Ok(()) => answers,
        Err(_) => BTreeMap::new(),
    }
}

fn denied(denial: Denial) -> RpcError {
    match denial {
        Denial::Invalid => state::invalid(),
        Denial::OtherAnswers => {
            RpcError::invalid_params("this requestState was already answered with other inputResponses")
        }
        Denial::Spent => {
            RpcError::invalid_params("this requestState was answered, and the call has asked again")
        }
    }
}
