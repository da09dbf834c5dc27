//! How the call of an agent fails.

use std::time::Duration;

use mt_proto::template::{Refused, RenderError};

use crate::hide::Withheld;

/// Why a tool has no result. Its text reaches the client: it holds no secret and
/// no address of the operator's network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    /// For the operator's log only.
    pub detail: Option<String>,
}

/// The kinds of failures, as programs tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The arguments are wrong; nothing has been done.
    InvalidArguments,
    /// No answer in time. What was begun may have taken effect.
    Timeout,
    /// Nothing of the call has reached the service.
    Unreachable,
    /// The service has said no: a status, an exit code, an error of its own.
    Refused,
    /// The service broke off, or answered what makes no sense.
    Broken,
    /// More than the limit.
    TooLarge,
    /// The result is not what the tool's output schema says.
    InvalidResult,
    /// Something on the node is missing: a secret, a variable, a program.
    Misconfigured,
    /// The node is at a limit.
    Overloaded,
}

impl Reason {
    pub const ALL: [Reason; 9] = [
        Reason::InvalidArguments,
        Reason::Timeout,
        Reason::Unreachable,
        Reason::Refused,
        Reason::Broken,
        Reason::TooLarge,
        Reason::InvalidResult,
        Reason::Misconfigured,
        Reason::Overloaded,
    ];

    /// As clients and metrics see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidArguments => "invalid_arguments",
            Reason::Timeout => "timeout",
            Reason::Unreachable => "unreachable",
            Reason::Refused => "refused",
            Reason::Broken => "broken",
            Reason::TooLarge => "too_large",
            Reason::InvalidResult => "invalid_result",
            Reason::Misconfigured => "misconfigured",
            Reason::Overloaded => "overloaded",
        }
    }

    /// Whether nothing of the call can have taken effect.
    pub fn is_safe_to_retry(self) -> bool {
        matches!(
            self,
            Reason::InvalidArguments | Reason::Unreachable | Reason::Misconfigured | Reason::Overloaded
        )
    }
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), detail: None }
    }

    /// With more for the operator.
    #[must_use]
    pub fn detail(mut self, detail: impl std::fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Without what must not come back.
    pub(crate) fn without(mut self, withheld: &Withheld) -> Self {
        self.message = withheld.hide(&self.message);
        self.detail = self.detail.map(|detail| withheld.hide(&detail));
        self
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::new(Reason::Timeout, format!("no answer within {limit:?}"))
    }
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        let reason = match error {
            RenderError::NoEnv { .. } => Reason::Misconfigured,
            _ => Reason::InvalidArguments,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(Reason::InvalidArguments, refused.message)
    }
}
