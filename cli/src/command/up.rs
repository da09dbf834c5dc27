//! `mtctl up`: a control plane and a node in one process, for one machine.
//!
//! The only file that names the planes. What a process has once (the log, the
//! metrics recorder, the crypto provider, signals) is set up here and handed to
//! both.

mod demo;
mod summary;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use mt_proto::{
    pb::{control as pb, resource::Resource},
    resource::Kind,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    follow::{Followed, Source, labelled},
    import,
    signals::Signals,
};
use crate::{
    args::{ImportArgs, UpArgs},
    client::{self, Client},
    endpoint::{self, Held, Origin, Record, Server},
    output::{Exit, Failure, Format},
};

/// How long a plane may take to open its store and its doors.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the summary waits for the backends. They go on starting after it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long calls have to finish at the end, before they are cut off.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The node's id: there is one for each data directory.
const NODE_ID: &str = "local";
/// What `up` manages carries this label; what has it and is no longer in the
/// files is deleted.
pub const SOURCE_LABEL: (&str, &str) = ("magictunnel/source", "up");
const DEMO_LABEL: (&str, &str) = ("magictunnel/demo", "true");

/// If this process is the guard of a server that `up` runs: its exit code.
pub fn guard_if_asked() -> Option<ExitCode> {
    mt_dataplane::guard::run_if_asked()
}

pub fn run(context: &Context, args: UpArgs) -> Result<Exit, Failure> {
    check_doors(&args)?;
    let dir = endpoint::data_dir(&context.global)?;
    let source = Source::new(&args.paths)?;
    // Mistakes are told before anything has been started.
    let library = source.as_ref().map(Source::read).transpose()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(super::no_runtime)?;
    let held = runtime.block_on(endpoint::hold(&dir))?;
    super::crypto();
    super::log("warn,notify=error");
    let up = Up {
        context,
        args: &args,
        dir,
        held,
        source,
        followed: library.map(|l| Followed::new(l, Some(SOURCE_LABEL))),
    };
    super::finish(runtime, Box::pin(up.serve()))
}

/// Everything that one run of `up` has.
struct Up<'a> {
    context: &'a Context,
    args: &'a UpArgs,
    dir: PathBuf,
    held: Held,
    source: Option<Source>,
    followed: Option<Followed>,
}

/// The planes, while they run.
struct Planes {
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
    record: Record,
}

