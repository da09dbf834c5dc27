//! The stream on which a legacy backend speaks to a session outside of calls.

use std::{sync::Arc, time::Duration};

use http::{Method as HttpMethod, StatusCode};
use tokio::{sync::oneshot, time::sleep};

use super::{
    audience::Audience,
    endpoint::Reply,
    legacy::{Legacy, PostReplies},
    question::Questions,
    session::Session,
    stream::{Cursor, EventStream},
};
use crate::mcp::{envelope::Message, method::Method, scan::Limits};

/// The wait before the stream is opened again: doubled while it brings nothing.
const RECONNECT_MIN: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// Keeps the stream open until the session is over, the client is gone, or the
/// backend says that it has none.
///
/// `asked` is dropped when the stream is open for the first time, or is not.
pub async fn run(legacy: Arc<Legacy>, session: Arc<Session>, audience: Audience, asked: oneshot::Sender<()>) {
    if legacy.may_have_event_stream() {
        let over = session.over.clone();
        _ = over.run_until_cancelled(listen(&legacy, &session, &audience, asked)).await;
    }
}

async fn listen(
    legacy: &Arc<Legacy>,
    session: &Arc<Session>,
    audience: &Audience,
    asked: oneshot::Sender<()>,
) {
    let mut asked = Some(asked);
    let mut cursor = Cursor::default();
    let mut wait = RECONNECT_MIN;
    let mut opened_before = false;
    while !audience.is_gone() {
        let opened = open(legacy, session, &cursor).await;
        drop(asked.take());
        match opened {
            Open::Stream(stream) => {
                if opened_before && cursor.last_event_id.is_none() {
                    legacy.hints.missed();
                }
                opened_before = true;
                if read(legacy, session, audience, stream, &mut cursor).await {
                    wait = RECONNECT_MIN;
                }
            }
            Open::Later => {}
            Open::Never => return,
        }
        let wanted = cursor.retry.unwrap_or(wait).clamp(Duration::from_millis(20), RECONNECT_MAX);
        sleep(wanted.max(wait / 2) + jitter(wait)).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

enum Open {
    Stream(Box<EventStream>),
    Later,
    Never,
}

async fn open(legacy: &Arc<Legacy>, session: &Arc<Session>, cursor: &Cursor) -> Open {
    let Ok(headers) = legacy.stream_headers(session, cursor.last_event_id.as_ref()) else {
        return Open::Later;
    };
    let endpoint = &legacy.endpoint;
    let Ok(response) = endpoint.send(HttpMethod::GET, headers, Default::default()).await else {
        return Open::Later;
    };
    match endpoint.read(response).await {
        Ok(Reply::Events(body)) => Open::Stream(Box::new(EventStream::new(body))),
        Ok(Reply::Refused(refusal)) if refusal.status == StatusCode::METHOD_NOT_ALLOWED => {
            // Of the server, not of the session: no other session has to ask.
            legacy.no_event_stream.store(true, std::sync::atomic::Ordering::Relaxed);
            Open::Never
        }
        Ok(Reply::Refused(refusal))
            if refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS =>
        {
            Open::Later
        }
        Ok(_) => Open::Never,
        Err(_) => Open::Later,
    }
}

/// Passes messages on until the stream ends; true if there was any.
async fn read(
    legacy: &Arc<Legacy>,
    session: &Arc<Session>,
    audience: &Audience,
    mut stream: Box<EventStream>,
    cursor: &mut Cursor,
) -> bool {
    let replies = PostReplies { legacy: Arc::clone(legacy), session: Some(session.clone()) };
    let mut questions = Questions::new(replies);
    let mut any = false;
    while let Ok(bytes) = questions.beside(stream.next(cursor)).await {
        any = true;
        match Message::parse(bytes.clone(), Limits::BACKEND) {
            Ok(Message::Notification(told)) if told.method == Method::Cancelled => {
                questions.withdraw(&told.params)
            }
            Ok(Message::Notification(told)) => {
                legacy.hints.pass(&told.method, &bytes);
                if let Some(client) = audience.told() {
                    questions.beside(client.tell(&told.method, bytes)).await;
                }
            }
            Ok(Message::Request(request)) => {
                questions.take(request, audience.asked(&session.in_flight).as_ref());
            }
            Ok(Message::Response(response)) => session.elsewhere.put(response),
            Err(_) => legacy.endpoint.meters.garbage.increment(1),
        }
    }
    any
}

/// Up to half of `wait`, so that many sessions do not come back at one moment.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.0..0.5))
}
