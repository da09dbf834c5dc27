//! Asks a server for the types of one of its services, in version 1 of the
//! reflection protocol or, where it does not know that one, in `v1alpha`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mt_proto::descriptors;
use prost::Message as _;
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorProto};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, metadata::MetadataMap, transport::Channel};

use super::metadata::Shown;
use crate::{Failure, Reason};

const FILES_MAX: usize = 1_000;
const BYTES_MAX: usize = 16 << 20;

/// The files that a service needs, with all that they import.
///
/// # Errors
/// If the server cannot be asked, has no reflection, or does not know the
/// service.
pub async fn types(channel: Channel, shown: &Shown<'_>, service: &str) -> Result<DescriptorPool, Failure> {
    let files = match v1(channel.clone(), shown.map(), service).await {
        Err(Ended::Status(status)) if status.code() == Code::Unimplemented && !is_local(&status) => {
            v1alpha(channel, shown.map(), service).await
        }
        other => other,
    };
    let mut pool = DescriptorPool::global();
    let built = descriptors::add(&mut pool, files.map_err(|ended| ended.failure(service, shown))?);
    built.map_err(|error| {
        Failure::new(Reason::Broken, "the types that the server tells by reflection cannot be used")
            .detail(error)
    })?;
    Ok(pool)
}

fn is_local(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

enum Ended {
    Status(Status),
    /// What the server says of what it was asked for.
    Error(i32, String),
    TooMuch,
    Early,
}

impl Ended {
    fn failure(self, service: &str, shown: &Shown<'_>) -> Failure {
        let unknown =
            || Failure::new(Reason::Misconfigured, format!("the gRPC server has no service {service:?}"));
        match self {
            Ended::Status(status) if status.code() == Code::Unimplemented && !is_local(&status) => {
                let message = "the gRPC server has no reflection; the tool needs a `descriptorSet`";
                Failure::new(Reason::Misconfigured, message)
            }
            Ended::Status(status) if status.code() == Code::NotFound => unknown(),
            Ended::Status(status) => shown.failure(&status),
            Ended::Error(code, _) if Code::from(code) == Code::NotFound => unknown(),
            Ended::Error(code, message) => shown.failure(&Status::new(Code::from(code), message)),
            Ended::TooMuch => Failure::new(Reason::TooLarge, "the server tells more types than are kept"),
            Ended::Early => Failure::new(Reason::Broken, "the server ended reflection early"),
        }
    }
}

/// What is known so far, and what has to be asked for.
#[derive(Default)]
struct Gathering {
    files: BTreeMap<String, FileDescriptorProto>,
    bytes: usize,
    asked: BTreeSet<String>,
    wanted: VecDeque<String>,
}

impl Gathering {
    fn take(&mut self, encoded: &[Vec<u8>]) -> Result<(), Ended> {
        let known = DescriptorPool::global();
        for bytes in encoded {
            self.bytes += bytes.len();
            if self.bytes > BYTES_MAX || self.files.len() >= FILES_MAX {
                return Err(Ended::TooMuch);
            }
            let file = FileDescriptorProto::decode(bytes.as_slice()).map_err(|_| Ended::Early)?;
            self.files.insert(file.name().to_owned(), file);
        }
        let missing: Vec<String> = self
            .files
            .values()
            .flat_map(|file| &file.dependency)
            .filter(|name| !self.files.contains_key(*name) && known.get_file_by_name(name).is_none())
            .cloned()
            .collect();
        for name in missing {
            if self.asked.insert(name.clone()) {
                self.wanted.push_back(name);
            }
        }
        if self.asked.len() > FILES_MAX { Err(Ended::TooMuch) } else { Ok(()) }
    }

    /// The next file to ask for; another answer may have brought it along.
    fn next(&mut self) -> Option<String> {
        let name = self.wanted.pop_front()?;
        if self.files.contains_key(&name) { self.next() } else { Some(name) }
    }
}

/// One version of the protocol: the two differ in nothing but their names.
macro_rules! version {
    ($version:ident) => {
        async fn $version(
            channel: Channel,
            metadata: &MetadataMap,
            service: &str,
        ) -> Result<Vec<FileDescriptorProto>, Ended> {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let request = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };
            let (ask, questions) = mpsc::channel(1);
            // There must be a question before there are headers to wait for.
            _ = ask.send(request(MessageRequest::FileContainingSymbol(service.to_owned()))).await;
            let mut opening = Request::new(ReceiverStream::new(questions));
            *opening.metadata_mut() = metadata.clone();
            let mut client = ServerReflectionClient::new(channel).max_decoding_message_size(BYTES_MAX);
            let answers = client.server_reflection_info(opening).await.map_err(Ended::Status)?;
            let mut answers = answers.into_inner();
            let mut gathering = Gathering::default();
            loop {
                let answer = answers.message().await.map_err(Ended::Status)?.ok_or(Ended::Early)?;
                match answer.message_response {
                    Some(MessageResponse::FileDescriptorResponse(response)) => {
                        gathering.take(&response.file_descriptor_proto)?;
                    }
                    // A file that it does not have may not be needed.
                    Some(MessageResponse::ErrorResponse(_)) if !gathering.files.is_empty() => {}
                    Some(MessageResponse::ErrorResponse(error)) => {
                        return Err(Ended::Error(error.error_code, error.error_message));
                    }
                    _ => return Err(Ended::Early),
                }
                let Some(name) = gathering.next() else { break };
                let sent = ask.send(request(MessageRequest::FileByFilename(name))).await;
                sent.map_err(|_| Ended::Early)?;
            }
            Ok(gathering.files.into_values().collect())
        }
    };
}

version!(v1);
version!(v1alpha);
