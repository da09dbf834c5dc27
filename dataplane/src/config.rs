//! How a node is told what to be: flags and environment, checked once.
//!
//! Nothing about gateways or backends is in here: that comes from the control
//! plane, and only from there.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Parser;
use http::Uri;
use metrics_exporter_prometheus::PrometheusHandle;

/// Where a control plane is, unless told otherwise.
pub const CONTROL: &str = "http://127.0.0.1:7001";
/// Where clients are served, unless told otherwise.
pub const LISTEN: &str = "127.0.0.1:3001";
/// Where operators are served, unless told otherwise.
pub const ADMIN: &str = "127.0.0.1:9901";
/// The longest node id.
pub const NODE_ID_BYTES_MAX: usize = 128;
/// How many labels a node may have, and how long their keys and values may be.
pub const LABELS_MAX: usize = 32;
pub const LABEL_BYTES_MAX: usize = 63;

/// Serves MCP clients with what the control plane has configured.
#[derive(Clone, Debug, Parser)]
#[command(name = "mt-dataplane", version, max_term_width = 100)]
pub struct Args {
    /// Name of this node, unique in the fleet [default: the host's name]
    #[arg(long, env = "MT_NODE_ID", value_name = "ID")]
    node_id: Option<String>,
    /// Address of the control plane; several are tried in turn
    #[arg(long, env = "MT_CONTROL", value_name = "URL", value_delimiter = ',', default_value = CONTROL)]
    control: Vec<String>,
    /// Where clients are served; port 0 takes a free one
    #[arg(long, env = "MT_LISTEN", value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// Where operators are served: /livez, /readyz, /metrics, /config_dump
    #[arg(long, env = "MT_ADMIN", value_name = "ADDRESS", default_value = ADMIN)]
    admin: SocketAddr,
    /// Where the last good configuration is kept [default: magictunnel/ID in the user's cache directory]
    #[arg(long, env = "MT_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Label that gateways select nodes by; may be repeated
    #[arg(long = "label", env = "MT_LABELS", value_name = "KEY=VALUE", value_delimiter = ',')]
    labels: Vec<String>,
    /// URL under which clients reach this node [default: the listening address]
    #[arg(long, env = "MT_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// Host that clients may name besides loopback's; `*` is any; may be repeated
    #[arg(long = "allow-host", env = "MT_ALLOW_HOSTS", value_name = "HOST", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// Origin that browsers may come from besides loopback's; `*` is any; may be repeated
    #[arg(long = "allow-origin", env = "MT_ALLOW_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// Serve on addresses that others can reach, although there is no TLS
    #[arg(long, env = "MT_INSECURE")]
    insecure: bool,
    /// File to write the bound addresses into, as JSON, once the node serves
    #[arg(long, env = "MT_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Threads that calls run on [default: one for each core]
    #[arg(long, env = "MT_WORKER_THREADS", value_name = "N")]
    pub worker_threads: Option<usize>,
    /// What to log: a level, or directives such as `info,mt_dataplane=debug`
    #[arg(long, env = "MT_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How the log looks
    #[arg(long, env = "MT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What a node needs to run; made by [`Args::check`], or by who runs one in
/// its own process.
#[derive(Clone)]
pub struct Options {
    pub node_id: String,
    /// At least one.
    pub control: Vec<Uri>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// None: nothing is kept, and a start needs the control plane.
    pub cache_dir: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    /// None: the address that was bound.
    pub advertise: Option<String>,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    /// What `/metrics` shows. Only a `main` installs a recorder.
    pub metrics: Option<PrometheusHandle>,
}

/// What is wrong with the flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "{id:?} is not a node id: 1 to {NODE_ID_BYTES_MAX} letters, digits, '-', '_' and '.'; give one with --node-id"
    )]
    NodeId { id: String },
    #[error("{url:?} is not the address of a control plane, such as {CONTROL}")]
    Control { url: String },
    #[error("{url:?} needs TLS towards the control plane, which this version cannot do; use http://")]
    ControlTls { url: String },
    #[error(
        "{label:?} is not a label: KEY=VALUE, each at most {LABEL_BYTES_MAX} letters, digits, '-', '_', '.' and '/'"
    )]
    Label { label: String },
    #[error("label {key:?} is given twice")]
    LabelTwice { key: String },
    #[error("a node has at most {LABELS_MAX} labels, these are {count}")]
    Labels { count: usize },
    #[error("{url:?} is not a URL that clients can use, such as http://10.0.0.7:3001")]
    Advertise { url: String },
    #[error(
        "refusing to serve on {address}: there is no TLS, and others than this machine could use it; \
         take a loopback address, or add --insecure if the network in front of it is trusted"
    )]
    Exposed { address: SocketAddr },
}

impl Args {
    /// Checks the flags and fills in what was not given.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn check(&self) -> Result<Options, Invalid> {
        let node_id = self.node_id.clone().unwrap_or_else(host_name);
        let options = Options {
            control: self.control.iter().map(|url| control(url)).collect::<Result<_, _>>()?,
            listen: self.listen,
            admin: self.admin,
            cache_dir: self.cache_dir.clone().or_else(|| cache_dir(&node_id, |name| env::var_os(name))),
            labels: labels(&self.labels)?,
            advertise: self.advertise.as_deref().map(advertise).transpose()?,
            allowed_hosts: self.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allowed_origins: self.allowed_origins.clone(),
            metrics: None,
            node_id,
        };
        if !is_node_id(&options.node_id) {
            return Err(Invalid::NodeId { id: options.node_id });
        }
        match [options.listen, options.admin].into_iter().find(|address| !address.ip().is_loopback()) {
            Some(address) if !self.insecure => Err(Invalid::Exposed { address }),
            _ => Ok(options),
        }
    }
}

