//! WebSockets with the subprotocol `mcp`: one message in each text frame, no
//! headers, and otherwise as on a pipe. A socket is a session.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt as _, StreamExt as _};

use super::BODY_BYTES_MAX;
use super::lines;
use crate::server::Shared;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(shared)
}

/// The subprotocol is chosen only when it was offered.
async fn upgrade(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols(["mcp"])
        .max_message_size(BODY_BYTES_MAX)
        .max_frame_size(BODY_BYTES_MAX)
        .on_upgrade(move |socket| serve(shared, socket))
}

async fn serve(shared: Arc<Shared>, socket: WebSocket) {
    let (mut writer, mut reader) = lines::converse(shared);
    let (mut sink, mut frames) = socket.split();
    let inward = async {
        while let Some(Ok(frame)) = frames.next().await {
            // Pings are answered below us, and other frames say nothing.
            if let Message::Text(text) = frame
                && writer.write(&text).await.is_err()
            {
                break;
            }
        }
    };
    let outward = async {
        while let Some(message) = reader.read().await {
            if sink.send(Message::Text(message.into())).await.is_err() {
                break;
            }
        }
        _ = sink.close().await;
    };
    // Side by side: a large message one way must not wait for one the other way.
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
