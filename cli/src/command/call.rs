//! `mtctl call`: runs one tool, as any MCP client would.

use std::{
    io::{IsTerminal as _, Read as _},
    time::Duration,
};

use serde_json::{Map, Value, json, value::RawValue};

use super::{Context, get::near};
use crate::{
    args::{CallArgs, EndpointArgs, Era as EraArg},
    client,
    mcp_client::{Client, Era, Error, Host, code, form, http::Endpoint},
    output::{BAD, Exit, Failure, Format, escape_block},
    target,
};

/// The longest arguments that are read from stdin.
const JSON_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub async fn run(context: &Context, args: &CallArgs) -> Result<Exit, Failure> {
    let given = Given::parse(args)?;
    let url = target::resolve(context, &args.endpoint).await?;
    let mut client = connect(context, &url, &args.endpoint, args.era).await?;
    let outcome = attempt(&mut client, args, &given).await;
    let outcome = match outcome {
        // The call was refused before it ran, so it may be sent in the other way.
        Err(Stopped::Failed(error)) if args.era == EraArg::Auto && error.wants_modern() => {
            let (endpoint, host) = client.into_parts();
            client = open(endpoint, Era::Modern, host).await.map_err(|error| failure(&url, error))?;
            attempt(&mut client, args, &given).await
        }
        outcome => outcome,
    };
    match outcome {
        Ok(result) => {
            client.close().await;
            print(context, &result)
        }
        Err(Stopped::Failed(error)) => {
            client.close().await;
            Err(failure(&url, error))
        }
        Err(Stopped::Refused(failure)) => {
            client.close().await;
            Err(failure)
        }
        Err(Stopped::Interrupted) => {
            client.cancel("interrupted by the user").await;
            client.close().await;
            Err(Failure::new(Exit::Interrupted, "interrupted").note("the call may have taken effect"))
        }
        Err(Stopped::TimedOut(limit)) => {
            client.cancel("timeout").await;
            client.close().await;
            Err(Failure::new(Exit::Unreachable, format!("{} has not answered", args.tool))
                .cause(format!("{} have passed", humantime::format_duration(limit)))
                .note("the call may have taken effect")
                .try_this("mtctl call --timeout 10m …"))
        }
    }
}

/// Opens a client of an endpoint, for this and other commands.
///
/// # Errors
/// When the endpoint cannot be reached.
pub async fn connect(
    context: &Context,
    url: &str,
    args: &EndpointArgs,
    era: EraArg,
) -> Result<Client, Failure> {
    let endpoint = endpoint(url, args)?;
    let host = || Host::new(context.output.clone());
    let first = if era == EraArg::Modern { Era::Modern } else { Era::Legacy };
    let opened = match open(endpoint.clone(), first, host()).await {
        Err(error) if era == EraArg::Auto && error.wants_modern() => {
            open(endpoint, Era::Modern, host()).await
        }
        opened => opened,
    };
    opened.map_err(|error| failure(url, error))
}

/// An endpoint, with the key that was given for it.
///
/// # Errors
/// When the URL is none.
pub fn endpoint(url: &str, args: &EndpointArgs) -> Result<Endpoint, Failure> {
    let key = args.api_key.as_ref().map(|key| key.0.as_str()).filter(|key| !key.is_empty());
    Endpoint::new(url, key).map_err(|error| failure(url, error.into()))
}

/// Opens a client in one era.
///
/// # Errors
/// When the endpoint does not take it.
pub async fn open(endpoint: Endpoint, era: Era, host: Host) -> Result<Client, Error> {
    super::crypto();
    Client::connect(endpoint, era, host).await
}

/// Why there is no result.
enum Stopped {
    Failed(Error),
    Refused(Failure),
    Interrupted,
    TimedOut(Duration),
}

