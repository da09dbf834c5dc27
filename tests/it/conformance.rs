//! The official conformance runner: what it found, and how two runs differ.
//!
//! The runner is asked for the whole of a revision's requirements. A gateway is
//! measured by comparison: what passes against a backend directly has to pass
//! through the gateway too, whatever that backend itself may lack.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;

use crate::fixture::{Fixture, Mode};
use crate::peers;

/// A run takes 4 to 11 seconds on an idle machine.
const RUN_DEADLINE: Duration = Duration::from_secs(180);

/// A result directory is named `server-{scenario}-{time}`, and the time is like
/// `2026-07-28T12-00-00-000Z`.
const DIRECTORY_PREFIX: &str = "server-";
const TIME_LENGTH: usize = "-2026-07-28T12-00-00-000Z".len();

/// One check of one scenario. Some are made several times: they are numbered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    pub scenario: String,
    pub id: String,
    pub number: usize,
}

/// From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Success,
    Info,
    Skipped,
    Warning,
    Failure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    pub message: Option<String>,
}

pub type Checks = BTreeMap<Check, Outcome>;

/// One run of the runner.
#[derive(Debug)]
pub struct Report {
    pub checks: Checks,
    /// The runner's own verdict: nothing that is scored has failed.
    pub conformant: bool,
    pub elapsed: Duration,
    /// What the runner printed last.
    pub summary: String,
}

impl Report {
    pub fn passed(&self) -> usize {
        self.checks.values().filter(|outcome| outcome.status == Status::Success).count()
    }

    /// Checks that failed or gave a warning.
    pub fn complaints(&self) -> Vec<(&Check, &Outcome)> {
        self.checks.iter().filter(|(_, outcome)| outcome.status >= Status::Warning).collect()
    }
}

/// A check that does worse through a gateway than directly.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub check: Check,
    pub direct: Option<Outcome>,
    pub through: Option<Outcome>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = |outcome: &Option<Outcome>| outcome.as_ref().map(|outcome| outcome.status);
        let Check { scenario, id, number } = &self.check;
        write!(
            f,
            "{scenario}:{id}#{number}: {:?} directly, {:?} through",
            status(&self.direct),
            status(&self.through)
        )?;
        match self.through.as_ref().and_then(|outcome| outcome.message.as_ref()) {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// Runs everything that `requirements`, a revision such as `2025-11-25`, asks of a
/// server. `out_dir` must be empty; it keeps the runner's own notes.
pub async fn run(url: &str, requirements: &str, out_dir: &Path) -> Report {
    let started = Instant::now();
    let running = Command::new(peers::node())
        .arg(peers::conformance_runner())
        // The check for DNS rebinding insists on this name.
        .args([
            "server",
            "--url",
            &url.replace("127.0.0.1", "localhost"),
            "--requirements",
            requirements,
            "-o",
        ])
        .arg(out_dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(RUN_DEADLINE, running).await;
    let output = output.expect("the runner ends in time").expect("the runner starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let summary = printed.rsplit_once("=== SUMMARY ===").map_or(&*printed, |(_, summary)| summary);
    Report {
        checks: read_checks(out_dir),
        conformant: output.status.success(),
        elapsed: started.elapsed(),
        summary: format!("{}{}", summary.trim_start(), String::from_utf8_lossy(&output.stderr)),
    }
}

/// What does worse through a gateway: checks with a worse status, checks that were
/// good directly and are not even made through, and complaints only made through.
pub fn diff(direct: &Checks, through: &Checks) -> Vec<Difference> {
    let worse = direct.iter().filter(|(check, before)| match through.get(check) {
        Some(after) => after.status > before.status,
        None => before.status == Status::Success,
    });
    let new = through
        .iter()
        .filter(|(check, after)| after.status >= Status::Warning && !direct.contains_key(check));
    let differ = worse.chain(new).map(|(check, _)| Difference {
        check: check.clone(),
        direct: direct.get(check).cloned(),
        through: through.get(check).cloned(),
    });
    differ.collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCheck {
    id: String,
    status: Status,
    error_message: Option<String>,
}

fn read_checks(out_dir: &Path) -> Checks {
    let mut checks = Checks::new();
    for entry in std::fs::read_dir(out_dir).expect("the runner has made its directory") {
        let entry = entry.expect("the directory can be read");
        let name = entry.file_name().into_string().expect("scenarios have plain names");
        let scenario =
            name.strip_prefix(DIRECTORY_PREFIX).and_then(|name| name.get(..name.len() - TIME_LENGTH));
        let scenario = scenario.unwrap_or_else(|| panic!("{name} does not name a scenario"));
        let text =
            std::fs::read_to_string(entry.path().join("checks.json")).expect("each scenario has its checks");
        let found: Vec<RawCheck> = serde_json::from_str(&text).expect("checks are as they were");
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for RawCheck { id, status, error_message } in found {
            let number = times.entry(id.clone()).and_modify(|times| *times += 1).or_insert(1);
            let check = Check { scenario: scenario.to_owned(), id, number: *number };
            checks.insert(check, Outcome { status, message: error_message });
        }
    }
    checks
}

async fn check_fixture(mode: Mode, requirements: &str, passed: usize) {
    let fixture = Fixture::start(mode).await;
    let out_dir = tempfile::tempdir().expect("a temporary directory");
    let report = run(fixture.url(), requirements, out_dir.path()).await;
    assert!(report.conformant, "{}", report.summary);
    assert!(report.complaints().is_empty(), "{:#?}", report.complaints());
    assert_eq!(report.passed(), passed, "after {:?}: {}", report.elapsed, report.summary);
}

#[tokio::test]
async fn the_fixture_passes_directly_at_2025_11_25() {
    check_fixture(Mode::Dual, "2025-11-25", 83).await;
}

#[tokio::test]
async fn the_fixture_passes_directly_at_2026_07_28() {
    check_fixture(Mode::Dual, "2026-07-28", 197).await;
}

#[test]
fn a_difference_is_what_does_worse_through() {
    let checks = |statuses: &[(&str, Status)]| -> Checks {
        let outcome = |status| Outcome { status, message: None };
        let check = |id: &str| Check { scenario: "s".to_owned(), id: id.to_owned(), number: 1 };
        statuses.iter().map(|(id, status)| (check(id), outcome(*status))).collect()
    };
    let direct = checks(&[
        ("same", Status::Success),
        ("lost", Status::Success),
        ("note", Status::Info),
        ("broken", Status::Success),
        ("mended", Status::Failure),
    ]);
    let through = checks(&[
        ("same", Status::Success),
        ("broken", Status::Failure),
        ("mended", Status::Success),
        ("new", Status::Warning),
        ("extra", Status::Success),
    ]);
    let ids: Vec<String> =
        diff(&direct, &through).into_iter().map(|difference| difference.check.id).collect();
    assert_eq!(ids, ["broken", "lost", "new"]);
}
