//! Who follows which resource on a pipe that several clients share.
//!
//! The server is told once for each resource, however many follow it: when the
//! first comes and when the last goes. What it says of a resource reaches those
//! who follow it and nobody else. The list outlives the pipe, so that all of it
//! can be said again to the next one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use metrics::{counter, gauge};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{pending::Delivery, pending::Failure, pipe::Pipe};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Scope},
    mcp::{
        envelope::Notification,
        method::Method,
        splice::{self, Object},
    },
};

/// Resources that clients follow on one pipe; one that two follow counts twice.
const FOLLOWED_MAX: usize = 4_096;
/// How long the server may take to hear what the node says on its own account.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const FOLLOWED: &str = "mt_upstream_followed_resources";
const REFUSED: &str = "mt_upstream_followed_resources_refused_total";

/// All that is followed in the place of one pipe.
#[derive(Debug, Default)]
pub struct Followers {
    by_uri: Mutex<HashMap<String, Vec<Follower>>>,
    count: AtomicUsize,
    /// First and last are said to the server one after the other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Follower {
    owner: Owner,
    events: Caller,
}

/// Whose it is to end it.
#[derive(Clone, Debug)]
enum Owner {
    Scope(Scope),
    /// Of a client without a session: whoever gets what is said.
    Receiver(Caller),
}

impl Owner {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scope(one), Self::Scope(two)) => one == two,
            (Self::Receiver(one), Self::Receiver(two)) => one.is_same(two),
            _ => false,
        }
    }
}

impl Followers {
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Runs `resources/subscribe` or `resources/unsubscribe` of one client.
    pub async fn call(&self, pipe: &Arc<Pipe>, call: &Call, caller: &Caller) -> Result<Answer, Failure> {
        let uri = call.params.uri().map(|uri| uri.into_owned());
        let (Some(uri), Some((owner, events))) = (uri, receiver(&call.client)) else {
            // It is the server's to complain, and nobody hears what follows.
            return pipe.call(call, caller).await;
        };
        let _turn = self.turn.lock().await;
        if call.method == Method::ResourcesSubscribe {
            let first = self.add(&pipe.backend, &uri, owner.clone(), events)?;
            if !first {
                return Ok(done());
            }
            let mut added = Added { followers: self, pipe, uri: &uri, owner: &owner, kept: false };
            let answer = pipe.call(call, caller).await?;
            added.kept = matches!(answer, Answer::Result(_));
            return Ok(answer);
        }
        match self.remove(&pipe.backend, &uri, &owner) {
            Removed::Last => pipe.call(call, caller).await,
            Removed::OneOfMany => Ok(done()),
            Removed::Nothing if self.by_uri.lock().contains_key(&uri) => Ok(done()),
            Removed::Nothing => pipe.call(call, caller).await,
        }
    }

    /// Adds a follower; true if it is the first of the resource.
    fn add(&self, backend: &ResourceName, uri: &str, owner: Owner, events: Caller) -> Result<bool, Failure> {
        let mut by_uri = self.by_uri.lock();
        if self.count.load(Ordering::Relaxed) >= FOLLOWED_MAX {
            counter!(REFUSED, "backend" => backend.to_string()).increment(1);
            let error = CallError::Overloaded { backend: backend.clone(), limit: FOLLOWED_MAX };
            return Err(Failure::Call(error));
        }
        let followers = by_uri.entry(uri.to_owned()).or_default();
        let first = followers.is_empty();
        match followers.iter_mut().find(|follower| follower.owner.is(&owner)) {
            Some(follower) => follower.events = events,
            None => {
                followers.push(Follower { owner, events });
                self.counted(backend, 1, 0);
            }
        }
        Ok(first)
    }

    fn remove(&self, backend: &ResourceName, uri: &str, owner: &Owner) -> Removed {
        let mut by_uri = self.by_uri.lock();
        let Some(followers) = by_uri.get_mut(uri) else { return Removed::Nothing };
        let before = followers.len();
        followers.retain(|follower| !follower.owner.is(owner));
        let removed = before - followers.len();
        self.counted(backend, 0, removed);
        match (removed, followers.is_empty()) {
            (0, _) => Removed::Nothing,
            (_, false) => Removed::OneOfMany,
            (_, true) => {
                by_uri.remove(uri);
                Removed::Last
            }
        }
    }

    fn counted(&self, backend: &ResourceName, more: usize, less: usize) {
        self.count.fetch_add(more, Ordering::Relaxed);
        self.count.fetch_sub(less, Ordering::Relaxed);
        gauge!(FOLLOWED, "backend" => backend.to_string()).increment(more as f64 - less as f64);
    }

    /// Hands what the server says of a resource to those who follow it.
    pub fn tell(&self, told: &Notification, line: &Bytes) -> Delivery {
        let Some(uri) = told.params.uri() else { return Delivery::Nobody };
        let by_uri = self.by_uri.lock();
        let followers = by_uri.iter().filter(|(followed, _)| covers(followed, &uri));
        let mut delivery = Delivery::Nobody;
        for follower in followers.flat_map(|(_, followers)| followers) {
            if follower.events.try_notify(line.clone()) {
                delivery = Delivery::Done;
            } else if delivery == Delivery::Nobody {
                delivery = Delivery::Full;
            }
        }
        delivery
    }