async fn attempt(client: &mut Client, args: &CallArgs, given: &Given) -> Result<Box<RawValue>, Stopped> {
    let work = async {
        let (arguments, unlisted) = match given {
            Given::Whole(arguments) => (arguments.clone(), None),
            Given::Pairs(pairs) => {
                let tools = client.tools().await.map_err(Stopped::Failed)?;
                match schema_of(&tools, &args.tool) {
                    Ok(schema) => {
                        let arguments = by_schema(pairs, schema).map_err(Stopped::Refused)?;
                        complete(&args.tool, &arguments, schema).map_err(Stopped::Refused)?;
                        (arguments, None)
                    }
                    // A hidden tool can be called all the same; nothing says of what
                    // types its arguments are, so what is no JSON is a text.
                    Err(failure) => {
                        let arguments = by_schema(pairs, &Value::Null).map_err(Stopped::Refused)?;
                        (arguments, Some(failure))
                    }
                }
            }
        };
        let params = json!({"name": args.tool, "arguments": arguments});
        client.request("tools/call", params).await.map_err(|error| match unlisted {
            Some(failure) if error.is_unknown_tool() => Stopped::Refused(failure),
            _ => Stopped::Failed(error),
        })
    };
    tokio::select! {
        result = tokio::time::timeout(args.timeout, work) => {
            result.unwrap_or(Err(Stopped::TimedOut(args.timeout)))
        }
        _ = tokio::signal::ctrl_c() => Err(Stopped::Interrupted),
    }
}

/// The arguments as they were typed.
#[derive(Debug, PartialEq)]
enum Given {
    Whole(Map<String, Value>),
    Pairs(Vec<Pair>),
}

#[derive(Debug, PartialEq)]
struct Pair {
    key: String,
    text: String,
    /// Written as `k:=v`: the text is JSON whatever the schema says.
    json: bool,
}

impl Given {
    fn parse(args: &CallArgs) -> Result<Self, Failure> {
        let Some(json) = &args.json else {
            return args
                .arguments
                .iter()
                .map(|typed| Pair::parse(typed))
                .collect::<Result<_, _>>()
                .map(Given::Pairs);
        };
        if !args.arguments.is_empty() {
            return Err(Failure::new(Exit::Usage, "arguments come as k=v or as --json, not as both"));
        }
        let mut text = json.clone();
        if json == "-" {
            text.clear();
            let read = std::io::stdin().lock().take(JSON_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| {
                Failure::new(Exit::Usage, "cannot read the arguments from stdin").cause(error)
            })?;
        }
        serde_json::from_str(&text).map(Given::Whole).map_err(|error| {
            Failure::new(Exit::Usage, "--json wants a JSON object")
                .cause(not_json(&error))
                .try_this("mtctl call TOOL --json '{\"key\": \"value\"}'")
        })
    }
}

impl Pair {
    fn parse(typed: &str) -> Result<Self, Failure> {
        let usage = || {
            Failure::new(Exit::Usage, format!("{typed:?} is not an argument"))
                .try_this("key=value, or key:=JSON for a value that is JSON")
        };
        let (key, text) = typed.split_once('=').ok_or_else(usage)?;
        let (key, json) = key.strip_suffix(':').map_or((key, false), |key| (key, true));
        if key.is_empty() {
            return Err(usage());
        }
        Ok(Self { key: key.to_owned(), text: text.to_owned(), json })
    }
}

fn schema_of<'a>(tools: &'a [Value], name: &str) -> Result<&'a Value, Failure> {
    if let Some(tool) = tools.iter().find(|tool| tool["name"] == name) {
        return Ok(&tool["inputSchema"]);
    }
    let mut names = tools.iter().filter_map(|tool| tool["name"].as_str());
    let mut failure = Failure::new(Exit::NotFound, format!("there is no tool named {name:?}"));
    // Most gateways put the backend's name before that of the tool.
    let whole =
        names.clone().find(|listed| listed.strip_suffix(name).is_some_and(|rest| rest.ends_with('_')));
    if let Some(near) = whole.or_else(|| near(name, &mut names)) {
        failure = failure.try_this(format!("mtctl call {near} …"));
    }
    Err(failure.try_this("mtctl tools list"))
}

