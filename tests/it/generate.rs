//! Tools that are made of documents of others: they load, and a call of one
//! sends what the document says.
//!
//! The documents are not ours; tests/setup.sh takes them from packages, pinned
//! by tests/peers/documents.txt.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    cluster::{Background, Cluster, printed},
    manifest::gateway,
    raw::{answer, modern, tool_names},
};

const BODY_BYTES_MAX: usize = 1 << 20;

/// What a service saw: method, path, query, body and the credential.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    query: String,
    body: Value,
    credential: String,
}

/// A service that writes down what it is asked, and answers with an empty
/// object.
struct Service {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _running: Background<()>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let app = Router::new().fallback(move |request: Request| record(log.clone(), request));
        let running = Background::run(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, _running: running }
    }

    fn last(&self) -> Option<Seen> {
        self.seen.lock().pop()
    }
}

async fn record(log: Arc<Mutex<Vec<Seen>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = match header("content-type") {
        "" => Value::Null,
        kind if kind.contains("json") => serde_json::from_str(&text).unwrap_or(Value::Null),
        _ => text.into_owned().into(),
    };
    log.lock().push(Seen {
        line: format!("{} {}", parts.method, parts.uri.path()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body,
        credential: header("authorization").to_owned(),
    });
    (StatusCode::OK, [("content-type", "application/json")], Body::from("{}")).into_response()
}

/// A document of a package that tests/setup.sh has unpacked.
fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers/documents").join(name);
    assert!(path.is_file(), "{} is not there: run tests/setup.sh", path.display());
    path.to_string_lossy().into_owned()
}

/// A call of a tool, and what the service sees: line, query, body.
type Case = (&'static str, Value, &'static str, &'static str, Value);

/// Generates from a document, applies, and calls.
async fn works(
    name: &str,
    prefix: &str,
    tools_min: usize,
    env: &[(&str, &str)],
    credential: &str,
    cases: &[Case],
) {
    let service = Service::start().await;
    let cluster = Cluster::with_env(env).await;
    let (document, base) = (document(name), format!("{}{prefix}", service.url));
    let set = name.split_once('.').map_or(name, |(stem, _)| stem);
    // Of what a document says about results, an empty object is the least.
    let made = cluster
        .mtctl(&[
            "generate",
            "openapi",
            &document,
            "--base-url",
            &base,
            "--name",
            set,
            "--no-output-schema",
            "--apply",
            "-o",
            "name",
        ])
        .await;
    let names = printed(&made);
    let mut names: Vec<&str> = names.lines().collect();
    assert!(names.len() >= tools_min, "{} tools: {}", names.len(), String::from_utf8_lossy(&made.stderr));
    let sets = printed(&cluster.mtctl(&["get", "tool-sets", "-o", "name"]).await);
    let members: Vec<Value> = sets
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, name)| json!({"toolSet": name}))
        .collect();
    cluster.apply(&gateway("made", &json!({"members": members}))).await;
    let url = cluster.nodes[0].url("made");
    let mut listed = tool_names(&url).await.unwrap();
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
    for (tool, arguments, line, query, body) in cases {
        let params = json!({"name": tool, "arguments": arguments});
        let answered = answer(modern(&url, 7, "tools/call", params).send().await.unwrap()).await;
        assert!(
            answered["result"]["isError"] != true && answered["result"].is_object(),
            "{tool}: {answered}"
        );
        let seen = service.last().unwrap_or_else(|| panic!("{tool} asked nothing: {answered}"));
        let wanted = Seen {
            line: line.replacen("{base}", prefix, 1),
            query: (*query).to_owned(),
            body: body.clone(),
            credential: credential.to_owned(),
        };
        assert_eq!(seen, wanted, "{tool}");
    }
    // What the document does not allow never gets to the service.
    let (tool, ..) = &cases[0];
    let params = json!({"name": tool, "arguments": {"no such argument": 1}});
    let answered = answer(modern(&url, 8, "tools/call", params).send().await.unwrap()).await;
    assert!(answered["error"].is_object() || answered["result"]["isError"] == true, "{answered}");
    assert_eq!(service.last(), None);
}

