//! What a GraphQL service answers: data, errors, or both.

use http::StatusCode;
use mt_proto::resource::GraphQl;
use serde_json::{Map, Value};

use crate::{Failure, Output, Reason, client, collect::extracted};

/// Of the errors in one answer.
const ERRORS_SHOWN_MAX: usize = 5;
/// In `_meta`: the errors that came with the data.
const ERRORS_META: &str = "io.magictunnel/graphqlErrors";

/// The result that an answer is.
///
/// # Errors
/// If the service has errors to tell, unless data is there and enough.
pub fn output(
    config: &GraphQl,
    status: StatusCode,
    body: &[u8],
    secrets: &[String],
) -> Result<Output, Failure> {
    let parsed = serde_json::from_slice(body);
    let Ok(Value::Object(mut answer)) = parsed else {
        let message = match status.is_success() {
            true => "the service's answer is not one of GraphQL".to_owned(),
            false => refusal(status, &String::from_utf8_lossy(body), secrets),
        };
        let reason = if status.is_success() { Reason::Broken } else { Reason::Refused };
        return Err(Failure::new(reason, message));
    };
    let (data, errors) = split(&mut answer);
    let has_data = data.as_ref().is_some_and(|data| !data.is_null());
    if !(errors.is_empty() || config.partial && has_data) {
        return Err(refused(&errors, secrets));
    }
    let Some(data) = data else {
        let said = Value::Object(answer).to_string();
        return match status.is_success() {
            true => Err(Failure::new(Reason::Broken, "the service's answer holds neither data nor errors")),
            false => Err(Failure::new(Reason::Refused, refusal(status, &said, secrets))),
        };
    };
    let mut output = Output::value(extracted(data, config.extract.as_ref())?);
    if !errors.is_empty() {
        output.meta = Map::from_iter([(ERRORS_META.to_owned(), Value::Array(errors))]);
    }
    Ok(output)
}

/// The data and the errors of an answer, or of one event of a subscription.
pub fn split(answer: &mut Map<String, Value>) -> (Option<Value>, Vec<Value>) {
    let errors = match answer.shift_remove("errors") {
        Some(Value::Array(errors)) => errors,
        None | Some(Value::Null) => Vec::new(),
        Some(other) => vec![other],
    };
    (answer.shift_remove("data"), errors)
}

/// The failure that errors are, in the service's words.
pub fn refused(errors: &[Value], secrets: &[String]) -> Failure {
    let mut said: Vec<String> =
        errors.iter().take(ERRORS_SHOWN_MAX).map(|error| words(error, secrets)).collect();
    if errors.len() > ERRORS_SHOWN_MAX {
        said.push(format!("and {} more", errors.len() - ERRORS_SHOWN_MAX));
    }
    Failure::new(Reason::Refused, said.join("; "))
}

fn words(error: &Value, secrets: &[String]) -> String {
    let message = match error.get("message").and_then(Value::as_str) {
        Some(message) => client::excerpt(message, secrets),
        None => client::excerpt(&error.to_string(), secrets),
    };
    let path: Vec<String> = match error.get("path").and_then(Value::as_array) {
        Some(path) => {
            path.iter().map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect()
        }
        None => Vec::new(),
    };
    match path.is_empty() {
        true => message,
        false => format!("{message} (at {})", client::excerpt(&path.join("."), secrets)),
    }
}

fn refusal(status: StatusCode, said: &str, secrets: &[String]) -> String {
    format!("the service answered {status}: {}", client::excerpt(said, secrets))
}
