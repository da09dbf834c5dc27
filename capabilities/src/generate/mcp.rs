//! Tools from the tools of another backend: each stays what it is, ready to be
//! renamed, described anew, or given fixed arguments.

use serde_json::{Map, Value, json};

use super::{
    Draft, Drafts, Options, bounded,
    names::ToolNames,
    schema::{OUTPUT_BYTES_MAX, serves},
};

const DESCRIPTION_CHARS_MAX: usize = 4_000;
const TITLE_CHARS_MAX: usize = 200;
/// Of the arguments of one tool: what a backend says itself is kept whole.
const INPUT_BYTES_MAX: usize = 128 << 10;

pub fn draft(backend: &str, tools: &[Value], options: &Options) -> Drafts {
    let title = format!("the tools of the backend {backend}");
    let mut drafts = Drafts { kind: "mcp", title, backend: Some(backend.to_owned()), ..Drafts::default() };
    let mut names = ToolNames::new(&options.prefix);
    for tool in tools {
        let Some(name) = tool["name"].as_str().filter(|name| !name.is_empty()) else {
            drafts.notes.kept_out("", "a tool without a name");
            continue;
        };
        if !options.filter.takes(&[name]) {
            continue;
        }
        let call = format!("{backend}: {name}");
        let description = bounded(tool["description"].as_str().unwrap_or_default(), DESCRIPTION_CHARS_MAX);
        if description.is_empty() {
            drafts.notes.changed(&call, "the backend does not say what it is for");
        }
        let mut input = tool["inputSchema"].clone();
        if input["type"] != "object" || input.to_string().len() > INPUT_BYTES_MAX || !serves(&input) {
            drafts.notes.changed(&call, "its arguments are not checked: their schema cannot be served");
            input = json!({"type": "object"});
        }
        let output =
            tool.get("outputSchema").filter(|schema| !options.no_output_schema && schema.is_object());
        let output =
            output.filter(|schema| schema.to_string().len() <= 4 * OUTPUT_BYTES_MAX && serves(schema));
        let mut config = Map::new();
        config.insert("backend".into(), backend.into());
        config.insert("tool".into(), name.into());
        drafts.tools.push(Draft {
            name: names.take(name, name),
            title: bounded(tool["title"].as_str().unwrap_or_default(), TITLE_CHARS_MAX),
            description,
            input,
            output: output.cloned(),
            annotations: tool["annotations"].as_object().cloned().unwrap_or_default(),
            agent: "mcp",
            config,
            call,
            group: "tools".to_owned(),
        });
    }
    drafts
}
