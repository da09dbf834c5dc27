//! Whole systems over real sockets, with real peers.

mod aggregation;
mod bytes;
mod clients;
mod cluster;
mod conformance;
mod discovery_machines;
mod features;
mod fixture;
mod fleet;
mod grpc;
mod kills;
mod manifest;
mod node;
mod peers;
mod pipes;
mod raw;
mod readme;
mod through;
mod tidy;
