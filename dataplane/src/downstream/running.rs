//! A modern client's call while it runs: what is said on the way, then the
//! answer. Doors put it on their wire; dropping it cancels the call.
//!
//! A call that asks its client is handed to the node's parks, which keep it while
//! the client goes and comes back; from then on it is only listened to here.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use tokio::time::Instant;

use super::{
    door::{Door, Doors},
    handover, reply,
    step::Step,
};
use crate::{
    gateway::{
        self,
        call::{Answer, Call, CallError, Caller, ToClient},
        park::{
            self, Attachment, Subject, Told, Work,
            state::{self, State},
        },
    },
    mcp::{Era, Key, Limits, Params, ProtocolVersion, RawId, RpcError},
    node::Node,
};

/// A call that runs.
pub struct Running {
    id: RawId,
    version: ProtocolVersion,
    stage: Stage,
    /// None: its method may not be answered with questions.
    subject: Option<Subject>,
    /// Said, and not yet fetched.
    ready: VecDeque<Step>,
    doors: Arc<Doors>,
    node: Arc<Node>,
    began: Instant,
}

enum Stage {
    /// It has asked nothing so far.
    Here(Work),
    /// Others drive it.
    Parked(Attachment),
    /// It belongs to another node, which is being asked.
    HandedOver(BoxFuture<'static, Taken>),
    Elsewhere(BoxStream<'static, Step>),
    Over,
}

/// What another node says, or the call back, which is then of this one.
type Taken = Result<BoxStream<'static, Step>, Box<(Door, Call)>>;

impl Running {
    /// Starts a call; it runs while its steps are waited for.
    pub fn start(door: Door, call: Call) -> Self {
        let mut running = Self {
            id: call.id.clone(),
            version: call.client.version,
            stage: Stage::Over,
            subject: Subject::of(&door.view, &call),
            ready: VecDeque::new(),
            doors: door.doors.clone(),
            node: door.node.clone(),
            began: Instant::now(),
        };
        match handover::node_of(&door, &call, running.subject.as_ref()) {
            Some(node) => running.stage = Stage::HandedOver(Box::pin(handover::hand(door, call, node))),
            None => running.begin(door, call),
        }
        running
    }

    /// Starts it on this node.
    fn begin(&mut self, door: Door, call: Call) {
        match self.comes_back(&call) {
            Ok(Return::To(attachment)) => self.stage = Stage::Parked(attachment),
            Ok(Return::With(params)) => self.stage = begin(door, Call { params, ..call }),
            Ok(Return::New) => self.stage = begin(door, call),
            Err(error) => self.finish(Err(CallError::Rpc(error))),
        }
    }

    /// What a request with a `requestState` comes back to.
    fn comes_back(&self, call: &Call) -> Result<Return, RpcError> {
        let Some(subject) = self.subject.as_ref().filter(|_| call.params.peek(Key::RequestState).is_some())
        else {
            return Ok(Return::New);
        };
        match state::open(&self.node.keys(), subject)? {
            State::Parked(ticket) => park::retry(&self.node, &ticket, &call.params).map(Return::To),
            State::Backend { inner, .. } => {
                let params = call.params.patch().set_text(Key::RequestState.as_str(), &inner).finish();
                Params::scan(&params, Limits::BACKEND).map(Return::With).map_err(|_| state::invalid())
            }
        }
    }

    /// The next step; none after the end. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            match &mut self.stage {
                Stage::Here(Work { call, from_call }) => tokio::select! {
                    biased;
                    // What was said before the answer goes before it.
                    Some(said) = from_call.recv() => self.take(said),
                    answer = call => self.answered(answer),
                },
                Stage::Parked(attachment) => match attachment.next().await {
                    Told::Said(message) => self.ready.push_back(Step::Said(message)),
                    Told::Ended(outcome) => self.finish(outcome.map_err(CallError::Rpc)),
                },
                Stage::HandedOver(handing) => match handing.await {
                    Ok(steps) => self.stage = Stage::Elsewhere(steps),
                    Err(back) => {
                        let (door, call) = *back;
                        self.begin(door, call);
                    }
                },
                Stage::Elsewhere(steps) => match steps.next().await {
                    Some(step) => return Some(step),
                    None => self.stage = Stage::Over,
                },
                Stage::Over => return None,
            }
        }
    }

    /// A step that is there already; waits for nothing and runs nothing.
    pub fn ready(&mut self) -> Option<Step> {
        if self.ready.is_empty()
            && let Stage::Here(Work { from_call, .. }) = &mut self.stage
            && let Ok(said) = from_call.try_recv()
        {
            self.take(said);
        }
        self.ready.pop_front()
    }

    /// The stream begins with whatever comes first, and never pauses. A question
    /// that cannot be put to the client is dropped, which tells the callee so.
    fn take(&mut self, said: ToClient) {
        match said {
            ToClient::Notify(message) => self.ready.push_back(Step::Said(message)),
            ToClient::Begin | ToClient::Pause { .. } => {}
            ToClient::Ask(ask) => {
                let Some(subject) = self.subject.clone() else { return };
                let Stage::Here(work) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
                self.stage = match park::adopt(&self.node, subject, work, ask) {
                    Ok(attachment) => Stage::Parked(attachment),
                    Err(work) => Stage::Here(*work),
                };
            }
        }
    }

    fn answered(&mut self, answer: Result<Answer, CallError>) {
        // It may have said something and ended in one go, before anybody could look.
        if let Stage::Here(Work { mut from_call, .. }) = std::mem::replace(&mut self.stage, Stage::Over) {
            while let Ok(said) = from_call.try_recv() {
                self.take(said);
            }
        }
        let answer = match (answer, &self.subject) {
            (Ok(Answer::Result(result)), Some(subject)) => {
                let wrapped = state::wrap(&self.node.keys(), subject, result);
                wrapped.map(Answer::Result).map_err(CallError::Rpc)
            }
            (answer, _) => answer,
        };
        self.finish(answer);
    }

    fn finish(&mut self, answer: Result<Answer, CallError>) {
        self.stage = Stage::Over;
        let (message, ok) = reply::pieces(&self.id, self.version, &answer);
        self.doors.meters.answered(Era::Modern, ok, self.began.elapsed());
        self.ready.push_back(Step::Ended { message, status: reply::status(self.version, &answer) });
    }
}

#[cfg(test)]
impl Running {
    /// Of a call that has come through no door.
    pub fn of(doors: &Arc<Doors>, id: RawId, work: Work) -> Self {
        Self {
            id,
            version: ProtocolVersion::V2026_07_28,
            stage: Stage::Here(work),
            subject: None,
            ready: VecDeque::new(),
            doors: doors.clone(),
            node: doors.node.clone(),
            began: Instant::now(),
        }
    }
}

/// What a request is to the calls that have asked.
enum Return {
    New,
    /// Its call is parked here.
    To(Attachment),
    /// The backend keeps its state in these params.
    With(Params),
}

fn begin(door: Door, mut call: Call) -> Stage {
    let (caller, from_call) = Caller::channel();
    let call = Box::pin(async move {
        let Door { node, table, view, .. } = door;
        gateway::answer(&node, &table, &view, &mut call, &caller).await
    });
    Stage::Here(Work { call, from_call })
}
