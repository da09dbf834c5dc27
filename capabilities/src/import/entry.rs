//! One server of any format, as a Backend.
//!
//! The formats differ in where the entries stand and in a few words; their
//! entries are read alike, because people copy them from one to another.

use mt_proto::{
    pb::resource::{self as pb, backend::Transport, resource::Spec},
    resource::{is_env_name, is_protocol_header},
};

use super::{Importer, Outcome, managed, reference::references};
use crate::node::Node;

/// What is known about an entry before it is read.
#[derive(Clone, Copy, Default)]
pub struct Context {
    /// The transport, where the format says it outside of the entry.
    pub transport: Option<&'static str>,
    /// Whether `timeout` and such are seconds; elsewhere nobody knows the unit.
    pub seconds: bool,
    /// Switched off by something outside of the entry.
    pub disabled: bool,
}

/// Settings of an entry that are known, with why they are left out.
const LEFT_OUT: [(&[&str], &str); 5] = [
    (&["autoApprove", "alwaysAllow", "trust", "autoStart"], "clients decide that, each for itself"),
    (
        &["tool_filters", "disabledTools", "allowedTools", "includeTools", "excludeTools", "enabledTools"],
        "set `include` and `exclude` of the gateway's member instead",
    ),
    (
        &[
            "weight",
            "fallback",
            "health_check",
            "auth_required",
            "approval_required",
            "monitoring",
            "retry_attempts",
            "retry_delay_ms",
            "max_idle_connections",
            "idle_timeout",
        ],
        "no node of this version follows it",
    ),
    (
        &["reconnect", "reconnect_delay_ms", "max_reconnect_delay_ms", "heartbeat_interval"],
        "nodes do so by themselves",
    ),
    (&["envFile", "env_file"], "put its variables into `env`"),
];

/// What an entry says.
#[derive(Default)]
struct Draft<'a> {
    command: Option<&'a str>,
    args: Vec<String>,
    env: Vec<pb::EnvVar>,
    cwd: &'a str,
    url: Option<&'a str>,
    headers: Vec<pb::Header>,
    transport: Option<String>,
    description: &'a str,
    disabled: bool,
    call_timeout: Option<prost_types::Duration>,
    connect_timeout: Option<prost_types::Duration>,
    single_session: bool,
    queue_max: u32,
}

/// The most that a line may hold.
const QUEUE_MAX: u32 = 10_000;

/// How a server behind a URL is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remote {
    Http,
    Sse,
    WebSocket,
}

impl Remote {
    /// As far as the URL tells, where nothing else does.
    fn of(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "ws" | "wss" => Self::WebSocket,
            _ if path.trim_end_matches('/').ends_with("/sse") => Self::Sse,
            _ => Self::Http,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Sse => "HTTP+SSE",
            Self::WebSocket => "WebSocket",
        }
    }
}

impl Importer {
    /// Reads an entry and gives the name of its backend, if it became one.
    pub(super) fn entry(&mut self, name: &str, node: &Node, context: Context) -> Option<String> {
        let from = self.notes.len();
        match self.backend(name, node, context) {
            Ok((ours, becomes)) => {
                self.conclude(from, name, Outcome::Taken, becomes);
                Some(ours)
            }
            Err(why) => {
                self.conclude(from, name, Outcome::KeptOut, why);
                None
            }
        }
    }

    /// The name of the backend and how it is described, or why there is none.
    fn backend(&mut self, name: &str, node: &Node, context: Context) -> Result<(String, String), String> {
        let draft = self.draft(name, node, context);
        let draft =
            draft.ok_or_else(|| format!("the entry must be an object, but this is {}", node.what()))?;
        let Draft { description, call_timeout, disabled, single_session, queue_max, .. } = draft;
        let (transport, how) = self.transport(name, draft, context)?;
        let ours = self.names.take(name);
        let backend = pb::Backend {
            transport: Some(transport),
            disabled,
            description: description.to_owned(),
            call_timeout,
            single_session: single_session
                .then(|| pb::SingleSession { queue_max: queue_max.min(QUEUE_MAX), ..Default::default() }),
            ..Default::default()
        };
        self.keep(managed(&ours, Spec::Backend(backend)))?;
        let off = if disabled { ", switched off as in the file" } else { "" };
        let becomes = format!("becomes backend/{ours}, {how}{off}");
        Ok((ours, becomes))
    }

