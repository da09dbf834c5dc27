//! `subscriptions/listen` at a tool set: which of its resources change while a
//! client follows them.
//!
//! The directories of their files are watched. Since a watch may miss what
//! happens behind a link or on another machine, and a directory may not be there
//! yet, the files are also looked at from time to time. What is announced has
//! changed: each file is compared with how it was. Texts change only with their
//! tool set, whose clients are then told to listen anew.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use mt_proto::resource::ResourceName;
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{self, MissedTickBehavior},
};

use super::{
    files::{Files, Fingerprint},
    resources::Resources,
    watch::Followed,
};
use crate::{
    gateway::call::{Call, CallError, Caller, SUBSCRIBED_URIS_MAX},
    mcp::{
        Key, Method, RawId,
        meta::key,
        splice::{self, Object},
    },
};

/// Resources of one tool set that clients follow; one that two follow counts twice.
const FOLLOWED_MAX: usize = 4_096;
/// How often the files are looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How much of one tool set is followed.
pub struct Followers {
    count: AtomicUsize,
    followed: Gauge,
    refused: Counter,
}

impl Followers {
    pub fn new(tool_set: &ResourceName) -> Self {
        Self {
            count: AtomicUsize::new(0),
            followed: gauge!("mt_tool_set_followed_resources", "tool_set" => tool_set.to_string()),
            refused: counter!("mt_tool_set_followed_resources_refused_total", "tool_set" => tool_set.to_string()),
        }
    }

    /// Places for as many as there is room for.
    fn enter(&self, wanted: usize) -> Places<'_> {
        let before = self.count.fetch_add(wanted, Ordering::Relaxed);
        let taken = wanted.min(FOLLOWED_MAX.saturating_sub(before));
        self.count.fetch_sub(wanted - taken, Ordering::Relaxed);
        self.refused.increment((wanted - taken) as u64);
        self.followed.increment(taken as f64);
        Places { followers: self, taken }
    }
}

struct Places<'a> {
    followers: &'a Followers,
    taken: usize,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.followers.count.fetch_sub(self.taken, Ordering::Relaxed);
        self.followers.followed.decrement(self.taken as f64);
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    resource_subscriptions: Vec<String>,
}

/// A file that is followed.
struct Watched {
    uri: String,
    path: String,
    was: Fingerprint,
}

/// Runs until it is dropped.
///
/// # Errors
/// If the request is wrong.
pub async fn listen(
    resources: &Resources,
    followers: &Followers,
    call: &Call,
    caller: &Caller,
) -> Result<Infallible, CallError> {
    let invalid = |reason: String| CallError::InvalidParams { reason };
    let raw = call.params.get(Key::Notifications);
    let raw = raw.ok_or_else(|| invalid("params.notifications must be an object".to_owned()))?;
    let filter: Filter =
        serde_json::from_slice(&raw).map_err(|error| invalid(format!("params.notifications: {error}")))?;
    if filter.resource_subscriptions.len() > SUBSCRIBED_URIS_MAX {
        return Err(invalid(format!("one stream follows at most {SUBSCRIBED_URIS_MAX} resources")));
    }
    let mut uris = filter.resource_subscriptions;
    uris.retain(|uri| resources.find(uri).is_some());
    let places = followers.enter(uris.len());
    uris.truncate(places.taken);
    let mut watched: Vec<Watched> = Vec::new();
    for uri in &uris {
        if let Some(path) = resources.find(uri).map(|found| found.path()).transpose()?.flatten() {
            watched.push(Watched { uri: uri.clone(), path, was: None });
        }
    }
    // Watched before it is acknowledged: from then on nothing is missed.
    let changes = Arc::new(Notify::new());
    let directories = follow(&resources.files, &watched, &changes).await;
    look(&resources.files, &mut watched).await;
    caller.notify(acknowledgement(&call.id, &uris)).await;

    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        tokio::select! {
            () = changes.notified() => {}
            _ = ticks.tick() => renew(&resources.files, &directories).await,
        }
        for uri in look(&resources.files, &mut watched).await {
            caller.notify(updated(&call.id, &uri)).await;
        }
    }
}

/// Watches the directories of the files. One that cannot be watched is only
/// looked at.
async fn follow(files: &Arc<Files>, watched: &[Watched], changes: &Arc<Notify>) -> Arc<Vec<Followed>> {
    let directory =
        |file: &Watched| file.path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
    let directories: BTreeSet<String> = watched.iter().map(directory).collect();
    let changes = Arc::clone(changes);
    let follow = move |files: &Files| {
        let follow = |directory: &String| files.follow(directory, &changes).ok();
        directories.iter().filter_map(follow).collect()
    };
    Arc::new(files.apart(follow).await.unwrap_or_default())
}

async fn renew(files: &Arc<Files>, directories: &Arc<Vec<Followed>>) {
    let directories = Arc::clone(directories);
    // It only fails when the node ends.
    _ = files.apart(move |_| directories.iter().for_each(Followed::renew)).await;
}

/// Looks at the files; the URIs of those that are not as they were.
async fn look(files: &Arc<Files>, watched: &mut [Watched]) -> Vec<String> {
    let paths = watched.iter().map(|file| file.path.clone()).collect();
    let now = files.fingerprints(paths).await;
    let mut changed = Vec::new();
    for (file, now) in watched.iter_mut().zip(now) {
        if file.was != now {
            file.was = now;
            changed.push(file.uri.clone());
        }
    }
    changed
}

fn acknowledgement(id: &RawId, uris: &[String]) -> Bytes {
    let honored = serde_json::to_vec(uris).expect("texts are JSON");
    let notifications = Object::default().set("resourceSubscriptions", &Bytes::from(honored)).finish();
    let params = Object::default().set("_meta", &tag(id)).set("notifications", &notifications).finish();
    splice::notification(&Method::SubscriptionsAcknowledged, Some(&params))
}

fn updated(id: &RawId, uri: &str) -> Bytes {
    let params = Object::default().set("_meta", &tag(id)).set_text("uri", uri).finish();
    splice::notification(&Method::ResourcesUpdated, Some(&params))
}

fn tag(id: &RawId) -> Bytes {
    Object::default().set(key::SUBSCRIPTION_ID, id.as_bytes()).finish()
}