fn by_schema(pairs: &[Pair], schema: &Value) -> Result<Map<String, Value>, Failure> {
    let mut arguments = Map::new();
    for pair in pairs {
        let usage = |cause: String| {
            Failure::new(Exit::Usage, format!("argument {} cannot be {:?}", pair.key, pair.text)).cause(cause)
        };
        let value = if pair.json {
            serde_json::from_str(&pair.text).map_err(|error| {
                usage(not_json(&error)).try_this(format!("{}=…, if it is not meant as JSON", pair.key))
            })?
        } else {
            form::read(&pair.text, &schema["properties"][&pair.key])
                .map_err(|wanted| usage(format!("the tool wants {wanted}")))?
        };
        arguments.insert(pair.key.clone(), value);
    }
    Ok(arguments)
}

/// What the tool's schema requires has to be there. `--json` is not held to it:
/// the schema of a server may be wrong.
fn complete(tool: &str, arguments: &Map<String, Value>, schema: &Value) -> Result<(), Failure> {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing: Vec<&str> =
        required.iter().filter_map(Value::as_str).filter(|name| !arguments.contains_key(*name)).collect();
    if let Some(mistyped) = mistyped(tool, arguments, schema) {
        return Err(mistyped);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let wanted: Vec<String> = missing.iter().map(|name| format!("{name}=…")).collect();
    let noun = if missing.len() == 1 { "an argument is missing" } else { "arguments are missing" };
    let given = if arguments.is_empty() { "" } else { " …" };
    Err(Failure::new(Exit::Usage, format!("{noun}: {}", missing.join(", ")))
        .try_this(format!("mtctl call {tool}{given} {}", wanted.join(" "))))
}

/// An argument that the tool does not have, where it has one of nearly that name.
fn mistyped(tool: &str, arguments: &Map<String, Value>, schema: &Value) -> Option<Failure> {
    let properties = schema["properties"].as_object()?;
    arguments.keys().filter(|key| !properties.contains_key(*key)).find_map(|key| {
        let meant = near(key, &mut properties.keys().map(String::as_str))?;
        let failure = Failure::new(Exit::Usage, format!("{tool} has no argument {key:?}"));
        Some(failure.try_this(format!("{meant}=…")).note("--json sends whatever it is given"))
    })
}

/// Why a text is not the JSON that is wanted, for whoever has typed it.
fn not_json(error: &serde_json::Error) -> String {
    use serde_json::error::Category;

    match error.classify() {
        Category::Eof => "it ends too early to be JSON".to_owned(),
        Category::Data => "it is JSON of another type".to_owned(),
        Category::Syntax | Category::Io => {
            format!("it is not JSON from line {}, column {} on", error.line(), error.column())
        }
    }
}

fn print(context: &Context, raw: &RawValue) -> Result<Exit, Failure> {
    let result: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    match context.format() {
        // The bytes of the answer: nothing is rounded, sorted or lost.
        Format::Json => context.output.data(raw.get())?,
        Format::Yaml => context.output.value(&result)?,
        Format::Table | Format::Name => {
            // A file gets what the tool wrote; a terminal must not obey it.
            let text = text(&result);
            let is_terminal = std::io::stdout().is_terminal();
            context.output.data(&if is_terminal { escape_block(&text).into_owned() } else { text })?;
        }
    }
    if result["isError"] == true {
        context.output.say(format_args!("{BAD}the tool reports an error{BAD:#}"));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Ok)
}

/// What a person reads of a result.
fn text(result: &Value) -> String {
    let blocks = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = blocks.iter().map(block).collect();
    if blocks.is_empty() {
        let shown = match &result["structuredContent"] {
            Value::Null => result,
            structured => structured,
        };
        lines.push(format!("{shown:#}"));
    }
    lines.join("\n")
}

fn block(block: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("text") => text(&block["text"]),
        Some(kind @ ("image" | "audio")) => {
            let bytes = block["data"].as_str().map_or(0, str::len) / 4 * 3;
            format!("[{kind} {}, about {bytes} bytes; -o json has it]", text(&block["mimeType"]))
        }
        Some("resource") => match &block["resource"]["text"] {
            Value::String(text) => text.clone(),
            _ => format!("[resource {}]", text(&block["resource"]["uri"])),
        },
        Some("resource_link") => format!("[resource {}]", text(&block["uri"])),
        _ => block.to_string(),
    }
}

