//! The calls that run on one pipe, and what comes back for each.
//!
//! Ids on the pipe are ours and never used twice; what a call named itself (its
//! progress token, the id of its subscription) is put back on the way to it.
//! An entry is gone when its call is: what comes later finds nobody.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::gateway::call::CallError;
use crate::mcp::{
    Key, Params,
    envelope::{Notification, Outcome, Request},
    id::{IdCounter, RawId},
    meta,
    method::Method,
    splice::{self, Patch},
};

/// Messages for one call that it has not taken yet. The pipe is shared, so a
/// slow call cannot hold it back: further ones are lost to it.
const NOTICES_MAX: usize = 256;

/// How a call on a pipe failed.
#[derive(Debug)]
pub enum Failure {
    /// The pipe ended before the server saw the call.
    Unsent,
    Call(CallError),
}

/// The calls that wait.
#[derive(Debug, Default)]
pub struct Pending {
    table: Mutex<Table>,
    ids: IdCounter,
}

#[derive(Debug, Default)]
struct Table {
    waiters: HashMap<u64, Waiter>,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    notices: mpsc::Sender<Notice>,
    answer: oneshot::Sender<Result<Outcome, Failure>>,
    names: Names,
}

/// What a call is named by its client.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Under which it wants to hear of progress.
    pub progress_token: Option<RawId>,
    /// Of a `subscriptions/listen`: its own id.
    pub subscription: Option<RawId>,
}

/// Something for a call before its answer.
#[derive(Debug)]
pub enum Notice {
    /// A whole notification, in the names of the call.
    Told(Bytes),
    Asked(Request),
    /// The backend takes a question back.
    Withdrawn(Params),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Done,
    /// It belongs to no call.
    Nobody,
    /// Its call takes no more for now.
    Full,
}

/// A call's place in the table; leaves it when dropped.
#[derive(Debug)]
pub struct Ticket {
    pub id: u64,
    pub notices: mpsc::Receiver<Notice>,
    /// Fails if the pipe is closed.
    pub answer: oneshot::Receiver<Result<Outcome, Failure>>,
    pending: Arc<Pending>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.table.lock().waiters.remove(&self.id);
    }
}

impl Pending {
    /// A place for a call; `None` if the pipe takes no more calls.
    pub fn register(self: &Arc<Self>, names: Names) -> Option<Ticket> {
        let id = self.ids.next();
        let (notices, notices_out) = mpsc::channel(NOTICES_MAX);
        let (answer, answer_out) = oneshot::channel();
        let mut table = self.table.lock();
        if table.closed {
            return None;
        }
        table.waiters.insert(id, Waiter { notices, answer, names });
        drop(table);
        Some(Ticket { id, notices: notices_out, answer: answer_out, pending: Arc::clone(self) })
    }

    pub fn len(&self) -> usize {
        self.table.lock().waiters.len()
    }

    /// Takes no more calls, if there are none now. True if it is closed.
    pub fn close_if_empty(&self) -> bool {
        let mut table = self.table.lock();
        table.closed |= table.waiters.is_empty();
        table.closed
    }

    /// Takes no more calls, and fails those that wait.
    pub fn close(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        table.waiters.clear();
    }

    /// Fails a call for a reason of its own.
    pub fn fail(&self, id: u64, failure: Failure) {
        if let Some(waiter) = self.table.lock().waiters.remove(&id) {
            // Nobody may wait any more.
            _ = waiter.answer.send(Err(failure));
        }
    }

    /// Fails a call.
    pub fn forget(&self, id: u64) {
        self.table.lock().waiters.remove(&id);
    }

    /// Hands an answer to its call; false if nobody waits for it.
    pub fn complete(&self, id: u64, outcome: Outcome) -> bool {
        let Some(waiter) = self.table.lock().waiters.remove(&id) else { return false };
        let outcome = match (&waiter.names.subscription, outcome) {
            (Some(subscription), Outcome::Result(result)) => {
                Outcome::Result(name_subscription(&result, subscription))
            }
            (_, outcome) => outcome,
        };
        waiter.answer.send(Ok(outcome)).is_ok()
    }

    /// Hands something to the call that came last, where all calls are of one
    /// client, or there is only one.
    pub fn notify_latest(&self, notice: Notice) -> Delivery {
        let table = self.table.lock();
        match table.waiters.iter().max_by_key(|(id, _)| **id) {
            Some((_, waiter)) => push(waiter, notice),
            None => Delivery::Nobody,
        }
    }

