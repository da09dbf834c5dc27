//! Asks a gRPC server for its types, by the reflection protocol.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use http::uri::PathAndQuery;
use mt_capabilities::generate::SOURCE_BYTES_MAX;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest as Question, ServerReflectionResponse as Answer,
    server_reflection_request::MessageRequest as Ask, server_reflection_response::MessageResponse as Told,
};

use super::source;
use crate::{
    client::deepest,
    output::{Exit, Failure},
};

const FILES_MAX: usize = 5_000;
const SERVICES_MAX: usize = 1_000;
/// The two versions of the protocol differ in nothing but their names.
const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The types of all services of a server, as an encoded descriptor set.
///
/// # Errors
/// When the server cannot be reached, has no reflection, or says too much.
pub async fn ask(address: &str, headers: &[String], limit: Duration) -> Result<Vec<u8>, Failure> {
    let doing = format!("cannot ask {address} for its types");
    let failed = |exit, cause: String| Failure::new(exit, doing.clone()).cause(cause);
    let metadata = MetadataMap::from_headers(source::headers(headers)?);
    let asked = tokio::time::timeout(limit, async {
        let channel = connect(address).await?;
        let mut last = None;
        for method in METHODS {
            match gather(channel.clone(), method, &metadata).await {
                Ok(set) => return Ok(set),
                Err(status) if status.code() == Code::Unimplemented => last = Some(status),
                Err(status) => return Err(status),
            }
        }
        Err(last.unwrap_or_else(|| Status::unimplemented("no reflection")))
    });
    match asked.await {
        Ok(Ok(set)) => Ok(set.encode_to_vec()),
        Err(_) => {
            Err(failed(Exit::Unreachable, format!("no answer within {}", humantime::format_duration(limit))))
        }
        Ok(Err(status)) => Err(match status.code() {
            Code::Unimplemented => failed(Exit::Failed, "the server has no reflection".to_owned())
                .note("give a file with descriptors instead, and --base-url"),
            Code::Unauthenticated | Code::PermissionDenied => {
                failed(Exit::Auth, status.message().to_owned()).try_this("--header 'Authorization: Bearer …'")
            }
            Code::Unavailable => failed(Exit::Unreachable, status.message().to_owned()),
            _ => failed(Exit::Failed, status.message().to_owned()),
        }),
    }
}

async fn connect(address: &str) -> Result<Channel, Status> {
    let wrong = |error: tonic::transport::Error| Status::unavailable(deepest(&error));
    let mut endpoint = Endpoint::from_shared(address.to_owned()).map_err(wrong)?;
    if address.starts_with("https://") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
    }
    endpoint.connect().await.map_err(wrong)
}

/// What was told so far, and what is still to be asked.
#[derive(Default)]
struct Gathering {
    files: BTreeMap<String, FileDescriptorProto>,
    bytes: usize,
    asked: BTreeSet<String>,
    wanted: VecDeque<Ask>,
}

async fn gather(
    channel: Channel,
    method: &'static str,
    metadata: &MetadataMap,
) -> Result<FileDescriptorSet, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(SOURCE_BYTES_MAX);
    client.ready().await.map_err(|error| Status::unavailable(deepest(&error)))?;
    let question = |ask| Question { host: String::new(), message_request: Some(ask) };
    let (ask, questions) = mpsc::channel(1);
    let gone = |_| Status::internal("the server ended reflection early");
    // There must be a question before there are headers to wait for.
    ask.send(question(Ask::ListServices(String::new()))).await.map_err(gone)?;
    let mut request = Request::new(ReceiverStream::new(questions));
    *request.metadata_mut() = metadata.clone();
    let codec: ProstCodec<Question, Answer> = ProstCodec::default();
    let answers = client.streaming(request, PathAndQuery::from_static(method), codec).await?;
    let mut answers = answers.into_inner();
    let mut gathering = Gathering::default();
    loop {
        let answer = answers.message().await?;
        let answer = answer.ok_or_else(|| Status::internal("the server ended reflection early"))?;
        gathering.take(answer.message_response)?;
        let Some(next) = gathering.wanted.pop_front() else { break };
        ask.send(question(next)).await.map_err(gone)?;
    }
    Ok(gathering.into_set())
}

impl Gathering {
    fn take(&mut self, told: Option<Told>) -> Result<(), Status> {
        match told {
            Some(Told::ListServicesResponse(list)) => {
                if list.service.len() > SERVICES_MAX {
                    return Err(Status::resource_exhausted(format!(
                        "it has more than {SERVICES_MAX} services"
                    )));
                }
                let services =
                    list.service.into_iter().map(|service| Ask::FileContainingSymbol(service.name));
                self.wanted.extend(services);
            }
            Some(Told::FileDescriptorResponse(response)) => {
                for bytes in response.file_descriptor_proto {
                    self.file(&bytes)?;
                }
            }
            // What it does not have may not be needed; what is, is missed later.
            Some(Told::ErrorResponse(_)) => {}
            _ => return Err(Status::internal("the server answered with something else")),
        }
        Ok(())
    }

    fn file(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.bytes += bytes.len();
        if self.bytes > SOURCE_BYTES_MAX || self.files.len() >= FILES_MAX {
            return Err(Status::resource_exhausted("its types are too many"));
        }
        let file = FileDescriptorProto::decode(bytes)
            .map_err(|error| Status::internal(format!("a file of its types cannot be read: {error}")))?;
        for name in &file.dependency {
            if !self.files.contains_key(name) && self.asked.insert(name.clone()) {
                self.wanted.push_back(Ask::FileByFilename(name.clone()));
            }
        }
        self.files.insert(file.name().to_owned(), file);
        Ok(())
    }

    /// All files; those that everybody has are added where the server left them
    /// out.
    fn into_set(mut self) -> FileDescriptorSet {
        let known = DescriptorPool::global();
        for name in self.asked {
            if let Some(file) = known.get_file_by_name(&name).filter(|_| !self.files.contains_key(&name)) {
                self.files.insert(name, file.file_descriptor_proto().clone());
            }
        }
        FileDescriptorSet { file: self.files.into_values().collect() }
    }
}
