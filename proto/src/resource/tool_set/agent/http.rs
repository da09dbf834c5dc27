//! Settings of the HTTP agent.

use std::{ops::RangeInclusive, time::Duration};

use serde_json::Value;

use super::{
    super::fields::Fields,
    collect,
    path::JsonPath,
    request::{self, Request},
};

pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// As long as a call may take at all: the tool's own limit counts.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Statuses, or ranges of them, in one list.
const STATUSES_MAX: usize = 32;

/// A request, and what of the answer is the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub request: Request,
    pub timeout: Duration,
    /// The part of the answer that is the result.
    pub extract: Option<JsonPath>,
    /// The statuses that are no failure.
    pub success: Vec<RangeInclusive<u16>>,
    pub output: HttpOutput,
    /// What comes is told as it comes.
    pub stream: bool,
}

/// What the body of an answer becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpOutput {
    /// What its content type says.
    Auto,
    Json,
    Text,
    Base64,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Http> {
    let request = request::read(fields);
    let timeout = fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT_MAX);
    let extract = collect::json_path(fields, "extract");
    let success = success(fields);
    let output = match fields.choice("output", &["auto", "json", "text", "base64"], "auto") {
        "json" => HttpOutput::Json,
        "text" => HttpOutput::Text,
        "base64" => HttpOutput::Base64,
        _ => HttpOutput::Auto,
    };
    if extract.is_some() && matches!(output, HttpOutput::Text | HttpOutput::Base64) {
        let hint = "leave out `output`, or write `output: json`";
        fields.problem("extract", "only a part of JSON can be extracted", Some(hint.to_owned()));
    }
    let stream = fields.bool("stream").unwrap_or(false);
    Some(Http { request: request?, timeout, extract, success, output, stream })
}

/// A status, a range such as `200-204` or `2xx`, or a list of them.
fn success(fields: &mut Fields<'_, '_>) -> Vec<RangeInclusive<u16>> {
    let items = match fields.take("successStatus") {
        None => return vec![200..=299],
        Some(Value::Array(items)) => items,
        Some(item) => vec![item],
    };
    let ranges: Option<Vec<_>> = items.iter().map(status).collect();
    match ranges {
        Some(ranges) if (1..=STATUSES_MAX).contains(&ranges.len()) => ranges,
        _ => {
            let hint = "for example `[200, 404]`, `2xx` or `200-204`";
            fields.problem("successStatus", "must be statuses of 200 to 599", Some(hint.to_owned()));
            Vec::new()
        }
    }
}

fn status(value: &Value) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (200..=599).contains(status));
    match value {
        Value::Number(status) => number(&status.to_string()).map(|status| status..=status),
        Value::String(text) => match text.to_ascii_lowercase().strip_suffix("xx") {
            Some(hundreds) => number(&format!("{hundreds}00")).map(|first| first..=first + 99),
            None => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                number(first).zip(number(last)).filter(|(first, last)| first <= last).map(|(a, b)| a..=b)
            }
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_are_numbers_ranges_and_classes() {
        for (written, expected) in [
            (json!(404), Some(404..=404)),
            (json!("204"), Some(204..=204)),
            (json!("2xx"), Some(200..=299)),
            (json!("200-204"), Some(200..=204)),
            (json!("5XX"), Some(500..=599)),
            (json!("204-200"), None),
            (json!(99), None),
            (json!("xx"), None),
            (json!(true), None),
        ] {
            assert_eq!(status(&written), expected, "{written}");
        }
    }
}
