//! The methods of `McpService` but `Session`: each is one call.

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use mt_proto::pb::mcp::{self as pb, mcp_service_server::McpService};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Caller, barred,
    convert::{invalid, level, log, progress},
    session, status,
};
use crate::{
    downstream::{
        door::Door,
        plain::{
            Glance, Talk, Wish, Word,
            kind::Failure,
            said::{List, Said},
            unasked,
            watch::{Event, Wanted, Watch},
        },
        stream::KEEP_ALIVE_EVERY,
    },
    mcp::{Method, RpcError, splice::Object},
};

/// Knows nothing: everything comes with the request.
pub struct Service;

/// A page of a list, of any kind.
#[derive(Default)]
struct Page {
    entries: Vec<Entry>,
    next_cursor: String,
}

/// What is read of a definition.
#[derive(Default)]
struct Entry {
    name: String,
    description: String,
    uri: String,
    definition: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPage<'a> {
    #[serde(borrow, alias = "prompts", alias = "resources", alias = "resourceTemplates")]
    tools: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEntry {
    name: String,
    description: String,
    #[serde(alias = "uriTemplate")]
    uri: String,
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    // Nothing reaches the service but through the door, which has put it there.
    caller.ok_or_else(|| status::of(&Failure::of(&RpcError::internal())))
}

fn internal() -> Status {
    status::of(&Failure::of(&RpcError::internal()))
}

/// Runs a call to its end.
async fn end(door: Door, wish: Wish) -> Result<(Bytes, Glance), Status> {
    let run = async { unasked(Talk::start(door, wish)?.end().await?) };
    run.await.map_err(|failure| status::of(&failure))
}

async fn page(door: Door, method: Method, cursor: &str) -> Result<Page, Status> {
    let cursor = Some(cursor).filter(|cursor| !cursor.is_empty());
    let (result, _) = end(door, Wish::page(method, cursor)).await?;
    read_page(&result).ok_or_else(internal)
}

fn read_page(result: &Bytes) -> Option<Page> {
    let raw: RawPage<'_> = serde_json::from_slice(result).ok()?;
    let entries = raw.tools.into_iter().map(|definition| {
        let entry: RawEntry = serde_json::from_str(definition.get()).unwrap_or_default();
        let definition = result.slice_ref(definition.get().as_bytes());
        Entry { name: entry.name, description: entry.description, uri: entry.uri, definition }
    });
    Some(Page { entries: entries.collect(), next_cursor: raw.next_cursor.unwrap_or_default() })
}

/// Arguments as the message has them: nothing is the empty object.
fn tool(name: &str, arguments: &Bytes) -> Result<Wish, Failure> {
    match arguments.trim_ascii() {
        b"" => Ok(Wish::tool(name, None)),
        // Anything after the value would get into the message around it.
        raw if raw.starts_with(b"{") && serde_json::from_slice::<&RawValue>(raw).is_ok() => {
            Ok(Wish::tool(name, Some(raw)))
        }
        _ => Err(invalid("arguments must be a JSON object")),
    }
}

fn of_list(list: List) -> pb::List {
    match list {
        List::Tools => pb::List::Tools,
        List::Prompts => pb::List::Prompts,
        List::Resources => pb::List::Resources,
    }
}

fn wanted(request: pb::SubscribeRequest) -> Result<Wanted, Failure> {
    let mut lists = Vec::new();
    for list in request.lists {
        lists.push(match pb::List::try_from(list) {
            Ok(pb::List::Tools) => List::Tools,
            Ok(pb::List::Prompts) => List::Prompts,
            Ok(pb::List::Resources) => List::Resources,
            Ok(pb::List::Unspecified) | Err(_) => return Err(invalid(format!("there is no list {list}"))),
        });
    }
    if lists.is_empty() {
        lists = List::ALL.to_vec();
    }
    Ok(Wanted { lists, uris: request.uris, level: level(&request.log_level)? })
}

/// What a call says, in the words of a stream; none for what it has no words for.
fn streamed(word: Word) -> Option<Result<pb::CallToolStreamResponse, Status>> {
    use pb::call_tool_stream_response::Event as Wire;
    let event = match word {
        Word::Said(Said::Progress(said)) => Wire::Progress(progress(said)),
        Word::Said(Said::Log(said)) => Wire::Log(log(said)),
        Word::Said(_) => return None,
        Word::Ended(outcome) => match outcome.and_then(unasked) {
            Ok((result, glance)) => Wire::Result(pb::CallToolResponse { result, is_error: glance.is_error }),
            Err(failure) => return Some(Err(status::of(&failure))),
        },
    };
    Some(Ok(pb::CallToolStreamResponse { event: Some(event) }))
}

#[tonic::async_trait]
impl McpService for Service {
    async fn list_tools(
        &self,
        request: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        let door = caller(&request)?.door;
        let page = page(door, Method::ToolsList, &request.get_ref().cursor).await?;
        let tools = page.entries.into_iter().map(|entry| pb::Tool {
            name: entry.name,
            description: entry.description,
            definition: entry.definition,
        });
        let tools = tools.collect();
        Ok(Response::new(pb::ListToolsResponse { tools, next_cursor: page.next_cursor }))
    }

    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        let door = caller(&request)?.door;
        let asked = request.into_inner();
        let wish = tool(&asked.name, &asked.arguments).map_err(|failure| status::of(&failure))?;
        let (result, glance) = end(door, wish).await?;
        Ok(Response::new(pb::CallToolResponse { result, is_error: glance.is_error }))
    }

