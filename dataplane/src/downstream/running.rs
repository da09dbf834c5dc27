//! A modern client's call while it runs: what is said on the way, then the
//! answer. Doors put it on their wire; dropping it cancels the call.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Door, Doors, reply};
use crate::{
    gateway::{
        self,
        call::{Answer, Call, CallError, Caller, ToClient},
    },
    mcp::{Era, ProtocolVersion, RawId},
};

/// What comes of a call next.
#[derive(Debug)]
pub enum Step {
    /// A notification, a whole message.
    Said(Bytes),
    /// The answer, a whole message; nothing follows. The status is for doors
    /// that have one.
    Ended { message: Bytes, status: StatusCode },
    /// Nothing, for as long as was waited.
    Silence,
}

/// A call that runs.
pub struct Running {
    id: RawId,
    version: ProtocolVersion,
    call: Option<BoxFuture<'static, Result<Answer, CallError>>>,
    from_call: mpsc::Receiver<ToClient>,
    /// Said, and not yet fetched.
    ready: VecDeque<Step>,
    doors: Arc<Doors>,
    began: Instant,
}

impl Running {
    /// Starts a call; it runs while its steps are waited for.
    pub fn start(door: Door, call: Call) -> Self {
        let (id, version, doors) = (call.id.clone(), call.client.version, door.doors.clone());
        let (caller, from_call) = Caller::channel();
        let run: BoxFuture<'static, _> = Box::pin(async move {
            let Door { node, table, view, .. } = door;
            gateway::answer(&node, &table, &view, call, &caller).await
        });
        let began = Instant::now();
        Self { id, version, call: Some(run), from_call, ready: VecDeque::new(), doors, began }
    }

    /// The next step; none after the end. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            let call = self.call.as_mut()?;
            tokio::select! {
                biased;
                // What was said before the answer goes before it.
                Some(said) = self.from_call.recv() => self.take(said),
                answer = call => self.finish(&answer),
            }
        }
    }

    /// As [`next`](Self::next), but waits no longer than this.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Step> {
        timeout(limit, self.next()).await.unwrap_or(Some(Step::Silence))
    }

    /// A question cannot be put to a modern client here: dropping it tells the
    /// callee so. The stream begins with whatever comes first, and never pauses.
    fn take(&mut self, said: ToClient) {
        match said {
            ToClient::Notify(message) => self.ready.push_back(Step::Said(message)),
            ToClient::Begin | ToClient::Ask(_) | ToClient::Pause { .. } => {}
        }
    }

    fn finish(&mut self, answer: &Result<Answer, CallError>) {
        self.call = None;
        // It may have said something and ended in one go, before anybody could look.
        while let Ok(said) = self.from_call.try_recv() {
            self.take(said);
        }
        let (message, ok) = reply::message(&self.id, self.version, answer);
        self.doors.meters.answered(Era::Modern, ok, self.began.elapsed());
        self.ready.push_back(Step::Ended { message, status: reply::status(self.version, answer) });
    }
}
