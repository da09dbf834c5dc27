//! The one place where a failure becomes a gRPC status.
//!
//! Every status has an `ErrorInfo`. Details travel in headers, which clients
//! limit, so they are small; the text is cut.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::downstream::plain::kind::Failure;

/// The domain of our reasons.
const DOMAIN: &str = "magictunnel";
/// Characters of a status' text.
const MESSAGE_CHARS_MAX: usize = 1_024;

pub fn of(failure: &Failure) -> Status {
    let metadata = HashMap::from([
        ("code".to_owned(), failure.code.to_string()),
        ("retry".to_owned(), failure.retry.to_string()),
        ("side".to_owned(), failure.side.clone()),
    ]);
    let mut details = ErrorDetails::with_error_info(failure.kind.reason(), DOMAIN, metadata);
    if failure.kind.comes_again() {
        details.set_retry_info(Some(Duration::from_secs(failure.retry_after_seconds)));
    }
    let message: String = failure.message.chars().take(MESSAGE_CHARS_MAX).collect();
    Status::with_error_details(failure.kind.grpc(), message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::RpcError;

    #[test]
    fn a_status_says_what_clients_of_mcp_are_told() {
        let status = of(&Failure::of(&RpcError::upstream_overloaded("slow")));
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("OVERLOADED", "magictunnel"));
        assert_eq!(info.metadata["side"], "backend slow");
        assert_eq!((info.metadata["code"].as_str(), info.metadata["retry"].as_str()), ("-31006", "true"));
        assert!(details.retry_info().is_some());
    }
}