    type CallToolStreamStream = BoxStream<'static, Result<pb::CallToolStreamResponse, Status>>;

    async fn call_tool_stream(
        &self,
        request: Request<pb::CallToolStreamRequest>,
    ) -> Result<Response<Self::CallToolStreamStream>, Status> {
        let caller = caller(&request)?;
        let (ended, asked) = (caller.ended(), request.into_inner());
        let start = || {
            let wish = tool(&asked.name, &asked.arguments)?;
            let wish = Wish { progress: true, level: level(&asked.log_level)?, ..wish };
            Talk::start(caller.door, wish)
        };
        let talk = start().map_err(|failure| status::of(&failure))?;
        let words = stream::unfold(Some((talk, ended)), |state| async move {
            let (mut talk, mut ended) = state?;
            loop {
                let word = tokio::select! {
                    word = talk.next() => word?,
                    () = &mut ended => return Some((Err(barred()), None)),
                };
                let over = matches!(word, Word::Ended(_));
                if let Some(message) = streamed(word) {
                    return Some((message, (!over).then_some((talk, ended))));
                }
            }
        });
        Ok(Response::new(words.boxed()))
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<pb::ListResourcesResponse>, Status> {
        let door = caller(&request)?.door;
        let page = page(door, Method::ResourcesList, &request.get_ref().cursor).await?;
        let resources = page.entries.into_iter().map(|entry| pb::Resource {
            uri: entry.uri,
            name: entry.name,
            definition: entry.definition,
        });
        let resources = resources.collect();
        Ok(Response::new(pb::ListResourcesResponse { resources, next_cursor: page.next_cursor }))
    }

    async fn list_resource_templates(
        &self,
        request: Request<pb::ListResourceTemplatesRequest>,
    ) -> Result<Response<pb::ListResourceTemplatesResponse>, Status> {
        let door = caller(&request)?.door;
        let page = page(door, Method::ResourceTemplatesList, &request.get_ref().cursor).await?;
        let templates = page.entries.into_iter().map(|entry| pb::ResourceTemplate {
            uri_template: entry.uri,
            name: entry.name,
            definition: entry.definition,
        });
        let resource_templates = templates.collect();
        let next_cursor = page.next_cursor;
        Ok(Response::new(pb::ListResourceTemplatesResponse { resource_templates, next_cursor }))
    }

    async fn read_resource(
        &self,
        request: Request<pb::ReadResourceRequest>,
    ) -> Result<Response<pb::ReadResourceResponse>, Status> {
        let door = caller(&request)?.door;
        let params = Object::default().set_text("uri", &request.get_ref().uri).finish();
        let (result, _) = end(door, Wish::new(Method::ResourcesRead, params)).await?;
        Ok(Response::new(pb::ReadResourceResponse { result }))
    }

    async fn list_prompts(
        &self,
        request: Request<pb::ListPromptsRequest>,
    ) -> Result<Response<pb::ListPromptsResponse>, Status> {
        let door = caller(&request)?.door;
        let page = page(door, Method::PromptsList, &request.get_ref().cursor).await?;
        let prompts = page.entries.into_iter().map(|entry| pb::Prompt {
            name: entry.name,
            description: entry.description,
            definition: entry.definition,
        });
        let prompts = prompts.collect();
        Ok(Response::new(pb::ListPromptsResponse { prompts, next_cursor: page.next_cursor }))
    }

    async fn get_prompt(
        &self,
        request: Request<pb::GetPromptRequest>,
    ) -> Result<Response<pb::GetPromptResponse>, Status> {
        let door = caller(&request)?.door;
        let asked = request.into_inner();
        let mut arguments = Object::default();
        for (key, value) in &asked.arguments {
            arguments = arguments.set_text(key, value);
        }
        let params =
            Object::default().set_text("name", &asked.name).set("arguments", &arguments.finish()).finish();
        let (result, _) = end(door, Wish::new(Method::PromptsGet, params)).await?;
        Ok(Response::new(pb::GetPromptResponse { result }))
    }

    async fn complete(
        &self,
        request: Request<pb::CompleteRequest>,
    ) -> Result<Response<pb::CompleteResponse>, Status> {
        let door = caller(&request)?.door;
        let params = completion(request.into_inner()).map_err(|failure| status::of(&failure))?;
        let (result, _) = end(door, Wish::new(Method::Complete, params)).await?;
        let read: Completed = serde_json::from_slice(&result).map_err(|_| {
            status::of(&Failure::of(&RpcError::upstream_invalid("of this prompt or resource")))
        })?;
        let Completion { values, total, has_more } = read.completion;
        Ok(Response::new(pb::CompleteResponse { values, total, has_more }))
    }

    type SubscribeStream = BoxStream<'static, Result<pb::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller(&request)?;
        let ended = caller.ended();
        let start = |asked| Watch::start(caller.door, &wanted(asked)?);
        let watch = start(request.into_inner()).map_err(|failure| status::of(&failure))?;
        let events = stream::unfold(Some((watch, ended)), |state| async move {
            let (mut watch, mut ended) = state?;
            loop {
                let event = tokio::select! {
                    event = watch.next_within(KEEP_ALIVE_EVERY) => event,
                    () = &mut ended => return Some((Err(barred()), None)),
                };
                use pb::subscribe_response::Event as Wire;
                let told = match event {
                    Event::Connected { lists, uris } => {
                        let lists = lists.into_iter().map(|list| of_list(list).into()).collect();
                        Wire::Subscribed(pb::Subscribed { lists, uris })
                    }
                    Event::ListChanged(list) => Wire::ListChanged(of_list(list).into()),
                    Event::ResourceUpdated(uri) => Wire::ResourceUpdated(uri),
                    Event::Log(said) => Wire::Log(log(said)),
                    // The connection has keep-alives of its own.
                    Event::Silence => continue,
                    Event::Ended(Ok(())) => return None,
                    Event::Ended(Err(failure)) => return Some((Err(status::of(&failure)), None)),
                };
                return Some((Ok(pb::SubscribeResponse { event: Some(told) }), Some((watch, ended))));
            }
        });
        Ok(Response::new(events.boxed()))
    }

