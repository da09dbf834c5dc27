//! Whole systems over real sockets, with real peers.

mod cluster;
mod conformance;
mod discovery_machines;
mod fixture;
mod peers;
mod raw;
mod tidy;