    fn draft<'a>(&mut self, name: &str, node: &'a Node, context: Context) -> Option<Draft<'a>> {
        let mut draft = Draft { disabled: context.disabled, ..Default::default() };
        let mut unknown = Vec::new();
        for entry in node.as_map()? {
            let (key, value) = (entry.key.as_str(), &entry.value);
            let text = value.as_text();
            match key {
                _ if value.is_null() => {}
                "command" => draft.command = text,
                "args" => draft.args = self.args(name, value),
                "env" => draft.env = self.env(name, value),
                "cwd" | "workingDirectory" | "working_directory" => draft.cwd = text.unwrap_or_default(),
                "url" | "serverUrl" | "httpUrl" | "uri" | "endpoint" | "base_url" | "baseUrl" => {
                    draft.url = text
                }
                "headers" => draft.headers.extend(self.headers(name, value)),
                "auth" => draft.headers.extend(self.auth(name, value)),
                "type" | "transport" | "transportType" => draft.transport = text.map(str::to_owned),
                "disabled" => draft.disabled |= value.as_bool() == Some(true),
                "enabled" => draft.disabled |= value.as_bool() == Some(false),
                "single_session" => draft.single_session = value.as_bool() == Some(true),
                "max_queue_size" => {
                    draft.queue_max = text.and_then(|text| text.parse().ok()).unwrap_or_default()
                }
                "description" => draft.description = text.unwrap_or_default(),
                "name" | "title" if draft.description.is_empty() && text != Some(name) => {
                    draft.description = text.unwrap_or_default();
                }
                "name" | "title" => {}
                "timeout" | "request_timeout" if context.seconds => {
                    draft.call_timeout = self.seconds(name, key, value, 300);
                }
                "connection_timeout" if context.seconds => {
                    draft.connect_timeout = self.seconds(name, key, value, 60);
                }
                key => unknown.push(key),
            }
        }
        for (known, why) in LEFT_OUT {
            let found: Vec<&str> = unknown.extract_if(.., |key| known.contains(key)).collect();
            self.left_out(name, &found, why);
        }
        self.left_out(name, &unknown, "nothing here corresponds to it");
        Some(draft)
    }

    /// The transport and how it is described, or why there is none.
    fn transport(
        &mut self,
        name: &str,
        mut draft: Draft<'_>,
        context: Context,
    ) -> Result<(Transport, String), String> {
        let said = draft.transport.take().or_else(|| context.transport.map(str::to_owned));
        let said = said.map(|said| said.to_ascii_lowercase().replace(['-', '_', '+'], ""));
        let mut remote = None;
        match said.as_deref() {
            None | Some("auto") => {}
            Some("stdio" | "local" | "subprocess") => draft.url = None,
            Some("remote") => draft.command = None,
            Some("http" | "streamablehttp" | "streamable") => remote = Some(Remote::Http),
            Some("sse" | "httpsse") => remote = Some(Remote::Sse),
            Some("ws" | "websocket") => remote = Some(Remote::WebSocket),
            Some(other) => {
                return Err(format!("the transport `{}` is not known here", other));
            }
        }
        if remote.is_some() {
            draft.command = None;
        }
        match (draft.command, draft.url) {
            (Some(command), None) => Ok(self.stdio(name, command, draft)),
            (None, Some(url)) => {
                let remote = remote.unwrap_or_else(|| Remote::of(url));
                self.remote(name, remote, url, draft)
            }
            (Some(_), Some(_)) => Err("it has both a command and a url; keep one of them".into()),
            (None, None) => Err("it has neither a command nor a url".into()),
        }
    }

    fn stdio(&mut self, name: &str, command: &str, draft: Draft<'_>) -> (Transport, String) {
        let mut args = draft.args;
        let mut command = command.to_owned();
        if !command.trim_start().starts_with(['/', '.', '~']) && !command.contains('\\') {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            if words.len() > 1 {
                args.splice(0..0, words[1..].iter().cloned());
                command.clone_from(&words[0]);
                let text = "the command is a line of several words: the first is the program, the others are its arguments";
                self.note(name, Outcome::Changed, text.into());
            }
        }
        for (what, text) in [("command", command.as_str()), ("cwd", draft.cwd)] {
            self.not_filled_in(name, what, text);
        }
        if !draft.headers.is_empty() {
            self.left_out(name, &["headers"], "a process gets no headers");
        }
        let how = format!("run as `{}`", command);
        let stdio = pb::StdioTransport {
            command,
            args,
            env: draft.env,
            cwd: draft.cwd.to_owned(),
            ..Default::default()
        };
        (Transport::Stdio(stdio), how)
    }

    fn remote(
        &mut self,
        name: &str,
        remote: Remote,
        url: &str,
        draft: Draft<'_>,
    ) -> Result<(Transport, String), String> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        if matches!(scheme.as_str(), "consul" | "etcd" | "dns" | "srv") {
            return Err(format!(
                "its address is looked up in {scheme}, which no node of this version can; write the address as a url"
            ));
        }
        if url.contains("${") {
            return Err("its url has a reference in it, which is not filled in; write the whole url".into());
        }
        let wanted = match (remote, scheme.as_str()) {
            (Remote::WebSocket, "http") => Some("ws"),
            (Remote::WebSocket, "https") => Some("wss"),
            (Remote::Http | Remote::Sse, "ws") => Some("http"),
            (Remote::Http | Remote::Sse, "wss") => Some("https"),
            _ => None,
        };
        let url = match wanted {
            Some(wanted) => {
                let text = format!(
                    "the url begins with `{wanted}://` now, as a server over {} has it",
                    remote.name()
                );
                self.note(name, Outcome::Changed, text);
                format!("{wanted}{}", &url[scheme.len()..])
            }
            None => url.to_owned(),
        };
        let host = url::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let how = format!("reached over {} at {}", remote.name(), host.unwrap_or_default());
        let http = pb::HttpTransport {
            url,
            headers: draft.headers,
            connect_timeout: draft.connect_timeout,
            ..Default::default()
        };
        let transport = match remote {
            Remote::Http => Transport::Http(http),
            Remote::Sse => Transport::Sse(http),
            Remote::WebSocket => Transport::Websocket(http),
        };
        Ok((transport, how))
    }

    fn args(&mut self, name: &str, node: &Node) -> Vec<String> {
        let Some(items) = node.as_list() else {
            self.left_out(name, &["args"], "it must be a list");
            return Vec::new();
        };
        let args: Vec<String> = items.iter().filter_map(Node::as_text).map(str::to_owned).collect();
        if args.len() < items.len() {
            self.note(name, Outcome::Changed, "arguments that are not texts are left out".into());
        }
        for (i, arg) in args.iter().enumerate() {
            self.not_filled_in(name, &format!("args[{i}]"), arg);
        }
        args
    }

    fn not_filled_in(&mut self, name: &str, what: &str, text: &str) {
        if !references(text).is_empty() {
            let text = format!(
                "`{what}` has a reference in it, which is not filled in: only the values of `env` and `headers` can be secrets"
            );
            self.note(name, Outcome::Changed, text);
        }
    }

    fn env(&mut self, name: &str, node: &Node) -> Vec<pb::EnvVar> {
        let mut env = Vec::new();
        for (variable, text) in self.texts(name, "env", node) {
            if is_env_name(variable) {
                let value = Some(self.value(name, variable, text));
                env.push(pb::EnvVar { name: variable.to_owned(), value });
            } else {
                self.left_out(name, &[variable], "this is no name of a variable");
            }
        }
        env
    }

    fn headers(&mut self, name: &str, node: &Node) -> Vec<pb::Header> {
        let mut headers = Vec::new();
        for (header, text) in self.texts(name, "headers", node) {
            if is_protocol_header(&header.to_ascii_lowercase()) {
                self.left_out(name, &[header], "nodes send this header as the protocol asks");
            } else {
                let value = Some(self.value(name, header, text));
                headers.push(pb::Header { name: header.to_owned(), value });
            }
        }
        headers
    }

    /// The entries of an object of texts.
    fn texts<'a>(&mut self, name: &str, what: &str, node: &'a Node) -> Vec<(&'a str, &'a str)> {
        let Some(entries) = node.as_map() else {
            self.left_out(name, &[what], "it must be an object");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            match entry.value.as_text() {
                Some(text) => texts.push((entry.key.as_str(), text)),
                None => self.left_out(name, &[&entry.key], "its value is not a text"),
            }
        }
        texts
    }

    /// The header that an `auth` block stands for.
    fn auth(&mut self, name: &str, node: &Node) -> Option<pb::Header> {
        let text = |key: &str| node.get(key).and_then(Node::as_text);
        let (header, value) = match (text("type"), text("token"), text("key")) {
            (Some("bearer"), Some(token), _) => ("Authorization", format!("Bearer {token}")),
            (Some("api_key"), _, Some(key)) => (text("header").unwrap_or("X-API-Key"), key.to_owned()),
            (None | Some("none"), ..) => return None,
            (Some(other), ..) => {
                let why = format!("`{}` is not a way to authenticate that is known here", other);
                self.left_out(name, &["auth"], &why);
                return None;
            }
        };
        let value = Some(self.value(name, header, &value));
        Some(pb::Header { name: header.to_owned(), value })
    }

    fn seconds(&mut self, name: &str, key: &str, node: &Node, most: i64) -> Option<prost_types::Duration> {
        let seconds: i64 = match node.as_text().and_then(|text| text.parse().ok()) {
            Some(seconds) if seconds >= 1 => seconds,
            _ => {
                self.left_out(name, &[key], "it is not a number of seconds");
                return None;
            }
        };
        if seconds > most {
            self.note(name, Outcome::Changed, format!("`{key}` becomes {most} seconds, which is the most"));
        }
        Some(prost_types::Duration { seconds: seconds.min(most), nanos: 0 })
    }
}
