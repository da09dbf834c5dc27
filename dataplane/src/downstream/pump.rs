//! What a call says on its way to the client of a session: notifications as they
//! come, questions with ids of the session, and their withdrawal when nobody waits
//! for an answer any more. Where it goes is the outlet's business.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{outlet::Outlet, session::Session};
use crate::{
    gateway::call::{Ask, Reply, ToClient},
    mcp::{
        Method, RawId,
        splice::{self, Object},
    },
};

/// Carries what a callee says to the client of a session.
pub struct Pump {
    pub session: Arc<Session>,
    pub outlet: Outlet,
}

impl Pump {
    /// Until the callee has said everything.
    pub async fn run(&self, first: Option<ToClient>, mut from_callee: mpsc::Receiver<ToClient>) {
        let mut asked = FuturesUnordered::new();
        let mut next = first;
        loop {
            match next.take() {
                Some(ToClient::Notify(message)) => self.outlet.push(&message).await,
                Some(ToClient::Pause { retry }) => self.pause(retry),
                Some(ToClient::Ask(ask)) => {
                    let Ask { questions, mut replies } = ask;
                    let mut waiting = Vec::with_capacity(questions.len());
                    let mut ids = Vec::with_capacity(questions.len());
                    for question in questions {
                        // Too many questions wait: the callee hears that nobody answers.
                        let Some((id, answer)) = self.session.ask() else { break };
                        let message = splice::request(&id, &question.method, Some(&question.params));
                        self.outlet.push(&message).await;
                        waiting.push(answer);
                        ids.push(id);
                    }
                    asked.push(async move {
                        let answers: Result<Vec<Reply>, _> = tokio::select! {
                            answers = try_join_all(waiting) => answers,
                            // Nobody waits any more: the client need not answer.
                            () = replies.closed() => return ids,
                        };
                        if let Ok(answers) = answers {
                            _ = replies.send(answers);
                        }
                        Vec::new()
                    });
                }
                Some(ToClient::Begin) | None => {}
            }
            tokio::select! {
                said = from_callee.recv() => match said {
                    Some(said) => next = Some(said),
                    None => return,
                },
                Some(withdrawn) = asked.next() => {
                    for id in withdrawn {
                        self.outlet.push(&cancelled(&id)).await;
                    }
                }
            }
        }
    }

    /// Lets a client that can come back do so, as the backend has done.
    fn pause(&self, retry: Option<std::time::Duration>) {
        if self.session.version.polls_sse() {
            self.outlet.pause(retry);
        }
    }
}

/// Takes a question to the client back.
fn cancelled(id: &RawId) -> Bytes {
    let params = Object::default()
        .set("requestId", id.as_bytes())
        .set_text("reason", "the server no longer waits")
        .finish();
    splice::notification(&Method::Cancelled, Some(&params))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mt_proto::resource::ResourceName;

    use super::*;
    use crate::{
        downstream::session::Sessions,
        gateway::call::{Caller, Identity, Question},
        mcp::ProtocolVersion,
        seal::KeyRing,
    };

    #[tokio::test(start_paused = true)]
    async fn a_question_that_nobody_waits_for_is_taken_back_and_makes_room() {
        let gateway: ResourceName = "default".parse().unwrap();
        let object = Bytes::from_static(b"{}");
        let (_, session) = Sessions::new(Arc::default())
            .open(
                &KeyRing::ephemeral(),
                &gateway,
                &Identity::anonymous(),
                ProtocolVersion::V2025_11_25,
                object.clone(),
                object,
            )
            .unwrap();
        let (caller, mut said) = Caller::channel();
        let pump = Pump { outlet: Outlet::Events(session.inbox().clone()), session: session.clone() };
        let mut reader = session.inbox().attach(None);
        let asking = async {
            let question =
                Question { key: "q".into(), method: Method::RootsList, params: Bytes::from_static(b"{}") };
            let asked = tokio::time::timeout(Duration::from_secs(1), caller.ask(vec![question])).await;
            assert!(asked.is_err(), "the client says nothing");
            std::future::pending::<()>().await;
        };
        let pumping = async {
            let first = said.recv().await.unwrap();
            pump.run(Some(first), said).await;
        };
        let reading = async {
            let asked = reader.next().await.unwrap();
            let withdrawn = reader.next().await.unwrap();
            (asked, withdrawn)
        };
        let (asked, withdrawn) = tokio::select! {
            () = asking => unreachable!(),
            () = pumping => unreachable!(),
            read = reading => read,
        };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(text(&asked).contains("roots/list"), "{asked:?}");
        assert!(text(&withdrawn).contains("notifications/cancelled"), "{withdrawn:?}");
    }
}