    type SessionStream = BoxStream<'static, Result<pb::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(session::open(caller, request.into_inner())))
    }
}

#[derive(Deserialize)]
struct Completed {
    completion: Completion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Completion {
    values: Vec<String>,
    #[serde(default)]
    total: Option<u32>,
    #[serde(default)]
    has_more: bool,
}

fn completion(asked: pb::CompleteRequest) -> Result<Bytes, Failure> {
    let reference = match asked.of {
        Some(pb::complete_request::Of::Prompt(name)) => json!({"type": "ref/prompt", "name": name}),
        Some(pb::complete_request::Of::Resource(uri)) => json!({"type": "ref/resource", "uri": uri}),
        None => return Err(invalid("prompt or resource must be there")),
    };
    let mut params = json!({
        "ref": reference,
        "argument": {"name": asked.argument, "value": asked.value},
    });
    if !asked.context.is_empty() {
        params["context"] = json!({"arguments": asked.context});
    }
    Ok(Value::to_string(&params).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_one_object_and_nothing_else() {
        let check =
            |raw: &'static str| tool("t", &Bytes::from_static(raw.as_bytes())).map(|wish| wish.params);
        assert_eq!(check("").unwrap(), r#"{"name":"t","arguments":{}}"#);
        assert_eq!(check(" {\"a\": 1.0} ").unwrap(), r#"{"name":"t","arguments":{"a": 1.0}}"#);
        for bad in ["[]", "{", "{},\"_meta\":{}", "{} {}", "null", "\u{fffd}"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_of_any_list_is_read_and_its_definitions_are_as_they_came() {
        let result = Bytes::from_static(
            br#"{"resourceTemplates":[{"uriTemplate":"a:{b}","name":"n", "x": 1.0}],"nextCursor":"c"}"#,
        );
        let page = read_page(&result).unwrap();
        assert_eq!((page.next_cursor.as_str(), page.entries[0].uri.as_str()), ("c", "a:{b}"));
        assert_eq!(page.entries[0].definition, r#"{"uriTemplate":"a:{b}","name":"n", "x": 1.0}"#);
        assert!(read_page(&Bytes::from_static(b"{}")).is_none());
    }
}
