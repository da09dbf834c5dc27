//! The revisions of MCP and what each one has, as a table that is asked by
//! predicates.
//!
//! No other file compares dates. A new revision is a new row.

use std::fmt;

/// A dated revision. Ordered by date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

use ProtocolVersion::*;

/// The two ways of speaking MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize`, sessions, requests from server to client.
    Legacy,
    /// Every request stands alone; `server/discover`.
    Modern,
}

/// Every revision, newest first.
pub const ALL: [ProtocolVersion; 5] = [V2026_07_28, V2025_11_25, V2025_06_18, V2025_03_26, V2024_11_05];
/// What `initialize` can agree on, newest first.
pub const LEGACY: [ProtocolVersion; 4] = [V2025_11_25, V2025_06_18, V2025_03_26, V2024_11_05];
/// What `server/discover` lists, newest first.
pub const MODERN: [ProtocolVersion; 1] = [V2026_07_28];
/// Offered to backends in `initialize`, and answered to clients that ask for
/// something else.
pub const LATEST_LEGACY: ProtocolVersion = V2025_11_25;
/// Offered to backends in `server/discover`.
pub const LATEST_MODERN: ProtocolVersion = V2026_07_28;
/// What an HTTP request of a legacy client speaks when it does not say
/// (2025-06-18, Transports, "Protocol Version Header").
pub const ASSUMED: ProtocolVersion = V2025_03_26;

/// What legacy `initialize` answers to a requested revision: the same if we
/// speak it, otherwise our latest legacy one. There is no `initialize` in
/// 2026-07-28, so asking for it (or for a date to come) also gets that.
pub fn negotiate(requested: &str) -> ProtocolVersion {
    match ProtocolVersion::parse(requested) {
        Some(version) if version.era() == Era::Legacy => version,
        _ => LATEST_LEGACY,
    }
}

impl ProtocolVersion {
    pub fn parse(text: &str) -> Option<Self> {
        ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            V2024_11_05 => "2024-11-05",
            V2025_03_26 => "2025-03-26",
            V2025_06_18 => "2025-06-18",
            V2025_11_25 => "2025-11-25",
            V2026_07_28 => "2026-07-28",
        }
    }

    pub const fn era(self) -> Era {
        match self {
            V2024_11_05 | V2025_03_26 | V2025_06_18 | V2025_11_25 => Era::Legacy,
            V2026_07_28 => Era::Modern,
        }
    }

    pub fn is_modern(self) -> bool {
        self.era() == Era::Modern
    }

    const fn traits(self) -> Traits {
        match self {
            V2024_11_05 => Traits {
                streamable_http: false,
                version_header: false,
                batch: false,
                polls_sse: false,
                structured_content: false,
                resource_links: false,
                audio: false,
                elicitation: false,
                url_elicitation: false,
                sampling_tools: false,
                core_tasks: false,
                completions_capability: false,
            },
            V2025_03_26 => Traits {
                streamable_http: true,
                batch: true,
                audio: true,
                completions_capability: true,
                ..V2024_11_05.traits()
            },
            V2025_06_18 => Traits {
                version_header: true,
                batch: false,
                structured_content: true,
                resource_links: true,
                elicitation: true,
                ..V2025_03_26.traits()
            },
            V2025_11_25 => Traits {
                polls_sse: true,
                url_elicitation: true,
                sampling_tools: true,
                core_tasks: true,
                ..V2025_06_18.traits()
            },
            V2026_07_28 => Traits { polls_sse: false, core_tasks: false, ..V2025_11_25.traits() },
        }
    }

    /// `initialize`, session ids, GET streams, DELETE.
    pub fn has_sessions(self) -> bool {
        self.era() == Era::Legacy
    }

    /// A server may send requests to the client. Otherwise it answers
    /// `input_required` and the client asks again.
    pub fn has_server_requests(self) -> bool {
        self.era() == Era::Legacy
    }

    /// A lost stream can be taken up with `Last-Event-ID`.
    pub fn has_resumption(self) -> bool {
        self.era() == Era::Legacy && self.traits().streamable_http
    }

    /// Over HTTP, closing the response's stream cancels the call. Otherwise a
    /// disconnect says nothing, and the call goes on.
    pub fn disconnect_cancels(self) -> bool {
        self.era() == Era::Modern
    }

    /// Each request says its version, client and capabilities in `_meta`.
    pub fn requires_request_meta(self) -> bool {
        self.era() == Era::Modern
    }

    /// `Mcp-Method` and `Mcp-Name` accompany each HTTP request.
    pub fn requires_method_headers(self) -> bool {
        self.era() == Era::Modern
    }

    /// `resultType` on each result, `ttlMs` and `cacheScope` on the cacheable.
    pub fn requires_result_type(self) -> bool {
        self.era() == Era::Modern
    }

    /// Log messages are asked for by each request, not by `logging/setLevel`.
    pub fn has_request_log_level(self) -> bool {
        self.era() == Era::Modern
    }

    /// An unknown resource is `-32002`; otherwise `-32602`.
    pub fn has_resource_not_found_code(self) -> bool {
        self.era() == Era::Legacy
    }

    /// An unknown method is also an HTTP 404.
    pub fn unknown_method_is_http_404(self) -> bool {
        self.era() == Era::Modern
    }

    /// `capabilities.extensions` is defined.
    pub fn has_extensions(self) -> bool {
        self.era() == Era::Modern
    }

    /// One endpoint for POST; otherwise HTTP+SSE with two.
    pub fn has_streamable_http(self) -> bool {
        self.traits().streamable_http
    }

    /// `MCP-Protocol-Version` on each HTTP request (after `initialize`).
    pub fn requires_version_header(self) -> bool {
        self.traits().version_header
    }

    /// A body may be an array of messages.
    pub fn allows_batch(self) -> bool {
        self.traits().batch
    }

    /// A stream starts with a priming event and may close early after telling
    /// `retry`; the client comes back with the last event's id.
    pub fn polls_sse(self) -> bool {
        self.traits().polls_sse
    }

    /// `structuredContent` and `outputSchema`.
    pub fn has_structured_content(self) -> bool {
        self.traits().structured_content
    }

    /// `resource_link` as content.
    pub fn has_resource_links(self) -> bool {
        self.traits().resource_links
    }

    /// `audio` as content.
    pub fn has_audio(self) -> bool {
        self.traits().audio
    }

    /// `elicitation/create`.
    pub fn has_elicitation(self) -> bool {
        self.traits().elicitation
    }

    /// Elicitation with `mode: url`.
    pub fn has_url_elicitation(self) -> bool {
        self.traits().url_elicitation
    }

    /// `tools` and `toolChoice` in `sampling/createMessage`.
    pub fn has_sampling_tools(self) -> bool {
        self.traits().sampling_tools
    }

    /// Tasks as part of the core (`capabilities.tasks`), not as an extension.
    pub fn has_core_tasks(self) -> bool {
        self.traits().core_tasks
    }

    /// `capabilities.completions`.
    pub fn has_completions_capability(self) -> bool {
        self.traits().completions_capability
    }
}

