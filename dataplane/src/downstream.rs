//! The clients' side of a node: the doors.
//!
//! ```text
//!  socket ─► guard (Host, Origin) ─► path ─► gateway ─┬─ modern: one request, one response   (modern.rs)
//!                                                     ├─ legacy: sessions, streams            (legacy.rs)
//!                                                     ├─ both ways on one connection          (duplex.rs)
//!                                                     │    websocket.rs, sse.rs; stdin: stdio.rs
//!                                                     └─ no MCP at all: rest.rs, grpc.rs      (plain.rs)
//! ```
//!
//! A door frames messages and keeps what its era needs; what a message means is
//! the pipeline's business. The era of a request is decided in `post.rs`, once.

mod auth;
mod body;
mod chunks;
mod dispatch;
mod door;
mod duplex;
mod elsewhere;
mod framing;
mod grpc;
mod guard;
mod handover;
mod inbound;
mod inbox;
mod lasting;
mod legacy;
mod listen;
mod meters;
mod modern;
mod ndjson;
mod openapi;
mod outlet;
mod path;
mod pieces;
mod plain;
mod post;
mod pump;
mod reply;
mod rest;
mod running;
mod session;
mod silence;
mod sse;
pub mod stdio;
mod step;
mod stream;
mod websocket;

pub use self::{
    door::{BODY_BYTES_MAX, BODY_MAX, DRAIN_MAX, DoorOptions},
    listen::serve,
};
