//! What is said to a server for those who follow resources on a pipe that several
//! clients share.
//!
//! The server is told once for each resource, however many follow it: when the
//! first comes and when the last goes. What it says of a resource reaches those
//! who follow it and nobody else. The list outlives the pipe, so that all of it
//! can be said again to the next one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use tokio::time::timeout;

use super::{
    followers::{Follower, Followers, Owner, Removed},
    pending::Failure,
    pipe::Pipe,
};
use crate::{
    gateway::call::{Answer, Call, Caller, Scope},
    mcp::{
        method::Method,
        splice::{self, Object},
    },
};

/// How long the server may take to hear what the node says on its own account.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `resources/subscribe` or `resources/unsubscribe` of one client.
pub async fn call(pipe: &Arc<Pipe>, call: &Call, caller: &Caller) -> Result<Answer, Failure> {
    let followers = &*pipe.followers;
    let uri = call.params.uri().map(|uri| uri.into_owned());
    let (Some(uri), Some((owner, events))) = (uri, Owner::of(&call.client)) else {
        // It is the server's to complain, and nobody hears what follows.
        return pipe.call(call, caller).await;
    };
    let _turn = followers.turn.lock().await;
    if call.method == Method::ResourcesSubscribe {
        let first = followers.add(&pipe.backend, &uri, owner.clone(), events)?;
        if !first {
            return Ok(done());
        }
        let mut added = Added { pipe, uri: &uri, owner: &owner, kept: false };
        let answer = pipe.call(call, caller).await?;
        added.kept = matches!(answer, Answer::Result(_));
        return Ok(answer);
    }
    match followers.remove(&pipe.backend, &uri, &owner) {
        Removed::Last => pipe.call(call, caller).await,
        Removed::OneOfMany => Ok(done()),
        Removed::Nothing if followers.has(&uri) => Ok(done()),
        Removed::Nothing => pipe.call(call, caller).await,
    }
}

/// Forgets what a scope follows, and tells the server what nobody follows any
/// more.
pub fn end(followers: &Arc<Followers>, scope: &Scope, pipe: Option<Arc<Pipe>>, backend: &ResourceName) {
    let owner = Owner::Scope(scope.clone());
    end_where(followers, backend, pipe, |follower| follower.owner.is(&owner));
}

/// Forgets those who are gone without a word.
pub fn sweep(pipe: &Arc<Pipe>) {
    end_where(&pipe.followers, &pipe.backend, Some(pipe.clone()), |follower| follower.events.is_gone());
}

fn end_where(
    followers: &Arc<Followers>,
    backend: &ResourceName,
    pipe: Option<Arc<Pipe>>,
    ends: impl Fn(&Follower) -> bool,
) {
    if followers.is_empty() {
        return;
    }
    let last = followers.remove_where(backend, ends);
    if let Some(pipe) = pipe.filter(|_| !last.is_empty()) {
        let followers = followers.clone();
        pipe.spawn(|pipe| async move { unsubscribe(&followers, &pipe, last).await });
    }
}

async fn unsubscribe(followers: &Followers, pipe: &Arc<Pipe>, uris: Vec<String>) {
    let _turn = followers.turn.lock().await;
    for uri in uris {
        // Somebody may have come meanwhile.
        if !followers.has(&uri) && !ask(pipe, &Method::ResourcesUnsubscribe, &uri).await {
            return;
        }
    }
}

/// Says everything again to a pipe that was opened anew, and tells those who
/// follow that they may have missed something.
pub async fn renew(pipe: &Arc<Pipe>) {
    let _turn = pipe.followers.turn.lock().await;
    for uri in pipe.followers.uris() {
        if !ask(pipe, &Method::ResourcesSubscribe, &uri).await {
            return;
        }
        pipe.followers.tell_all(&uri, &updated(&uri));
    }
}

/// A follower whose subscription the server has not confirmed.
struct Added<'a> {
    pipe: &'a Pipe,
    uri: &'a str,
    owner: &'a Owner,
    kept: bool,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.pipe.followers.remove(&self.pipe.backend, self.uri, self.owner);
        }
    }
}

/// False: the pipe is over, or the server is.
async fn ask(pipe: &Arc<Pipe>, method: &Method, uri: &str) -> bool {
    let params = Object::default().set_text("uri", uri).finish();
    match timeout(ANSWER_TIMEOUT, pipe.ask(method, &params)).await {
        Ok(Ok(Answer::Result(_))) => true,
        Ok(Ok(Answer::Error(error))) => {
            let error = super::excerpt::excerpt(&error);
            tracing::debug!(backend = %pipe.backend, method = %method, error, "refused by the backend");
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(backend = %pipe.backend, method = %method, %error, "not heard by the backend");
            false
        }
        Err(_) => false,
    }
}

fn updated(uri: &str) -> Bytes {
    let params = Object::default().set_text("uri", uri).finish();
    splice::notification(&Method::ResourcesUpdated, Some(&params))
}

fn done() -> Answer {
    Answer::Result(Bytes::from_static(b"{}"))
}
