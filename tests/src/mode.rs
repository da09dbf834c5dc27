//! Which protocol revisions the fixture admits to.
//!
//! One process has one mode for its whole life. A gateway may remember the era of
//! a backend, so a fixture that changed its mind would test nothing real.

use clap::ValueEnum;
use rmcp::model::ProtocolVersion;

/// The eras a fixture speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every revision, with and without `initialize`.
    Dual,
    /// Revisions up to 2025-11-25: `initialize`, sessions, requests to the client.
    Legacy,
    /// 2026-07-28 only: `server/discover`, stateless.
    Modern,
}

impl Mode {
    pub fn versions(self) -> &'static [ProtocolVersion] {
        const MODERN: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28];
        match self {
            Self::Dual => ProtocolVersion::KNOWN_VERSIONS,
            Self::Legacy => ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25),
            Self::Modern => MODERN,
        }
    }

    /// The tasks extension has no meaning before 2026-07-28.
    pub fn has_tasks(self) -> bool {
        self != Self::Legacy
    }
}
