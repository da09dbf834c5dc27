//! The settings of a control plane, checked.

use std::{net::SocketAddr, path::PathBuf};

use metrics_exporter_prometheus::PrometheusHandle;

/// Everything that a control plane needs to run.
#[derive(Clone)]
pub struct Options {
    /// Where the store and the key ring are kept. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where gRPC is served; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where probes and metrics are served; port 0 lets the system choose.
    pub http: SocketAddr,
    /// Lets the doors open without TLS on addresses that others can reach.
    pub insecure: bool,
    /// Opens a damaged store with what can be proven of it, and gives up the rest.
    pub salvage_store: bool,
    /// What is shown at `/metrics`; the recorder is the program's.
    pub metrics: Option<PrometheusHandle>,
}

/// The settings do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{option} {address} can be reached from other machines, without TLS or authentication: \
     use a loopback address, or say --insecure if the network keeps strangers out"
)]
pub struct NotLoopback {
    pub option: &'static str,
    pub address: SocketAddr,
}

impl Options {
    /// # Errors
    /// If a door would open to strangers and nobody said that it may.
    pub fn check(&self) -> Result<(), NotLoopback> {
        let doors = [("--listen", self.listen), ("--http", self.http)];
        match doors.into_iter().find(|(_, address)| !self.insecure && !address.ip().is_loopback()) {
            Some((option, address)) => Err(NotLoopback { option, address }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, http: &str, insecure: bool) -> Option<&'static str> {
        let options = Options {
            data_dir: PathBuf::new(),
            listen: listen.parse().unwrap(),
            http: http.parse().unwrap(),
            insecure,
            salvage_store: false,
            metrics: None,
        };
        options.check().err().map(|error| error.option)
    }

    #[test]
    fn doors_open_to_strangers_only_when_told() {
        assert_eq!(check("127.0.0.1:1", "[::1]:2", false), None);
        assert_eq!(check("0.0.0.0:1", "[::1]:2", false), Some("--listen"));
        assert_eq!(check("127.0.0.1:1", "10.0.0.1:2", false), Some("--http"));
        assert_eq!(check("0.0.0.0:1", "[::]:2", true), None);
    }
}
