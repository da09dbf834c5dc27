//! Sessions that do nothing and streams that say nothing: what each holds in
//! memory, and what they cost those who are active.

use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::sleep;

use crate::{
    load::{self, Case, Era, Headers, Session, Target, What},
    process, quiet,
    report::{Bound, Line, Section, median_of},
    stats::{median, ratio, short},
    targets::{
        FLOOR, Fleet, KEY, KEY_SHA256, Nginx, Programs, backend, find_nginx, gateway, http_backend,
        measured_part, principal,
    },
};

const CASE: Case = Case::new("call, session", Era::Legacy, What::Echo(32));
/// A node keeps 10,000, a few of which are active, and refuses one principal more
/// than four fifths of them: half of the idle ones belong to somebody with a key.
const SESSIONS: [usize; 2] = [1_000, 9_800];
/// The connections of active calls and the limit of a node (8,192) leave so many.
const STREAMS_MAX: usize = 8_000;
/// After which memory is looked at: what was freed has been given back by then.
const SETTLE: Duration = Duration::from_millis(1500);
const RATIO_MAX: f64 = 1.15;

#[derive(clap::Args, Clone)]
pub struct IdleArgs {
    /// Idle sessions of a node, in all.
    #[arg(long, default_value_t = SESSIONS[1])]
    pub sessions: usize,
    /// Open GET streams, in all.
    #[arg(long, default_value_t = STREAMS_MAX)]
    pub streams: usize,
    /// Active calls a second, due at a fixed rate.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
}

/// # Errors
/// If a session or a stream is refused, or an answer is wrong.
pub async fn run(args: &IdleArgs, programs: &Programs) -> anyhow::Result<Vec<Section>> {
    let (_guard, at) = backend(&["--streams"])?;
    let mut section = Section::new(
        "Memory of idle sessions and streams",
        &["target", "idle MiB", "what", "number", "resident MiB", "KiB each"],
    );
    section.note(
        "Sessions: initialized, and their connections closed. Streams: opened with GET, one for each session, beside \
         what the session holds. The backend holds the streams that reach it.",
    );
    let (floor, floor_at) = measured_part(&["floor", "--to", &at.to_string()])?;
    let floor_target = Target::new(FLOOR, floor_at, floor.pid());
    drop(streams(&mut section, &floor_target, args.streams).await?);
    drop(floor);
    if let Some(program) = find_nginx(programs.nginx.as_deref()) {
        let nginx = Nginx::start(&program, at).await?;
        drop(streams(&mut section, &nginx.target(), args.streams).await?);
    }

    let yaml = http_backend("bench", at, "")
        + &gateway("default", "{tool}", &["bench"])
        + &principal("half", KEY_SHA256);
    let (ours, program) = programs.nodes()?.swap_remove(0);
    let mut fleet = Fleet::start(&yaml).await?;
    let plain = fleet.node(&ours, &program).await?;
    let with_sessions = fleet.node(&ours, &program).await?;
    let with_streams = fleet.node(&ours, &program).await?;
    sleep(SETTLE).await;
    section.figure(Line::RssIdle, &ours, mib(&plain)?);
    sessions(&mut section, &with_sessions, args.sessions).await?;
    let open = streams(&mut section, &with_streams, args.streams).await?;
    let active = active(args, &[&plain, &with_sessions, &with_streams], open.len()).await?;
    Ok(vec![section, active])
}

fn mib(target: &Target) -> anyhow::Result<f64> {
    Ok(process::rss_kib(target.pid)? as f64 / 1024.0)
}

/// Opens sessions in steps and leaves them.
async fn sessions(section: &mut Section, target: &Target, all: usize) -> anyhow::Result<()> {
    let before = mib(target)?;
    let mut opened = 0;
    for number in [SESSIONS[0].min(all), all] {
        eprintln!("idle: {number} sessions of {}", target.name);
        // Connections are closed after some sessions, as those of clients would be.
        while opened < number {
            let mut session = connect(target, opened).await?;
            for _ in 0..100.min(number - opened) {
                session.initialize().await?;
                opened += 1;
            }
        }
        sleep(SETTLE).await;
        let after = mib(target)?;
        let each = (after - before) * 1024.0 / number as f64;
        section.row([
            target.name.clone(),
            short(before),
            "idle sessions".to_owned(),
            number.to_string(),
            short(after),
            short(each),
        ]);
        if number == all {
            section.figure(Line::RssSession, &target.name, each);
        }
    }
    Ok(())
}

