//! The processes that are measured, and what they are measured beside.

mod fleet;
mod nginx;
mod peer;
mod resources;

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

pub use self::{
    fleet::{Fleet, Node, node_command},
    nginx::{Nginx, find as find_nginx},
    peer::{Peer, PeerArg},
    resources::{KEY, KEY_SHA256, gateway, http_backend, principal, standard},
};
use crate::{
    child::{self, Guard, PATIENCE, listening, sibling},
    load::{Case, Client, Target},
    place,
};

/// Which programs are measured.
#[derive(clap::Args, Clone, Default)]
pub struct Programs {
    /// Programs of nodes to compare, each as NAME=PATH; the one beside this
    /// program if left out.
    #[arg(long = "node", global = true, value_name = "NAME=PATH", value_parser = named)]
    pub nodes: Vec<(String, PathBuf)>,
    /// Other gateways, each as NAME=PATH for those whose configuration is known,
    /// or as NAME=COMMAND with {listen}, {port} and {backend} in it.
    #[arg(long = "peer", global = true, value_name = "NAME=COMMAND")]
    pub peers: Vec<PeerArg>,
    /// Where nginx is, if not in PATH; without one it is left out.
    #[arg(long, global = true, value_name = "PATH")]
    pub nginx: Option<PathBuf>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is expected")?;
    Ok((name.to_owned(), path.into()))
}

impl Programs {
    /// The nodes to compare; the first one is what single figures are of.
    ///
    /// # Errors
    /// If none was named or built.
    pub fn nodes(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        if self.nodes.is_empty() {
            return Ok(vec![("node".to_owned(), sibling("mt-dataplane")?)]);
        }
        Ok(self.nodes.clone())
    }
}

/// This program as another part of the comparison.
///
/// # Errors
/// If its own path is unknown.
pub fn part(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// A backend, beside the load.
///
/// # Errors
/// If it does not start.
pub fn backend(arguments: &[&str]) -> anyhow::Result<(Guard, SocketAddr)> {
    listening(part(&["backend"])?.args(arguments))
}

/// This program as a part that is measured.
///
/// # Errors
/// If it does not start.
pub fn measured_part(arguments: &[&str]) -> anyhow::Result<(Guard, SocketAddr)> {
    listening(place::measured(&std::env::current_exe()?)?.args(arguments))
}

/// Everything that is compared, at once; ends when dropped.
pub struct System {
    targets: Vec<Target>,
    fleet: Fleet,
    _running: Vec<Guard>,
    _nginx: Option<Nginx>,
    _peers: Vec<Peer>,
    /// What is not measured, and why.
    pub missing: Vec<String>,
}

/// Names of the targets that all others are compared with.
pub const BACKEND: &str = "backend";
pub const FLOOR: &str = "minimal proxy";
pub const NGINX: &str = "nginx";

impl System {
    /// # Errors
    /// If something that was built or asked for does not start.
    pub async fn start(programs: &Programs) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let (plain, upstream) = backend(&[])?;
        let (things, of_things) = backend(&["--resources"])?;
        let (direct, direct_address) = measured_part(&["backend"])?;
        let (floor, floor_address) = measured_part(&["floor", "--to", &upstream.to_string()])?;
        let mut targets = vec![
            Target::new(BACKEND, direct_address, direct.pid()),
            Target::new(FLOOR, floor_address, floor.pid()),
        ];
        let mut nginx = None;
        match find_nginx(programs.nginx.as_deref()) {
            Some(program) => {
                let started = Nginx::start(&program, upstream).await?;
                targets.push(started.target());
                nginx = Some(started);
            }
            None => missing.push("nginx is not measured: there is none; name it with --nginx".to_owned()),
        }
        let mut peers = Vec::new();
        for wanted in &programs.peers {
            let peer = Peer::start(wanted, upstream).await?;
            targets.push(peer.target());
            peers.push(peer);
        }
        let mut fleet = Fleet::start(&standard(upstream, of_things)?).await?;
        for (name, program) in programs.nodes()? {
            fleet.node(&name, &program).await?;
        }
        targets.extend(fleet.nodes().iter().map(Node::target));
        let system = Self {
            targets,
            fleet,
            _running: vec![plain, things, direct, floor],
            _nginx: nginx,
            _peers: peers,
            missing,
        };
        Ok(system)
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Those that know all gateways.
    pub fn nodes(&self) -> Vec<Target> {
        self.fleet.nodes().iter().map(Node::target).collect()
    }
}

/// Waits until a target serves a case.
///
/// # Errors
/// If it does not in time, with what it has answered last.
pub async fn serves(target: &Target, case: &Case) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = async { Client::connect(target, case, 0).await?.once().await };
        match tried.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("{} does not serve {}", target.name, case.name));
            }
            Err(_) => sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

/// A free address, as text.
///
/// # Errors
/// If there is none.
fn free() -> anyhow::Result<SocketAddr> {
    child::free_address()
}
