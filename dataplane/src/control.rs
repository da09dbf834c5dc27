//! The way to the control plane: which of its addresses is tried next, how long
//! to wait before, and whether it is there at all.
//!
//! Both streams of a node, discovery and registration, use this; neither knows
//! of the other, so a control plane that lacks one still has the other.

use std::time::Duration;

use http::Uri;
use metrics::{Gauge, gauge};
use tokio::{sync::watch, time::Instant};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

/// The longest that a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is still there, and how
/// long it may take to answer. Without it a partition goes unnoticed.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The bounds of the pause between two attempts.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// While the control plane is away, a line in the log at most this often.
pub const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Whether a stream is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    Connected,
    /// Since then; before that, the configuration was known to be the newest.
    Lost(Instant),
}

impl Contact {
    /// How long ago the newest configuration was certainly known.
    pub fn age(self, now: Instant) -> Duration {
        match self {
            Contact::Connected => Duration::ZERO,
            Contact::Lost(since) => now.saturating_duration_since(since),
        }
    }
}

/// Tries the addresses of the control plane in turn.
#[derive(Debug)]
pub struct Connector {
    stream: &'static str,
    addresses: Vec<Uri>,
    /// The address whose turn it is.
    current: usize,
    /// Since the last stream that was of use.
    attempts: u32,
    contact: watch::Sender<Contact>,
    connected: Gauge,
    logged: Option<Instant>,
}

impl Connector {
    /// `stream` names it in logs and metrics. `addresses` must not be empty.
    pub fn new(stream: &'static str, addresses: Vec<Uri>) -> Self {
        debug_assert!(!addresses.is_empty(), "the options are checked");
        let connected = gauge!("mt_control_connected", "stream" => stream);
        connected.set(0.0);
        let contact = watch::Sender::new(Contact::Lost(Instant::now()));
        Self { stream, addresses, current: 0, attempts: 0, contact, connected, logged: None }
    }

    /// Whether the stream is up, as it changes.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    /// Opens a connection to the address whose turn it is.
    ///
    /// # Errors
    /// If it does not open within [`CONNECT_TIMEOUT`].
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from(self.address().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect()
            .await
    }

    /// The stream is of use: the next pause is a short one again.
    pub fn settled(&mut self) {
        self.attempts = 0;
        let changed = self
            .contact
            .send_if_modified(|contact| std::mem::replace(contact, Contact::Connected) != Contact::Connected);
        if changed {
            self.connected.set(1.0);
            self.logged = None;
            info!(stream = self.stream, address = %self.address(), "connected to the control plane");
        }
    }

    /// Another node took the stream's place. Whoever is right, the two must
    /// not chase each other.
    pub fn displaced(&mut self) -> Duration {
        self.lost("another node has the same id");
        BACKOFF_MAX.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// The attempt or the stream has ended: says why, and how long to pause.
    pub fn lost(&mut self, reason: &str) -> Duration {
        let now = Instant::now();
        self.connected.set(0.0);
        self.contact.send_if_modified(|contact| {
            let was_up = *contact == Contact::Connected;
            if was_up {
                *contact = Contact::Lost(now);
            }
            was_up
        });
        if self.logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            self.logged = Some(now);
            warn!(
                stream = self.stream,
                address = %self.address(),
                reason,
                "no control plane, going on with what is in service"
            );
        }
        let rounds = self.attempts / u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.current = (self.current + 1) % self.addresses.len();
        backoff(rounds, rand::random())
    }

    fn address(&self) -> &Uri {
        &self.addresses[self.current]
    }
}

/// Anywhere between nothing and the bound, which doubles with each round, so
/// that the nodes of a fleet do not come back all at once. `random` is in 0..1.
pub fn backoff(rounds: u32, random: f64) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << rounds.min(16)).min(BACKOFF_MAX);
    bound.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector() -> Connector {
        Connector::new("test", vec![Uri::from_static("http://a:1"), Uri::from_static("http://b:1")])
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert_eq!(backoff(0, 1.0), BACKOFF_MIN);
        assert_eq!(backoff(3, 0.5), BACKOFF_MIN * 4);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(5, 0.0), Duration::ZERO);
    }

    #[test]
    fn addresses_take_turns_until_one_is_of_use() {
        let mut connector = connector();
        assert_eq!(connector.address().host(), Some("a"));
        connector.lost("refused");
        assert_eq!(connector.address().host(), Some("b"));
        connector.settled();
        assert_eq!(connector.address().host(), Some("b"));
        connector.lost("gone");
        assert_eq!(connector.address().host(), Some("a"));
    }

    #[test]
    fn the_age_counts_from_the_loss_of_the_stream() {
        let mut connector = connector();
        let contact = connector.contact();
        connector.settled();
        assert_eq!(*contact.borrow(), Contact::Connected);
        connector.lost("gone");
        let lost = *contact.borrow();
        connector.lost("refused");
        assert_eq!(*contact.borrow(), lost);
        let Contact::Lost(since) = lost else { panic!("the stream is gone") };
        assert_eq!(lost.age(since + Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(Contact::Connected.age(since), Duration::ZERO);
    }
}