    /// Hands progress to the call that it is of. Our token is the call's id.
    pub fn progress(&self, told: &Notification) -> Delivery {
        let Some(id) = told.params.id(Key::ProgressToken).and_then(|token| token.as_u64()) else {
            return Delivery::Nobody;
        };
        let table = self.table.lock();
        let Some((waiter, token)) =
            table.waiters.get(&id).and_then(|waiter| Some((waiter, waiter.names.progress_token.as_ref()?)))
        else {
            return Delivery::Nobody;
        };
        let params = told
            .params
            .patch()
            .set(Key::ProgressToken.as_str(), Bytes::copy_from_slice(token.as_bytes()))
            .finish();
        push(waiter, Notice::Told(splice::notification(&told.method, Some(&params))))
    }

    /// Hands a subscription's notification to its `subscriptions/listen`.
    pub fn subscribed(&self, id: u64, told: &Notification) -> Delivery {
        let table = self.table.lock();
        let Some((waiter, subscription)) =
            table.waiters.get(&id).and_then(|waiter| Some((waiter, waiter.names.subscription.as_ref()?)))
        else {
            return Delivery::Nobody;
        };
        let own = Bytes::copy_from_slice(subscription.as_bytes());
        let params = told.params.patch().set_in("_meta", meta::key::SUBSCRIPTION_ID, own).finish();
        push(waiter, Notice::Told(splice::notification(&told.method, Some(&params))))
    }

    /// The backend ends a subscription; true if there is one with this id.
    pub fn end_subscription(&self, id: u64) -> bool {
        let is_subscription =
            self.table.lock().waiters.get(&id).is_some_and(|waiter| waiter.names.subscription.is_some());
        is_subscription
            && self.complete(id, Outcome::Result(Bytes::from_static(b"{\"resultType\":\"complete\"}")))
    }
}

fn push(waiter: &Waiter, notice: Notice) -> Delivery {
    match waiter.notices.try_send(notice) {
        Ok(()) => Delivery::Done,
        Err(mpsc::error::TrySendError::Full(_)) => Delivery::Full,
        Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Nobody,
    }
}

/// The last word of a subscription, in the names of its client.
fn name_subscription(result: &Bytes, subscription: &RawId) -> Bytes {
    let own = Bytes::copy_from_slice(subscription.as_bytes());
    match Patch::of(result) {
        Ok(patch) => patch.set_in("_meta", meta::key::SUBSCRIPTION_ID, own).finish(),
        Err(_) => result.clone(),
    }
}

/// Params of a call as the backend gets them: with our token in the place of
/// the client's, if it has one.
pub fn params(call: &Params, names: &Names, id: u64) -> Bytes {
    match &names.progress_token {
        None => call.object(),
        Some(_) => call.patch().set_in("_meta", meta::key::PROGRESS_TOKEN, id.to_string()).finish(),
    }
}

