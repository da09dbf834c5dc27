//! Issuers whose tokens are believed, and the tokens that were found right.
//!
//! A signature costs a hundred times what a look into a table costs, and a
//! client shows the same token with every request. So a token that was right is
//! remembered by its hash, as long as it is valid, but for no longer than
//! [`REMEMBERED_MAX`]: then a key that its issuer has taken back counts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use mt_proto::resource::{Compiled, JwtIssuer, KeyHash};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{
    Refusal,
    fetch::Fetcher,
    keys::KeySet,
    token::{LEEWAY, Token},
};
use crate::gateway::call::Identity;

/// Tokens of one issuer that are remembered.
pub const TOKENS_MAX: usize = 16_384;
/// For how long, at most.
pub const REMEMBERED_MAX: Duration = Duration::from_secs(300);

/// All issuers of the configuration, by what it says of them.
pub struct Issuers {
    known: ArcSwap<HashMap<Arc<JwtIssuer>, Arc<Issuer>>>,
    tasks: TaskTracker,
    changing: Mutex<Option<Arc<Fetcher>>>,
}

/// One of them, on the terms of one rule.
pub struct Issuer {
    terms: Arc<JwtIssuer>,
    keys: Arc<KeySet>,
    remembered: DashMap<KeyHash, Remembered>,
}

struct Remembered {
    identity: Arc<Identity>,
    expires: u64,
    until: Instant,
}

impl Issuers {
    pub fn new(tasks: TaskTracker) -> Self {
        Self { known: ArcSwap::default(), tasks, changing: Mutex::default() }
    }

    /// The issuer of these terms, which are in this configuration.
    pub fn get(&self, config: &Compiled, terms: &Arc<JwtIssuer>) -> Arc<Issuer> {
        if let Some(known) = self.known.load().get(terms) {
            return known.clone();
        }
        let mut fetcher = self.changing.lock();
        let before = self.known.load_full();
        if let Some(known) = before.get(terms) {
            return known.clone();
        }
        let fetcher = fetcher.get_or_insert_with(|| Arc::new(Fetcher::new()));
        // What is in the configuration no longer goes.
        let wanted = config.admissions.values().flat_map(|admission| &admission.issuers).chain([terms]);
        let mut known: HashMap<Arc<JwtIssuer>, Arc<Issuer>> = HashMap::new();
        for terms in wanted {
            if known.contains_key(terms) {
                continue;
            }
            let issuer = before.get(terms).cloned().unwrap_or_else(|| {
                let mut others = before.values().chain(known.values());
                let same = others.find(|other| other.keys.is_of(&terms.issuer, &terms.keys));
                let keys = same.map(|other| other.keys.clone()).unwrap_or_else(|| {
                    let source = terms.keys.clone();
                    KeySet::new(terms.issuer.clone(), source, fetcher.clone(), self.tasks.clone())
                });
                Arc::new(Issuer { terms: terms.clone(), keys, remembered: DashMap::new() })
            });
            known.insert(terms.clone(), issuer);
        }
        let issuer = known[terms].clone();
        self.known.store(Arc::new(known));
        issuer
    }
}

impl Issuer {
    /// Whom a token names that was found right before, and when it expires.
    pub fn remembers(&self, hash: &KeyHash, now: u64) -> Option<(Arc<Identity>, u64)> {
        let found = self.remembered.get(hash)?;
        let good = found.until > Instant::now() && now < found.expires.saturating_add(LEEWAY);
        good.then(|| (found.identity.clone(), found.expires))
    }

    /// Whom a token names, and when it expires.
    ///
    /// # Errors
    /// When it is wrong, or cannot be checked now.
    pub async fn verify(
        &self,
        hash: KeyHash,
        token: &Token<'_>,
        now: u64,
    ) -> Result<(Arc<Identity>, u64), Refusal> {
        // What it says of itself first: that costs nothing.
        let (identity, expires) = token.judge(&self.terms, now)?;
        self.keys.check(token).await?;
        if self.remembered.len() >= TOKENS_MAX {
            // Each is checked once more, and those that are used come back.
            self.remembered.clear();
        }
        let until = Instant::now() + REMEMBERED_MAX;
        self.remembered.insert(hash, Remembered { identity: identity.clone(), expires, until });
        Ok((identity, expires))
    }
}
