//! The body of an answer, which drives its connection while it is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    connection::{Connection, Stream},
    origin::Origin,
};

/// A body as it comes from a backend. Nothing is read from the connection
/// beyond what is asked for here, but for one piece. Read to its end, the
/// connection is kept for others; dropped before, it is closed.
pub struct Incoming {
    /// None only while it is dropped.
    body: Option<hyper::body::Incoming>,
    /// As long as there may be more to come.
    held: Option<(Box<Connection>, Arc<Origin>)>,
}

impl Incoming {
    pub(super) fn new(
        body: hyper::body::Incoming,
        connection: Box<Connection>,
        switched: bool,
        origin: &Arc<Origin>,
    ) -> Self {
        if connection.is_idle() {
            origin.keep(connection);
            return Self { body: Some(body), held: None };
        }
        let needed = switched || !connection.is_ended();
        Self { body: Some(body), held: needed.then(|| (connection, Arc::clone(origin))) }
    }

    /// The connection after an answer that switches protocols, with what has
    /// come on it already.
    pub fn into_switched(mut self) -> Option<(Stream, Bytes)> {
        self.held.take()?.0.into_stream()
    }

    /// Gives the connection back if it is needed no more.
    fn settle(&mut self, is_over: bool) {
        let Some((connection, _)) = &self.held else { return };
        if connection.is_idle() {
            if let Some((connection, origin)) = self.held.take() {
                origin.keep(connection);
            }
        } else if is_over || connection.is_ended() {
            self.held = None;
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        let Some((connection, _)) = &mut this.held else { return Pin::new(body).poll_frame(cx) };
        // Only driving the connection brings more, so nobody has to be woken for that.
        let mut silent = Context::from_waker(Waker::noop());
        let mut next = Pin::new(&mut *body).poll_frame(&mut silent);
        if next.is_pending() {
            connection.drive(cx);
            next = Pin::new(body).poll_frame(&mut silent);
            if next.is_ready() {
                connection.rest();
            }
        }
        if let Poll::Ready(frame) = &next {
            this.settle(!matches!(frame, Some(Ok(_))));
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // The end may have come already, right behind the last that was read.
        self.body = None;
        if let Some((connection, _)) = &mut self.held {
            connection.poke();
            self.settle(true);
        }
    }
}
