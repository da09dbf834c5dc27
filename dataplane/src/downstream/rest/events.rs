//! `GET /mcp/stream`: what changes at the gateway, as server-sent events whose
//! data is one JSON object each, so that a page needs no more than `EventSource`.
//!
//! Nothing can be missed between two connections without being seen: a client
//! that comes back is told `connected` and looks at the lists again.

use bytes::Bytes;
use futures_util::stream;
use http::Response;

use super::{Failure, Query};
use crate::{
    downstream::{
        body::Body,
        door::Door,
        plain::{
            said::List,
            watch::{Event, Wanted, Watch},
        },
        reply,
        stream::KEEP_ALIVE_EVERY,
    },
    mcp::sse,
};

/// What is said when there is nothing to say.
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

pub async fn open(door: Door, query: &Query) -> Result<Response<Body>, Failure> {
    let uris = query.all("uri").map(str::to_owned).collect();
    let wanted = Wanted { lists: List::ALL.to_vec(), uris, level: query.level()? };
    let mut watch = Watch::start(door, &wanted)?;
    let first = watch.next_within(KEEP_ALIVE_EVERY).await;
    if let Event::Ended(Err(failure)) = first {
        return Err(failure);
    }
    let events = stream::unfold(Some((watch, Some(first))), |state| async move {
        let (mut watch, first) = state?;
        let event = match first {
            Some(first) => first,
            None => watch.next_within(KEEP_ALIVE_EVERY).await,
        };
        let over = matches!(event, Event::Ended(_));
        let chunk = match event.to_json() {
            Some(data) => encoded(&data),
            None => Bytes::from_static(HEARTBEAT),
        };
        Some((chunk, (!over).then_some((watch, None))))
    });
    Ok(reply::events(Body::stream(events)))
}

fn encoded(data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 16);
    sse::encode(None, data, &mut out);
    out.into()
}
