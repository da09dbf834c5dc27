//! What all requests over HTTP have, and how their answers are read.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Uri, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::client::Incoming;
use crate::held::{Full, Hold};

/// `Content-Type` and `Accept` of one message.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `User-Agent`.
pub const AGENT: HeaderValue = HeaderValue::from_static(concat!("magictunnel/", env!("CARGO_PKG_VERSION")));

/// A URL as a request to its server names it: path and query.
pub fn target(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

/// What a request says of which server it is for: the port only if it is not
/// the scheme's own.
pub fn host(uri: &Uri) -> Option<HeaderValue> {
    let name = uri.host()?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => HeaderValue::try_from(format!("{name}:{port}")).ok(),
        None => HeaderValue::from_str(name).ok(),
    }
}

/// Why a body was not read to its end.
pub enum Cut {
    TooLarge,
    NoRoom(Full),
    Broken(hyper::Error),
}

/// Reads a body up to `max` bytes; what came in one piece is not copied.
/// On failure, what was read until then.
pub async fn collect(mut body: Incoming, max: usize) -> Result<Bytes, (Bytes, Cut)> {
    let mut hold = Hold::new();
    let first = match next_data(&mut body).await {
        Ok(None) => return Ok(Bytes::new()),
        Ok(Some(first)) if first.len() > max => return Err((first.slice(..max), Cut::TooLarge)),
        Ok(Some(first)) => first,
        Err(error) => return Err((Bytes::new(), Cut::Broken(error))),
    };
    if let Err(full) = hold.grow(first.len()) {
        return Err((Bytes::new(), Cut::NoRoom(full)));
    }
    let mut read = BytesMut::new();
    loop {
        let data = match next_data(&mut body).await {
            Ok(Some(data)) => data,
            Ok(None) if read.is_empty() => return Ok(hold.keep(first)),
            Ok(None) => return Ok(hold.keep(read.freeze())),
            Err(error) => return Err((read.freeze(), Cut::Broken(error))),
        };
        if read.is_empty() {
            // The whole size is often known, so that this is the only copy.
            let expected = usize::try_from(body.size_hint().lower()).unwrap_or(max);
            read.reserve((first.len() + data.len()).saturating_add(expected).min(max));
            read.extend_from_slice(&first);
        }
        if read.len() + data.len() > max {
            return Err((read.freeze(), Cut::TooLarge));
        }
        if let Err(full) = hold.grow(read.len() + data.len()) {
            return Err((Bytes::new(), Cut::NoRoom(full)));
        }
        read.extend_from_slice(&data);
    }
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while !body.is_end_stream() {
        match body.frame().await.transpose()? {
            None => break,
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
    Ok(None)
}
