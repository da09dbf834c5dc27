//! Whole systems over real sockets, with real peers.

mod conformance;
mod fixture;
mod peers;
