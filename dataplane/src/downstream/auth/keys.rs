//! The keys of one issuer, kept, so that calls do not wait for it.
//!
//! Fresh keys are used as they are. Stale ones are used while new ones are
//! fetched, and for a day if those cannot be had. A token of an unknown key
//! makes the node look once; as anybody can send one, no more than once in
//! [`REFETCH_MIN`]. One fetch runs at a time, in a task of its own: a caller who
//! hangs up does not stop it for the others.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use metrics::{Counter, counter};
use mt_proto::resource::KeySource;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{
    Refusal,
    fetch::{Document, Fetcher, REQUEST_MAX, Tag},
    jwks::{Keys, NoKeys},
    token::{Invalid, Token},
};
use crate::chain;

/// Between two fetches, while there are keys.
pub const REFETCH_MIN: Duration = Duration::from_secs(10);
/// The same, while there are none.
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// How long keys are fresh, if their source does not say.
const FRESH: Duration = Duration::from_secs(600);
/// What a source may say.
const FRESH_MIN: Duration = Duration::from_secs(60);
const FRESH_MAX: Duration = Duration::from_secs(3600);
/// How long keys are used that cannot be fetched again.
pub const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Discovery is two requests.
const WAIT_MAX: Duration = REQUEST_MAX.saturating_mul(2);

/// The keys of one issuer.
pub struct KeySet {
    issuer: String,
    source: KeySource,
    fetcher: Arc<Fetcher>,
    tasks: TaskTracker,
    kept: ArcSwapOption<Kept>,
    fetching: Mutex<Fetching>,
    fetched: Counter,
    failed: Counter,
}

struct Kept {
    keys: Arc<Keys>,
    tag: Option<Tag>,
    fetched: Instant,
    fresh: Duration,
}

#[derive(Default)]
struct Fetching {
    /// Closed when the fetch is done.
    running: Option<watch::Receiver<()>>,
    began: Option<Instant>,
}

/// Why keys are not as they should be.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("fetching them")]
    Fetch(#[from] super::fetch::Error),
    #[error("reading them")]
    Read(#[from] NoKeys),
}

impl KeySet {
    pub fn new(issuer: String, source: KeySource, fetcher: Arc<Fetcher>, tasks: TaskTracker) -> Arc<Self> {
        let of = |outcome| counter!("mt_downstream_jwks_fetches_total", "outcome" => outcome);
        Arc::new(Self {
            issuer,
            source,
            fetcher,
            tasks,
            kept: ArcSwapOption::empty(),
            fetching: Mutex::default(),
            fetched: of("ok"),
            failed: of("failed"),
        })
    }

    pub fn is_of(&self, issuer: &str, source: &KeySource) -> bool {
        self.issuer == issuer && self.source == *source
    }

    /// Checks the signature of a token. Dropping it leaves a fetch running.
    ///
    /// # Errors
    /// [`Invalid::Signature`], [`Invalid::UnknownKey`], and
    /// [`Refusal::Unavailable`] if there are no keys to check with.
    pub async fn check(self: &Arc<Self>, token: &Token<'_>) -> Result<(), Refusal> {
        let keys = self.keys_for(token.kid.as_deref(), token.algorithm).await?;
        let mut candidates = keys.candidates(token.kid.as_deref(), token.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(Invalid::UnknownKey.into());
        }
        if candidates.any(|key| token.is_signed_by(key)) { Ok(()) } else { Err(Invalid::Signature.into()) }
    }

    async fn keys_for(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Keys>, Refusal> {
        if let Some(kept) = self.usable()
            && kept.keys.candidates(kid, algorithm).next().is_some()
        {
            if kept.fetched.elapsed() >= kept.fresh {
                // Nobody waits for it.
                _ = self.refresh();
            }
            return Ok(kept.keys.clone());
        }
        if let Some(mut done) = self.refresh() {
            // Done is when the sender is gone; nothing is ever sent.
            _ = tokio::time::timeout(WAIT_MAX, done.changed()).await;
        }
        self.usable().map(|kept| kept.keys.clone()).ok_or(Refusal::Unavailable)
    }

    fn usable(&self) -> Option<Arc<Kept>> {
        self.kept.load_full().filter(|kept| kept.fetched.elapsed() < STALE_MAX)
    }

    /// The fetch that runs, or a new one; none if there was one just now.
    fn refresh(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut fetching = self.fetching.lock();
        if let Some(running) = &fetching.running
            && running.has_changed().is_ok()
        {
            return Some(running.clone());
        }
        let pause = if self.usable().is_some() { REFETCH_MIN } else { RETRY_MIN };
        if fetching.began.is_some_and(|began| began.elapsed() < pause) {
            return None;
        }
        let (done, running) = watch::channel(());
        fetching.began = Some(Instant::now());
        fetching.running = Some(running.clone());
        let this = self.clone();
        self.tasks.spawn(async move {
            this.fetch().await;
            drop(done);
        });
        Some(running)
    }

    async fn fetch(&self) {
        let before = self.kept.load_full();
        let tag = before.as_ref().and_then(|kept| kept.tag.as_ref());
        let read = self.fetcher.keys(&self.issuer, &self.source, tag).await.map_err(Failed::from);
        match read.and_then(|document| kept(document, before.as_deref())) {
            Ok(kept) => {
                self.fetched.increment(1);
                debug!(issuer = self.issuer, fresh_s = kept.fresh.as_secs(), "keys of an issuer are here");
                self.kept.store(Some(Arc::new(kept)));
            }
            Err(failed) => {
                self.failed.increment(1);
                let kept = before.is_some();
                warn!(issuer = self.issuer, kept, error = %chain(&failed), "no keys of an issuer of tokens");
            }
        }
    }
}

fn kept(document: Document, before: Option<&Kept>) -> Result<Kept, Failed> {
    // What has not changed is good for as long again, if nothing else is said.
    let (keys, usual) = match (document.body, before) {
        (Some(body), _) => (Arc::new(Keys::parse(&body)?), FRESH),
        (None, Some(before)) => (before.keys.clone(), before.fresh),
        (None, None) => return Err(NoKeys::Unreadable.into()),
    };
    let fresh = document.max_age.unwrap_or(usual).clamp(FRESH_MIN, FRESH_MAX);
    Ok(Kept { keys, tag: document.tag, fetched: Instant::now(), fresh })
}

#[cfg(test)]
mod tests;
