//! The nodes of the fleet, as the control plane has told last.
//!
//! Who is no longer in it may still be there: a control plane that has just
//! started knows only those that have come back to it. So an entry that has
//! gone can be found by its tag for a while, though nothing new is given to it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mt_proto::pb::discovery as pb;
use tokio::time::Instant;

use crate::tag::tag_of;

/// How long a node is found that has left the directory.
pub const LEAVING_FOR: Duration = Duration::from_secs(60);
/// Nodes that are taken from a directory.
pub const NODES_MAX: usize = 4096;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tag: Arc<str>,
    pub node_id: String,
    /// Where its relay listens.
    pub url: String,
    pub labels: BTreeMap<String, String>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    listed: Vec<Arc<Entry>>,
    leaving: Vec<(Arc<Entry>, Instant)>,
}

impl Directory {
    /// What it is after the control plane has told this.
    #[must_use]
    pub fn updated(&self, told: &pb::NodeDirectory, now: Instant) -> Self {
        let listed: Vec<_> = told.nodes.iter().take(NODES_MAX).map(entry).collect();
        let stays = |node: &Entry| listed.iter().any(|other| other.tag == node.tag);
        let gone = self.listed.iter().filter(|node| !stays(node));
        let going = self.leaving.iter().filter(|(node, until)| now < *until && !stays(node));
        let mut leaving: Vec<_> = going.cloned().collect();
        leaving.extend(gone.map(|node| (node.clone(), now + LEAVING_FOR)));
        let surplus = leaving.len().saturating_sub(NODES_MAX);
        leaving.drain(..surplus);
        Self { listed, leaving }
    }

    /// Also one that has left lately.
    pub fn get(&self, tag: &str, now: Instant) -> Option<&Arc<Entry>> {
        let leaving = self.leaving.iter().filter(|(_, until)| now < *until).map(|(node, _)| node);
        self.listed.iter().chain(leaving).find(|node| &*node.tag == tag)
    }

    /// The nodes that have all these labels.
    pub fn serving<'a>(
        &'a self,
        selector: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let has = |node: &Entry| selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
        self.listed.iter().filter(move |node| has(node))
    }

    /// Whether a node of this tag is known at all.
    pub fn knows(&self, tag: &str) -> bool {
        self.listed.iter().chain(self.leaving.iter().map(|(node, _)| node)).any(|node| &*node.tag == tag)
    }
}

fn entry(told: &pb::NodeEntry) -> Arc<Entry> {
    Arc::new(Entry {
        tag: tag_of(&told.node_id, &told.boot_id),
        node_id: told.node_id.clone(),
        url: told.relay_url.clone(),
        labels: told.labels.clone(),
    })
}

/// Seconds since 1970, for what nodes tell each other.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(nodes: &[(&str, &str)]) -> pb::NodeDirectory {
        let node = |(id, zone): &(&str, &str)| pb::NodeEntry {
            node_id: (*id).into(),
            boot_id: "b".into(),
            relay_url: format!("http://{id}"),
            labels: [("zone".to_owned(), (*zone).to_owned())].into(),
        };
        pb::NodeDirectory { nodes: nodes.iter().map(node).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_is_found_for_a_while_and_gets_nothing_new() {
        let now = Instant::now();
        let all = Directory::default().updated(&told(&[("a", "x"), ("b", "x")]), now);
        let left = all.updated(&told(&[("b", "x")]), now);
        let tag = tag_of("a", "b");
        assert!(left.get(&tag, now).is_some());
        assert!(left.get(&tag, now + LEAVING_FOR).is_none());
        let selector = BTreeMap::new();
        assert_eq!(left.serving(&selector).count(), 1);
        let back = left.updated(&told(&[("a", "x"), ("b", "x")]), now);
        assert_eq!((back.serving(&selector).count(), back.leaving.len()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_is_served_by_nodes_with_its_labels() {
        let all = Directory::default().updated(&told(&[("a", "x"), ("b", "y")]), Instant::now());
        let selector = [("zone".to_owned(), "y".to_owned())].into();
        let ids: Vec<_> = all.serving(&selector).map(|node| node.node_id.as_str()).collect();
        assert_eq!(ids, ["b"]);
    }
}
