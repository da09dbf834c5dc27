//! The gRPC agent: calls a method of any service, whose types it learns from
//! the server's reflection or from a descriptor set.
//!
//! Arguments become fields of one message, by the rules of proto3's JSON, and
//! values of metadata; nothing of them gets into the address, the method or the
//! name of anything. Methods that take a stream of messages are refused: a tool
//! is called with one set of arguments.

mod codec;
mod metadata;
mod reflection;
mod servers;
mod status;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::uri::PathAndQuery;
use mt_proto::{
    descriptors,
    resource::{Grpc, agent::grpc},
};
use parking_lot::Mutex;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Request, client::Grpc as Client, transport::Channel};

pub use self::servers::Servers;
use self::{codec::DynamicCodec, metadata::Shown, servers::read_file};
use crate::{Failure, OUTPUT_BYTES_MAX, Output, Reason, Run};

const DESCRIPTOR_SET_BYTES_MAX: u64 = 16 << 20;
/// Of one message that is told as progress.
const PROGRESS_CHARS_MAX: usize = 4_096;
/// Of `grpc-timeout` at most, so that the value fits.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// In `_meta` of the result of a stream that was ended here.
const TRUNCATED_META: &str = "io.magictunnel/truncated";

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<Grpc>,
    servers: Arc<Servers>,
    /// The types of an uploaded descriptor set; of a file, as it was then.
    types: Mutex<Option<(Option<SystemTime>, DescriptorPool)>>,
}

impl Runner {
    /// The tools of a set share their connections.
    pub fn new(config: &Arc<Grpc>, servers: &Arc<Servers>) -> Self {
        Self { config: config.clone(), servers: servers.clone(), types: Mutex::default() }
    }

