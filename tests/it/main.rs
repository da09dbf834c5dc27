//! Whole systems over real sockets, with real peers.

mod aggregation;
mod any_node;
mod balancer;
mod bridge_modern;
mod bytes;
mod client_conformance;
mod clients;
mod cluster;
mod conformance;
mod discovery_machines;
mod features;
mod fixture;
mod fleet;
mod grpc;
mod interop;
mod kills;
mod manifest;
mod matrix;
mod node;
mod orphans;
mod peers;
mod pipes;
mod raw;
mod readme;
mod through;
mod tidy;
