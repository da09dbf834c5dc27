//! A legacy backend that fails because its user has to visit some URLs first
//! (error -32042): for a modern client that is a question like any other, after
//! which it sends its request again.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::mcp::{error::code, splice::Object};

/// Visits that one error may ask for.
const VISITS_MAX: usize = 32;

#[derive(Deserialize)]
struct Failure {
    code: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    elicitations: Vec<Map<String, Value>>,
}

/// The `input_required` result for such an error; none if it is another. The ids
/// that the backend gave travel in the state, where no client needs to see them.
pub fn required(error: &Bytes) -> Option<Bytes> {
    let failure: Failure = serde_json::from_slice(error).ok()?;
    let visits = failure.data.elicitations;
    if failure.code != i64::from(code::URL_ELICITATION_REQUIRED)
        || visits.is_empty()
        || visits.len() > VISITS_MAX
    {
        return None;
    }
    let mut ids = Vec::new();
    let mut requests = Map::new();
    for (at, mut params) in visits.into_iter().enumerate() {
        ids.extend(params.remove("elicitationId"));
        params.entry("mode").or_insert_with(|| "url".into());
        requests
            .insert(format!("url-{}", at + 1), json!({ "method": "elicitation/create", "params": params }));
    }
    let result = Object::default()
        .set_text("resultType", "input_required")
        .set("inputRequests", Value::Object(requests).to_string().as_bytes())
        .set_text("requestState", &json!({ "elicitationIds": ids }).to_string());
    Some(result.finish())
}
