//! How nodes stand to the configuration.

use mt_proto::pb::control as pb;

/// How a node stands to the configuration, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Has everything in service.
    Synced,
    /// Is being brought up to date.
    Updating,
    /// Has refused a generation and serves the one before.
    Refused,
    /// Is not connected; serves what it had.
    Offline,
}

impl Sync {
    pub fn of(node: &pb::NodeStatus, head: u64) -> Self {
        match node {
            node if !node.connected => Sync::Offline,
            node if node.generation_refused > node.generation_acked => Sync::Refused,
            node if node.generation_acked >= head => Sync::Synced,
            _ => Sync::Updating,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Sync::Synced => "synced",
            Sync::Updating => "updating",
            Sync::Refused => "refused",
            Sync::Offline => "offline",
        }
    }
}