impl Options {
    /// Where clients reach a node that is bound to `bound`.
    pub fn mcp_url(&self, bound: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| reachable(bound))
    }

    /// Where operators reach it.
    pub fn admin_url(&self, bound: SocketAddr) -> String {
        reachable(bound)
    }
}

/// A URL for an address; every address of the host is the host.
fn reachable(bound: SocketAddr) -> String {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("http://{}:{}", host_name(), bound.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("http://{}:{}", host_name(), bound.port()),
        _ => format!("http://{bound}"),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_node_id(id: &str) -> bool {
    matches!(id.len(), 1..=NODE_ID_BYTES_MAX)
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn control(url: &str) -> Result<Uri, Invalid> {
    let invalid = || Invalid::Control { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) if matches!(uri.path(), "" | "/") && uri.query().is_none() => Ok(uri),
        (Some("https"), Some(_)) => Err(Invalid::ControlTls { url: url.to_owned() }),
        _ => Err(invalid()),
    }
}

fn advertise(url: &str) -> Result<String, Invalid> {
    match url::Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(Invalid::Advertise { url: url.to_owned() }),
    }
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let is_label = |text: &str| {
        text.len() <= LABEL_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
    };
    let mut labels = BTreeMap::new();
    for label in given {
        let (key, value) = label
            .split_once('=')
            .filter(|(key, value)| !key.is_empty() && is_label(key) && is_label(value))
            .ok_or_else(|| Invalid::Label { label: label.clone() })?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Invalid::LabelTwice { key: key.to_owned() });
        }
    }
    if labels.len() > LABELS_MAX {
        return Err(Invalid::Labels { count: labels.len() });
    }
    Ok(labels)
}

/// Where a service manager or the user's environment says that caches are.
fn cache_dir(node_id: &str, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("CACHE_DIRECTORY").map(|dir| dir.join(node_id)).or_else(|| {
        let base = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")))?;
        Some(base.join("magictunnel").join(node_id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &[&str]) -> Result<Options, Invalid> {
        let flags = ["mt-dataplane", "--node-id", "n1"].iter().chain(flags);
        Args::try_parse_from(flags).unwrap().check()
    }

    #[test]
    fn other_machines_are_served_only_when_told_so() {
        let exposed = Invalid::Exposed { address: "0.0.0.0:3001".parse().unwrap() };
        assert_eq!(check(&["--listen", "0.0.0.0:3001"]).err(), Some(exposed));
        assert!(check(&["--admin", "[::]:9901"]).is_err());
        assert!(check(&["--listen", "0.0.0.0:3001", "--insecure"]).is_ok());
        assert!(check(&["--listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn labels_are_pairs_and_unique() {
        let options = check(&["--label", "region=eu", "--label", "tier="]).unwrap();
        assert_eq!(options.labels["region"], "eu");
        assert_eq!(options.labels["tier"], "");
        assert_eq!(check(&["--label", "a=1,a=2"]).err(), Some(Invalid::LabelTwice { key: "a".into() }));
        for label in ["a", "=b", "a=b c", &format!("a={}", "x".repeat(64))] {
            assert_eq!(
                check(&["--label", label]).err(),
                Some(Invalid::Label { label: label.into() }),
                "{label}"
            );
        }
    }

    #[test]
    fn several_control_planes_may_be_given() {
        let options = check(&["--control", "http://a:7001,http://b:7001/"]).unwrap();
        assert_eq!(options.control.len(), 2);
        assert!(matches!(check(&["--control", "https://a:7001"]).err(), Some(Invalid::ControlTls { .. })));
        for url in ["a:7001", "http://a/path", "ftp://a"] {
            assert_eq!(check(&["--control", url]).err(), Some(Invalid::Control { url: url.into() }));
        }
    }

    #[test]
    fn what_clients_are_told_is_where_they_get_in() {
        let options = check(&[]).unwrap();
        assert_eq!(options.mcp_url("127.0.0.1:3001".parse().unwrap()), "http://127.0.0.1:3001");
        assert_eq!(options.mcp_url("0.0.0.0:3001".parse().unwrap()), format!("http://{}:3001", host_name()));
        let options = check(&["--advertise", "https://mcp.example.com/"]).unwrap();
        assert_eq!(options.mcp_url("127.0.0.1:1".parse().unwrap()), "https://mcp.example.com");
        assert!(check(&["--advertise", "mcp.example.com"]).is_err());
    }

    #[test]
    fn node_ids_are_file_names_too() {
        for (id, ok) in [("n1", true), ("a.b-c_d", true), ("", false), ("a/b", false), ("a b", false)] {
            assert_eq!(is_node_id(id), ok, "{id:?}");
        }
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let with = |known: &'static [(&str, &str)]| {
            cache_dir("n1", move |name| {
                known.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.cache/magictunnel/n1".into()));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/magictunnel/n1".into()));
        assert_eq!(with(&[("CACHE_DIRECTORY", "/var/cache/mt")]), Some("/var/cache/mt/n1".into()));
    }
}
