//! The least that an HTTP proxy costs with the same libraries: no MCP at all.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::listen;

/// Forwards everything to `to`, bodies streamed.
pub async fn serve(to: SocketAddr) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    listen::serve(move |request: Request<Incoming>| {
        let client = client.clone();
        async move { forward(&client, to, request).await }
    })
    .await
}

async fn forward(
    client: &Client<HttpConnector, Incoming>,
    to: SocketAddr,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, hyper::Error>> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let Ok(uri) = Uri::builder().scheme("http").authority(to.to_string()).path_and_query(path).build() else {
        return unavailable();
    };
    head.uri = uri;
    strip(&mut head.headers);
    match client.request(Request::from_parts(head, body)).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(BodyExt::boxed)
        }
        Err(_) => unavailable(),
    }
}

fn strip(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONNECTION);
}

fn unavailable() -> Response<BoxBody<Bytes, hyper::Error>> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