    /// Forgets what a scope follows, and tells the server what nobody follows
    /// any more.
    pub fn end(self: &Arc<Self>, scope: &Scope, pipe: Option<Arc<Pipe>>, backend: &ResourceName) {
        let owner = Owner::Scope(scope.clone());
        self.end_where(backend, pipe, |follower| follower.owner.is(&owner));
    }

    fn end_where(
        self: &Arc<Self>,
        backend: &ResourceName,
        pipe: Option<Arc<Pipe>>,
        ends: impl Fn(&Follower) -> bool,
    ) {
        if self.is_empty() {
            return;
        }
        let mut last = Vec::new();
        let mut removed = 0;
        self.by_uri.lock().retain(|uri, followers| {
            let before = followers.len();
            followers.retain(|follower| !ends(follower));
            removed += before - followers.len();
            if followers.is_empty() {
                last.push(uri.clone());
            }
            !followers.is_empty()
        });
        self.counted(backend, 0, removed);
        if let Some(pipe) = pipe.filter(|_| !last.is_empty()) {
            let this = Arc::clone(self);
            pipe.spawn(|pipe| async move { this.unsubscribe(&pipe, last).await });
        }
    }

    async fn unsubscribe(&self, pipe: &Arc<Pipe>, uris: Vec<String>) {
        let _turn = self.turn.lock().await;
        for uri in uris {
            // Somebody may have come meanwhile.
            if !self.by_uri.lock().contains_key(&uri) && !ask(pipe, &Method::ResourcesUnsubscribe, &uri).await
            {
                return;
            }
        }
    }

    /// Says everything again to a pipe that was opened anew, and tells those
    /// who follow that they may have missed something.
    pub async fn renew(&self, pipe: &Arc<Pipe>) {
        let _turn = self.turn.lock().await;
        let uris: Vec<String> = self.by_uri.lock().keys().cloned().collect();
        for uri in uris {
            if !ask(pipe, &Method::ResourcesSubscribe, &uri).await {
                return;
            }
            let told = updated(&uri);
            for follower in self.by_uri.lock().get(&uri).into_iter().flatten() {
                // Whose queue is full has something to read anyway.
                _ = follower.events.try_notify(told.clone());
            }
        }
    }

    /// Forgets those who are gone without a word.
    pub fn sweep(self: &Arc<Self>, pipe: &Arc<Pipe>) {
        self.end_where(&pipe.backend, Some(Arc::clone(pipe)), |follower| follower.events.is_gone());
    }
}

enum Removed {
    Last,
    OneOfMany,
    Nothing,
}

/// A follower whose subscription the server has not confirmed.
struct Added<'a> {
    followers: &'a Followers,
    pipe: &'a Arc<Pipe>,
    uri: &'a str,
    owner: &'a Owner,
    kept: bool,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.followers.remove(&self.pipe.backend, self.uri, self.owner);
        }
    }
}

fn receiver(client: &Client) -> Option<(Owner, Caller)> {
    let events = client.events.clone()?;
    let owner = match &client.scope {
        Scope::Stateless => Owner::Receiver(events.clone()),
        scope => Owner::Scope(scope.clone()),
    };
    Some((owner, events))
}

/// Whether who follows one resource hears of another: it, or a part of it.
fn covers(followed: &str, changed: &str) -> bool {
    match changed.strip_prefix(followed) {
        Some(rest) => rest.is_empty() || followed.ends_with('/') || rest.starts_with(['/', '?', '#']),
        None => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_resource_is_the_resource_and_a_neighbor_is_not() {
        assert!(covers("file:///a", "file:///a"));
        assert!(covers("file:///a", "file:///a/b"));
        assert!(covers("file:///a/", "file:///a/b"));
        assert!(covers("db://t", "db://t?row=1"));
        assert!(!covers("file:///a", "file:///ab"));
        assert!(!covers("file:///a/b", "file:///a"));
    }

    #[tokio::test]
    async fn first_and_last_are_told_apart() {
        let followers = Followers::default();
        let backend = "peer".parse().unwrap();
        let owner = |id: &str| Owner::Scope(Scope::Session(id.into()));
        let (events, _door) = Caller::channel();
        assert!(followers.add(&backend, "a:b", owner("1"), events.clone()).unwrap());
        assert!(!followers.add(&backend, "a:b", owner("2"), events.clone()).unwrap());
        assert!(!followers.add(&backend, "a:b", owner("2"), events).unwrap(), "twice is once");
        assert!(matches!(followers.remove(&backend, "a:b", &owner("1")), Removed::OneOfMany));
        assert!(matches!(followers.remove(&backend, "a:b", &owner("1")), Removed::Nothing));
        assert!(matches!(followers.remove(&backend, "a:b", &owner("2")), Removed::Last));
        assert!(followers.is_empty());
    }
}