/// What an error of the protocol means to the user.
pub fn failure(url: &str, error: Error) -> Failure {
    use crate::mcp_client::http::Error as Http;

    match &error {
        Error::Rpc { code, message, data } => {
            let exit = match *code {
                code::UNAUTHENTICATED => Exit::Auth,
                code::UPSTREAM_TIMEOUT | code::UPSTREAM_UNREACHABLE | code::NOT_READY => Exit::Unreachable,
                _ if error.is_unknown_tool() || is_unknown_gateway(message) => Exit::NotFound,
                _ => Exit::Failed,
            };
            // What a gateway says is in our words; what others say may need its number to be looked up.
            let mut failure = match data["side"].as_str() {
                Some("gateway") => Failure::new(exit, message),
                Some(side) => {
                    Failure::new(exit, format!("{message} ({code})")).cause(format!("{side} says so"))
                }
                None => Failure::new(exit, format!("{message} ({code})")),
            };
            if data["retry"] == true {
                failure = failure.note("it had no effect; the same call may be tried again");
            }
            match exit {
                Exit::NotFound if is_unknown_gateway(message) => failure.try_this("mtctl get gateways"),
                Exit::NotFound => failure.try_this("mtctl tools list"),
                Exit::Auth => failure
                    .try_this("MT_API_KEY=… mtctl …, with an API key")
                    .try_this("mtctl principal create NAME, which makes one"),
                Exit::Unreachable => failure.try_this("mtctl status"),
                _ if *code == code::MISSING_CAPABILITY => {
                    failure.note("the tool asks its user something; at a terminal, mtctl can pass that on")
                }
                _ if *code == code::ERA_MISMATCH => {
                    failure.note("the backend's `protocol` names an era that it does not speak")
                }
                _ => failure,
            }
        }
        Error::Http(Http::Status { status, body, .. }) => {
            let exit = match status.as_u16() {
                401 | 403 => Exit::Auth,
                404 => Exit::NotFound,
                502..=504 => Exit::Unreachable,
                _ => Exit::Failed,
            };
            let body = String::from_utf8_lossy(body);
            let mut failure = Failure::new(exit, error.to_string());
            if let Some(line) = body.lines().find(|line| !line.trim().is_empty()) {
                failure = failure.cause(line.chars().take(300).collect::<String>());
            }
            match exit {
                Exit::NotFound => {
                    failure.try_this("mtctl get gateways").try_this(format!("is {url} an MCP endpoint?"))
                }
                _ => failure,
            }
        }
        Error::Http(Http::Url { .. }) => {
            Failure::new(Exit::Usage, error.to_string()).try_this("--url http://127.0.0.1:3001/mcp")
        }
        Error::Http(Http::Connect { source, .. }) => Failure::new(Exit::Unreachable, error.to_string())
            .cause(client::deepest(source))
            .try_this("mtctl status")
            .try_this("mtctl up"),
        Error::Http(http @ Http::Broken { source, .. }) => Failure::new(Exit::Unreachable, http.to_string())
            .cause(client::deepest(source.as_ref()))
            .note("the call may have taken effect"),
        Error::Http(http) => Failure::new(Exit::Failed, http.to_string()).chain(http),
        Error::NoAnswer | Error::Rounds => Failure::new(Exit::Failed, error.to_string()),
        Error::NotMcp { .. } => Failure::new(Exit::Failed, error.to_string()).chain(&error),
    }
}

