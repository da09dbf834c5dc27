//! The way to the control plane: one gRPC channel, and its errors as failures
//! that say what still works and what to try.

use std::{error::Error as _, time::Duration};

use mt_proto::{
    pb::{
        control::{
            self as pb, config_service_client::ConfigServiceClient, fleet_service_client::FleetServiceClient,
        },
        resource::Resource,
    },
    resource::{Kind, ResourceName},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    endpoint::{Origin, Server},
    output::{Exit, Failure},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A commit is durable before it is answered, and a disk may be slow.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A whole configuration may come in one answer.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
const PAGE_SIZE: u32 = 1000;
/// So many pages are read at most; a server that has more is going in circles.
const PAGES_MAX: usize = 1000;

/// A connected control plane.
#[derive(Clone, Debug)]
pub struct Client {
    pub config: ConfigServiceClient<Channel>,
    pub fleet: FleetServiceClient<Channel>,
    server: Server,
}

impl Client {
    /// # Errors
    /// When the control plane cannot be reached.
    pub async fn connect(server: Server) -> Result<Self, Failure> {
        let endpoint = endpoint(&server)?;
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = error.source().map_or_else(|| error.to_string(), deepest);
            unreachable(&server, &cause)
        })?;
        Ok(Self {
            config: ConfigServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            fleet: FleetServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            server,
        })
    }

    /// What a status of this server means to the user.
    pub fn failure(&self, doing: &str, status: &Status) -> Failure {
        failure(&self.server, doing, status)
    }

    /// One resource; none if it is not there.
    ///
    /// # Errors
    /// When the control plane does not answer.
    pub async fn find(
        &mut self,
        kind: Kind,
        name: &str,
        generation: u64,
    ) -> Result<Option<pb::StoredResource>, Failure> {
        let request = pb::GetRequest { r#ref: Some(reference(kind, name)), generation };
        match self.config.get(request).await {
            Ok(answer) => Ok(answer.into_inner().resource),
            // An unknown generation is also NOT_FOUND, and is not the same thing.
            Err(status) if status.code() == Code::NotFound && generation == 0 => Ok(None),
            Err(status) => Err(self.failure(&format!("cannot read {kind}/{name}"), &status)),
        }
    }

    /// All resources of a kind, or of all, with these labels; and the generation they are of.
    ///
    /// # Errors
    /// When the control plane does not answer.
    pub async fn list(
        &mut self,
        kind: Option<Kind>,
        labels: &[(String, String)],
        generation: u64,
    ) -> Result<(Vec<pb::StoredResource>, u64), Failure> {
        let mut resources = Vec::new();
        let mut page_token = String::new();
        let mut at = generation;
        for _ in 0..PAGES_MAX {
            let request = pb::ListRequest {
                kind: kind.map_or(pb::Kind::Unspecified, Kind::to_pb).into(),
                match_labels: labels.iter().cloned().collect(),
                generation: at,
                page_size: PAGE_SIZE,
                page_token,
            };
            let answer = self.config.list(request).await;
            let page = answer.map_err(|status| self.failure("cannot list resources", &status))?.into_inner();
            resources.extend(page.resources);
            at = page.generation;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok((resources, at))
    }

    /// The newest generations, at most `limit`.
    ///
    /// # Errors
    /// When the control plane does not answer.
    pub async fn history(&mut self, limit: usize) -> Result<Vec<pb::Generation>, Failure> {
        let mut generations = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let left = u32::try_from(limit - generations.len()).unwrap_or(u32::MAX);
            let request = pb::HistoryRequest { page_size: left.clamp(1, PAGE_SIZE), page_token };
            let answer = self.config.history(request).await;
            let page =
                answer.map_err(|status| self.failure("cannot read the history", &status))?.into_inner();
            generations.extend(page.generations);
            page_token = page.next_page_token;
            if page_token.is_empty() || generations.len() >= limit {
                break;
            }
        }
        generations.truncate(limit);
        Ok(generations)
    }

    /// # Errors
    /// When the control plane does not answer.
    pub async fn nodes(&mut self) -> Result<pb::ListNodesResponse, Failure> {
        let answer = self.fleet.list_nodes(pb::ListNodesRequest {}).await;
        Ok(answer.map_err(|status| self.failure("cannot list the nodes", &status))?.into_inner())
    }

    /// # Errors
    /// When there is no new key.
    pub async fn rotate_keys(&mut self, settle: Duration) -> Result<pb::RotateKeysResponse, Failure> {
        let settle_ms = u32::try_from(settle.as_millis()).unwrap_or(u32::MAX).max(1);
        let answer = self.fleet.rotate_keys(pb::RotateKeysRequest { settle_ms }).await;
        Ok(answer.map_err(|status| self.failure("the keys stay as they are", &status))?.into_inner())
    }

    /// The tools that the catalog has of a backend, from one on.
    ///
    /// # Errors
    /// When the control plane does not answer, or has no such backend.
    pub async fn list_tools(&mut self, backend: &str, skip: usize) -> Result<pb::ListToolsResponse, Failure> {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        let answer = self.fleet.list_tools(pb::ListToolsRequest { backend: backend.to_owned(), skip }).await;
        Ok(answer.map_err(|status| self.failure("cannot list the tools", &status))?.into_inner())
    }

    /// # Errors
    /// When the control plane does not answer.
    pub async fn backends(&mut self) -> Result<Vec<pb::FleetBackend>, Failure> {
        let answer = self.fleet.list_backends(pb::ListBackendsRequest {}).await;
        Ok(answer.map_err(|status| self.failure("cannot list the backends", &status))?.into_inner().backends)
    }

    /// What one gateway has, or each.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn stats(&mut self, gateway: Option<&str>) -> Result<Vec<pb::GatewayStats>, Failure> {
        let request = pb::GetStatsRequest { gateway: gateway.unwrap_or_default().to_owned() };
        let answer = self.fleet.get_stats(request).await;
        Ok(answer.map_err(|status| self.failure("cannot count", &status))?.into_inner().gateways)
    }
}

