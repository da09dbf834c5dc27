//! The one place where an error becomes something a client of the API sees.
//!
//! Every status has an `ErrorInfo` with a reason that programs may rely on.
//! Details travel in headers, which clients limit, so they are kept small.

use std::collections::HashMap;

use mt_proto::resource::Problem;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};
use tracing::error;

use crate::{registry::Error, store};

/// The domain of our reasons.
pub const DOMAIN: &str = "magictunnel";
/// Violations in one status: clients take headers of 16 KiB, and details grow
/// by a third on the way.
const VIOLATIONS_BYTES_MAX: usize = 7 << 10;
/// One description.
const DESCRIPTION_BYTES_MAX: usize = 1 << 10;

/// A field of the request is wrong.
pub fn argument(field: &str, reason: impl Into<String>) -> Status {
    let reason = reason.into();
    let mut details = info("INVALID_ARGUMENT", []);
    details.add_bad_request_violation(field, reason.clone());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}

/// There are too many of something at a time.
pub fn exhausted(message: impl Into<String>) -> Status {
    Status::with_error_details(Code::ResourceExhausted, message, info("OVERLOADED", []))
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Problems(problems) => invalid(&message, &problems),
            Error::Argument { field, reason } => argument(field, reason),
            Error::NotFound(keys) => {
                let mut details = info("NOT_FOUND", []);
                if let Some(key) = keys.first() {
                    let kind = format!("{DOMAIN}/{}", key.kind);
                    details.set_resource_info(kind, key.name.as_str(), "", message.clone());
                }
                Status::with_error_details(Code::NotFound, message, details)
            }
            Error::Moved { expected, head } => {
                let numbers = [("expected", expected.to_string()), ("head", head.to_string())];
                Status::with_error_details(Code::Aborted, message, info("GENERATION_MOVED", numbers))
            }
            Error::TouchedLater { generation, keys } => {
                let violations = keys.iter().take(50).map(|key| {
                    let reason = format!("changed again after generation {generation}");
                    PreconditionViolation::new("TOUCHED_LATER", key.to_string(), reason)
                });
                let mut details = info("TOUCHED_LATER", [("generation", generation.to_string())]);
                details.set_precondition_failure(violations.collect::<Vec<_>>());
                Status::with_error_details(Code::FailedPrecondition, message, details)
            }
            Error::NoGeneration { generation, head } => {
                let numbers = [("generation", generation.to_string()), ("head", head.to_string())];
                Status::with_error_details(Code::NotFound, message, info("NO_GENERATION", numbers))
            }
            Error::Compacted { generation, oldest } => {
                let numbers = [("generation", generation.to_string()), ("oldest", oldest.to_string())];
                Status::with_error_details(Code::OutOfRange, message, info("GENERATION_COMPACTED", numbers))
            }
            Error::Foreign { .. } => {
                error!(error = %message, "the store holds what this version cannot read");
                Status::with_error_details(Code::Internal, message, info("STORE_FOREIGN", []))
            }
            Error::Store(source) => from_store(&source),
        }
    }
}

fn from_store(error: &store::Error) -> Status {
    let (code, reason) = match error {
        store::Error::Overloaded { .. } => (Code::ResourceExhausted, "OVERLOADED"),
        store::Error::Invalid { .. } => (Code::InvalidArgument, "INVALID_ARGUMENT"),
        store::Error::DiskFull { .. } => (Code::ResourceExhausted, "STORE_FULL"),
        store::Error::Closed => (Code::Unavailable, "STORE_CLOSED"),
        _ => (Code::Unavailable, "STORE_FAILED"),
    };
    // Paths and causes are for the log of the operator, not for every client.
    let message = match error {
        store::Error::Invalid { .. } | store::Error::Overloaded { .. } | store::Error::Closed => {
            error.to_string()
        }
        store::Error::DiskFull { .. } => "no space left for the store".to_owned(),
        _ => "the store failed".to_owned(),
    };
    if code == Code::Unavailable || reason == "STORE_FULL" {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        error!(error = %error, cause, "the store failed");
    }
    Status::with_error_details(code, message, info(reason, []))
}

/// One violation for each problem, as far as there is room.
fn invalid(message: &str, problems: &[Problem]) -> Status {
    let mut violations = vec![];
    let mut bytes = 0;
    for problem in problems {
        let mut description = match &problem.hint {
            Some(hint) => format!("{} ({hint})", problem.message),
            None => problem.message.clone(),
        };
        description.truncate(description.floor_char_boundary(DESCRIPTION_BYTES_MAX));
        let violation = FieldViolation::new(problem.field(), description);
        bytes += violation.field.len() + violation.description.len() + 16;
        if bytes > VIOLATIONS_BYTES_MAX {
            break;
        }
        violations.push(violation);
    }
    let shown = violations.len();
    let numbers = [("problems", problems.len().to_string()), ("shown", shown.to_string())];
    let mut details = info("INVALID_CONFIGURATION", numbers);
    details.set_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_a_thousand_problems_fit_into_headers() {
        let problem = |index: usize| Problem {
            kind: None,
            name: format!("#{index}"),
            path: "spec".into(),
            message: "é".repeat(2000),
            hint: Some("no".into()),
        };
        let status = Status::from(Error::Problems((0..1000).map(problem).collect()));
        assert!(status.details().len() <= 8 << 10, "{}", status.details().len());
        let details = status.get_error_details();
        let shown = details.bad_request().unwrap().field_violations.len();
        let info = details.error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("magictunnel", "INVALID_CONFIGURATION"));
        assert_eq!(
            (info.metadata["problems"].as_str(), info.metadata["shown"].as_str()),
            ("1000", &*shown.to_string())
        );
    }

    #[test]
    fn a_violation_is_a_field_and_a_message_with_its_hint() {
        let problem = Problem {
            kind: Some(mt_proto::resource::Kind::Gateway),
            name: "default".into(),
            path: "spec.members[1].backend".into(),
            message: "there is no backend \"tiem\"".into(),
            hint: Some("did you mean \"time\"?".into()),
        };
        let status = Status::from(Error::Problems(vec![problem]));
        let violations = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(violations[0].field, "gateway/default:spec.members[1].backend");
        assert_eq!(violations[0].description, "there is no backend \"tiem\" (did you mean \"time\"?)");
        assert_eq!(status.message(), "the configuration has 1 problem");
    }
}
