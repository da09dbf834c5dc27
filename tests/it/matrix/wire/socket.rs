//! WebSocket with the subprotocol `mcp`: one message in each text frame.

use std::sync::Arc;

use futures_util::{
    SinkExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::{Inbox, Opened, Wire};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub struct Socket {
    sink: tokio::sync::Mutex<SplitSink<Stream, Message>>,
    _reading: JoinSet<()>,
}

impl Socket {
    pub async fn open(url: &str, inbox: Inbox) -> Opened {
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        request.headers_mut().insert("sec-websocket-protocol", "mcp".parse().unwrap());
        let (stream, response) =
            connect_async(request).await.map_err(|error| format!("no socket: {error}"))?;
        let chosen = response.headers().get("sec-websocket-protocol");
        if chosen.is_none_or(|chosen| chosen != "mcp") {
            return Err(format!("subprotocol {chosen:?} was chosen"));
        }
        let (sink, frames) = stream.split();
        let mut reading = JoinSet::new();
        reading.spawn(read(frames, inbox));
        Ok(Arc::new(Self { sink: tokio::sync::Mutex::new(sink), _reading: reading }))
    }
}

async fn read(mut frames: SplitStream<Stream>, inbox: Inbox) {
    while let Some(Ok(frame)) = frames.next().await {
        if let Message::Text(text) = frame
            && inbox.send(serde_json::from_str(&text).unwrap()).await.is_err()
        {
            return;
        }
    }
}

impl Wire for Socket {
    fn send<'a>(&'a self, message: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let frame = Message::text(message.to_string());
            self.sink.lock().await.send(frame).await.map_err(|error| error.to_string())
        })
    }
}
