//! One connection, driven by whoever needs it.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::client::conn::{
    TrySendError,
    http1::{self, SendRequest},
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::unconstrained};

use super::{meters::Meters, signal::Signal};
use crate::upstream::message::Outgoing;

/// How a request ends at the head of its answer.
pub type Begun = Result<Response<hyper::body::Incoming>, TrySendError<Request<Outgoing>>>;

/// What lies beneath HTTP.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

pub struct Connection {
    /// None when it was broken off.
    halves: Option<Halves>,
    /// It will do nothing any more, and must not be polled.
    ended: bool,
    /// TLS says goodbye.
    is_tls: bool,
    signal: Arc<Signal>,
    /// The signal, as the driver knows it.
    waker: Waker,
    meters: Arc<Meters>,
}

struct Halves {
    sender: SendRequest<Outgoing>,
    driver: http1::Connection<Stream, Outgoing>,
}

impl Connection {
    pub fn new(
        sender: SendRequest<Outgoing>,
        driver: http1::Connection<Stream, Outgoing>,
        is_tls: bool,
        meters: Arc<Meters>,
    ) -> Box<Self> {
        meters.on_open();
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(Arc::clone(&signal));
        let halves = Some(Halves { sender, driver });
        Box::new(Self { halves, ended: false, is_tls, signal, waker, meters })
    }

    /// Takes a request, to be written as the connection is driven, and gives what
    /// becomes the head of its answer. A request of which nothing was written is
    /// in the error. Dropping the answer leaves the connection unusable.
    pub fn begin(&mut self, request: Request<Outgoing>) -> impl Future<Output = Begun> + Send + use<> {
        let halves = self.halves.as_mut().expect("what was broken off is not used again");
        halves.sender.try_send_request(request)
    }

    /// Drives the connection until the answer is there.
    pub fn poll_answer(
        &mut self,
        mut answer: Pin<&mut (impl Future<Output = Begun> + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<Begun> {
        self.drive(cx);
        // Only driving it brings the answer, so nobody has to be woken for that,
        // and it must not be held back because the task's budget is used up.
        let mut silent = Context::from_waker(Waker::noop());
        let mut answer = pin!(unconstrained(answer.as_mut()));
        let mut outcome = answer.as_mut().poll(&mut silent);
        if outcome.is_pending() && self.ended {
            // What it had not begun comes back.
            self.halves = None;
            outcome = answer.poll(&mut silent);
        }
        if outcome.is_ready() {
            self.signal.disarm();
        }
        outcome
    }

    /// Does what can be done now; the task of `cx` is woken when there is more.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        self.signal.arm(cx.waker());
        self.poll();
    }

    /// The same, and nobody is woken.
    pub fn poke(&mut self) {
        self.signal.disarm();
        self.poll();
    }

    /// Nobody waits for it any more.
    pub fn rest(&self) {
        self.signal.disarm();
    }

    fn poll(&mut self) {
        if !self.ended
            && let Some(halves) = &mut self.halves
        {
            let ended = Pin::new(&mut halves.driver).poll(&mut Context::from_waker(&self.waker));
            if let Poll::Ready(Err(error)) = &ended {
                tracing::trace!(%error, "a connection to a backend broke");
            }
            self.ended = ended.is_ready();
        }
    }

    /// Whether it will do nothing any more.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether another request may be sent: the answer to the one before has
    /// been read and nothing came after it.
    pub fn is_idle(&self) -> bool {
        !self.ended && self.halves.as_ref().is_some_and(|halves| halves.sender.is_ready())
    }

    /// What lies beneath, with what has been read of it, when it is done with HTTP.
    pub fn into_stream(mut self) -> Option<(Stream, Bytes)> {
        let parts = self.halves.take().filter(|_| self.ended)?.driver.into_parts();
        Some((parts.io, parts.read_buf))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.meters.on_close();
        if self.is_tls
            && self.is_idle()
            && let Some(Halves { sender, mut driver }) = self.halves.take()
        {
            // Without the one, the other closes what lies beneath.
            drop(sender);
            _ = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
