//! Bodies: read within bounds, written without copies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use metrics::counter;

use super::pieces::Pieces;
use crate::{
    held::{Full, Hold},
    mcp::RpcError,
};

/// The body of a response.
pub enum Body {
    /// All of it, once.
    Full(Option<Pieces>),
    /// As it comes.
    Stream(BoxStream<'static, Pieces>),
    /// With trailers: gRPC's.
    Framed(tonic::body::Body),
}

impl Body {
    pub fn full(whole: impl Into<Pieces>) -> Self {
        Body::Full(Some(whole.into()))
    }

    pub fn empty() -> Self {
        Body::Full(None)
    }

    pub fn stream<P>(stream: impl Stream<Item = P> + Send + 'static) -> Self
    where
        P: Into<Pieces> + 'static,
    {
        Body::Stream(Box::pin(stream.map(Into::into)))
    }

    /// Whether it is sent as it comes, which may take any time.
    pub fn is_open(&self) -> bool {
        matches!(self, Body::Stream(_))
    }

    /// A stream that ends at the latest when the future does.
    pub fn until(self, end: impl Future<Output = ()> + Send + 'static) -> Self {
        match self {
            Body::Stream(stream) => Body::Stream(Box::pin(stream.take_until(end))),
            // What is framed ends by itself, with a status.
            other @ (Body::Full(_) | Body::Framed(_)) => other,
        }
    }
}

impl http_body::Body for Body {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        match self.get_mut() {
            Body::Full(whole) => Poll::Ready(whole.take().map(|whole| Ok(Frame::data(whole)))),
            Body::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            // It has no errors: those are in its trailers. Were there one, the
            // client would miss them and know.
            Body::Framed(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.and_then(Result::ok).map(|frame| Ok(frame.map_data(Pieces::from)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(whole) => whole.is_none(),
            Body::Stream(_) => false,
            Body::Framed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |w| w.remaining() as u64)),
            Body::Stream(_) => SizeHint::default(),
            Body::Framed(body) => body.size_hint(),
        }
    }
}

/// Why a request has no body that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    #[error("the body ended early")]
    Broken,
    #[error("{0}")]
    NoRoom(#[from] Full),
}

impl ReadError {
    pub fn status(self) -> StatusCode {
        match self {
            ReadError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ReadError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            ReadError::Broken => StatusCode::BAD_REQUEST,
            ReadError::NoRoom(Full) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub fn to_rpc(self) -> RpcError {
        match self {
            ReadError::TooLong(bytes_max) => RpcError::too_large(bytes_max),
            ReadError::NoRoom(Full) => RpcError::overloaded(),
            ReadError::TooSlow(_) | ReadError::Broken => RpcError::invalid_request(self.to_string()),
        }
    }
}

/// Of a body that is refused as too long, this much is read and dropped, so that
/// a client that sends before it reads gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 8 << 20;
/// And for so long.
const DISCARD_MAX: Duration = Duration::from_secs(2);

/// Reads a whole body. One that came in one piece is not copied, one of a known
/// length once; of one that is too long nothing is kept.
pub async fn read<B>(mut incoming: B, bytes_max: usize, within: Duration) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let read = read_within(&mut incoming, bytes_max, within).await;
    if let Err(ReadError::NoRoom(_)) = read {
        counter!("mt_long_bodies_refused_total", "from" => "client").increment(1);
    }
    if let Err(ReadError::TooLong(_) | ReadError::NoRoom(_)) = read {
        _ = tokio::time::timeout(DISCARD_MAX, discard(&mut incoming)).await;
    }
    read
}

async fn discard<B: http_body::Body<Data = Bytes> + Unpin>(incoming: &mut B) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = incoming.frame().await {
        dropped += frame.data_ref().map_or(0, Bytes::len);
        if dropped > DISCARD_BYTES_MAX {
            return;
        }
    }
}

async fn read_within<B>(incoming: &mut B, bytes_max: usize, within: Duration) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let declared = incoming.size_hint().lower();
    if declared > bytes_max as u64 {
        return Err(ReadError::TooLong(bytes_max));
    }
    let reading = async {
        let mut hold = Hold::new();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > bytes_max {
                return Err(ReadError::TooLong(bytes_max));
            }
            hold.grow(first.len() + rest.len() + data.len())?;
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.reserve((declared as usize).max(first.len() + data.len()));
                    rest.extend_from_slice(&first);
                    first = Bytes::new();
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(hold.keep(if rest.is_empty() { first } else { rest.freeze() }))
    };
    tokio::time::timeout(within, reading).await.unwrap_or(Err(ReadError::TooSlow(within)))
}