    /// Dropping the future resets the stream, so that the server stops too.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let address = self.config.endpoint.render(run.scope())?;
        if !address.is_literal() {
            return Err(Failure::new(
                Reason::Misconfigured,
                "the tool's `endpoint` depends on its arguments",
            ));
        }
        let server = self.servers.at(address.text(), &self.config).await?;
        let shown = Shown::of(&self.config, run)?;
        let fields = self.fields(run)?;
        let reflected = self.config.descriptors == grpc::Descriptors::Reflection;
        let mut method = match reflected {
            true => server.method(&self.config, &shown, false).await?,
            false => self.described().await?,
        };
        let message = match message(&method, &fields) {
            // The server may have been replaced by one that knows the field.
            Err(_) if reflected => {
                method = server.method(&self.config, &shown, true).await?;
                message(&method, &fields)?
            }
            made => made?,
        };
        if method.is_client_streaming() {
            let message = format!("{} takes a stream of messages, which no tool sends", method.full_name());
            return Err(Failure::new(Reason::Misconfigured, message));
        }
        self.call(server.channel.clone(), &method, message, &shown, run).await
    }

    fn fields(&self, run: &Run<'_>) -> Result<Value, Failure> {
        Ok(match &self.config.request {
            Some(tree) => tree.render(run.scope())?,
            None => Value::Object(run.arguments.clone()),
        })
    }

    /// The method in the descriptor set; one in a file is read again when the
    /// file has changed.
    async fn described(&self) -> Result<MethodDescriptor, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::new(Reason::Misconfigured, "the node cannot read the tool's `descriptorSet`")
                .detail(error)
        };
        let changed = match &self.config.descriptors {
            grpc::Descriptors::File(path) => {
                let file = tokio::fs::metadata(path).await.map_err(|error| wrong(&error))?;
                Some(file.modified().map_err(|error| wrong(&error))?)
            }
            _ => None,
        };
        let known =
            self.types.lock().as_ref().filter(|(then, _)| *then == changed).map(|(_, pool)| pool.clone());
        let pool = match known {
            Some(pool) => pool,
            None => {
                let bytes = match &self.config.descriptors {
                    grpc::Descriptors::Inline(bytes) => bytes.clone(),
                    grpc::Descriptors::File(path) => {
                        let read = read_file(path, DESCRIPTOR_SET_BYTES_MAX).await;
                        read.map_err(|error| wrong(&error))?.into()
                    }
                    grpc::Descriptors::Reflection => return Err(wrong(&"there is none")),
                };
                let pool = descriptors::decode(&bytes).map_err(|error| wrong(&error))?;
                *self.types.lock() = Some((changed, pool.clone()));
                pool
            }
        };
        grpc::find(&pool, &self.config.service, &self.config.method).map_err(|hint| {
            let named = format!("{}/{}", self.config.service, self.config.method);
            Failure::new(Reason::Misconfigured, format!("the descriptor set has no method {named}; {hint}"))
        })
    }

    async fn call(
        &self,
        channel: Channel,
        method: &MethodDescriptor,
        message: DynamicMessage,
        shown: &Shown<'_>,
        run: &Run<'_>,
    ) -> Result<Output, Failure> {
        let bytes_max = self.config.message_bytes_max;
        if message.encoded_len() > bytes_max {
            let message = format!("the message is larger than {bytes_max} bytes");
            return Err(Failure::new(Reason::TooLarge, message));
        }
        let mut client =
            Client::new(channel).max_decoding_message_size(bytes_max).max_encoding_message_size(bytes_max);
        client.ready().await.map_err(|error| shown.failure(&tonic::Status::from_error(Box::new(error))))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = shown.map().clone();
        request.set_timeout(run.deadline.saturating_duration_since(Instant::now()).min(TIMEOUT_MAX));
        let path = format!("/{}/{}", self.config.service, self.config.method);
        let path =
            PathAndQuery::from_maybe_shared(path).expect("names of services and methods are legal in paths");
        let codec = DynamicCodec::new(method.output());
        if !method.is_server_streaming() {
            let answer = client.unary(request, path, codec).await.map_err(|status| shown.failure(&status))?;
            return Ok(Output::value(self.json(answer.get_ref())?));
        }
        let answer = client.server_streaming(request, path, codec).await;
        let mut stream = answer.map_err(|status| shown.failure(&status))?.into_inner();
        let (mut messages, mut bytes, mut truncated) = (Vec::new(), 0, false);
        while let Some(message) = stream.message().await.map_err(|status| shown.failure(&status))? {
            if messages.len() >= self.config.messages_max {
                truncated = true;
                break;
            }
            let value = self.json(&message)?;
            let text = value.to_string();
            bytes += text.len() + 1;
            if bytes > OUTPUT_BYTES_MAX {
                let message = format!("the messages of the stream are more than {OUTPUT_BYTES_MAX} bytes");
                return Err(Failure::new(Reason::TooLarge, message));
            }
            messages.push(value);
            if run.reporter.wants_progress() {
                let (start, _) = text.split_at(text.floor_char_boundary(PROGRESS_CHARS_MAX));
                #[expect(clippy::cast_precision_loss, reason = "a count far below 2^53")]
                run.reporter.progress(messages.len() as f64, None, Some(start)).await;
            }
        }
        let mut output = Output::value(Value::Array(messages));
        if truncated {
            output.meta.insert(TRUNCATED_META.to_owned(), json!(true));
        }
        Ok(output)
    }

    /// A message as proto3's JSON.
    fn json(&self, message: &DynamicMessage) -> Result<Value, Failure> {
        let options = SerializeOptions::new().skip_default_fields(!self.config.emit_defaults);
        message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| {
            Failure::new(Reason::Broken, "the service's answer cannot be told as JSON").detail(error)
        })
    }
}

/// The message that a method takes.
///
/// # Errors
/// If a field is unknown, or a value is not of its field's type.
fn message(method: &MethodDescriptor, fields: &Value) -> Result<DynamicMessage, Failure> {
    let read = |fields: &Value| {
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(method.input(), fields, &options)
    };
    read(fields).map_err(|error| {
        // The error itself does not say where it is.
        let alone = |(name, value): (&String, &Value)| {
            let error = read(&json!({name: value})).err()?;
            Some(format!("field {name:?}: {error}"))
        };
        let found = fields.as_object().and_then(|fields| fields.iter().find_map(alone));
        let what = status::bounded(&found.unwrap_or_else(|| error.to_string()));
        Failure::new(Reason::InvalidArguments, format!("not a {}: {what}", method.input().full_name()))
    })
}

#[cfg(test)]
mod tests;
