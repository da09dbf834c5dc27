//! Tools that answer at once with every kind of content there is.

use rmcp::model::{CallToolResult, ContentBlock, ErrorData, ResourceContents, Tool};
use serde_json::json;

use super::{Answer, Call, plain_tool, said, tool, tool_with_schema};

/// One red pixel.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
/// A WAV header without samples.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";

const SIMPLE: &str = "test_simple_text";
const IMAGE: &str = "test_image_content";
const AUDIO: &str = "test_audio_content";
const RESOURCE: &str = "test_embedded_resource";
const MIXED: &str = "test_multiple_content_types";
const ERROR: &str = "test_error_handling";
const SCHEMA: &str = "json_schema_2020_12_tool";
const HEADER: &str = "test_custom_header";

pub fn list() -> Vec<Tool> {
    vec![
        plain_tool(SIMPLE, "Answers with a text."),
        plain_tool(IMAGE, "Answers with an image."),
        plain_tool(AUDIO, "Answers with audio."),
        plain_tool(RESOURCE, "Answers with an embedded resource."),
        plain_tool(MIXED, "Answers with a text, an image and a resource."),
        plain_tool(ERROR, "Fails, as a tool fails."),
        tool_with_schema(SCHEMA, "Greets; its schema uses much of JSON Schema 2020-12.", schema_2020_12()),
        tool(
            HEADER,
            "Repeats an argument that clients mirror in a header.",
            json!({ "value": { "type": "string", "description": "What to repeat.", "x-mcp-header": "Value" } }),
            &["value"],
        ),
    ]
}

pub fn call(call: &Call<'_>) -> Option<Answer> {
    let result = match call.name {
        SIMPLE => said("This is a simple text response for testing."),
        IMAGE => CallToolResult::success(vec![image()]),
        AUDIO => CallToolResult::success(vec![ContentBlock::audio(WAV, "audio/wav")]),
        RESOURCE => {
            let resource =
                ResourceContents::text("This is an embedded resource content.", "test://embedded-resource");
            CallToolResult::success(vec![ContentBlock::resource(resource.with_mime_type("text/plain"))])
        }
        MIXED => {
            let data = json!({ "test": "data", "value": 123 }).to_string();
            let data = ResourceContents::text(data, "test://mixed-content-resource")
                .with_mime_type("application/json");
            let text = ContentBlock::text("Multiple content types test:");
            CallToolResult::success(vec![text, image(), ContentBlock::resource(data)])
        }
        ERROR => CallToolResult::error(vec![ContentBlock::text(
            "This tool intentionally returns an error for testing",
        )]),
        SCHEMA => said(format!("Hello, {}!", call.text("name").unwrap_or("whoever lives there"))),
        HEADER => match call.text("value") {
            Some(value) => said(value),
            None => return Some(Err(ErrorData::invalid_params("value is not a string", None))),
        },
        _ => return None,
    };
    Some(Ok(result.into()))
}

fn image() -> ContentBlock {
    ContentBlock::image(PNG, "image/png")
}

/// A gateway has to hand all of this on untouched.
fn schema_2020_12() -> serde_json::Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "address",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } }
            }
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" }
        },
        "allOf": [{ "anyOf": [{ "required": ["name"] }, { "required": ["address"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "properties": { "email": { "type": "string" } } },
        "additionalProperties": false
    })
}
