//! From the start of a process to its first HTTP answer and to its first served
//! call; with a control plane, and without one from the configuration of an
//! earlier run.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::bail;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    child::{self, Guard, PATIENCE, free_address},
    load::{Case, Client, Era, Target, What},
    place, process,
    report::{Line, Section},
    stats::{median, short},
    targets::{
        Fleet, NGINX, Nginx, Programs, backend, find_nginx, gateway, http_backend, node_command, serves,
    },
};

const CASE: Case = Case::new("call, session", Era::Legacy, What::Echo(32));
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_micros(100);
/// A try that gets no answer is given up.
const TRY_MAX: Duration = Duration::from_secs(2);
/// After which idle memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone)]
pub struct StartUpArgs {
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
}

/// # Errors
/// If something does not start.
pub async fn run(args: &StartUpArgs, programs: &Programs) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Start-up",
        &["target", "with", "first HTTP answer, ms", "first served call, ms", "idle MiB", "binary MiB"],
    );
    section.note(format!(
        "Medians of {} starts. Idle memory is that of {} s after one call.",
        args.rounds,
        SETTLE.as_secs()
    ));
    let (_guard, at) = backend(&[])?;
    if let Some(program) = find_nginx(programs.nginx.as_deref()) {
        let mut starts = Vec::new();
        for _ in 0..args.rounds {
            let began = Instant::now();
            let nginx = Nginx::launch(&program, at)?;
            starts.push(measured(nginx.target(), began).await?);
        }
        row(&mut section, NGINX, "–", &starts, &program)?;
    }
    let yaml = http_backend("bench", at, "") + &gateway("default", "{tool}", &["bench"]);
    for (name, program) in programs.nodes()? {
        let mut fleet = Fleet::start(&yaml).await?;
        let (mut cold, mut again, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..args.rounds {
            let cache = fleet.folder().join(format!("cold-{round}"));
            cold.push(start(&name, &program, fleet.control(), &cache).await?);
            again.push(start(&name, &program, fleet.control(), &cache).await?);
        }
        let cache = fleet.folder().join("cold-0");
        fleet.orphan();
        for _ in 0..args.rounds {
            alone.push(start(&name, &program, fleet.control(), &cache).await?);
        }
        row(&mut section, &name, "a control plane, nothing cached", &cold, &program)?;
        row(&mut section, &name, "a control plane, and a cache", &again, &program)?;
        row(&mut section, &name, "a cache, and no control plane", &alone, &program)?;
        section.figure(Line::StartUp, &name, median(alone.iter().map(|start| start.http)));
    }
    Ok(section)
}

/// What one start has given.
struct Started {
    /// ms.
    http: f64,
    served: f64,
    rss_kib: u64,
}

fn row(
    section: &mut Section,
    name: &str,
    with: &str,
    starts: &[Started],
    program: &Path,
) -> anyhow::Result<()> {
    let of = |figure: fn(&Started) -> f64| short(median(starts.iter().map(figure)));
    section.row([
        name.to_owned(),
        with.to_owned(),
        of(|start| start.http),
        of(|start| start.served),
        of(|start| start.rss_kib as f64 / 1024.0),
        short(std::fs::metadata(program)?.len() as f64 / f64::from(1 << 20)),
    ]);
    Ok(())
}

async fn start(name: &str, program: &Path, control: SocketAddr, cache: &Path) -> anyhow::Result<Started> {
    let address = free_address()?;
    let mut command = place::measured(program)?;
    node_command(&mut command, name, control, cache);
    command.args(["--listen", &address.to_string()]);
    let began = Instant::now();
    let guard: Guard = child::spawn(&mut command, None)?;
    let started = measured(Target::new(name, address, guard.pid()), began).await?;
    guard.stop().await?;
    Ok(started)
}

async fn measured(target: Target, began: Instant) -> anyhow::Result<Started> {
    while !answers(target.address).await {
        if began.elapsed() > PATIENCE {
            bail!("{} does not answer", target.name);
        }
        sleep_shortly().await;
    }
    let http = began.elapsed();
    loop {
        let tried = async { Client::connect(&target, &CASE, 0).await?.once().await };
        match timeout(TRY_MAX, tried).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) if began.elapsed() > PATIENCE => return Err(error),
            _ => sleep_shortly().await,
        }
    }
    let served = began.elapsed();
    serves(&target, &CASE).await?;
    sleep(SETTLE).await;
    let rss_kib = process::rss_kib(target.pid)?;
    Ok(Started { http: http.as_secs_f64() * 1e3, served: served.as_secs_f64() * 1e3, rss_kib })
}

/// Less than a millisecond is what the timers of the runtime cannot do.
async fn sleep_shortly() {
    let until = Instant::now() + TRY_EVERY;
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// Whether anything comes back that is HTTP, whatever it says.
async fn answers(address: SocketAddr) -> bool {
    let answer = async {
        let socket = TcpStream::connect(address).await.ok()?;
        let (mut send, connection) = http1::handshake(TokioIo::new(socket)).await.ok()?;
        let mut owned = JoinSet::new();
        owned.spawn(async move { _ = connection.await });
        let request = Request::get("/health").header("host", address.to_string());
        let response = send.send_request(request.body(Empty::<bytes::Bytes>::new()).ok()?).await.ok()?;
        Some(response.status())
    };
    timeout(TRY_MAX, answer).await.is_ok_and(|status| status.is_some())
}
