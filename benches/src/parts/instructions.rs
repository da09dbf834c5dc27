//! User instructions a request, counted by valgrind: the same on any machine, and
//! whatever else it does. Each target serves N requests and then, started anew,
//! 2N; the difference is what N of them took.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    child::{self, Guard},
    load::{Case, Client, Era, Target, What},
    report::{Line, Section},
    stats::short,
    targets::{BACKEND, FLOOR, Fleet, NGINX, Nginx, Programs, find_nginx, node_command, serves, standard},
};

/// What is counted, with N.
const CASES: &[(Case, usize)] = &[
    (Case::new("call, session", Era::Legacy, What::Echo(32)), 1600),
    (Case::new("call, stateless", Era::Modern, What::Echo(32)), 1600),
    (Case::new("call of 64 KiB, session", Era::Legacy, What::Echo(64 << 10)), 400),
    (Case::new("list of 4 tools, session", Era::Legacy, What::List(4)), 1600),
    (Case::new("call with 20 events, session", Era::Legacy, What::Progress(20)), 400),
];
/// Over so many connections, one after the other.
const CONNECTIONS: usize = 4;
/// On each connection before counting.
const WARM_UP: usize = 25;

#[derive(clap::Args, Clone)]
pub struct InstructionsArgs {
    /// Only so many of the cases: small calls come first.
    #[arg(long, default_value_t = CASES.len())]
    pub cases: usize,
    /// Only these targets.
    #[arg(long, value_delimiter = ',')]
    pub targets: Vec<String>,
    /// Leave what valgrind has written in this folder, for `cg_annotate` and
    /// `cg_diff`.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Whether valgrind is installed.
pub fn is_possible() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Which program is counted.
enum Counted {
    Backend,
    Floor,
    Nginx(PathBuf),
    Node(PathBuf),
}

/// # Errors
/// If valgrind is missing, or an answer is wrong.
pub async fn run(args: &InstructionsArgs, programs: &Programs) -> anyhow::Result<Section> {
    ensure!(is_possible(), "valgrind is not installed");
    if let Some(folder) = &args.keep {
        std::fs::create_dir_all(folder)?;
    }
    let mut all = vec![(BACKEND.to_owned(), Counted::Backend), (FLOOR.to_owned(), Counted::Floor)];
    if let Some(nginx) = find_nginx(programs.nginx.as_deref()) {
        all.push((NGINX.to_owned(), Counted::Nginx(nginx)));
    }
    all.extend(programs.nodes()?.into_iter().map(|(name, path)| (name, Counted::Node(path))));
    all.retain(|(name, _)| args.targets.is_empty() || args.targets.contains(name));

    let mut section =
        Section::new("User instructions a request, in thousands", &["case", "target", "instructions"]);
    section.note("cachegrind, without a model of caches; the kernel's part is not in it.");
    let (_backend, upstream) = crate::targets::backend(&[])?;
    for (case, requests) in CASES.iter().take(args.cases) {
        for (name, counted) in &all {
            eprintln!("{} {name}", case.name);
            let folder = tempfile::tempdir()?;
            let out = |times: usize| {
                let folder = args.keep.as_deref().unwrap_or(folder.path());
                let words = [case.name, name, &(times * requests).to_string()].join("-");
                folder.join(words.replace([' ', ','], "_"))
            };
            let once = count(counted, upstream, case, *requests, &out(1)).await?;
            let twice = count(counted, upstream, case, 2 * requests, &out(2)).await?;
            let each = twice.saturating_sub(once) as f64 / *requests as f64 / 1000.0;
            section.row([case.name.to_owned(), name.clone(), short(each)]);
            let line = match (case.what, case.era) {
                (What::Echo(32), Era::Legacy) => Line::Instructions,
                (What::Echo(32), Era::Modern) => Line::InstructionsModern,
                (What::Echo(_), _) => Line::Instructions64K,
                _ => continue,
            };
            section.figure(line, name, each);
        }
    }
    Ok(section)
}

/// All instructions of a target from its start to its end.
async fn count(
    counted: &Counted,
    upstream: SocketAddr,
    case: &Case,
    requests: usize,
    out: &Path,
) -> anyhow::Result<u64> {
    let mut valgrind = crate::place::measured(Path::new("valgrind"))?;
    valgrind
        .args(["--tool=cachegrind", "--cache-sim=no", "--log-file=/dev/null"])
        .arg(format!("--cachegrind-out-file={}", out.display()));
    match counted {
        Counted::Backend => own(&mut valgrind, &["backend"], case, requests).await?,
        Counted::Floor => {
            own(&mut valgrind, &["floor", "--to", &upstream.to_string()], case, requests).await?;
        }
        Counted::Nginx(program) => {
            let nginx = Nginx::start_under(&mut valgrind, program, upstream)?;
            drive(&nginx.target(), case, requests).await?;
            nginx.stop().await?;
        }
        Counted::Node(program) => node(&mut valgrind, program, upstream, case, requests).await?,
    }
    let text = std::fs::read_to_string(out).context("valgrind has written nothing")?;
    total(&text).context("valgrind has written no summary")
}

async fn own(valgrind: &mut Command, part: &[&str], case: &Case, requests: usize) -> anyhow::Result<()> {
    let (guard, address) = child::listening(valgrind.arg(std::env::current_exe()?).args(part))?;
    drive(&Target::new(part[0], address, guard.pid()), case, requests).await?;
    guard.stop().await
}

async fn node(
    valgrind: &mut Command,
    program: &Path,
    upstream: SocketAddr,
    case: &Case,
    requests: usize,
) -> anyhow::Result<()> {
    let fleet = Fleet::start(&standard(upstream, upstream)?).await?;
    let ready = fleet.folder().join("ready.json");
    valgrind.arg(program);
    node_command(valgrind, "counted", fleet.control(), &fleet.folder().join("counted"));
    valgrind.args(["--listen", "127.0.0.1:0"]).arg("--ready-file").arg(&ready);
    let mut guard: Guard = child::spawn(valgrind, None)?;
    let address = child::ready(&mut guard, &ready, "mcp").await?;
    drive(&Target::new("node", address, guard.pid()), case, requests).await?;
    guard.stop().await
}

/// The same before the counted requests, however many those are.
async fn drive(target: &Target, case: &Case, requests: usize) -> anyhow::Result<()> {
    serves(target, case).await?;
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        clients.push(Client::connect(target, case, number).await?);
    }
    for _ in 0..WARM_UP + requests / CONNECTIONS {
        for client in &mut clients {
            client.once().await?;
        }
    }
    Ok(())
}

/// The instructions in a file of cachegrind. Pure.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("summary:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_last_line() {
        assert_eq!(total("desc: x\nevents: Ir\nfn=a\n1 5\nsummary: 12345\n"), Some(12345));
        assert_eq!(total("desc: x\n"), None);
    }

    #[test]
    fn connections_share_the_requests_evenly() {
        assert!(CASES.iter().all(|(_, requests)| requests % CONNECTIONS == 0));
    }
}
