//! HTTP+SSE: everything comes on one stream, which first says where to POST.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Events, Inbox, Opened, Wire};

pub struct Sse {
    http: Client,
    endpoint: Url,
    _stream: JoinSet<()>,
}

impl Sse {
    pub async fn open(url: &str, inbox: Inbox) -> Opened {
        let http = Client::new();
        let response = http.get(url).header("accept", "text/event-stream").send().await;
        let response = response.map_err(|error| format!("no stream: {error:?}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("{} instead of a stream", response.status()));
        }
        let base = response.url().clone();
        let mut events = Events::of(response);
        let endpoint = match events.next().await? {
            Some((name, data)) if name == "endpoint" => {
                base.join(&data).map_err(|error| error.to_string())?
            }
            other => return Err(format!("{other:?} instead of the endpoint")),
        };
        let mut stream = JoinSet::new();
        stream.spawn(async move {
            _ = events.into_inbox(&inbox).await;
        });
        Ok(Arc::new(Self { http, endpoint, _stream: stream }))
    }
}

impl Wire for Sse {
    fn send<'a>(&'a self, message: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let response = self.http.post(self.endpoint.clone()).json(message).send().await;
            let response = response.map_err(|error| format!("{error:?}"))?;
            match response.status() {
                StatusCode::ACCEPTED => Ok(()),
                status => Err(format!("{status}: {}", response.text().await.unwrap_or_default())),
            }
        })
    }
}
