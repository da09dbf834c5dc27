//! The operators' door: is the node alive, is it ready, what does it count,
//! what does it serve.
//!
//! It runs beside the calls, so it answers when they are many. It shows no
//! secret: what may be one is hidden wherever it was written, also in the query
//! of a URL; keys are not even here.

use std::{
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use mt_proto::{
    pb::{FILE_DESCRIPTOR_SET, resource as pb},
    resource::Key,
};

use crate::{control::Contact, metrics::UPKEEP_INTERVAL, node::Node, upstream::UpstreamState};

/// What stands in the place of a value that may be secret.
const HIDDEN: &str = "(hidden)";

/// What the door shows. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub node_id: String,
    pub node: Arc<Node>,
    /// Whether a snapshot is in service.
    pub serving: Arc<AtomicBool>,
    pub contact: watch::Receiver<Contact>,
    pub metrics: Option<PrometheusHandle>,
    /// No new calls are taken any more.
    pub draining: CancellationToken,
}

impl Admin {
    /// Serves operators until `shutdown`.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let upkeep = condense(self.metrics.clone());
        let mut app = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/config_dump", get(config_dump))
            .with_state(self);
        if listener.local_addr()?.ip().is_loopback() {
            app = app.layer(middleware::from_fn(refuse_rebound));
        }
        let serve = axum::serve(listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            served = serve => served,
            // Whoever still reads does not keep the node from stopping.
            () = shutdown.cancelled() => Ok(()),
            () = upkeep => Ok(()),
        }
    }
}

async fn condense(metrics: Option<PrometheusHandle>) {
    let Some(metrics) = metrics else { return std::future::pending().await };
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}

/// A web page whose name was made to point here must not read the
/// configuration: it comes with that name as the host.
async fn refuse_rebound(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if names_no_site(host) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "this host name is not served here\n").into_response()
}

/// An address, or this machine.
fn names_no_site(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let (generation, revision) = *admin.node.watch().borrow();
    let age = admin.contact.borrow().age(Instant::now());
    let (ready, text) = if admin.draining.is_cancelled() {
        (false, "not ready: draining".to_owned())
    } else if !admin.serving.load(Ordering::Acquire) {
        (false, "not ready: nothing in service yet, waiting for the control plane".to_owned())
    } else if generation == 0 {
        // Every request is refused until then, so no traffic should come.
        (
            false,
            "not ready: the control plane has no configuration yet (mtctl apply makes the first)".to_owned(),
        )
    } else if age.is_zero() {
        (true, format!("ready: generation {generation}, catalog revision {revision}"))
    } else {
        let seconds = age.as_secs();
        let text = format!(
            "ready: last-known-good generation {generation}, catalog revision {revision}; \
             no control plane for {seconds} s"
        );
        (true, text)
    };
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text + "\n")
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let Some(metrics) = &admin.metrics else {
        return (StatusCode::NOT_FOUND, "this process keeps no metrics\n").into_response();
    };
    let (generation, revision) = *admin.node.watch().borrow();
    gauge!("mt_config_generation").set(generation as f64);
    gauge!("mt_catalog_revision").set(revision as f64);
    gauge!("mt_config_age_seconds").set(admin.contact.borrow().age(Instant::now()).as_secs_f64());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}

async fn config_dump(State(admin): State<Admin>) -> Json<Value> {
    let table = admin.node.table();
    let snapshot = &table.snapshot;
    let resources: Vec<Value> =
        snapshot.resources.iter().map(|(key, resource)| show(key, resource)).collect();
    let catalogs: Map<String, Value> = snapshot
        .catalogs
        .iter()
        .map(|(backend, catalog)| {
            let counts = json!({
                "tools": catalog.tools.len(),
                "prompts": catalog.prompts.len(),
                "resources": catalog.resources.len(),
                "resourceTemplates": catalog.templates.len(),
            });
            (backend.to_string(), counts)
        })
        .collect();
    let backends: Map<String, Value> = admin
        .node
        .upstreams()
        .iter()
        .map(|upstream| (upstream.config().name.to_string(), state(&upstream.state().borrow()).into()))
        .collect();
    Json(json!({
        "node": admin.node_id,
        "generation": snapshot.generation,
        "catalogRevision": snapshot.catalog_revision,
        "resources": resources,
        "catalogs": catalogs,
        "backends": backends,
    }))
}

