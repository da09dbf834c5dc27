//! One WebSocket, opened by this side.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, header};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        error::ProtocolError,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{
    Failure, Reason,
    client::{self, Filled},
};

/// For the connection, TLS and the handshake.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// For a goodbye that nobody has to hear.
const CLOSE_MAX: Duration = Duration::from_millis(250);
const WRITE_BUFFER_BYTES_MAX: usize = 16 << 20;

/// An open WebSocket. Dropping it closes the connection.
pub(crate) struct Conversation {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    secrets: Vec<String>,
    message_bytes_max: usize,
}

/// A message that has come.
pub(crate) enum Received {
    Text(String),
    Binary(Bytes),
}

impl Conversation {
    /// # Errors
    /// If the service is not there, or does not want to talk.
    pub async fn open(
        filled: &Filled,
        subprotocols: &[String],
        message_bytes_max: usize,
    ) -> Result<Self, Failure> {
        let refused = |error| failure(error, filled.secrets.as_slice(), message_bytes_max, true);
        let mut request = filled.url.as_str().into_client_request().map_err(refused)?;
        request.headers_mut().extend(filled.headers.clone());
        if !subprotocols.is_empty() {
            let value = HeaderValue::from_str(&subprotocols.join(", "));
            let value =
                value.map_err(|_| Failure::new(Reason::Misconfigured, "a subprotocol has no proper name"))?;
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max))
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
        let tls = Connector::Rustls(client::tls().into());
        let opening = Box::pin(connect_async_tls_with_config(request, Some(config), true, Some(tls)));
        let opened = tokio::time::timeout(OPEN_MAX, opening).await;
        let opened = opened
            .map_err(|_| Failure::new(Reason::Unreachable, format!("no conversation within {OPEN_MAX:?}")))?;
        let (stream, _) = opened.map_err(refused)?;
        Ok(Self { stream, secrets: filled.secrets.clone(), message_bytes_max })
    }

    pub async fn send(&mut self, text: String) -> Result<(), Failure> {
        self.stream.send(Message::text(text)).await.map_err(|error| self.failure(error))
    }

    /// The next message. None: the service has closed the conversation as one
    /// does. Pings are answered on the way.
    pub async fn next(&mut self) -> Result<Option<Received>, Failure> {
        loop {
            match self.stream.next().await {
                None | Some(Err(Error::ConnectionClosed)) => return Ok(None),
                Some(Ok(Message::Text(text))) => return Ok(Some(Received::Text(text.to_string()))),
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(Received::Binary(bytes))),
                Some(Ok(Message::Close(frame))) => return self.closed(frame.as_ref()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(self.failure(error)),
            }
        }
    }

    fn closed(&self, frame: Option<&CloseFrame>) -> Result<Option<Received>, Failure> {
        /// The codes that mean no trouble (RFC 6455 §7.4.1).
        const FINE: [u16; 3] = [1000, 1001, 1005];
        match frame {
            Some(frame) if !FINE.contains(&u16::from(frame.code)) => {
                let mut message =
                    format!("the service closed the conversation with {}", u16::from(frame.code));
                let reason = client::excerpt(frame.reason.as_str(), &self.secrets);
                if !reason.is_empty() {
                    message.push_str(": ");
                    message.push_str(&reason);
                }
                Err(Failure::new(Reason::Refused, message))
            }
            _ => Ok(None),
        }
    }

    /// Says goodbye, without waiting long for the other side.
    pub async fn close(mut self) {
        _ = tokio::time::timeout(CLOSE_MAX, self.stream.close(None)).await;
    }

    fn failure(&self, error: Error) -> Failure {
        failure(error, &self.secrets, self.message_bytes_max, false)
    }
}

fn failure(error: Error, secrets: &[String], message_bytes_max: usize, opening: bool) -> Failure {
    match error {
        Error::Http(response) => {
            let status = response.status();
            let mut message = format!("the service answered {status}");
            let body = response.body().as_deref().unwrap_or_default();
            let excerpt = client::excerpt(&String::from_utf8_lossy(body), secrets);
            if !excerpt.is_empty() {
                message.push_str(": ");
                message.push_str(&excerpt);
            }
            Failure::new(Reason::Refused, message)
        }
        Error::Capacity(_) => client::too_large(message_bytes_max),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            Failure::new(Reason::Refused, "the service speaks none of the subprotocols")
        }
        error @ (Error::Io(_) | Error::Tls(_)) if opening => {
            Failure::new(Reason::Unreachable, "the service cannot be reached").detail(client::chain(&error))
        }
        error @ (Error::Url(_) | Error::HttpFormat(_)) => {
            Failure::new(Reason::Misconfigured, "the request cannot be made").detail(client::chain(&error))
        }
        error => Failure::new(Reason::Broken, "the service broke off").detail(client::chain(&error)),
    }
}
