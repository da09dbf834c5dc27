//! What is sent, and how its answer is told from everybody else's. Pure.

use memchr::memmem;

/// The last revision with sessions, and the one without.
pub const LEGACY: &str = "2025-11-25";
pub const MODERN: &str = "2026-07-28";

/// Which revision the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// With a session for each connection.
    Legacy,
    Modern,
}

/// How the client reaches the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Http,
    WebSocket,
    Grpc,
}

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A call that answers with its arguments, among them a text of so many bytes.
    Echo(usize),
    /// A call that reports so often before it answers.
    Progress(u32),
    /// A call that answers with so many links.
    Links(u32),
    /// A resource.
    Read,
    /// The tools, of which there must be so many.
    List(usize),
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub path: &'static str,
    pub via: Via,
    pub era: Era,
    pub what: What,
    /// Ask for progress, with the same tokens on every connection.
    pub progress: bool,
    /// What stands before the tools' own names.
    pub prefix: &'static str,
    /// What stands before URIs where members are told apart.
    pub wrapped: &'static str,
}

pub const DEFAULT: &str = "/mcp";

impl Case {
    pub const fn new(name: &'static str, era: Era, what: What) -> Self {
        let progress = matches!(what, What::Progress(_));
        Self { name, path: DEFAULT, via: Via::Http, era, what, progress, prefix: "", wrapped: "" }
    }

    pub const fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub const fn method(&self) -> &'static str {
        match self.what {
            What::Echo(_) | What::Progress(_) | What::Links(_) => "tools/call",
            What::Read => "resources/read",
            What::List(_) => "tools/list",
        }
    }

    pub const fn version(&self) -> &'static str {
        match self.era {
            Era::Legacy => LEGACY,
            Era::Modern => MODERN,
        }
    }

    fn tool(&self) -> Option<&'static str> {
        match self.what {
            What::Echo(_) => Some("echo"),
            What::Progress(_) => Some("progress"),
            What::Links(_) => Some("links"),
            What::Read | What::List(_) => None,
        }
    }
}

/// What one client asks, one after the other. Ids are the same on all clients.
pub struct Asker {
    pub case: Case,
    number: usize,
    pub id: u64,
    text: String,
}

impl Asker {
    pub fn new(case: Case, number: usize) -> Self {
        let text = match case.what {
            What::Echo(bytes) => "x".repeat(bytes),
            _ => String::new(),
        };
        Self { case, number, id: 0, text }
    }

    /// The next request is another one.
    pub fn advance(&mut self) {
        self.id += 1;
    }

    /// In the present request and its answer, and in no other.
    fn mark(&self) -> String {
        format!("mark-{}-{}.", self.number, self.id)
    }

    /// What the header `Mcp-Name` says.
    pub fn name(&self) -> Option<String> {
        match self.case.what {
            What::Read => Some(self.uri()),
            _ => self.case.tool().map(|tool| format!("{}{tool}", self.case.prefix)),
        }
    }

    fn uri(&self) -> String {
        format!("{}bench://thing/{}", self.case.wrapped, self.mark())
    }

    pub fn arguments(&self) -> String {
        let mark = self.mark();
        match self.case.what {
            What::Progress(events) => format!(r#"{{"mark":"{mark}","events":{events}}}"#),
            What::Links(links) => format!(r#"{{"mark":"{mark}","links":{links}}}"#),
            _ => format!(r#"{{"mark":"{mark}","text":"{}"}}"#, self.text),
        }
    }

    /// The present request.
    pub fn message(&self) -> String {
        let id = self.id;
        let mut meta = Vec::new();
        if self.case.era == Era::Modern {
            meta.push(r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}"#.to_owned());
        }
        if self.case.progress {
            meta.push(format!(r#""progressToken":{id}"#));
        }
        let meta = meta.join(",");
        let params = match self.case.what {
            What::List(_) => String::new(),
            What::Read => format!(r#""uri":"{}","#, self.uri()),
            _ => format!(r#""name":"{}","arguments":{},"#, self.name().unwrap_or_default(), self.arguments()),
        };
        let method = self.case.method();
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}"_meta":{{{meta}}}}}}}"#
        )
    }

    /// Whether all that came back is what was asked for, and nobody else's.
    pub fn is_own(&self, answer: &[u8]) -> bool {
        if let What::List(tools) = self.case.what {
            return memmem::find_iter(answer, br#""inputSchema""#).count() == tools;
        }
        let expected = match self.case.what {
            What::Progress(events) => events as usize + 1,
            What::Links(links) => links as usize,
            _ if self.case.progress => 2,
            _ => 1,
        };
        let own = memmem::find_iter(answer, self.mark().as_bytes()).count();
        let all = memmem::find_iter(answer, b"mark-").count();
        let wrapped = self.case.wrapped.is_empty()
            || memmem::find_iter(answer, self.case.wrapped.as_bytes()).count() == expected;
        own == expected && all == expected && wrapped
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asker(case: Case) -> Asker {
        let mut asker = Asker::new(case, 3);
        asker.advance();
        asker
    }

    #[test]
    fn requests_are_json_with_what_the_era_demands() {
        for what in [What::Echo(8), What::Progress(2), What::Links(2), What::Read, What::List(4)] {
            let modern: Value =
                serde_json::from_str(&asker(Case::new("a", Era::Modern, what)).message()).unwrap();
            let meta = &modern["params"]["_meta"];
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
            assert_eq!(meta["progressToken"].is_u64(), matches!(what, What::Progress(_)));
            let legacy: Value =
                serde_json::from_str(&asker(Case::new("a", Era::Legacy, what)).message()).unwrap();
            assert!(legacy["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_null());
        }
    }

    #[test]
    fn an_answer_of_somebody_else_is_none() {
        let asker = asker(Case::new("a", Era::Legacy, What::Echo(8)));
        let own = json!({"mark": "mark-3-1."}).to_string();
        assert!(asker.is_own(own.as_bytes()));
        assert!(!asker.is_own(own.replace("3-1", "3-11").as_bytes()));
        assert!(!asker.is_own(own.replace("3-1", "4-1").as_bytes()));
        assert!(!asker.is_own(format!("{own}{own}").as_bytes()));
        assert!(!asker.is_own(b"{}"));
    }

    #[test]
    fn what_is_to_be_wrapped_must_be() {
        let case = Case { wrapped: "mt+a+", ..Case::new("a", Era::Legacy, What::Links(2)) };
        let asker = asker(case);
        let links =
            |prefix: &str| format!("{prefix}bench://thing/mark-3-1./0 {prefix}bench://thing/mark-3-1./1");
        assert!(asker.is_own(links("mt+a+").as_bytes()));
        assert!(!asker.is_own(links("").as_bytes()));
    }
}
