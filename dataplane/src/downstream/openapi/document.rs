//! The document itself, from the tools of a gateway. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    names::{Taken, in_path, shortened},
    schema,
};

/// Operations that Custom GPT Actions take.
pub const SMART_OPERATIONS_MAX: usize = 30;
/// Characters of an operation's description that they take.
const SMART_TEXT_CHARS_MAX: usize = 300;
/// And of a parameter's.
const SMART_PARAMETER_CHARS_MAX: usize = 700;
/// Operations of the whole description.
const OPERATIONS_MAX: usize = 10_000;
/// Characters of a description there.
const TEXT_CHARS_MAX: usize = 8_192;
const SUMMARY_CHARS_MAX: usize = 120;
/// Finds and runs other tools, so it comes before them where not all have room.
const DISCOVERY: &str = "smart_tool_discovery";
/// What stands for the server's URL until somebody asks.
const SERVER: &str = "\u{1}server";

/// Everything that is made of one list of tools.
#[derive(Debug)]
pub struct Set {
    pub all: Description,
    pub smart: Description,
    /// Tools that are described as answering with their structured result.
    pub structured: HashSet<String>,
}

/// A document around the server's URL, a JSON string.
#[derive(Debug)]
pub struct Description {
    pub before: Bytes,
    pub after: Bytes,
    pub hash: blake3::Hash,
}

/// What of a tool is described.
struct Tool {
    name: String,
    title: Option<String>,
    description: Option<String>,
    input: Value,
    output: Option<Value>,
    read_only: bool,
}

/// How much is said.
struct Terms {
    description: usize,
    parameter: usize,
    smart: bool,
}

/// Renders both descriptions. Paths begin with `prefix`; each page is a JSON
/// array of definitions, of which those are left out that have no name.
pub fn render(prefix: &str, title: &str, instructions: Option<&str>, pages: &[Bytes]) -> Set {
    let listed: Vec<Value> = pages
        .iter()
        .flat_map(|page| serde_json::from_slice::<Vec<Value>>(page).unwrap_or_default())
        .collect();
    let tools: Vec<Tool> = listed.into_iter().filter_map(Tool::read).take(OPERATIONS_MAX).collect();
    let structured =
        tools.iter().filter(|tool| tool.output.is_some()).map(|tool| tool.name.clone()).collect();
    let all: Vec<&Tool> = tools.iter().collect();
    let complete = tools.len() <= SMART_OPERATIONS_MAX;
    let mut few = all.clone();
    if !complete {
        // A stable order: the gateway's own, behind the tool that finds the others.
        few.sort_by_key(|tool| tool.name != DISCOVERY);
        few.truncate(SMART_OPERATIONS_MAX - 2);
    }
    let whole = Terms { description: TEXT_CHARS_MAX, parameter: usize::MAX, smart: false };
    let smart =
        Terms { description: SMART_TEXT_CHARS_MAX, parameter: SMART_PARAMETER_CHARS_MAX, smart: true };
    let frame = Frame { prefix, title, instructions };
    Set {
        all: frame.describe(&all, false, &whole),
        smart: frame.describe(&few, !complete, &smart),
        structured,
    }
}

impl Tool {
    fn read(mut listed: Value) -> Option<Self> {
        let name = listed["name"].as_str()?.to_owned();
        let text = |key: &str| listed[key].as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        let annotations = &listed["annotations"];
        let (title, description) = (text("title"), text("description"));
        let title = title.or_else(|| annotations["title"].as_str().map(str::to_owned));
        let read_only = annotations["readOnlyHint"] == true;
        let mut take = |key: &str| listed.get_mut(key).map(Value::take).filter(Value::is_object);
        let input = take("inputSchema").unwrap_or_else(|| json!({"type": "object"}));
        Some(Self { name, title, description, input, output: take("outputSchema"), read_only })
    }
}

/// What all descriptions of a gateway have.
struct Frame<'a> {
    prefix: &'a str,
    title: &'a str,
    instructions: Option<&'a str>,
}

