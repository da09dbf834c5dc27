//! What the process says to a script when it ends.

/// The exit codes. Documented in docs/mtctl.md and by `mtctl help exit-codes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    No = 3,
    Auth = 4,
    NotFound = 5,
    Conflict = 6,
    Unreachable = 7,
    Partial = 8,
    Interrupted = 130,
}

impl Exit {
    pub const ALL: [Exit; 10] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::No,
        Exit::Auth,
        Exit::NotFound,
        Exit::Conflict,
        Exit::Unreachable,
        Exit::Partial,
        Exit::Interrupted,
    ];

    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "done; for diff: the same",
            Exit::Failed => "failed; for diff: different",
            Exit::Usage => "the command line is wrong; for diff: failed",
            Exit::No => "the answer is no: declined, or nothing is running",
            Exit::Auth => "not logged in, or not allowed",
            Exit::NotFound => "there is no such thing",
            Exit::Conflict => "something else holds or has changed it",
            Exit::Unreachable => "cannot be reached, or took too long",
            Exit::Partial => "done in part",
            Exit::Interrupted => "interrupted",
        }
    }

    /// In one word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::No => "no",
            Exit::Auth => "auth",
            Exit::NotFound => "not_found",
            Exit::Conflict => "conflict",
            Exit::Unreachable => "unreachable",
            Exit::Partial => "partial",
            Exit::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}