fn state(state: &UpstreamState) -> String {
    match state {
        UpstreamState::Starting => "starting".to_owned(),
        UpstreamState::Ready => "ready".to_owned(),
        UpstreamState::Degraded { reason } => format!("degraded: {reason}"),
        UpstreamState::Unavailable { reason } => format!("unavailable: {reason}"),
        UpstreamState::NeedsAuth { reason } => format!("needs auth: {reason}"),
        UpstreamState::Disabled => "disabled".to_owned(),
    }
}

/// A resource as users write it, without values that may be secret.
fn show(key: &Key, resource: &pb::Resource) -> Value {
    let Some(mut fields) = to_json(resource) else {
        return json!({ "kind": key.kind.yaml(), "metadata": { "name": key.name.as_str() } });
    };
    let metadata = fields.remove("metadata");
    // What is left is the one field of the kind.
    let spec = fields.into_iter().map(|(_, spec)| spec).next().unwrap_or_default();
    json!({ "kind": key.kind.yaml(), "metadata": metadata, "spec": spec })
}

fn to_json(resource: &pb::Resource) -> Option<Map<String, Value>> {
    static DESCRIPTOR: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok()?;
        pool.get_message_by_name("magictunnel.resource.v1.Resource")
    });
    let mut message = DynamicMessage::decode(DESCRIPTOR.clone()?, &resource.encode_to_vec()[..]).ok()?;
    hide(&mut message);
    match serde_json::to_value(&message).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// Hides every text that could be the name of a secret instead, and the query
/// of every URL; the name of a secret may be seen.
fn hide(message: &mut DynamicMessage) {
    let is_value = message.descriptor().full_name() == "magictunnel.resource.v1.Value";
    for (field, value) in message.fields_mut() {
        match (field.name(), value) {
            ("text", Field::String(text)) if is_value => *text = HIDDEN.to_owned(),
            ("url" | "token_url", Field::String(url)) => {
                if let Some(query) = url.find('?') {
                    url.replace_range(query + 1.., HIDDEN);
                }
            }
            (_, Field::Message(inner)) => hide(inner),
            (_, Field::List(items)) => items.iter_mut().for_each(hide_in),
            (_, Field::Map(entries)) => entries.values_mut().for_each(hide_in),
            _ => {}
        }
    }
}

fn hide_in(value: &mut Field) {
    if let Field::Message(inner) = value {
        hide(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_no_text_that_may_be_secret() {
        let text = |text: &str| pb::Value { source: Some(pb::value::Source::Text(text.into())) };
        let secret = |name: &str| pb::Value { source: Some(pb::value::Source::Secret(name.into())) };
        let header = |name: &str, value| pb::Header { name: name.into(), value: Some(value) };
        let http = pb::HttpTransport {
            url: "http://a/mcp?key=1".into(),
            headers: vec![header("authorization", text("Bearer 1")), header("x-key", secret("key"))],
            auth: Some(pb::BackendAuth {
                method: Some(pb::backend_auth::Method::ClientCredentials(pb::ClientCredentials {
                    token_url: "https://b/token?key=2".into(),
                    client_id: "c".into(),
                    client_secret: Some(text("3")),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        };
        let backend =
            pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() };
        let resource = pb::Resource {
            metadata: Some(pb::Metadata { name: "a".into(), ..Default::default() }),
            spec: Some(pb::resource::Spec::Backend(backend)),
        };
        let shown = show(&Key::parse("backend/a").unwrap(), &resource);
        assert_eq!(
            shown,
            json!({
                "kind": "Backend",
                "metadata": { "name": "a" },
                "spec": { "http": {
                    "url": "http://a/mcp?(hidden)",
                    "headers": [
                        { "name": "authorization", "value": { "text": "(hidden)" } },
                        { "name": "x-key", "value": { "secret": "key" } },
                    ],
                    "auth": { "clientCredentials": {
                        "tokenUrl": "https://b/token?(hidden)",
                        "clientId": "c",
                        "clientSecret": { "text": "(hidden)" },
                    } },
                } },
            })
        );
    }

    #[test]
    fn only_addresses_and_this_machine_are_no_sites() {
        for (host, ok) in [
            ("127.0.0.1:9901", true),
            ("[::1]:9901", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("evil.example:9901", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(names_no_site(host), ok, "{host}");
        }
    }
}
