//! Who calls: from what a request shows to an [`Identity`], for every door.
//!
//! ```text
//!  headers ─► credentials ─┬─ nothing  ─► what the gateway's rules say of that
//!                          ├─ API key  ─► its hash, in the snapshot
//!                          └─ JWT      ─► issuer ─► keys of the issuer (kept)
//! ```
//!
//! It comes before anything of the message is read. Whoever shows something
//! wrong is refused and never served as somebody without a name. Nothing is read
//! from a URL, where logs and proxies would keep it, and nothing that a caller
//! has shown goes on to a backend.

mod credentials;
mod fetch;
mod issuer;
mod jwks;
mod keys;
mod refusal;
mod token;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName};
use metrics::{Counter, counter};
use mt_proto::resource::{Admission, Anonymous, Compiled, JwtIssuer, KeyHash, ResourceName};
use tokio_util::task::TaskTracker;
use tracing::debug;

pub use self::{credentials::Credentials, refusal::Refusal};
use self::{issuer::Issuers, token::Invalid};
use crate::{
    gateway::call::{Identity, Shown},
    node::Node,
};

/// How long what a token has opened may stay open after the token has expired:
/// as long as the longest call, so that no call is cut.
pub const EXPIRED_GRACE: Duration = Duration::from_secs(300);
/// Who adds one of these has taken the request from somebody else.
const PROXY_HEADERS: [HeaderName; 4] = [
    http::header::FORWARDED,
    http::header::VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// Finds out who calls.
pub struct Auth {
    issuers: Issuers,
    anonymous: Arc<Identity>,
    meters: Meters,
}

/// Somebody who may call a gateway, and by what.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub identity: Arc<Identity>,
    /// Whether the request is known to come from this machine.
    pub local: bool,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// Whether from this machine.
    Nothing,
    Key(KeyHash),
    /// `expires` in seconds since the epoch.
    Token {
        issuer: Arc<JwtIssuer>,
        expires: u64,
    },
}

impl Auth {
    /// Keys of issuers are fetched on `tasks`.
    pub fn new(tasks: TaskTracker) -> Self {
        Self { issuers: Issuers::new(tasks), anonymous: Identity::anonymous(), meters: Meters::new() }
    }

