//! Requests that other nodes hand over, served as if they had come here.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use http::{Method as HttpMethod, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::{
    body::Body,
    door::{Door, Doors},
    elsewhere::take_up,
    legacy,
    path::{self, Path, Service},
    pieces::Pieces,
    post::post,
    reply::{self, refuse},
    session::Place,
    sse,
};
use crate::{
    mcp::headers,
    relay::{Declined, Inbound, Incoming},
};

impl Inbound for Arc<Doors> {
    fn take(
        &self,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Response<BoxStream<'static, Bytes>>, Declined>> {
        let doors = self.clone();
        Box::pin(async move { taken(doors, incoming).await.map(stream_of) })
    }

    fn serves(&self, session: &str) -> bool {
        // A node that stops keeps what is under way, and nothing else.
        self.sessions.has(session, self.node.draining.is_cancelled())
    }

    fn displaced(&self, session: &str) {
        self.sessions.displace(session);
    }
}

fn stream_of(response: Response<Body>) -> Response<BoxStream<'static, Bytes>> {
    response.map(|body| {
        let chunks = body.into_data_stream();
        chunks.filter_map(|chunk| std::future::ready(chunk.ok().map(Pieces::joined))).boxed()
    })
}

/// Serves a request of another node.
async fn taken(doors: Arc<Doors>, incoming: Incoming) -> Result<Response<Body>, Declined> {
    let Incoming { request, identity } = incoming;
    let uri = request.uri().clone();
    let Some(Path { gateway, service }) = path::parse(uri.path()) else {
        return Ok(reply::empty(StatusCode::NOT_FOUND));
    };
    let door = match doors.enter(gateway, identity) {
        Ok(door) => Door { relayed: true, ..door },
        Err((status, error)) => return Ok(refuse(status, None, &error)),
    };
    if let Some(token) = request.headers().get(headers::SESSION_ID).and_then(|token| token.to_str().ok()) {
        let draining = door.node.draining.is_cancelled();
        let placed =
            door.doors.sessions.place(&door.node.keys(), &door.view.gateway.name, &door.identity, token);
        match placed {
            Ok(Place::Here { busy: false }) if draining => return Err(Declined::Draining),
            Ok(Place::Away { .. }) if draining => return Err(Declined::Draining),
            Ok(Place::Away { id, opener, good_for }) => {
                take_up(&door, token, &id, &opener, good_for).await.map_err(Declined::Moved)?;
            }
            Ok(Place::Here { .. }) | Err(_) => {}
        }
    }
    let request = request.map(Full::new);
    Ok(match (service, request.method()) {
        (Service::Streamable, &HttpMethod::POST) => {
            let (head, body) = request.into_parts();
            post(door, &head, body).await
        }
        (Service::Streamable, &HttpMethod::GET) => legacy::get(door, request.headers()),
        (Service::Streamable, &HttpMethod::DELETE) => legacy::delete(door, request.headers()).await,
        (Service::Messages, &HttpMethod::POST) => sse::post(door, request).await,
        _ => reply::empty(StatusCode::METHOD_NOT_ALLOWED),
    })
}