struct Traits {
    streamable_http: bool,
    version_header: bool,
    batch: bool,
    polls_sse: bool,
    structured_content: bool,
    resource_links: bool,
    audio: bool,
    elicitation: bool,
    url_elicitation: bool,
    sampling_tools: bool,
    core_tasks: bool,
    completions_capability: bool,
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_agrees_on_what_we_speak_or_on_our_latest() {
        for version in LEGACY {
            assert_eq!(negotiate(version.as_str()), version);
        }
        for requested in ["2026-07-28", "2027-01-01", "2024-10-07", "", "latest"] {
            assert_eq!(negotiate(requested), V2025_11_25, "{requested}");
        }
    }

    #[test]
    fn every_revision_is_written_as_it_is_read_and_has_one_era() {
        for version in ALL {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(version));
            assert_eq!(LEGACY.contains(&version), version.era() == Era::Legacy);
            assert_eq!(MODERN.contains(&version), version.era() == Era::Modern);
        }
        assert!(ALL.is_sorted_by(|newer, older| newer > older));
    }

    /// The rows of the matrix, newest first.
    #[test]
    fn the_table_says_what_the_specifications_say() {
        let row = |has: fn(ProtocolVersion) -> bool| ALL.map(has);
        assert_eq!(row(ProtocolVersion::has_sessions), [false, true, true, true, true]);
        assert_eq!(row(ProtocolVersion::disconnect_cancels), [true, false, false, false, false]);
        assert_eq!(row(ProtocolVersion::allows_batch), [false, false, false, true, false]);
        assert_eq!(row(ProtocolVersion::requires_version_header), [true, true, true, false, false]);
        assert_eq!(row(ProtocolVersion::polls_sse), [false, true, false, false, false]);
        assert_eq!(row(ProtocolVersion::has_resumption), [false, true, true, true, false]);
        assert_eq!(row(ProtocolVersion::has_streamable_http), [true, true, true, true, false]);
        assert_eq!(row(ProtocolVersion::has_structured_content), [true, true, true, false, false]);
        assert_eq!(row(ProtocolVersion::has_resource_links), [true, true, true, false, false]);
        assert_eq!(row(ProtocolVersion::has_audio), [true, true, true, true, false]);
        assert_eq!(row(ProtocolVersion::has_elicitation), [true, true, true, false, false]);
        assert_eq!(row(ProtocolVersion::has_url_elicitation), [true, true, false, false, false]);
        assert_eq!(row(ProtocolVersion::has_sampling_tools), [true, true, false, false, false]);
        assert_eq!(row(ProtocolVersion::has_core_tasks), [false, true, false, false, false]);
        assert_eq!(row(ProtocolVersion::has_resource_not_found_code), [false, true, true, true, true]);
    }
}