impl Frame<'_> {
    fn describe(&self, tools: &[&Tool], generic: bool, terms: &Terms) -> Description {
        let mut ids = Taken::default();
        let mut names = Taken::default();
        let mut components = common(&mut names);
        let mut paths = Map::new();
        if generic {
            // First, so that their names are theirs.
            let ids = [ids.take("list_tools"), ids.take("call_tool")];
            paths.extend(self.generic(ids));
        }
        for tool in tools {
            let id = ids.take(&tool.name);
            let input = schema::add(
                &mut components,
                &mut names,
                &format!("{id}_input"),
                &tool.input,
                terms.parameter,
            );
            let output = match &tool.output {
                Some(output) => {
                    schema::add(&mut components, &mut names, &format!("{id}_output"), output, terms.parameter)
                }
                None => json!({"$ref": "#/components/schemas/ToolResult"}),
            };
            let required = tool.input["required"].as_array().is_some_and(|names| !names.is_empty());
            let summary = tool.title.as_deref().unwrap_or(&tool.name);
            let description = tool.description.as_deref().unwrap_or(summary);
            let mut operation = operation(&id, summary, description, terms);
            operation["requestBody"] =
                json!({"required": required, "content": {"application/json": {"schema": input}}});
            operation["responses"] = responses("What the tool gives.", &output);
            if terms.smart {
                operation["x-openai-isConsequential"] = (!tool.read_only).into();
            }
            let path = format!("{}/mcp/tools/{}/execute", self.prefix, in_path(&tool.name));
            paths.insert(path, json!({"post": operation}));
        }
        let mut info = json!({
            "title": shortened(self.title, SUMMARY_CHARS_MAX),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(instructions) = self.instructions.filter(|text| !text.trim().is_empty()) {
            info["description"] = shortened(instructions, terms.description).into();
        }
        let document = json!({
            "openapi": "3.1.0",
            "servers": [{"url": SERVER}],
            "info": info,
            "security": [{"bearer": []}, {"apiKey": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT of an issuer that the gateway believes."},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                },
            },
        });
        Description::of(&document)
    }

    /// For the tools that have no operation of their own.
    fn generic(&self, [list, call]: [String; 2]) -> [(String, Value); 2] {
        let terms =
            Terms { description: SMART_TEXT_CHARS_MAX, parameter: SMART_PARAMETER_CHARS_MAX, smart: true };
        let text = |name: &str, description: &str| json!({"name": name, "in": "query", "required": false, "description": description, "schema": {"type": "string"}});
        let about = "Lists tools with their descriptions and the schemas of their arguments. There are more tools than operations here: find one with q, then call it with call_tool.";
        let mut listing = operation(&list, "List tools", about, &terms);
        listing["parameters"] = json!([
            text("q", "Only tools with this text in their name, title or description."),
            text("cursor", "The nextCursor of the page before."),
        ]);
        listing["responses"] =
            responses("A page of the tools.", &json!({"$ref": "#/components/schemas/ToolPage"}));
        listing["x-openai-isConsequential"] = false.into();
        let about = "Calls any tool by its name, with arguments as its schema in list_tools says.";
        let mut calling = operation(&call, "Call a tool", about, &terms);
        calling["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ToolCall"}}}});
        calling["responses"] = responses(
            "The tool's result; isError says that it has failed.",
            &json!({"$ref": "#/components/schemas/ToolResult"}),
        );
        calling["x-openai-isConsequential"] = true.into();
        [
            (format!("{}/mcp/tools", self.prefix), json!({"get": listing})),
            (format!("{}/mcp/call", self.prefix), json!({"post": calling})),
        ]
    }
}

impl Description {
    fn of(document: &Value) -> Self {
        let text = document.to_string();
        let server = Value::from(SERVER).to_string();
        // Before anything that others have written, so that nothing can stand in for it.
        let (before, after) = text.split_once(&server).expect("the document has a server");
        Self {
            hash: blake3::hash(text.as_bytes()),
            before: Bytes::copy_from_slice(before.as_bytes()),
            after: Bytes::copy_from_slice(after.as_bytes()),
        }
    }
}

fn operation(id: &str, summary: &str, description: &str, terms: &Terms) -> Value {
    json!({
        "operationId": id,
        "summary": shortened(summary, SUMMARY_CHARS_MAX),
        "description": shortened(description, terms.description),
    })
}

fn responses(description: &str, schema: &Value) -> Value {
    let json = |schema: &Value| json!({"application/json": {"schema": schema}});
    json!({
        "200": {"description": description, "content": json(schema)},
        "default": {"description": "Why there is no result.", "content": json(&json!({"$ref": "#/components/schemas/Error"}))},
    })
}