    /// Who sends a request to a gateway. Dropping it leaves nothing undone.
    ///
    /// # Errors
    /// When the caller is not served.
    pub async fn admit(
        &self,
        config: &Compiled,
        gateway: &str,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<Admitted, Refusal> {
        let local = is_local(headers, peer);
        let admitted = match Credentials::read(headers) {
            Ok(shown) => self.judge(config, gateway, shown, local).await,
            Err(refusal) => Err(refusal),
        };
        self.meters.count(&admitted);
        match &admitted {
            Ok(admitted) => debug!(gateway = %gateway, principal = %admitted.identity.principal, "admitted"),
            Err(refusal) => debug!(gateway = %gateway, reason = %refusal, "not admitted"),
        }
        admitted
    }

    /// As [`admit`](Self::admit), for a door without headers, whose caller is on
    /// this machine and has given a key or a token at the start, or has not.
    ///
    /// # Errors
    /// When the caller is not served.
    pub async fn admit_local(
        &self,
        config: &Compiled,
        gateway: &str,
        secret: Option<&str>,
    ) -> Result<Admitted, Refusal> {
        let shown = match secret {
            Some(secret) => Credentials::of(secret),
            None => Ok(Credentials::Nothing),
        };
        let admitted = match shown {
            Ok(shown) => self.judge(config, gateway, shown, true).await,
            Err(refusal) => Err(refusal),
        };
        self.meters.count(&admitted);
        admitted
    }

    async fn judge(
        &self,
        config: &Compiled,
        gateway: &str,
        shown: Credentials<'_>,
        local: bool,
    ) -> Result<Admitted, Refusal> {
        match shown {
            Credentials::Nothing => {
                match admission(config, gateway).map_or_else(Anonymous::default, |a| a.anonymous) {
                    Anonymous::Allowed => Ok(self.nobody(local)),
                    Anonymous::Loopback if local => Ok(self.nobody(local)),
                    Anonymous::Loopback => Err(Refusal::NotLocal),
                    Anonymous::Refused => Err(Refusal::Missing),
                }
            }
            // The door says that there is no such gateway, or none yet: that is
            // no reason for the caller to drop what it has shown.
            _ if admission(config, gateway).is_none() => Ok(self.nobody(local)),
            Credentials::Key(key) => {
                // The hash of a key is looked up, and how long that takes tells
                // about hashes only: nobody can aim at the hash of a key that is
                // near another's. So the comparison need not take constant time.
                let hash = hash(key);
                let principal = config.principals.get(&hash).ok_or(Refusal::UnknownKey)?;
                let identity = Arc::new(Identity {
                    principal: principal.name.as_str().into(),
                    groups: principal.groups.clone(),
                    shown: Shown::ApiKey,
                });
                Ok(Admitted { identity, local, by: By::Key(hash) })
            }
            Credentials::Token(token) => Box::pin(self.judge_token(config, gateway, token, local)).await,
        }
    }

    /// Somebody without a name.
    fn nobody(&self, local: bool) -> Admitted {
        Admitted { identity: self.anonymous.clone(), local, by: By::Nothing }
    }

    async fn judge_token(
        &self,
        config: &Compiled,
        gateway: &str,
        text: &str,
        local: bool,
    ) -> Result<Admitted, Refusal> {
        let issuers = admission(config, gateway).map_or(&[][..], |admission| &admission.issuers);
        let (hash, now) = (hash(text), now());
        let admitted = |identity, issuer: &Arc<JwtIssuer>, expires| Admitted {
            identity,
            local,
            by: By::Token { issuer: issuer.clone(), expires },
        };
        let known: Vec<_> = issuers.iter().map(|terms| (terms, self.issuers.get(config, terms))).collect();
        for (terms, issuer) in &known {
            if let Some((identity, expires)) = issuer.remembers(&hash, now) {
                return Ok(admitted(identity, terms, expires));
            }
        }
        let token = token::parse(text)?;
        let mut refusal = Refusal::Token(Invalid::Issuer);
        for (terms, issuer) in known.iter().filter(|(terms, _)| terms.issuer == token.issuer()) {
            match issuer.verify(hash, &token, now).await {
                Ok((identity, expires)) => return Ok(admitted(identity, terms, expires)),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl Admitted {
    /// Whether the caller would still be admitted by what it has shown.
    fn holds(&self, config: &Compiled, gateway: &str, now: u64) -> bool {
        let Some(admission) = admission(config, gateway) else { return false };
        match &self.by {
            By::Nothing => match admission.anonymous {
                Anonymous::Allowed => true,
                Anonymous::Loopback => self.local,
                Anonymous::Refused => false,
            },
            By::Key(hash) => {
                config.principals.get(hash).is_some_and(|p| p.name.as_str() == &*self.identity.principal)
            }
            By::Token { issuer, expires } => {
                now < expires + EXPIRED_GRACE.as_secs() && admission.issuers.contains(issuer)
            }
        }
    }

    /// Waits until the caller may call the gateway no longer: a key has been
    /// revoked, a rule has changed, a token has expired. For what stays open.
    pub async fn ended(self, node: Arc<Node>, gateway: ResourceName) {
        let mut versions = node.watch();
        loop {
            versions.borrow_and_update();
            let now = now();
            if !self.holds(&node.snapshot().config, gateway.as_str(), now) {
                return;
            }
            let changed = versions.changed();
            let changed = match &self.by {
                By::Token { expires, .. } => {
                    let left = Duration::from_secs(expires.saturating_sub(now)) + EXPIRED_GRACE;
                    // Elapsed or changed: it is looked at again.
                    tokio::time::timeout(left, changed).await.unwrap_or(Ok(()))
                }
                By::Nothing | By::Key(_) => changed.await,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

fn admission<'a>(config: &'a Compiled, gateway: &str) -> Option<&'a Arc<Admission>> {
    config.admissions.get(gateway)
}

/// Whether a request comes from this machine. What a proxy on this machine has
/// taken from elsewhere does not.
pub fn is_local(headers: &HeaderMap, peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback() && !headers.keys().any(|name| PROXY_HEADERS.contains(name))
}

fn hash(text: &str) -> KeyHash {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Counts of outcomes, without names of callers.
struct Meters {
    admitted: [Counter; 3],
    refused: [Counter; 3],
}

impl Meters {
    fn new() -> Self {
        let of = |outcome| counter!("mt_downstream_auth_total", "outcome" => outcome);
        Self {
            admitted: ["anonymous", "api_key", "jwt"].map(of),
            refused: ["missing", "invalid", "unavailable"].map(of),
        }
    }

    fn count(&self, outcome: &Result<Admitted, Refusal>) {
        let counter = match outcome {
            Ok(Admitted { by: By::Nothing, .. }) => &self.admitted[0],
            Ok(Admitted { by: By::Key(_), .. }) => &self.admitted[1],
            Ok(Admitted { by: By::Token { .. }, .. }) => &self.admitted[2],
            Err(Refusal::Missing | Refusal::NotLocal) => &self.refused[0],
            Err(Refusal::Scheme | Refusal::Malformed(_) | Refusal::UnknownKey | Refusal::Token(_)) => {
                &self.refused[1]
            }
            Err(Refusal::Unavailable) => &self.refused[2],
        };
        counter.increment(1);
    }
}

#[cfg(test)]
mod tests;