async fn connect(target: &Target, number: usize) -> anyhow::Result<Session> {
    // Every other hundred is somebody else's.
    let key = (number / 100 % 2 == 1).then_some(KEY);
    Session::connect(target, &CASE, Headers { key }).await
}

/// A stream, and the connection that it is on.
type Stream = (Session, Incoming);

/// Opens streams in steps and keeps them.
async fn streams(section: &mut Section, target: &Target, all: usize) -> anyhow::Result<Vec<Stream>> {
    let idle = mib(target)?;
    // What sessions hold is not what streams hold.
    let mut ids = Vec::new();
    while ids.len() < all {
        let mut session = connect(target, ids.len()).await?;
        for _ in 0..100.min(all - ids.len()) {
            session.initialize().await?;
            ids.push(session.id.clone());
        }
    }
    sleep(SETTLE).await;
    let before = mib(target)?;
    let mut open = Vec::new();
    let mut ids = ids.into_iter();
    for number in [1_000.min(all), all] {
        eprintln!("idle: {number} streams of {}", target.name);
        while open.len() < number {
            let mut session = connect(target, open.len()).await?;
            session.id = ids.next().flatten();
            let stream = session.listen().await?;
            open.push((session, stream));
        }
        sleep(SETTLE).await;
        let after = mib(target)?;
        let each = (after - before) * 1024.0 / number as f64;
        section.row([
            target.name.clone(),
            short(idle),
            "open streams".to_owned(),
            number.to_string(),
            short(after),
            short(each),
        ]);
        if number == all {
            section.figure(Line::RssStream, &target.name, each);
        }
    }
    Ok(open)
}

/// What active calls feel of it, in turn on a node without, one with sessions
/// and one with streams.
async fn active(args: &IdleArgs, nodes: &[&Target; 3], streams: usize) -> anyhow::Result<Section> {
    let mut section = Section::new(
        format!("Active calls beside idle ones, {} due a second", short(args.rate)),
        &["beside", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "p99 / none idle"],
    );
    let names =
        ["nothing idle".to_owned(), format!("{} sessions", args.sessions), format!("{streams} streams")];
    let length = Duration::from_secs_f64(args.seconds);
    let mut all: [Vec<load::Arrivals>; 3] = Default::default();
    for round in 0..args.rounds {
        for ((node, rounds), name) in nodes.iter().zip(&mut all).zip(&names) {
            eprintln!("active calls beside {name} ({}/{})", round + 1, args.rounds);
            let once = async || load::run_open(node, &CASE, 16, args.rate, length).await;
            rounds.push(quiet::measured(quiet::TAILS, once).await?);
        }
    }
    let p99 = |arrivals: &load::Arrivals| arrivals.served.per_mille(990);
    for (rounds, name) in all.iter().zip(&names) {
        let pairs = rounds.iter().zip(&all[0]);
        let compared = median(pairs.map(|(own, plain)| ratio(p99(own), p99(plain))));
        section.row([
            name.clone(),
            short(median_of(rounds, |arrivals| arrivals.served.per_mille(500))),
            short(median_of(rounds, p99)),
            short(median_of(rounds, |arrivals| arrivals.served.per_mille(999))),
            short(median_of(rounds, |arrivals| arrivals.served.cpu())),
            format!("{compared:.3}"),
        ]);
        if name != &names[0] {
            section.check(
                format!("p99 of active calls beside {name} / beside nothing"),
                compared,
                Bound::AtMost(RATIO_MAX),
            );
        }
    }
    section.note(format!("The ratio is the median of {} rounds in turn.", args.rounds));
    Ok(section)
}
