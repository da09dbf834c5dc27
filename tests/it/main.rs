//! Whole systems over real sockets, with real peers.

mod conformance;
mod discovery_machines;
mod fixture;
mod peers;