/// How a resource is named in requests.
pub fn reference(kind: Kind, name: &str) -> pb::ResourceRef {
    pb::ResourceRef { kind: kind.to_pb().into(), name: name.to_owned() }
}

/// How a resource is named in requests; none if it has no kind.
pub fn reference_of(resource: &Resource) -> Option<pb::ResourceRef> {
    let name = resource.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    Some(reference(Kind::of(resource)?, name))
}

/// `backend/time`.
pub fn display(reference: &pb::ResourceRef) -> String {
    let kind = Kind::from_pb(reference.kind()).map_or("unknown", Kind::slug);
    format!("{kind}/{}", reference.name)
}

/// Checks a name before it is sent.
///
/// # Errors
/// When it cannot be the name of a resource.
pub fn check_name(name: &str) -> Result<(), Failure> {
    name.parse::<ResourceName>().map(|_| ()).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// `user@host`, for the history.
pub fn author() -> String {
    let user =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

fn endpoint(server: &Server) -> Result<Endpoint, Failure> {
    let usage = |cause: String| {
        Failure::new(Exit::Usage, format!("{:?} is not the address of a control plane", server.url))
            .cause(cause)
            .try_this("mtctl --server http://HOST:7001 …")
    };
    if !server.url.starts_with("http://") {
        return Err(usage("only http:// is spoken to a control plane in this version".to_owned()));
    }
    let endpoint = Endpoint::from_shared(server.url.clone()).map_err(|error| usage(error.to_string()))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT))
}

/// The last cause of an error: what lies above it is how we got there.
pub fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn unreachable(server: &Server, cause: &str) -> Failure {
    let failure =
        Failure::new(Exit::Unreachable, format!("cannot reach the control plane at {}", server.url))
            .cause(cause)
            .note("nodes keep serving their last good configuration; nothing is lost");
    match server.origin {
        Origin::Given => failure.try_this("check the address given by --server or MT_SERVER"),
        Origin::Recorded => failure.try_this("mtctl status").try_this("mtctl down, then mtctl up"),
        Origin::Default => {
            failure.try_this("mtctl up").try_this("mtctl --server URL …, if it runs elsewhere")
        }
    }
}

fn failure(server: &Server, doing: &str, status: &Status) -> Failure {
    let details = status.get_error_details();
    let exit = match status.code() {
        Code::Unavailable => return unreachable(server, status.message()).cause(doing),
        Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
        Code::NotFound => Exit::NotFound,
        Code::Aborted | Code::FailedPrecondition | Code::AlreadyExists => Exit::Conflict,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Auth,
        _ => Exit::Failed,
    };
    let mut failure = Failure::new(exit, doing).cause(status.message());
    for violation in details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default() {
        failure = failure.cause(format!("{}: {}", violation.field, violation.description));
    }
    for violation in details.precondition_failure().map(|bad| bad.violations.as_slice()).unwrap_or_default() {
        if !status.message().contains(&violation.subject) {
            failure = failure.cause(format!("{}: {}", violation.subject, violation.description));
        }
    }
    for link in details.help().map(|help| help.links.as_slice()).unwrap_or_default() {
        failure = failure.note(format!("{} {}", link.description, link.url));
    }
    match status.code() {
        Code::Aborted => failure.try_this("mtctl history, to see what came in between; then try again"),
        Code::Unimplemented => failure.note("this control plane is older than this mtctl"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn server(origin: Origin) -> Server {
        Server { url: "http://127.0.0.1:1".into(), origin }
    }

    #[test]
    fn each_code_has_its_exit() {
        let cases = [
            (Code::Unavailable, Exit::Unreachable),
            (Code::NotFound, Exit::NotFound),
            (Code::Aborted, Exit::Conflict),
            (Code::PermissionDenied, Exit::Auth),
            (Code::InvalidArgument, Exit::Failed),
        ];
        for (code, exit) in cases {
            assert_eq!(failure(&server(Origin::Given), "x", &Status::new(code, "y")).exit, exit);
        }
    }

    #[test]
    fn what_the_server_found_wrong_is_said_with_its_field() {
        let details = ErrorDetails::with_bad_request_violation("backend/t:spec.http.url", "is not a URL");
        let status = Status::with_error_details(Code::InvalidArgument, "1 problem", details);
        let text =
            failure(&server(Origin::Given), "cannot apply", &status).render(crate::output::Format::Table);
        assert!(text.contains("backend/t:spec.http.url: is not a URL"), "{text}");
    }

    #[test]
    fn the_author_has_a_user_and_a_host() {
        let author = author();
        let (user, host) = author.split_once('@').unwrap();
        assert!(!user.is_empty() && !host.is_empty());
    }

    #[test]
    fn https_is_refused_with_the_reason() {
        let server = Server { url: "https://h".into(), origin: Origin::Given };
        assert_eq!(endpoint(&server).unwrap_err().exit, Exit::Usage);
    }
}
