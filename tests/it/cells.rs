//! Conformance in four cells: the runner of either era, and a backend that
//! speaks only the one or only the other.
//!
//! Each cell goes through one node, through three nodes behind a balancer that
//! sends every request to the next of them, and through a chain of two gateways
//! on different nodes. What passes directly, in the runner's own era, has to pass
//! in every cell, but for what an older backend has no words for.

use futures_util::{StreamExt as _, stream};

use crate::balancer::Balancer;
use crate::cluster::Cluster;
use crate::conformance::{Checks, Status};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{over_http, plain_gateway};
use crate::raw::shows_tool;
use crate::through::{Exception, LISTS_ARE_JSON, NO_HEADERS, compare_at, directly};

/// The tasks extension belongs to the modern era; what 2025-11-25 has under that
/// name is another thing, and this backend has neither.
const NO_TASKS: Exception = Exception::all_of("tasks-*");
/// A legacy question has no name: the runner knows the names of its questions by
/// heart, and those that the gateway gives are its own.
const QUESTIONS_HAVE_NO_NAMES: [Exception; 2] = [
    Exception::all_of("input-required-result-basic-elicitation"),
    Exception {
        scenario: "input-required-result-ignore-extra-params",
        check: "sep-2322-ignore-unexpected-params",
        worst: Status::Warning,
    },
];
/// Legacy revisions have no code for a capability that the client has not
/// declared; the backend says it in its own words.
const NO_CODE_FOR_CAPABILITIES: [Exception; 2] = [
    Exception {
        scenario: "server-stateless",
        check: "sep-2575-server-rejects-undeclared-capability",
        worst: Status::Failure,
    },
    Exception {
        scenario: "server-stateless",
        check: "sep-2575-missing-capability-http-400",
        worst: Status::Failure,
    },
];

/// How many runners are at work at the same time.
const RUNS_AT_ONCE: usize = 3;

/// The ways from the runner to the backend.
#[derive(Clone, Copy, Debug)]
enum Way {
    Node,
    Balancer,
    Chain,
}

impl Way {
    const ALL: [Self; 3] = [Self::Node, Self::Balancer, Self::Chain];

    fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Balancer => "balancer",
            Self::Chain => "chain",
        }
    }
}

/// A backend in one mode, by one way; each has a fixture of its own, because
/// runners that share one hear each other's changes.
struct Cell {
    mode: Mode,
    way: Way,
    fixture: Fixture,
}

impl Cell {
    fn name(&self) -> String {
        format!("{}-{}", self.way.word(), format!("{:?}", self.mode).to_lowercase())
    }
}

/// Three nodes that serve every cell.
struct Fleet {
    cluster: Cluster,
    balancer: Balancer,
    cells: Vec<Cell>,
}

impl Fleet {
    async fn start() -> Self {
        let cluster = Cluster::start(3).await;
        let (mut cells, mut text, mut outer_text) = (Vec::new(), String::new(), String::new());
        let mut inners = Vec::new();
        for way in Way::ALL {
            for mode in [Mode::Legacy, Mode::Modern] {
                let cell = Cell { mode, way, fixture: Fixture::start(mode).await };
                let name = cell.name();
                text += &over_http(&name, cell.fixture.url());
                match way {
                    Way::Node | Way::Balancer => text += &plain_gateway(&name, &name),
                    Way::Chain => {
                        let (inner, outer) = (format!("inner-{name}"), format!("outer-{name}"));
                        text += &plain_gateway(&inner, &name);
                        outer_text += &over_http(&outer, &cluster.nodes[0].url(&inner));
                        outer_text += &plain_gateway(&name, &outer);
                        inners.push(inner);
                    }
                }
                cells.push(cell);
            }
        }
        cluster.apply(&text).await;
        // What a gateway offers is known when its members are.
        for inner in inners {
            shows_tool(&cluster.nodes[0].url(&inner), "echo").await;
        }
        cluster.apply(&outer_text).await;
        for node in &cluster.nodes {
            for cell in &cells {
                shows_tool(&node.url(&cell.name()), "echo").await;
            }
        }
        let balancer = Balancer::start(cluster.nodes.iter().map(|node| node.mcp.clone())).await;
        Self { cluster, balancer, cells }
    }

    fn url(&self, cell: &Cell) -> String {
        match cell.way {
            Way::Node => self.cluster.nodes[0].url(&cell.name()),
            Way::Balancer => self.balancer.url(&cell.name()),
            Way::Chain => self.cluster.nodes[1].url(&cell.name()),
        }
    }

    /// Runs every cell, and fails with all that is wrong.
    async fn conforms(&self, revision: &str, exceptions: impl Fn(Mode) -> Vec<Exception>) {
        let direct: Checks = directly(revision).await;
        let direct = &direct;
        let runs = self.cells.iter().map(|cell| {
            let exceptions = exceptions(cell.mode);
            async move {
                let (url, name) = (self.url(cell), cell.name());
                compare_at(direct, &url, &name, revision, &exceptions).await
            }
        });
        let results: Vec<_> = stream::iter(runs).buffered(RUNS_AT_ONCE).collect().await;
        let wrong: String = results.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[tokio::test]
async fn legacy_conformance_is_the_same_with_backends_of_either_era() {
    let fleet = Fleet::start().await;
    fleet.conforms("2025-11-25", |_| vec![LISTS_ARE_JSON]).await;
}

#[tokio::test]
async fn modern_conformance_is_the_same_with_backends_of_either_era() {
    let fleet = Fleet::start().await;
    let exceptions = |mode| {
        let mut exceptions = vec![LISTS_ARE_JSON];
        if matches!(mode, Mode::Legacy) {
            exceptions.extend([NO_TASKS, NO_HEADERS]);
            exceptions.extend(QUESTIONS_HAVE_NO_NAMES);
            exceptions.extend(NO_CODE_FOR_CAPABILITIES);
        }
        exceptions
    };
    fleet.conforms("2026-07-28", exceptions).await;
}
