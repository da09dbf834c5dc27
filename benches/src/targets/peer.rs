//! Other gateways, by the path of their program. What is known of a peer is how
//! to tell it where to listen and what to serve; what is not known is given as
//! a command.

use std::{net::SocketAddr, path::Path, process::Command, str::FromStr};

use anyhow::Context as _;
use rustix::{
    process::Signal,
    thread::{Timespec, nanosleep},
};
use tokio::time::Instant;

use super::free;
use crate::{
    child::{self, Guard},
    load::{Case, Era, Target, What},
    place,
};

/// How long it may take to end.
const LEAVE_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// What to start, as it was written.
#[derive(Clone, Debug)]
pub struct PeerArg {
    name: String,
    words: Vec<String>,
}

impl FromStr for PeerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("NAME=COMMAND is expected")?;
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if let [_] = words.as_slice() {
            let known = KNOWN.iter().find(|known| known.name == name);
            let known = known.ok_or_else(|| {
                format!(
                    "how {name} is configured is not known: write its command with {{listen}} and {{backend}}"
                )
            })?;
            words.extend(known.arguments.iter().map(|argument| (*argument).to_owned()));
        }
        if words.is_empty() {
            return Err("which program?".to_owned());
        }
        Ok(Self { name: name.to_owned(), words })
    }
}

/// A gateway whose configuration is known.
struct Known {
    name: &'static str,
    arguments: &'static [&'static str],
    /// The text of its configuration.
    config: &'static str,
    env: &'static [(&'static str, &'static str)],
}

const KNOWN: &[Known] = &[Known {
    name: "agentgateway",
    arguments: &["-f", "{config}"],
    config: "binds:
- port: {port}
  listeners:
  - routes:
    - backends:
      - mcp:
          targets:
          - name: bench
            mcp:
              host: http://{backend}/mcp
",
    env: &[("RUST_LOG", "error"), ("WORKER_THREADS", "1")],
}];

/// A peer that runs.
pub struct Peer {
    guard: Guard,
    name: String,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// # Errors
    /// If it does not start or does not serve.
    pub async fn start(wanted: &PeerArg, backend: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = free()?;
        let known = KNOWN.iter().find(|known| known.name == wanted.name);
        let config = folder.path().join("config.yaml");
        if let Some(known) = known {
            std::fs::write(&config, filled(known.config, address, backend, &config))?;
        }
        let mut words = wanted.words.iter().map(|word| filled(word, address, backend, &config));
        let program = words.next().context("a command has a program")?;
        let mut command: Command = place::measured(Path::new(&program))?;
        command.args(words).envs(known.map_or(&[][..], |known| known.env).iter().copied());
        let guard = child::spawn(&mut command, Some(&folder.path().join("log")))?;
        let peer = Self { guard, name: wanted.name.clone(), address, _folder: folder };
        super::serves(&peer.target(), &Case::new("a call", Era::Legacy, What::Echo(8))).await?;
        Ok(peer)
    }

    /// It may have started others, which only it can end.
    fn leave(&mut self) {
        _ = self.guard.signal(Signal::TERM);
        let deadline = Instant::now() + LEAVE_MAX;
        while self.guard.still_runs().is_ok() && Instant::now() < deadline {
            let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            // A signal only makes it come early.
            _ = nanosleep(&wait);
        }
    }

    pub fn target(&self) -> Target {
        Target::new(&self.name, self.address, self.guard.pid())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A text of a template. Pure.
fn filled(template: &str, listen: SocketAddr, backend: SocketAddr, config: &Path) -> String {
    template
        .replace("{listen}", &listen.to_string())
        .replace("{port}", &listen.port().to_string())
        .replace("{backend}", &backend.to_string())
        .replace("{config}", &config.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_peer_needs_only_its_path() {
        let peer: PeerArg = "agentgateway=/opt/agentgateway".parse().unwrap();
        assert_eq!(peer.words, ["/opt/agentgateway", "-f", "{config}"]);
        let error = "other=/opt/other".parse::<PeerArg>().unwrap_err();
        assert!(error.contains("{listen}"), "{error}");
        let peer: PeerArg = "other=/opt/other --on {listen} --to http://{backend}/mcp".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.words.len()), ("other", 5));
    }

    #[test]
    fn a_template_names_addresses() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = filled("{listen} {port} {backend} {config}", address(1), address(2), Path::new("/c"));
        assert_eq!(text, "127.0.0.1:1 1 127.0.0.1:2 /c");
        assert!(!filled(KNOWN[0].config, address(1), address(2), Path::new("/c")).contains('{'));
    }
}
