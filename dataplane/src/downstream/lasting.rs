//! A legacy client's call: it goes on when its client has left.
//!
//! A lost connection cancels nothing in these revisions, so the call must not end
//! with the response that waits for it. It runs inside the response all the same,
//! because nearly every client stays, and a task would cost more than the rest of
//! the door; only a call that is dropped before its end becomes a task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt,
    future::{Abortable, BoxFuture},
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{
    gateway::call::{Answer, CallError},
    mcp::RpcError,
};

/// How a call ends; with nothing if it was cancelled.
pub type Ended = Option<Result<Answer, CallError>>;

/// A call's work, where whoever has it can move it at no cost.
pub type Work = BoxFuture<'static, Result<Answer, CallError>>;

/// Ends as the call does; dropped before that, the call goes on in a task.
pub struct Lasting {
    work: Option<Abortable<Work>>,
    tasks: TaskTracker,
}

impl Lasting {
    pub fn new(work: Abortable<Work>, tasks: TaskTracker) -> Self {
        Self { work: Some(work), tasks }
    }
}

impl Future for Lasting {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        // As in a task: a call that panics ends itself and not its connection.
        let polled = catch_unwind(AssertUnwindSafe(|| work.poll_unpin(context)));
        let ended = match polled {
            Ok(polled) => ready!(polled).ok(),
            Err(_) => Some(Err(CallError::Rpc(RpcError::internal()))),
        };
        self.work = None;
        Poll::Ready(ended)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // Without a runtime the node itself is going.
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(work.map(drop), &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::future::AbortHandle;
    use tokio::{sync::oneshot, time::sleep};

    use super::*;
    use crate::gateway::call::Answer;

    fn done() -> Result<Answer, CallError> {
        Ok(Answer::Result(Bytes::from_static(b"{}")))
    }

    fn lasting(
        work: impl Future<Output = Result<Answer, CallError>> + Send + 'static,
        tasks: &TaskTracker,
    ) -> (Lasting, AbortHandle) {
        let (abort, aborted) = AbortHandle::new_pair();
        (Lasting::new(Abortable::new(work.boxed(), aborted), tasks.clone()), abort)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_goes_on_when_nobody_waits_for_it_any_more() {
        let (tell, told) = oneshot::channel();
        let work = async move {
            sleep(Duration::from_secs(1)).await;
            tell.send(()).unwrap();
            done()
        };
        let tasks = TaskTracker::new();
        let (mut call, _abort) = lasting(work, &tasks);
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        assert_eq!(tasks.len(), 1);
        told.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_has_ended_leaves_no_task() {
        let tasks = TaskTracker::new();
        assert!(matches!(lasting(async { done() }, &tasks).0.await, Some(Ok(_))));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_answer() {
        let work = async { panic!("a mistake of ours") };
        let ended = lasting(work, &TaskTracker::new()).0.await;
        assert!(matches!(ended, Some(Err(CallError::Rpc(error))) if error == RpcError::internal()));
    }

    #[tokio::test]
    async fn a_call_that_is_aborted_ends_with_nothing() {
        let (mut call, abort) = lasting(std::future::pending(), &TaskTracker::new());
        assert!((&mut call).now_or_never().is_none());
        abort.abort();
        assert!(call.await.is_none());
    }
}
