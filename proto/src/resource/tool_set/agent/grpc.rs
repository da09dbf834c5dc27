//! Settings of the gRPC agent.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde_json::Value;

use super::super::fields::Fields;
use super::{super::text::Text, credential::Credential, header};
use crate::{
    descriptors,
    resource::check::quoted,
    template::{Template, Tree},
};

const METADATA_MAX: usize = 64;
const MESSAGES_DEFAULT: u64 = 1_000;
const MESSAGES_MAX: u64 = 100_000;
/// Of one message in either direction.
const MESSAGE_BYTES_DEFAULT: u64 = 4 << 20;
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// What gRPC itself sets; everything that begins with `grpc-` is too.
const RESERVED: [&str; 6] = ["content-type", "te", "host", "user-agent", "connection", "transfer-encoding"];

/// A method of a gRPC service.
#[derive(Clone, Debug, PartialEq)]
pub struct Grpc {
    /// `http://` or `https://`; no argument gets into it.
    pub endpoint: Template,
    /// With its package: `shop.v1.Orders`.
    pub service: String,
    pub method: String,
    pub descriptors: Descriptors,
    /// What becomes the message. None: the arguments.
    pub request: Option<Tree>,
    /// By lower-case name; those that end in `-bin` are base64.
    pub metadata: Vec<(String, Text)>,
    pub auth: Option<Credential>,
    /// A file on the node with the certificates (PEM) to trust instead of the
    /// system's.
    pub ca_file: Option<String>,
    /// The name that the server's certificate must have, if not the endpoint's.
    pub domain: Option<String>,
    /// Of one message, in either direction.
    pub message_bytes_max: usize,
    /// Of a stream: so many are read, then it is ended.
    pub messages_max: usize,
    /// Fields that have their default value are in the result too.
    pub emit_defaults: bool,
}

/// Where the types of the messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// The server says it.
    Reflection,
    /// An encoded `google.protobuf.FileDescriptorSet` that holds the method.
    Inline(Bytes),
    /// A file on the node that holds one.
    File(String),
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Grpc> {
    let endpoint = fields.fixed_template("endpoint");
    match &endpoint {
        None => fields.missing("endpoint", "for example `endpoint: http://127.0.0.1:50051`"),
        Some(endpoint) => check_endpoint(fields, endpoint),
    }
    let method = method(fields);
    let descriptors = descriptors(fields);
    if let (Some((service, method)), Some(Descriptors::Inline(set))) = (&method, &descriptors) {
        check_method(fields, set, service, method);
    }
    let request = fields.tree("request");
    let metadata = metadata(fields);
    let auth = Credential::at(fields, "auth");
    if matches!(auth, Some(Credential::Query { .. })) {
        fields.problem("auth", "a gRPC call has no query", Some("use `bearer`, `basic` or `header`".into()));
    }
    let (ca_file, domain) = tls(fields);
    let bytes = fields.count("maxMessageBytes", 1..=MESSAGE_BYTES_MAX, MESSAGE_BYTES_DEFAULT);
    let messages = fields.count("maxMessages", 1..=MESSAGES_MAX, MESSAGES_DEFAULT);
    let emit_defaults = fields.bool("emitDefaults").unwrap_or_default();
    let (service, method) = method?;
    Some(Grpc {
        endpoint: endpoint?,
        service,
        method,
        descriptors: descriptors?,
        request,
        metadata,
        auth,
        ca_file,
        domain,
        message_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
        messages_max: usize::try_from(messages).unwrap_or(usize::MAX),
        emit_defaults,
    })
}

fn check_endpoint(fields: &mut Fields<'_, '_>, endpoint: &Template) {
    let Some(text) = endpoint.literal() else { return };
    let right = url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    if !right {
        let hint = "for example `http://127.0.0.1:50051`, or `https://` with TLS";
        let message = format!("{} is not the address of a gRPC server", quoted(text));
        fields.problem("endpoint", message, Some(hint.into()));
    }
}

