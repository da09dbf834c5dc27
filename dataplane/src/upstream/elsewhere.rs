//! Answers that come on another stream than the one that was asked on.
//!
//! A backend that closes a call's stream early answers on the stream that the
//! call comes back with. Some answer on whichever stream of the session is
//! opened next, and that may be the session's own.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::mcp::{
    envelope::{Outcome, Response},
    id::RawId,
};

/// Answers of one session that wait for their calls; the oldest go.
const ANSWERS_MAX: usize = 16;

#[derive(Debug, Default)]
pub struct Elsewhere {
    answers: Mutex<VecDeque<(RawId, Outcome)>>,
    arrived: Notify,
}

impl Elsewhere {
    /// Keeps an answer for whoever misses it.
    pub fn put(&self, response: Response) {
        let Some(id) = response.id else { return };
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back((id, response.outcome));
        drop(answers);
        self.arrived.notify_waiters();
    }

    /// The answer to a call, if it came here.
    pub fn take(&self, id: &RawId) -> Option<Outcome> {
        let mut answers = self.answers.lock();
        let at = answers.iter().position(|(own, _)| own.same_value(id))?;
        answers.remove(at).map(|(_, outcome)| outcome)
    }

    /// Waits for the answer to a call.
    pub async fn wait(&self, id: &RawId) -> Outcome {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(outcome) = self.take(id) {
                return outcome;
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response(id: u64) -> Response {
        Response { id: Some(RawId::number(id)), outcome: Outcome::Result(Bytes::from(id.to_string())) }
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_call_and_a_call_for_its_answer() {
        let elsewhere = Elsewhere::default();
        elsewhere.put(response(1));
        assert!(elsewhere.take(&RawId::number(2)).is_none());
        let second = RawId::number(2);
        let (found, ()) = tokio::join!(elsewhere.wait(&second), async {
            elsewhere.put(response(2));
        });
        assert!(matches!(found, Outcome::Result(bytes) if bytes == "2"));
        assert!(elsewhere.take(&RawId::number(1)).is_some());
    }

    #[test]
    fn answers_that_nobody_misses_do_not_grow() {
        let elsewhere = Elsewhere::default();
        for id in 0..100 {
            elsewhere.put(response(id));
        }
        assert_eq!(elsewhere.answers.lock().len(), ANSWERS_MAX);
        assert!(elsewhere.take(&RawId::number(99)).is_some());
    }
}
