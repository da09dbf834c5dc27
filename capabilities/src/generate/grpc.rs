//! Tools from the descriptors of gRPC services: one for each method that takes
//! one message.

mod message;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mt_proto::descriptors;
use prost::Message as _;
use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor, ServiceDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};

use self::message::{Comments, Converter};
use super::{
    Auth, Draft, Drafts, GenerateError, Options, SOURCE_BYTES_MAX, bounded, credential,
    names::ToolNames,
    schema::{self, INPUT_BYTES_MAX, OUTPUT_BYTES_MAX},
    unusable,
};

const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Types that a tool carries with it, encoded; those of larger services are
/// asked of the server.
const DESCRIPTORS_BYTES_MAX: usize = 24 << 10;
/// Files of one set.
const FILES_MAX: usize = 5_000;
/// What a server says of itself, and no tool is for.
const INFRASTRUCTURE: [&str; 4] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.health.v1.Health",
    "grpc.channelz.v1.Channelz",
];

pub fn draft(descriptors: &[u8], options: &Options) -> Result<Drafts, GenerateError> {
    let pool = decode(descriptors)?;
    // A server that was asked itself will be asked again by the nodes.
    let from_server = options.source.starts_with("http://") || options.source.starts_with("https://");
    let endpoint = options.base_url.as_ref().or(from_server.then_some(&options.source));
    let Some(endpoint) = endpoint else {
        return Err(unusable(
            "nobody says where the service is",
            "say it: --base-url http://127.0.0.1:50051",
        ));
    };
    let endpoint = endpoint.trim_end_matches('/');
    let mut drafts = Drafts { kind: "grpc", ..Drafts::default() };
    let comments = Comments::new(&pool);
    let mut names = ToolNames::new(&options.prefix);
    let mut auth = Map::new();
    if let Some(wanted) = &options.auth {
        if matches!(wanted, Auth::Query(_)) {
            return Err(unusable("a gRPC call has no query", "use bearer, basic or header:NAME"));
        }
        let (value, secrets) = credential::chosen(wanted, &options.name);
        auth.insert("auth".into(), value);
        drafts.secrets = secrets;
    }
    let services: Vec<ServiceDescriptor> = pool.services().collect();
    let own = services.iter().filter(|service| !INFRASTRUCTURE.contains(&service.full_name()));
    let own: Vec<&ServiceDescriptor> = own.collect();
    drafts.title = match own.as_slice() {
        [only] => format!("{} (gRPC)", only.full_name()),
        many => format!("{} gRPC services", many.len()),
    };
    for service in own {
        let types = if from_server { None } else { inline(service) };
        if !from_server && types.is_none() {
            let text = "its types are too large to be in each tool, so the server is asked for them: it needs reflection";
            drafts.notes.changed(service.full_name(), text);
        }
        for method in service.methods() {
            let call = format!("{}/{}", service.full_name(), method.name());
            let filtered = [call.as_str(), service.full_name(), method.name()];
            if !options.filter.takes(&filtered) {
                continue;
            }
            if method.is_client_streaming() {
                drafts.notes.kept_out(&call, "it takes a stream of messages, which no tool sends");
                continue;
            }
            let options_of = method.method_descriptor_proto().options.as_ref();
            if options_of.is_some_and(|options| options.deprecated()) && !options.deprecated {
                drafts.notes.kept_out(&call, "it is deprecated");
                continue;
            }
            let description = bounded(&comments.of(method.full_name()), DESCRIPTION_CHARS_MAX);
            if description.is_empty() {
                drafts.notes.changed(&call, "no comment says what it is for");
            }
            let mut config = Map::new();
            config.insert("endpoint".into(), endpoint.into());
            config.insert("service".into(), service.full_name().into());
            config.insert("method".into(), method.name().into());
            config.extend(auth.clone());
            config.extend(types.clone().map(|types| ("descriptorSet".to_owned(), types)));
            drafts.tools.push(Draft {
                name: names.take(&format!("{}_{}", service.name(), method.name()), &call),
                title: String::new(),
                description,
                input: input(&method, &comments),
                output: if options.no_output_schema { None } else { output(&method, &comments) },
                annotations: annotations(&method),
                agent: "grpc",
                config,
                call,
                group: service.name().to_owned(),
            });
        }
    }
    Ok(drafts)
}

fn decode(descriptors: &[u8]) -> Result<DescriptorPool, GenerateError> {
    let hint = "made with `protoc --include_imports --include_source_info --descriptor_set_out=FILE`";
    if descriptors.len() > SOURCE_BYTES_MAX {
        return Err(unusable(
            format!("more than {SOURCE_BYTES_MAX} bytes of descriptors are not read"),
            hint,
        ));
    }
    let set = FileDescriptorSet::decode(descriptors)
        .map_err(|error| unusable(format!("this is no descriptor set: {error}"), hint))?;
    if set.file.is_empty() {
        return Err(unusable("the descriptor set is empty", hint));
    }
    if set.file.len() > FILES_MAX {
        return Err(unusable(format!("the descriptor set has more than {FILES_MAX} files"), hint));
    }
    let mut pool = DescriptorPool::new();
    descriptors::add(&mut pool, set.file).map_err(|error| unusable(error.to_string(), hint))?;
    Ok(pool)
}

fn input(method: &MethodDescriptor, comments: &Comments) -> Value {
    let (schema, _) = schema::fitting(INPUT_BYTES_MAX, |depth| {
        let mut converter = Converter::new(comments, depth, true);
        (converter.arguments(&method.input()), converter.cut)
    });
    schema
}

/// What a call gives: only of a method that answers once, and if it is whole.
fn output(method: &MethodDescriptor, comments: &Comments) -> Option<Value> {
    if method.is_server_streaming() {
        return None;
    }
    let mut converter = Converter::new(comments, schema::DEPTHS[0], false);
    let schema = converter.arguments(&method.output());
    let whole = !converter.cut && schema.to_string().len() <= OUTPUT_BYTES_MAX && schema::serves(&schema);
    whole.then_some(schema)
}

/// What the method says of its effects (`idempotency_level`).
fn annotations(method: &MethodDescriptor) -> Map<String, Value> {
    use prost_types::method_options::IdempotencyLevel;
    let level = method.method_descriptor_proto().options.as_ref().map(|options| options.idempotency_level());
    let hints = match level {
        Some(IdempotencyLevel::NoSideEffects) => json!({"readOnlyHint": true}),
        Some(IdempotencyLevel::Idempotent) => json!({"readOnlyHint": false, "idempotentHint": true}),
        _ => json!({}),
    };
    match hints {
        Value::Object(hints) => hints,
        _ => Map::new(),
    }
}

/// The types of a service without those that it does not need, if they are
/// small.
fn inline(service: &ServiceDescriptor) -> Option<Value> {
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    gather(&service.parent_file(), &mut files);
    let bytes = FileDescriptorSet { file: files }.encode_to_vec();
    (bytes.len() <= DESCRIPTORS_BYTES_MAX).then(|| json!({"base64": BASE64_STANDARD.encode(bytes)}))
}

/// A file after those that it needs. Descriptors that are in a pool have no
/// circles.
fn gather(file: &FileDescriptor, files: &mut Vec<FileDescriptorProto>) {
    if files.iter().any(|known| known.name() == file.name()) {
        return;
    }
    for needed in file.dependencies() {
        gather(&needed, files);
    }
    if !files.iter().any(|known| known.name() == file.name()) {
        let mut proto = file.file_descriptor_proto().clone();
        proto.source_code_info = None;
        files.push(proto);
    }
}