/// The service and the method, also written as `service/method`.
fn method(fields: &mut Fields<'_, '_>) -> Option<(String, String)> {
    let hint = "for example `method: shop.v1.Orders/Get`";
    let service = fields.text("service");
    let Some(method) = fields.text("method") else {
        fields.missing("method", hint);
        return None;
    };
    let (service, method) = match (method.trim_start_matches('/').rsplit_once('/'), service) {
        (Some((service, method)), None) => (service.to_owned(), method.to_owned()),
        (Some((within, method)), Some(service)) if within == service => (service, method.to_owned()),
        (Some(_), Some(_)) => {
            fields.problem("service", "`service` and `method` name two services", Some(hint.into()));
            return None;
        }
        (None, Some(service)) => (service, method),
        (None, None) => {
            fields.missing("service", hint);
            return None;
        }
    };
    let ident = |text: &str| {
        text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !service.split('.').all(ident) || !ident(&method) {
        let message = format!("{} is not the name of a method", quoted(&format!("{service}/{method}")));
        fields.problem("method", message, Some(hint.into()));
        return None;
    }
    Some((service, method))
}

fn descriptors(fields: &mut Fields<'_, '_>) -> Option<Descriptors> {
    let inline =
        |text: &str| BASE64_STANDARD.decode(text.trim()).ok().map(|set| Descriptors::Inline(set.into()));
    let read = match fields.take("descriptorSet") {
        None => Some(Descriptors::Reflection),
        Some(Value::String(text)) => inline(&text),
        Some(Value::Object(object)) if object.len() == 1 => match object.iter().next() {
            Some((key, Value::String(path))) if key == "file" && !path.is_empty() => {
                Some(Descriptors::File(path.clone()))
            }
            Some((key, Value::String(text))) if key == "base64" => inline(text),
            _ => None,
        },
        Some(_) => None,
    };
    if read.is_none() {
        let hint = "write `{file: /etc/types.bin}`, or leave it out where the server has reflection";
        fields.problem("descriptorSet", "must be base64, or a file on the node", Some(hint.into()));
    }
    read
}

fn check_method(fields: &mut Fields<'_, '_>, set: &Bytes, service: &str, method: &str) {
    let pool = match descriptors::decode(set) {
        Ok(pool) => pool,
        Err(error) => {
            let hint = "made with `protoc --include_imports --descriptor_set_out=FILE`";
            return fields.problem("descriptorSet", error.to_string(), Some(hint.into()));
        }
    };
    match find(&pool, service, method) {
        Ok(method) if method.is_client_streaming() => {
            fields.problem(
                "method",
                format!(
                    "{method_name} takes a stream of messages, which no tool sends",
                    method_name = quoted(method.full_name())
                ),
                None,
            );
        }
        Ok(_) => {}
        Err(hint) => {
            let message =
                format!("the descriptor set has no method {}", quoted(&format!("{service}/{method}")));
            fields.problem("method", message, Some(hint));
        }
    }
}

/// The method in these types.
///
/// # Errors
/// What there is instead.
pub fn find(pool: &DescriptorPool, service: &str, method: &str) -> Result<MethodDescriptor, String> {
    const NAMED_MAX: usize = 20;
    let list = |names: Vec<String>| match names.len() {
        0 => "there is none".to_owned(),
        _ => names.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", "),
    };
    let Some(found) = pool.get_service_by_name(service) else {
        let names = pool.services().map(|service| service.full_name().to_owned());
        return Err(format!("services: {}", list(names.collect())));
    };
    let methods = found.methods().find(|candidate| candidate.name() == method);
    methods.ok_or_else(|| {
        let names = found.methods().map(|method| method.name().to_owned());
        format!("methods of {service}: {}", list(names.collect()))
    })
}

fn metadata(fields: &mut Fields<'_, '_>) -> Vec<(String, Text)> {
    let entries = fields.text_map("metadata");
    if entries.len() > METADATA_MAX {
        fields.problem("metadata", format!("at most {METADATA_MAX} entries are sent"), None);
    }
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    entries
        .into_iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(legal) {
                let message = format!("{} is not a name of metadata: a-z, 0-9 and '_.-'", quoted(&name));
                fields.problem("metadata", message, None);
            } else if RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") {
                fields.problem("metadata", format!("gRPC itself sets {}", quoted(&name)), None);
            } else if header::is_identity_header(&name)
                && matches!(&value, Text::Template(template) if !header::is_fixed(template))
            {
                let message =
                    format!("an argument decides about {}, which says who is asking", quoted(&name));
                let hint = "write the text itself, `{{env.NAME}}` or `{secret: name}`";
                fields.problem("metadata", message, Some(hint.to_owned()));
            }
            (name, value)
        })
        .collect()
}

fn tls(fields: &mut Fields<'_, '_>) -> (Option<String>, Option<String>) {
    let Some(mut tls) = fields.object("tls") else { return (None, None) };
    let read = (tls.text("ca"), tls.text("domain"));
    tls.finish();
    read
}