impl Up<'_> {
    async fn serve(mut self) -> Result<Exit, Failure> {
        let start = Instant::now();
        let mut signals = Signals::new()?;
        let mut planes = tokio::select! {
            planes = Planes::start(self.args, &self.dir) => planes?,
            () = signals.next() => return Ok(Exit::Interrupted),
        };
        let outcome = tokio::select! {
            outcome = self.follow(&planes.record, start) => outcome,
            ended = planes.tasks.join_next() => Err(ended_early(ended)),
            () = signals.next() => Ok(Exit::Ok),
        };
        self.context.output.say("stopping; once more to cut off calls that are under way");
        tokio::select! {
            () = planes.end() => {}
            () = signals.next() => self.context.output.say("calls were cut off"),
        }
        outcome
    }

    /// Brings in what was asked for, tells about it, and follows the files for
    /// as long as it is polled.
    async fn follow(&mut self, record: &Record, start: Instant) -> Result<Exit, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(Exit::Failed, "cannot write the record").cause(error);
        self.held.record(record).map_err(failed)?;
        let server = Server { url: record.control.clone(), origin: Origin::Recorded };
        let mut client = Client::connect(server).await?;
        // From before the first reading, so that no change falls in between.
        let changes = self.source.as_ref().map(Source::watch).transpose()?;
        let generation = self.bring_in(&mut client).await?;
        let fleet = summary::settled(&mut client, generation, SETTLE_TIMEOUT).await?;
        if self.context.format() == Format::Json {
            self.context.output.value(record)?;
        }
        let about = summary::About {
            dir: &self.dir,
            record,
            followed: self.source.as_ref().map(Source::name),
            tools: self.followed.as_ref().map_or(0, Followed::tools),
            took: start.elapsed(),
        };
        self.context.output.say(summary::render(&about, &fleet));
        match (changes, self.followed.take()) {
            (Some(changes), Some(followed)) => {
                match followed.follow(self.context, &mut client, changes).await {}
            }
            _ => std::future::pending().await,
        }
    }

    /// At least this generation then holds what was asked for.
    async fn bring_in(&mut self, client: &mut Client) -> Result<u64, Failure> {
        let mut generation = 0;
        match &mut self.followed {
            Some(followed) => {
                let prune = [(SOURCE_LABEL.0.to_owned(), SOURCE_LABEL.1.to_owned())].into();
                generation = followed.begin(client, prune, "files of mtctl up").await?.generation;
            }
            None if self.args.import.is_empty() => self.demo(client).await?,
            None => {}
        }
        for file in &self.args.import {
            let args = ImportArgs {
                file: file.clone(),
                dry_run: false,
                yes: false,
                replace: false,
                gateway: "default".to_owned(),
                wait: Duration::ZERO,
            };
            import::bring_in(self.context, client, &args).await?;
        }
        Ok(generation)
    }

    /// Serves the demo where nothing is configured, and keeps it running with
    /// this very program where it is what is served.
    async fn demo(&self, client: &mut Client) -> Result<(), Failure> {
        let (stored, _) = client.list(None, &[], 0).await?;
        let has_label = |resource: &Resource| {
            let labels = resource.metadata.as_ref().map(|metadata| &metadata.labels);
            labels.is_some_and(|labels| labels.contains_key(DEMO_LABEL.0))
        };
        if !stored.is_empty() && !stored.iter().filter_map(|s| s.resource.as_ref()).any(has_label) {
            return Ok(());
        }
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Failed, "cannot tell where this program is").cause(error))?;
        let mut resources = demo::resources(&program)?;
        if !stored.is_empty() {
            // What else is there now is not the demo's to touch.
            resources.retain(|resource| Kind::of(resource) == Some(Kind::Backend));
        }
        let request = pb::ApplyRequest {
            resources: resources
                .into_iter()
                .map(|r| labelled(labelled(r, DEMO_LABEL), SOURCE_LABEL))
                .collect(),
            author: client::author(),
            message: "the demo of mtctl up".to_owned(),
            ..Default::default()
        };
        let answer = client.config.apply(request).await;
        answer.map(|_| ()).map_err(|status| client.failure("cannot bring in the demo", &status))
    }
}

