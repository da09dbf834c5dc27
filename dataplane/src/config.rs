//! How a node is told what to be: flags and environment, checked once.
//!
//! Nothing about gateways or backends is in here: that comes from the control
//! plane, and only from there.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use clap::Parser;
use http::Uri;
use metrics_exporter_prometheus::PrometheusHandle;
use mt_proto::resource::ResourceName;

use crate::{gateway::logging::MESSAGES_PER_MINUTE, node::Settings};

/// Where a control plane is, unless told otherwise.
pub const CONTROL: &str = "http://127.0.0.1:7001";
/// Where clients are served, unless told otherwise.
pub const LISTEN: &str = "127.0.0.1:3001";
/// Where operators are served, unless told otherwise.
pub const ADMIN: &str = "127.0.0.1:9901";
/// Nodes that serve one client each come and go: their ports must not collide.
const FREE_PORT: &str = "127.0.0.1:0";
/// The gateway of a client on stdin, unless told otherwise.
const DEFAULT_GATEWAY: &str = "default";
/// Where other nodes are served, unless told otherwise.
pub const RELAY: &str = "127.0.0.1:0";
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
    /// Where clients are served; port 0 takes a free one [default: 127.0.0.1:3001, nowhere with --stdio]
    #[arg(long, env = "MT_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where operators are served: /livez, /readyz, /metrics, /config_dump [default: 127.0.0.1:9901,
    /// a free port with --stdio]
    #[arg(long, env = "MT_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Serve the client that has started this command, on stdin and stdout; end when it closes stdin
    #[arg(long)]
    stdio: bool,
    /// Which gateway that client gets
    #[arg(long, env = "MT_GATEWAY", value_name = "NAME", default_value = DEFAULT_GATEWAY, requires = "stdio")]
    gateway: String,
    /// Where the other nodes of the fleet are served; port 0 takes a free one
    #[arg(long, env = "MT_RELAY_LISTEN", value_name = "ADDRESS", default_value = RELAY)]
    relay_listen: SocketAddr,
    /// URL under which the other nodes reach this one [default: the listening address]
    #[arg(long, env = "MT_RELAY_ADVERTISE", value_name = "URL")]
    relay_advertise: Option<String>,
    /// Where the last good configuration is kept [default: magictunnel/ID in the user's cache directory]
    #[arg(long, env = "MT_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Directory beneath which the files of resources are; nothing outside of it is read
    #[arg(long, env = "MT_FILES_DIR", value_name = "DIR", default_value = ".")]
    files_dir: PathBuf,
    /// Log messages of one logger that a client gets in a minute; 0 is no limit
    #[arg(long, env = "MT_LOG_MESSAGES_PER_MINUTE", value_name = "N", default_value_t = MESSAGES_PER_MINUTE)]
    log_messages_per_minute: u32,
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
    /// None: no client is served over HTTP.
    pub listen: Option<SocketAddr>,
    pub admin: SocketAddr,
    /// The gateway of the client on stdin, if there is one.
    pub stdio: Option<ResourceName>,
    /// For the other nodes of the fleet.
    pub relay_listen: SocketAddr,
    /// None: the address that was bound.
    pub relay_advertise: Option<String>,
    /// None: nothing is kept, and a start needs the control plane.
    pub cache_dir: Option<PathBuf>,
    pub settings: Settings,
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
    #[error("{name:?} is not the name of a gateway")]
    Gateway { name: String },
    #[error("{url:?} is not a URL that clients can use, such as http://10.0.0.7:3001")]
    Advertise { url: String },
    #[error("{url:?} is not a URL that other nodes can use, such as http://10.0.0.7:3002")]
    RelayAdvertise { url: String },
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
        let node_id = self.node_id.clone().unwrap_or_else(|| match self.stdio {
            // Several may run on one host, beside a node that serves others.
            true => format!("{}-stdio-{}", host_name(), std::process::id()),
            false => host_name(),
        });
        // They share what was kept: who comes second goes without.
        let kept_by = if self.stdio && self.node_id.is_none() { "stdio" } else { &node_id };
        let stdio = self.stdio.then(|| gateway(&self.gateway)).transpose()?;
        let fixed = |address: &str| address.parse().expect("it is an address");
        let (listen, admin) = match self.stdio {
            true => (None, fixed(FREE_PORT)),
            false => (Some(fixed(LISTEN)), fixed(ADMIN)),
        };
        let options = Options {
            control: self.control.iter().map(|url| control(url)).collect::<Result<_, _>>()?,
            listen: self.listen.or(listen),
            admin: self.admin.unwrap_or(admin),
            stdio,
            relay_listen: self.relay_listen,
            relay_advertise: self.relay_advertise.as_deref().map(relay_advertise).transpose()?,
            cache_dir: self.cache_dir.clone().or_else(|| cache_dir(kept_by, |name| env::var_os(name))),
            settings: Settings {
                files_dir: self.files_dir.clone(),
                log_messages_per_minute: NonZeroU32::new(self.log_messages_per_minute),
            },
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
        let addresses = [options.listen, Some(options.admin), Some(options.relay_listen)];
        match addresses.into_iter().flatten().find(|address| !address.ip().is_loopback()) {
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

    /// Where the other nodes reach it.
    pub fn relay_url(&self, bound: SocketAddr) -> String {
        self.relay_advertise.clone().unwrap_or_else(|| reachable(bound))
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

/// The path to a node has no TLS of its own yet.
fn relay_advertise(url: &str) -> Result<String, Invalid> {
    match url::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() && parsed.path() == "/" => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(Invalid::RelayAdvertise { url: url.to_owned() }),
    }
}

fn gateway(name: &str) -> Result<ResourceName, Invalid> {
    name.parse().map_err(|_| Invalid::Gateway { name: name.to_owned() })
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
        assert!(check(&["--relay-listen", "0.0.0.0:3002"]).is_err());
        assert!(check(&["--listen", "0.0.0.0:3001", "--insecure"]).is_ok());
        assert!(check(&["--listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn a_node_for_the_client_on_stdin_takes_no_port_that_another_may_have() {
        let options = check(&["--stdio", "--gateway", "team"]).unwrap();
        assert_eq!((options.listen, options.admin.port()), (None, 0));
        assert_eq!(options.stdio.unwrap().as_str(), "team");
        assert!(check(&["--stdio", "--listen", "127.0.0.1:0"]).unwrap().listen.is_some());
        assert!(check(&[]).unwrap().stdio.is_none());
        assert!(check(&["--stdio", "--gateway", "Not One"]).is_err());
        assert!(Args::try_parse_from(["mt-dataplane", "--gateway", "team"]).is_err());
        let alone = Args::try_parse_from(["mt-dataplane", "--stdio"]).unwrap().check().unwrap();
        assert!(alone.node_id.contains("-stdio-"), "{}", alone.node_id);
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
    fn other_nodes_are_told_where_the_relay_is() {
        let options = check(&["--relay-advertise", "http://10.0.0.7:3002/"]).unwrap();
        assert_eq!(options.relay_url("127.0.0.1:1".parse().unwrap()), "http://10.0.0.7:3002");
        assert_eq!(check(&[]).unwrap().relay_url("127.0.0.1:1".parse().unwrap()), "http://127.0.0.1:1");
        for url in ["10.0.0.7:3002", "https://a:1", "http://a:1/x"] {
            assert!(check(&["--relay-advertise", url]).is_err(), "{url}");
        }
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