#[tokio::test]
async fn the_operations_of_github_can_be_called() {
    let cases: [Case; 6] = [
        (
            "repos_get",
            json!({"owner": "a b", "repo": "c/d"}),
            "GET {base}/repos/a%20b/c%2Fd",
            "",
            Value::Null,
        ),
        (
            "issues_list-for-repo",
            json!({"owner": "o", "repo": "r", "state": "all", "per_page": 5}),
            "GET {base}/repos/o/r/issues",
            "per_page=5&state=all",
            Value::Null,
        ),
        (
            "issues_create",
            json!({"owner": "o", "repo": "r", "title": "Grüße", "labels": ["a", "b"], "milestone": null}),
            "POST {base}/repos/o/r/issues",
            "",
            json!({"title": "Grüße", "labels": ["a", "b"], "milestone": null}),
        ),
        (
            "issues_update",
            json!({"owner": "o", "repo": "r", "issue_number": 7, "state": "closed"}),
            "PATCH {base}/repos/o/r/issues/7",
            "",
            json!({"state": "closed"}),
        ),
        (
            "activity_star-repo-for-authenticated-user",
            json!({"owner": "o", "repo": "r"}),
            "PUT {base}/user/starred/o/r",
            "",
            Value::Null,
        ),
        ("gists_delete", json!({"gist_id": "x?y#z"}), "DELETE {base}/gists/x%3Fy%23z", "", Value::Null),
    ];
    works("github.json", "", 1_000, &[], "", &cases).await;
}

#[tokio::test]
async fn the_operations_of_directus_can_be_called() {
    let cases: [Case; 5] = [
        (
            "getUsers",
            json!({"limit": 3, "search": "a&b=c"}),
            "GET {base}/users",
            "limit=3&search=a%26b%3Dc",
            Value::Null,
        ),
        (
            "getUser",
            json!({"id": "7", "fields": "id,email"}),
            "GET {base}/users/7",
            "fields=id%2Cemail",
            Value::Null,
        ),
        ("deleteFile", json!({"id": "f"}), "DELETE {base}/files/f", "", Value::Null),
        ("createFolder", json!({"name": "New"}), "POST {base}/folders", "", json!({"name": "New"})),
        ("ping", json!({}), "GET {base}/server/ping", "", Value::Null),
    ];
    works("directus.json", "/api", 100, &[("DIRECTUS_AUTH", "t0ken")], "t0ken", &cases).await;
}

#[tokio::test]
async fn the_operations_of_airflow_can_be_called() {
    let cases: [Case; 5] = [
        (
            "get_dag_runs",
            json!({"dag_id": "~", "limit": 2, "state": ["failed", "queued"]}),
            "GET {base}/api/v2/dags/~/dagRuns",
            "limit=2&state=failed&state=queued",
            Value::Null,
        ),
        (
            "trigger_dag_run",
            json!({"dag_id": "d", "logical_date": null, "conf": {"a": [1]}}),
            "POST {base}/api/v2/dags/d/dagRuns",
            "",
            json!({"logical_date": null, "conf": {"a": [1]}}),
        ),
        (
            "patch_pool",
            json!({"pool_name": "p", "pool": "p", "slots": 3, "update_mask": ["slots"]}),
            "PATCH {base}/api/v2/pools/p",
            "update_mask=slots",
            json!({"pool": "p", "slots": 3}),
        ),
        (
            "delete_variable",
            json!({"variable_key": "a/b"}),
            "DELETE {base}/api/v2/variables/a%2Fb",
            "",
            Value::Null,
        ),
        ("get_dag", json!({"dag_id": "d"}), "GET {base}/api/v2/dags/d", "", Value::Null),
    ];
    works("airflow.yaml", "", 100, &[("AIRFLOW_HTTPBEARER", "t0ken")], "Bearer t0ken", &cases).await;
}
