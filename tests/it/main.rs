//! Whole systems over real sockets, with real peers.

mod aggregation;
mod cluster;
mod conformance;
mod discovery_machines;
mod fixture;
mod fleet;
mod kills;
mod manifest;
mod peers;
mod raw;
mod through;
mod readme;
mod tidy;
