//! The command line of `mt-controlplane`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::Options;

/// Holds the configuration of a MagicTunnel fleet and pushes it to its nodes.
#[derive(Debug, Parser)]
#[command(name = "mt-controlplane", version)]
pub struct Args {
    /// Where the store and the key ring are kept
    #[arg(long, env = "MT_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where gRPC is served; port 0 lets the system choose
    #[arg(long, env = "MT_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    pub listen: SocketAddr,

    /// Where probes and metrics are served; port 0 lets the system choose
    #[arg(long, env = "MT_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:7002")]
    pub http: SocketAddr,

    /// Let the doors open without TLS on addresses that others can reach
    #[arg(long, env = "MT_INSECURE")]
    pub insecure: bool,

    /// Open a damaged store with what can be proven of it; damaged files are set aside
    #[arg(long)]
    pub salvage_store: bool,

    /// Write the addresses, as JSON, to this file when they are served
    #[arg(long, env = "MT_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// What to log: a level, or directives such as `info,mt_controlplane=debug`
    #[arg(long, env = "MT_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log
    #[arg(long, env = "MT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object on each line
    Json,
}

impl Args {
    /// The settings that this command line asks for.
    pub fn options(&self, metrics: PrometheusHandle) -> Options {
        Options {
            data_dir: self.data_dir.clone(),
            listen: self.listen,
            http: self.http,
            insecure: self.insecure,
            salvage_store: self.salvage_store,
            metrics: Some(metrics),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