/// The schemas that operations share.
fn common(names: &mut Taken) -> Map<String, Value> {
    let schemas = [
        (
            "ToolResult",
            json!({
                "type": "object",
                "properties": {
                    "content": {"type": "array", "items": {"$ref": "#/components/schemas/Content"}},
                    "structuredContent": {"description": "The result as data."},
                    "isError": {"type": "boolean", "description": "Whether the tool has failed; content says why."},
                },
                "required": ["content"],
            }),
        ),
        (
            "Content",
            json!({
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "text, image, audio, resource or resource_link."},
                    "text": {"type": "string"},
                    "data": {"type": "string", "description": "Base64."},
                    "mimeType": {"type": "string"},
                },
                "required": ["type"],
            }),
        ),
        (
            "Error",
            json!({
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {
                            "code": {"type": "integer"},
                            "message": {"type": "string"},
                            "data": {"description": "The side that failed, and whether to try again."},
                        },
                        "required": ["code", "message"],
                    },
                },
                "required": ["error"],
            }),
        ),
        (
            "ToolCall",
            json!({
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "The tool's name."},
                    "arguments": {"type": "object", "properties": {}, "additionalProperties": true, "description": "As the tool's inputSchema says."},
                },
                "required": ["name"],
            }),
        ),
        (
            "ToolPage",
            json!({
                "type": "object",
                "properties": {
                    "tools": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "description": {"type": "string"}, "inputSchema": {"type": "object", "properties": {}}}}},
                    "nextCursor": {"type": "string", "description": "For the next page; not on the last."},
                },
                "required": ["tools"],
            }),
        ),
    ];
    schemas.into_iter().map(|(name, schema)| (names.take(name), schema)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(tools: &[Value]) -> Vec<Bytes> {
        vec![Value::from(tools.to_vec()).to_string().into()]
    }

    fn document(description: &Description) -> Value {
        let text = [&description.before[..], b"\"http://h\"", &description.after].concat();
        serde_json::from_slice(&text).unwrap()
    }

    fn operations(document: &Value) -> Vec<&Value> {
        let paths = document["paths"].as_object().unwrap().values();
        paths.flat_map(|path| path.as_object().unwrap().values()).collect()
    }

    #[test]
    fn a_tool_is_an_operation() {
        let tool = json!({
            "name": "get user", "title": "Get", "description": "Gets.\u{1}server",
            "inputSchema": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
            "outputSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
            "annotations": {"readOnlyHint": true},
        });
        let set =
            render("/g/team", "Team", Some("Be kind."), &page(&[tool, json!({"description": "no name"})]));
        assert!(set.structured.contains("get user"));
        let document = document(&set.smart);
        assert_eq!(document["servers"][0]["url"], "http://h");
        let operation = &document["paths"]["/g/team/mcp/tools/get%20user/execute"]["post"];
        assert_eq!(operation["operationId"], "get_user");
        assert_eq!(operation["x-openai-isConsequential"], false);
        assert_eq!(operation["requestBody"]["required"], true);
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(answer, "#/components/schemas/get_user_output");
        assert_eq!(operations(&document).len(), 1);
    }

    #[test]
    fn the_smart_description_keeps_within_its_limits_and_leads_to_everything() {
        let tool = |number: usize| {
            json!({
                "name": format!("tool_{number}"), "description": "d".repeat(1_000),
                "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "description": "p".repeat(1_000)}}},
            })
        };
        let mut tools: Vec<Value> = (0..100).map(tool).collect();
        tools.push(json!({"name": "smart_tool_discovery"}));
        tools.push(json!({"name": "call_tool"}));
        let set = render("", "t", None, &page(&tools));
        assert_eq!(operations(&document(&set.all)).len(), 102);
        let smart = document(&set.smart);
        let operations = operations(&smart);
        assert_eq!(operations.len(), SMART_OPERATIONS_MAX);
        for operation in &operations {
            assert!(operation["description"].as_str().unwrap().chars().count() <= SMART_TEXT_CHARS_MAX);
            assert!(operation["x-openai-isConsequential"].is_boolean());
        }
        let ids: Vec<&str> = operations.iter().map(|o| o["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids[..4], ["list_tools", "call_tool", "smart_tool_discovery", "tool_0"]);
        let parameter = &smart["components"]["schemas"]["tool_0_input"]["properties"]["a"]["description"];
        assert_eq!(parameter.as_str().unwrap().chars().count(), SMART_PARAMETER_CHARS_MAX);
        let few = render("", "t", None, &page(&tools[..30]));
        assert_eq!(self::operations(&document(&few.smart)).len(), 30);
    }
}
