//! A client over WebSocket: one message in one text frame, one conversation.

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::{
    Target,
    case::{Asker, Case, LEGACY},
};

pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
}

impl WebSocket {
    pub async fn connect(target: &Target, case: &Case) -> anyhow::Result<Self> {
        let url = format!("ws://{}{}/ws", target.address, target.path(case));
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static("mcp"));
        let socket = TcpStream::connect(target.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let (stream, _) = client_async(request, socket).await?;
        let mut client = Self { stream };
        let open = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
        );
        client.send(open).await?;
        client.answer().await?;
        client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()).await?;
        Ok(client)
    }

    async fn send(&mut self, message: String) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(message)).await?)
    }

    /// The next answer, with what is told before it.
    async fn answer(&mut self) -> anyhow::Result<Bytes> {
        let mut all = Vec::new();
        while let Some(frame) = self.stream.next().await {
            let Message::Text(text) = frame? else { continue };
            all.extend_from_slice(text.as_bytes());
            let told = memchr::memmem::find(text.as_bytes(), br#""method":"notifications/"#);
            if told.is_none() {
                return Ok(all.into());
            }
        }
        bail!("the target has closed the conversation")
    }

    pub async fn ask(&mut self, asker: &Asker) -> anyhow::Result<Bytes> {
        self.send(asker.message()).await?;
        self.answer().await
    }
}
