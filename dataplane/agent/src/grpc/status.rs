//! What a call of gRPC that has failed is to the one who made it.

use std::error::Error;

use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::{Failure, Reason, hide::Withheld};

/// Of what a server says about its refusal.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// What the server has said, or what went wrong before it could. What is `withheld`
/// is hidden in it.
///
/// Only a connection that was never made counts as unreachable: `UNAVAILABLE`
/// from a server, or from something before it, may come after the call has
/// taken effect.
pub fn failure(status: &Status, withheld: &Withheld) -> Failure {
    if let Some(source) = status.source() {
        return local(status, source);
    }
    match status.code() {
        Code::DeadlineExceeded => Failure::new(Reason::Timeout, "the service did not answer in time"),
        // Said by this side, before anything of the message was kept.
        Code::OutOfRange if status.message().contains("message length too large") => {
            Failure::new(Reason::TooLarge, "a message is larger than `maxMessageBytes`")
        }
        code => {
            let said = bounded(&withheld.hide(status.message()));
            let code = name(code);
            let message =
                if said.is_empty() { format!("the service says {code}") } else { format!("{code}: {said}") };
            Failure::new(Reason::Refused, message)
        }
    }
}

/// What failed on the way; its text holds addresses.
fn local(status: &Status, source: &(dyn Error + 'static)) -> Failure {
    let failure = if any::<ConnectError>(source) {
        Failure::new(Reason::Unreachable, "the gRPC server cannot be reached")
    } else if any::<TimeoutExpired>(source) || status.code() == Code::DeadlineExceeded {
        Failure::new(Reason::Timeout, "the service did not answer in time")
    } else if any::<prost::DecodeError>(source) {
        Failure::new(Reason::Broken, "the service's answer is not of the type that its descriptor says")
    } else {
        Failure::new(Reason::Broken, "the connection to the gRPC server broke")
    };
    failure.detail(format!("{}: {}", status.message(), chain(source)))
}

fn any<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| error.is::<E>())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error with its causes, for the operator.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The start of a text, without what a terminal would obey.
pub fn bounded(text: &str) -> String {
    let legible = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    let mut kept: String = legible.take(MESSAGE_CHARS_MAX).collect();
    if text.chars().nth(MESSAGE_CHARS_MAX).is_some() {
        kept.push('…');
    }
    kept
}

/// As the specification of gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_passed_on_with_its_code_and_not_without_end() {
        let failed = failure(&Status::not_found("no order 7"), &Withheld::default());
        assert_eq!((failed.reason, failed.message.as_str()), (Reason::Refused, "NOT_FOUND: no order 7"));
        let failed = failure(&Status::unavailable("\u{1b}[31mback off"), &Withheld::default());
        assert_eq!((failed.reason, failed.message.as_str()), (Reason::Refused, "UNAVAILABLE:  [31mback off"));
        assert_eq!(failure(&Status::deadline_exceeded(""), &Withheld::default()).reason, Reason::Timeout);
        assert_eq!(
            failure(&Status::internal("x".repeat(5_000)), &Withheld::default()).message.chars().count(),
            1_011
        );
    }

    #[test]
    fn a_secret_that_the_server_repeats_is_hidden_before_anything_is_cut_off() {
        let secrets = Withheld::default();
        secrets.add("s3cret-value");
        let said = format!("{}s3cret-value", "x".repeat(MESSAGE_CHARS_MAX - 4));
        let failed = failure(&Status::unauthenticated(said), &secrets);
        assert!(failed.message.ends_with("x***…") || failed.message.ends_with("x***"), "{failed}");
        assert!(!failed.message.contains("s3c"));
    }

    #[test]
    fn what_fails_on_the_way_names_no_address() {
        let refused = std::io::Error::other("tcp connect error: 10.0.0.7:50051");
        let failed =
            failure(&Status::from_error(Box::new(ConnectError(Box::new(refused)))), &Withheld::default());
        assert_eq!(failed.reason, Reason::Unreachable);
        assert!(!failed.message.contains("10.0.0.7"));
        assert!(failed.detail.unwrap().contains("10.0.0.7"));
    }
}
