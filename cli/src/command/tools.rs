//! `mtctl tools list`: what a gateway shows to its clients, asked as a client asks.

use serde_json::Value;

use super::{Context, call};
use crate::{
    args::{Era as EraArg, ToolsListArgs},
    mcp_client::Era,
    output::{Exit, Failure, Format, Table, count, shorten},
    target,
};

const DESCRIPTION_CHARS_MAX: usize = 70;

pub async fn run(context: &Context, args: &ToolsListArgs) -> Result<Exit, Failure> {
    let url = target::resolve(context, &args.endpoint).await?;
    let mut client = call::connect(context, &url, &args.endpoint, args.era).await?;
    let mut listed = client.tools().await;
    if args.era == EraArg::Auto && listed.as_ref().is_err_and(|error| error.wants_modern()) {
        let (endpoint, host) = client.into_parts();
        client = call::open(endpoint, Era::Modern, host).await.map_err(|error| call::failure(&url, error))?;
        listed = client.tools().await;
    }
    client.close().await;
    let tools = listed.map_err(|error| call::failure(&url, error))?;
    match context.format() {
        Format::Json | Format::Yaml => context.output.value(&tools)?,
        Format::Name => {
            let names = tools.iter().filter_map(|tool| tool["name"].as_str());
            let lines = names.map(|name| crate::output::escape(name).into_owned() + "\n");
            context.output.data(&lines.collect::<String>())?;
        }
        Format::Table if tools.is_empty() => context.output.say(format_args!("{url} shows no tools")),
        Format::Table => {
            context.output.data(&table(&tools))?;
            context.output.say(count(tools.len(), "tool"));
        }
    }
    Ok(Exit::Ok)
}

fn table(tools: &[Value]) -> String {
    let mut table = Table::new(["TOOL", "ARGUMENTS", "DESCRIPTION"]);
    for tool in tools {
        let description = tool["description"].as_str().or(tool["title"].as_str()).unwrap_or_default();
        let name = tool["name"].as_str().unwrap_or_default().to_owned();
        table.row([name, arguments(&tool["inputSchema"]), shorten(description, DESCRIPTION_CHARS_MAX)]);
    }
    table.render()
}

/// The names of the arguments, the optional ones in brackets.
fn arguments(schema: &Value) -> String {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys());
    let names: Vec<String> = names
        .map(|name| if required.iter().any(|r| r == name) { name.clone() } else { format!("[{name}]") })
        .collect();
    shorten(&names.join(" "), 50)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_are_listed_with_their_arguments() {
        let tools = [
            json!({"name": "add", "description": "Adds.\nTwo lines.", "inputSchema": {
                "properties": {"a": {}, "b": {}, "round": {}}, "required": ["a", "b"]}}),
            json!({"name": "evil\u{1b}[2J", "inputSchema": {"type": "object"}}),
        ];
        insta::assert_snapshot!(table(&tools), @r"
        TOOL           ARGUMENTS    DESCRIPTION
        add            a b [round]  Adds.
        evil\u{1b}[2J  -            -
        ");
    }
}
