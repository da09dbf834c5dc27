//! Who follows which resource in the place of one pipe.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use metrics::{counter, gauge};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;

use super::pending::{Delivery, Failure};
use crate::{
    gateway::call::{CallError, Caller, Client, Scope},
    mcp::envelope::Notification,
};

/// Resources that clients follow on one pipe; one that two follow counts twice.
const FOLLOWED_MAX: usize = 4_096;

const FOLLOWED: &str = "mt_upstream_followed_resources";
const REFUSED: &str = "mt_upstream_followed_resources_refused_total";

/// All that is followed in the place of one pipe.
#[derive(Debug, Default)]
pub struct Followers {
    by_uri: Mutex<HashMap<String, Vec<Follower>>>,
    count: AtomicUsize,
    /// First and last are said to the server one after the other.
    pub turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub struct Follower {
    pub owner: Owner,
    pub events: Caller,
}

/// Whose it is to end it.
#[derive(Clone, Debug)]
pub enum Owner {
    Scope(Scope),
    /// Of a client without a session: whoever gets what is said.
    Receiver(Caller),
}

impl Owner {
    /// Of what a client does, and where it hears of it; none if it hears nothing.
    pub fn of(client: &Client) -> Option<(Self, Caller)> {
        let events = client.events.clone()?;
        let owner = match &client.scope {
            Scope::Stateless => Self::Receiver(events.clone()),
            scope => Self::Scope(scope.clone()),
        };
        Some((owner, events))
    }

    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scope(one), Self::Scope(two)) => one == two,
            (Self::Receiver(one), Self::Receiver(two)) => one.is_same(two),
            _ => false,
        }
    }
}

/// What has become of what one client followed.
pub enum Removed {
    Last,
    OneOfMany,
    Nothing,
}

impl Followers {
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether anybody follows a resource.
    pub fn has(&self, uri: &str) -> bool {
        self.by_uri.lock().contains_key(uri)
    }

    /// All resources that are followed.
    pub fn uris(&self) -> Vec<String> {
        self.by_uri.lock().keys().cloned().collect()
    }

    /// Adds a follower; true if it is the first of the resource.
    ///
    /// # Errors
    /// If there are too many.
    pub fn add(
        &self,
        backend: &ResourceName,
        uri: &str,
        owner: Owner,
        events: Caller,
    ) -> Result<bool, Failure> {
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

    /// Removes a follower, and says whether it was the last one of the resource.
    pub fn remove(&self, backend: &ResourceName, uri: &str, owner: &Owner) -> Removed {
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

    /// Removes followers wherever they are. The resources that nobody follows any
    /// more.
    pub fn remove_where(&self, backend: &ResourceName, ends: impl Fn(&Follower) -> bool) -> Vec<String> {
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
        last
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

    /// Hands a message to those who follow this very resource. Whose queue is full
    /// has something to read anyway.
    pub fn tell_all(&self, uri: &str, message: &Bytes) {
        for follower in self.by_uri.lock().get(uri).into_iter().flatten() {
            _ = follower.events.try_notify(message.clone());
        }
    }
}

/// Whether who follows one resource hears of another: it, or a part of it.
fn covers(followed: &str, changed: &str) -> bool {
    match changed.strip_prefix(followed) {
        Some(rest) => rest.is_empty() || followed.ends_with('/') || rest.starts_with(['/', '?', '#']),
        None => false,
    }
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
