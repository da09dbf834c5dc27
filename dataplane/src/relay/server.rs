//! The way of the other nodes to here: believes only who has the fleet's keys,
//! and hands on to the doors.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream,
    stream::{self, StreamExt},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use mt_proto::pb::node::{
    GetRecordRequest, GetRecordResponse, PutRecordRequest, PutRecordResponse, RelayEnd, RelayHead,
    RelayHeader, RelayMoved, RelayRequest, RelayResponse, RelayResponseHead, RelayShown, SessionRecord,
    relay_response::Part,
    relay_service_server::{RelayService, RelayServiceServer},
};
use prost::Message;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Server, server::TcpIncoming},
};

use super::{
    Declined, Inbound, Incoming, Relay,
    credential::{self, Digest},
    directory::now_seconds,
    record::RECORD_BYTES_MAX,
};
use crate::gateway::call::{Identity, Shown};

/// The longest message: a body, and what is around it.
pub const MESSAGE_BYTES_MAX: usize = (4 << 20) + (256 << 10);
/// Relayed requests that are served at a time.
pub const SERVED_MAX: usize = 16_384;
/// A body goes in pieces of at most this.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Headers of a request or a response.
const HEADERS_MAX: usize = 128;
/// HTTP/2 streams on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 16_384;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the other nodes until `shutdown`, then until their requests have ended.
///
/// # Errors
/// If serving fails.
pub async fn serve(relay: Arc<Relay>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let service = Service { relay, slots: Arc::new(Semaphore::new(SERVED_MAX)) };
    let service = RelayServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(64 << 20)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await
        .map_err(io::Error::other)
}

struct Service {
    relay: Arc<Relay>,
    slots: Arc<Semaphore>,
}

impl Service {
    fn admit(&self, content: Digest, sealed: &str) -> Result<(), Status> {
        let relay = &self.relay;
        if credential::holds(&relay.keys.load(), &relay.tag, content, sealed, now_seconds()) {
            return Ok(());
        }
        metrics::counter!("mt_relay_refused_total").increment(1);
        Err(Status::unauthenticated("not from a node of this fleet, not for this node, or too old"))
    }

    fn inbound(&self) -> Result<&Arc<dyn Inbound>, Status> {
        self.relay.inbound.get().ok_or_else(|| Status::unauthenticated("the node does not serve yet"))
    }
}

type Parts = Pin<Box<dyn Stream<Item = Result<RelayResponse, Status>> + Send>>;

#[tonic::async_trait]
impl RelayService for Service {
    type RelayStream = Parts;

    async fn relay(&self, request: tonic::Request<RelayRequest>) -> Result<tonic::Response<Parts>, Status> {
        let RelayRequest { credential, head, body } = request.into_inner();
        self.admit(Digest::of(&[&head, &body]), &credential)?;
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Status::resource_exhausted("too many relayed requests"))?;
        let head =
            RelayHead::decode(head).map_err(|_| Status::invalid_argument("the head does not decode"))?;
        let incoming = incoming(head, body)?;
        metrics::counter!("mt_relay_served_total").increment(1);
        let response = self.inbound()?.take(incoming).await;
        Ok(tonic::Response::new(parts(response, slot)))
    }

    async fn put_record(
        &self,
        request: tonic::Request<PutRecordRequest>,
    ) -> Result<tonic::Response<PutRecordResponse>, Status> {
        let PutRecordRequest { credential, record } = request.into_inner();
        self.admit(Digest::of(&[&record]), &credential)?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(Status::invalid_argument("the record is too long"));
        }
        let record = SessionRecord::decode(record)
            .map_err(|_| Status::invalid_argument("the record does not decode"))?;
        let SessionRecord { owner, epoch, ended, .. } = self.relay.keep_copy(record);
        Ok(tonic::Response::new(PutRecordResponse { owner, epoch, ended }))
    }

    async fn get_record(
        &self,
        request: tonic::Request<GetRecordRequest>,
    ) -> Result<tonic::Response<GetRecordResponse>, Status> {
        let GetRecordRequest { credential, id } = request.into_inner();
        self.admit(Digest::of(&[id.as_bytes()]), &credential)?;
        let serving = self.inbound()?.serves(&id);
        let record = self.relay.ledger.copy_of(&id);
        Ok(tonic::Response::new(GetRecordResponse { record, serving }))
    }
}

fn incoming(head: RelayHead, body: Bytes) -> Result<Incoming, Status> {
    let invalid = |_| Status::invalid_argument("the head is not one of a request");
    let method: Method = head.method.parse().map_err(|_| invalid(()))?;
    let shown = match head.shown() {
        RelayShown::Unspecified => Shown::Nothing,
        RelayShown::ApiKey => Shown::ApiKey,
        RelayShown::Jwt => Shown::Jwt,
    };
    let identity = Identity {
        principal: head.principal.into(),
        groups: head.groups.into_iter().map(Into::into).collect(),
        shown,
    };
    let mut request = Request::builder().method(method).uri(head.path).body(body).map_err(|_| invalid(()))?;
    *request.headers_mut() = header_map(head.headers);
    Ok(Incoming { request, identity: Arc::new(identity) })
}

fn parts(
    response: Result<Response<stream::BoxStream<'static, Bytes>>, Declined>,
    slot: OwnedSemaphorePermit,
) -> Parts {
    let part = |part| Ok(RelayResponse { part: Some(part) });
    let response = match response {
        Ok(response) => response,
        Err(Declined::Moved(owner)) => {
            let moved = Part::Moved(RelayMoved { owner: owner.to_string() });
            return stream::iter([part(moved)]).boxed();
        }
        Err(Declined::Draining) => return stream::iter([part(Part::Draining(RelayEnd {}))]).boxed(),
    };
    let (head, body) = response.into_parts();
    let first = RelayResponseHead {
        status: head.status.as_u16().into(),
        headers: header_list(&head.headers, |_| true),
    };
    let body = body.flat_map(|chunk| stream::iter(pieces(chunk)));
    stream::iter([part(Part::Head(first))])
        .chain(body.map(move |piece| part(Part::Chunk(piece))))
        .chain(stream::once(async move {
            drop(slot);
            part(Part::End(RelayEnd {}))
        }))
        .boxed()
}

fn pieces(mut chunk: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(chunk.len() / CHUNK_BYTES_MAX + 1);
    while chunk.len() > CHUNK_BYTES_MAX {
        pieces.push(chunk.split_to(CHUNK_BYTES_MAX));
    }
    pieces.push(chunk);
    pieces
}

/// Headers as they are sent.
pub fn header_list(headers: &HeaderMap, keep: impl Fn(&str) -> bool) -> Vec<RelayHeader> {
    let kept = headers.iter().filter(|(name, _)| keep(name.as_str())).take(HEADERS_MAX);
    kept.map(|(name, value)| RelayHeader {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    })
    .collect()
}

/// Headers as they came; what is none is left out.
pub fn header_map(list: Vec<RelayHeader>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for RelayHeader { name, value } in list.into_iter().take(HEADERS_MAX) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_maybe_shared(value)) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_chunk_goes_in_pieces_and_nothing_is_lost() {
        for len in [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX] {
            let chunk = Bytes::from(vec![7; len]);
            let pieces = pieces(chunk.clone());
            assert!(pieces.iter().all(|piece| piece.len() <= CHUNK_BYTES_MAX));
            assert_eq!(pieces.concat(), chunk);
        }
    }
}