fn is_unknown_gateway(message: &str) -> bool {
    message.starts_with("there is no gateway ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_text_and_marked_pairs_are_json() {
        assert_eq!(Pair::parse("a=b=c").unwrap(), Pair { key: "a".into(), text: "b=c".into(), json: false });
        assert_eq!(Pair::parse("a:=[1]").unwrap(), Pair { key: "a".into(), text: "[1]".into(), json: true });
        assert_eq!(Pair::parse("url=http://x:=1").unwrap().key, "url");
        assert_eq!(Pair::parse("nothing").unwrap_err().exit, Exit::Usage);
        assert_eq!(Pair::parse("=x").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_schema_of_the_tool_decides_the_types() {
        let schema = json!({"properties": {"zip": {"type": "string"}, "n": {"type": "integer"}}});
        let pairs = ["zip=01", "n=01x"].map(|typed| Pair::parse(typed).unwrap());
        assert_eq!(by_schema(&pairs[..1], &schema).unwrap()["zip"], "01");
        assert!(by_schema(&pairs, &schema).unwrap_err().render(Format::Table).contains("integer"));
    }

    #[test]
    fn an_unknown_tool_is_answered_with_the_near_one() {
        let failure = schema_of(&[json!({"name": "demo_echo"})], "demo_ecko").unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.render(Format::Table).contains("mtctl call demo_echo"));
        let failure = schema_of(&[json!({"name": "demo_echo"})], "echo").unwrap_err();
        assert!(failure.render(Format::Table).contains("mtctl call demo_echo"));
    }

    #[test]
    fn a_missing_argument_is_named_before_the_call_is_made() {
        let schema = json!({"properties": {"a": {}, "b": {}}, "required": ["a", "b"]});
        let given = |value: Value| value.as_object().cloned().unwrap();
        assert!(complete("add", &given(json!({"a": 1, "b": 2})), &schema).is_ok());
        let failure = complete("add", &given(json!({"a": 1})), &schema).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.render(Format::Table).contains("mtctl call add … b=…"));
    }

    #[test]
    fn an_argument_that_is_nearly_one_of_the_tool_is_not_sent() {
        let schema = json!({"properties": {"ignore_case": {}}});
        let given = |key: &str| Map::from_iter([(key.to_owned(), json!(true))]);
        let failure = complete("search", &given("ignorecase"), &schema).unwrap_err();
        assert!(failure.render(Format::Table).contains("ignore_case=…"));
        assert!(complete("search", &given("something"), &schema).is_ok());
        assert!(complete("search", &given("something"), &json!({})).is_ok());
    }

    #[test]
    fn what_is_not_json_is_told_without_the_words_of_a_parser() {
        let cause = |text: &str| not_json(&serde_json::from_str::<Map<String, Value>>(text).unwrap_err());
        assert_eq!(cause(r#"{"a":1"#), "it ends too early to be JSON");
        assert_eq!(cause("[1]"), "it is JSON of another type");
        assert_eq!(cause("xx"), "it is not JSON from line 1, column 1 on");
    }

    #[test]
    fn content_is_shown_as_a_person_reads_it() {
        let result = json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAAAAAAA", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///x"},
        ]});
        assert_eq!(
            text(&result),
            "one\n[image image/png, about 6 bytes; -o json has it]\n[resource file:///x]"
        );
        assert_eq!(text(&json!({"content": [], "structuredContent": {"a": 1}})), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn errors_of_the_gateway_have_their_exit_codes() {
        let error = |code, message: &str| {
            failure(
                "u",
                Error::Rpc {
                    code,
                    message: message.into(),
                    data: json!({"side": "backend x", "retry": true}),
                },
            )
        };
        assert_eq!(error(-32602, "unknown tool \"x\"").exit, Exit::NotFound);
        assert_eq!(error(-32600, "there is no gateway \"g\" on this node").exit, Exit::NotFound);
        assert_eq!(error(-31001, "late").exit, Exit::Unreachable);
        assert_eq!(error(-31015, "who").exit, Exit::Auth);
        assert!(error(-31002, "gone").render(Format::Table).contains("may be tried again"));
    }
}