impl Planes {
    async fn start(args: &UpArgs, dir: &Path) -> Result<Self, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Exit::Failed, "cannot install the metrics recorder").chain(error)
        };
        mt_dataplane::guard::install();
        let metrics = mt_dataplane::metrics::install().map_err(|error| failed(&error))?;
        let stop = CancellationToken::new();
        // The control plane outlives the node, which would otherwise report its loss.
        let control_stop = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let options = mt_controlplane::Options {
            data_dir: dir.to_owned(),
            listen: args.control,
            http: args.http,
            insecure: args.insecure,
            salvage_store: false,
            metrics: Some(metrics.clone()),
        };
        let (ready, bound) = oneshot::channel();
        let token = control_stop.clone();
        spawn(&mut tasks, async move {
            mt_controlplane::run(options, token, ready).await.map_err(|error| control_failure(&error))
        });
        let control = begin(&mut tasks, bound).await?;

        let url = format!("http://{}", control.grpc);
        let invalid = |_| Failure::new(Exit::Failed, format!("{url} is not an address"));
        let options = mt_dataplane::Options {
            node_id: NODE_ID.to_owned(),
            control: vec![url.parse().map_err(invalid)?],
            listen: Some(args.listen),
            admin: args.admin,
            stdio: None,
            relay_listen: ([127, 0, 0, 1], 0).into(),
            relay_advertise: None,
            cache_dir: Some(dir.join("node")),
            settings: mt_dataplane::node::Settings {
                files_dir: args.files_dir.clone(),
                ..Default::default()
            },
            labels: Default::default(),
            advertise: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            metrics: Some(metrics),
        };
        let (ready, bound) = oneshot::channel();
        let token = stop.clone();
        let node_ends = control_stop.drop_guard();
        spawn(&mut tasks, async move {
            let _node_ends = node_ends;
            mt_dataplane::run(options, token, ready).await.map_err(|error| node_failure(&error))
        });
        let node = begin(&mut tasks, bound).await?;

        let record = Record {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mcp: node.mcp.map(|mcp| format!("http://{mcp}")).unwrap_or_default(),
            control: url,
            http: format!("http://{}", control.http),
            admin: format!("http://{}", node.admin),
        };
        Ok(Self { tasks, stop, record })
    }

    /// Lets calls finish and ends both, within a bound.
    async fn end(&mut self) {
        self.stop.cancel();
        _ = timeout(STOP_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

fn spawn(
    tasks: &mut JoinSet<Result<(), Failure>>,
    plane: impl Future<Output = Result<(), Failure>> + Send + 'static,
) {
    // On the heap: a plane's future holds all of its parts.
    tasks.spawn(Box::pin(plane));
}

/// Waits until a plane serves, or has failed to.
async fn begin<B>(
    tasks: &mut JoinSet<Result<(), Failure>>,
    bound: oneshot::Receiver<B>,
) -> Result<B, Failure> {
    let slow = || Failure::new(Exit::Unreachable, "starting takes too long").cause("30 s have passed");
    let serving = async {
        match bound.await {
            Ok(bound) => Ok(bound),
            // It has dropped the channel, so it is about to say why.
            Err(_) => Err(ended_early(tasks.join_next().await)),
        }
    };
    timeout(START_TIMEOUT, serving).await.unwrap_or_else(|_| Err(slow()))
}

fn ended_early(ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Failure {
    match ended {
        Some(Ok(Err(failure))) => failure,
        Some(Err(error)) => Failure::new(Exit::Failed, "a part of MagicTunnel failed").cause(error),
        _ => Failure::new(Exit::Failed, "a part of MagicTunnel ended by itself"),
    }
}

fn control_failure(error: &mt_controlplane::Error) -> Failure {
    use mt_controlplane::{Error, store};

    match error {
        Error::Listen { .. } => taken(error, "--control and --http"),
        Error::Store(store::Error::Held { .. }) => {
            Failure::new(Exit::Conflict, "another process holds the store")
                .chain(error)
                .try_this("mtctl status")
        }
        _ => Failure::new(Exit::Failed, "the control plane failed").chain(error),
    }
}

fn node_failure(error: &mt_dataplane::Error) -> Failure {
    match error {
        mt_dataplane::Error::Bind { .. } => taken(error, "--listen and --admin"),
        _ => Failure::new(Exit::Failed, "the node failed").chain(error),
    }
}

fn taken(error: &(dyn std::error::Error + 'static), options: &str) -> Failure {
    Failure::new(Exit::Conflict, "cannot listen")
        .chain(error)
        .try_this("mtctl status, to see whether it runs already")
        .try_this(format!("other ports, by {options}; port 0 takes a free one"))
}

fn check_doors(args: &UpArgs) -> Result<(), Failure> {
    let doors = [
        ("--listen", args.listen),
        ("--control", args.control),
        ("--http", args.http),
        ("--admin", args.admin),
    ];
    let open = |(_, address): &(&str, SocketAddr)| !address.ip().is_loopback();
    match doors.into_iter().find(open) {
        Some((option, address)) if !args.insecure => {
            Err(Failure::new(Exit::Usage, format!("{option} {address} can be reached from other machines"))
                .cause("there is no TLS in this version, so keys and tokens could be read on the way")
                .try_this("a loopback address such as 127.0.0.1")
                .try_this("--insecure, if the network keeps strangers out"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> UpArgs {
        match crate::args::try_parse(line.split_whitespace()).unwrap().command {
            crate::args::Command::Up(args) => args,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn doors_open_to_strangers_only_when_told() {
        assert!(check_doors(&args("mtctl up")).is_ok());
        assert_eq!(check_doors(&args("mtctl up --admin 0.0.0.0:1")).unwrap_err().exit, Exit::Usage);
        assert!(check_doors(&args("mtctl up --listen 0.0.0.0:1 --insecure")).is_ok());
    }
}
