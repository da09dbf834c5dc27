//! What a session has once anything has happened in it. Most of those that are
//! open at a time only were, and each of these parts is larger than all that
//! such a session needs.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
};

use futures_util::future::AbortHandle;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::Session;
use crate::{
    downstream::stream::EventStream,
    gateway::call::{Caller, Client, Reply, Scope, ToClient},
    hash::HashMap,
    mcp::RawId,
};

pub struct Live {
    pub client: Arc<Client>,
    /// What the client gets on its GET stream.
    pub inbox: Arc<EventStream>,
    pub events: Mutex<Option<mpsc::Receiver<ToClient>>>,
    pub running: Mutex<HashMap<RawId, AbortHandle>>,
    pub asks: Mutex<HashMap<RawId, oneshot::Sender<Reply>>>,
    pub streams: Mutex<VecDeque<(u64, Arc<EventStream>)>>,
    pub next_number: AtomicU64,
    /// In ids that the client brings back, so that none of another session, or
    /// of an owner before, is mistaken for one of here. It follows from the
    /// session's id, which no client ever sees.
    pub label: String,
}

impl Live {
    pub fn of(session: &Session) -> Self {
        let label =
            blake3::hash(format!("{}/{}", session.node_tag, session.id).as_bytes()).to_hex()[..16].to_owned();
        let (caller, events) = Caller::channel();
        let client = Arc::new(Client {
            identity: session.identity.clone(),
            version: session.version,
            info: session.told.slice(..session.info_bytes),
            capabilities: session.told.slice(session.info_bytes..),
            scope: Scope::Session(session.id.clone()),
            events: Some(caller),
        });
        Self {
            client,
            inbox: EventStream::new(format!("{label}.0")),
            events: Mutex::new(Some(events)),
            running: Mutex::default(),
            asks: Mutex::default(),
            streams: Mutex::default(),
            next_number: AtomicU64::new(1),
            label,
        }
    }
}