/// What a call is named.
pub fn names(method: &Method, id: &RawId, params: &Params) -> Names {
    let progress_token = params
        .peek(Key::Meta)
        .is_some()
        .then(|| meta::Meta::of(params).ok().and_then(|meta| meta.progress_token()))
        .flatten();
    Names { progress_token, subscription: (*method == Method::Listen).then(|| id.clone()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mcp::{envelope::Message, scan::Limits};

    fn result(text: &'static str) -> Outcome {
        Outcome::Result(Bytes::from_static(text.as_bytes()))
    }

    fn notification(text: &str) -> Notification {
        match Message::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::BACKEND) {
            Ok(Message::Notification(told)) => told,
            other => panic!("{other:?}"),
        }
    }

    fn scan(text: &'static str) -> Params {
        Params::scan(&Bytes::from_static(text.as_bytes()), Limits::BACKEND).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timed_out_call_leaves_no_entry_behind() {
        let pending = Arc::new(Pending::default());
        let mut ticket = pending.register(Names::default()).unwrap();
        let id = ticket.id;
        assert!(tokio::time::timeout(Duration::from_secs(30), &mut ticket.answer).await.is_err());
        drop(ticket);
        assert_eq!(pending.len(), 0);
        assert!(!pending.complete(id, result("{}")), "a late answer finds nobody");
    }

    #[tokio::test]
    async fn each_call_gets_its_own_answer() {
        let pending = Arc::new(Pending::default());
        let tickets: Vec<_> = (0..3).map(|_| pending.register(Names::default()).unwrap()).collect();
        for ticket in tickets.iter().rev() {
            assert!(pending.complete(ticket.id, Outcome::Result(ticket.id.to_string().into())));
            assert!(!pending.complete(ticket.id, result("{}")), "a second answer finds nobody");
        }
        for mut ticket in tickets {
            let Ok(Ok(Outcome::Result(bytes))) = (&mut ticket.answer).await else { panic!() };
            assert_eq!(bytes, ticket.id.to_string());
        }
    }

    #[test]
    fn progress_comes_back_under_the_clients_own_token() {
        let pending = Arc::new(Pending::default());
        for own in [r#""a\u0062""#, "1.0", "9007199254740993"] {
            let names = Names { progress_token: RawId::from_json(own.as_bytes()), ..Names::default() };
            let mut ticket = pending.register(names).unwrap();
            let told = notification(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1,"x":{{}}}}}}"#,
                ticket.id
            ));
            assert_eq!(pending.progress(&told), Delivery::Done);
            let Ok(Notice::Told(bytes)) = ticket.notices.try_recv() else { panic!() };
            assert_eq!(
                bytes,
                format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{own},"progress":1,"x":{{}}}}}}"#
                )
            );
            assert!(pending.complete(ticket.id, result("{}")));
            assert_eq!(pending.progress(&told), Delivery::Nobody, "the answer was the end");
        }
    }

    #[test]
    fn a_token_that_was_not_given_delivers_nothing() {
        let pending = Arc::new(Pending::default());
        let ticket = pending.register(Names::default()).unwrap();
        let told = notification(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1}}}}"#,
            ticket.id
        ));
        assert_eq!(pending.progress(&told), Delivery::Nobody);
    }

    #[tokio::test]
    async fn a_subscription_keeps_the_id_that_its_client_gave_it() {
        let pending = Arc::new(Pending::default());
        let names = names(&Method::Listen, &RawId::text("sub"), &Params::NONE);
        let mut ticket = pending.register(names).unwrap();
        let told = notification(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}}}"#,
            ticket.id
        ));
        assert_eq!(pending.subscribed(ticket.id, &told), Delivery::Done);
        let Ok(Notice::Told(bytes)) = ticket.notices.try_recv() else { panic!() };
        assert!(
            String::from_utf8_lossy(&bytes).contains(r#""io.modelcontextprotocol/subscriptionId":"sub""#)
        );
        assert!(pending.end_subscription(ticket.id));
        let Ok(Ok(Outcome::Result(bytes))) = (&mut ticket.answer).await else { panic!() };
        assert!(
            String::from_utf8_lossy(&bytes).contains(r#""io.modelcontextprotocol/subscriptionId":"sub""#)
        );
    }

    #[test]
    fn the_backend_sees_our_token_only_where_the_client_has_one() {
        let call = scan(r#"{"name":"t","_meta":{"progressToken":"p","other":1}}"#);
        let named = names(&Method::ToolsCall, &RawId::number(1), &call);
        assert_eq!(params(&call, &named, 77), r#"{"name":"t","_meta":{"progressToken":77,"other":1}}"#);
        let call = scan(r#"{"name":"t"}"#);
        let named = names(&Method::ToolsCall, &RawId::number(1), &call);
        assert_eq!(params(&call, &named, 78), r#"{"name":"t"}"#);
    }

    #[test]
    fn a_slow_call_does_not_hold_the_pipe_back() {
        let pending = Arc::new(Pending::default());
        let _ticket = pending.register(Names::default()).unwrap();
        for _ in 0..NOTICES_MAX {
            assert_eq!(pending.notify_latest(Notice::Told(Bytes::new())), Delivery::Done);
        }
        assert_eq!(pending.notify_latest(Notice::Told(Bytes::new())), Delivery::Full);
    }

    #[test]
    fn an_idle_pipe_closes_only_while_nobody_calls() {
        let pending = Arc::new(Pending::default());
        let ticket = pending.register(Names::default()).unwrap();
        assert!(!pending.close_if_empty());
        drop(ticket);
        assert!(pending.close_if_empty());
        assert!(pending.register(Names::default()).is_none());
    }
}
