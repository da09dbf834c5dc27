//! Tools that need to know something from the client before they can answer.
//! Both eras have them all: see `ask` for how each is asked.

use rmcp::model::{CallToolResult, ClientCapabilities, InputResponses, Tool};
use serde_json::{Value, json};

use super::{Answer, Call, plain_tool, said, tool};
use crate::ask::{Asked, Script, field, form, form_with_schema, roots, sample, sampled_text, undeclared};

const SAMPLING: &str = "test_sampling";
const ELICITATION: &str = "test_elicitation";
const DEFAULTS: &str = "test_elicitation_sep1034_defaults";
const ENUMS: &str = "test_elicitation_sep1330_enums";
const MISSING: &str = "test_missing_capability";
const STREAMING: &str = "test_streaming_elicitation";
const REQUIRED_ELICITATION: &str = "test_input_required_result_elicitation";
const REQUIRED_SAMPLING: &str = "test_input_required_result_sampling";
const REQUIRED_ROOTS: &str = "test_input_required_result_list_roots";
const REQUIRED_STATE: &str = "test_input_required_result_request_state";
const REQUIRED_MANY: &str = "test_input_required_result_multiple_inputs";
const REQUIRED_ROUNDS: &str = "test_input_required_result_multi_round";
const REQUIRED_TAMPERED: &str = "test_input_required_result_tampered_state";
const REQUIRED_DECLARED: &str = "test_input_required_result_capabilities";

pub fn list() -> Vec<Tool> {
    let text = |description: &str| json!({ "type": "string", "description": description });
    vec![
        tool(
            SAMPLING,
            "Asks the client's model.",
            json!({ "prompt": text("What to ask the model.") }),
            &["prompt"],
        ),
        tool(
            ELICITATION,
            "Asks the user.",
            json!({ "message": text("What to tell the user.") }),
            &["message"],
        ),
        plain_tool(DEFAULTS, "Asks with a form whose fields have defaults."),
        plain_tool(ENUMS, "Asks with a form of every kind of choice."),
        plain_tool(MISSING, "Refuses clients that have not declared sampling."),
        plain_tool(STREAMING, "Asks for one value."),
        plain_tool(REQUIRED_ELICITATION, "Asks for a name and greets."),
        plain_tool(REQUIRED_SAMPLING, "Asks the model for a capital."),
        plain_tool(REQUIRED_ROOTS, "Asks for the client's roots."),
        plain_tool(REQUIRED_STATE, "Asks for a confirmation and keeps its state with the client."),
        plain_tool(REQUIRED_MANY, "Asks for a name, a greeting and roots at once."),
        plain_tool(REQUIRED_ROUNDS, "Asks twice, one question after the other."),
        plain_tool(REQUIRED_TAMPERED, "Asks for a confirmation and refuses a state that is not its own."),
        plain_tool(REQUIRED_DECLARED, "Asks only what the client has declared it can answer."),
    ]
}

pub async fn call(call: &Call<'_>) -> Option<Answer> {
    if call.name == MISSING {
        return Some(needs_sampling(call));
    }
    let script = script(call)?;
    Some(match script.run(&call.asking()).await {
        Ok(Asked::Required(required)) => Ok(required.into()),
        Ok(Asked::Answered(answers)) => Ok(conclude(call.name, &answers).into()),
        Err(error) => Err(error),
    })
}

fn needs_sampling(call: &Call<'_>) -> Answer {
    if call.context.client_capabilities().unwrap_or_default().sampling.is_none() {
        let needed = ClientCapabilities::builder().enable_sampling().build();
        return Err(undeclared(call.context, needed));
    }
    Ok(said("The client has declared sampling").into())
}

fn script(call: &Call<'_>) -> Option<Script> {
    let script = Script::new();
    let name = || form("What is your name?", json!({ "name": { "type": "string" } }));
    let confirmation = || form("Please confirm", json!({ "ok": { "type": "boolean" } }));
    let greeting = || sample("Generate a greeting");
    Some(match call.name {
        SAMPLING => script.ask("sample", sample(call.text("prompt").unwrap_or_default())),
        ELICITATION => script.ask("form", form(call.text("message").unwrap_or_default(), contact())),
        DEFAULTS => script.ask("form", form_with_schema("Please review these values", defaults())),
        ENUMS => script.ask("form", form_with_schema("Please choose", enums())),
        STREAMING => script.ask("value", form("Provide a value", json!({ "value": { "type": "string" } }))),
        REQUIRED_ELICITATION => script.ask("user_name", name()),
        REQUIRED_SAMPLING => script.ask("capital_question", sample("What is the capital of France?")),
        REQUIRED_ROOTS => script.ask("client_roots", roots()),
        REQUIRED_STATE | REQUIRED_TAMPERED => script.ask("confirm", confirmation()).sealed(),
        REQUIRED_MANY => {
            script.ask("user_name", name()).ask("greeting", greeting()).ask("client_roots", roots()).sealed()
        }
        REQUIRED_ROUNDS => {
            let color = form("What is your favorite color?", json!({ "color": { "type": "string" } }));
            script.ask("step1", name()).then().ask("step2", color)
        }
        REQUIRED_DECLARED => script
            .ask("user_name", name())
            .ask("greeting", greeting())
            .ask("client_roots", roots())
            .only_declared(call.context),
        _ => return None,
    })
}

/// What the tool says once it knows everything.
fn conclude(tool: &str, answers: &InputResponses) -> CallToolResult {
    let name = || field(answers, "user_name", "name").unwrap_or("stranger");
    let greeting = || sampled_text(answers, "greeting").unwrap_or("none");
    let root_uris = || root_uris(answers.get("client_roots").unwrap_or_default());
    let form = answers.get("form").unwrap_or_default();
    let action = || form["action"].as_str().unwrap_or("none");
    said(match tool {
        SAMPLING => format!("LLM response: {}", sampled_text(answers, "sample").unwrap_or("none")),
        ELICITATION => format!("User response: action={}, content={}", action(), form["content"]),
        DEFAULTS | ENUMS => {
            format!("Elicitation completed: action={}, content={}", action(), form["content"])
        }
        STREAMING => format!("Value: {}", field(answers, "value", "value").unwrap_or("none")),
        REQUIRED_ELICITATION => format!("Hello, {}!", name()),
        REQUIRED_SAMPLING => {
            format!("The model says: {}", sampled_text(answers, "capital_question").unwrap_or("none"))
        }
        REQUIRED_ROOTS => format!("Roots: {}", root_uris()),
        REQUIRED_STATE | REQUIRED_TAMPERED => "state-ok".to_owned(),
        REQUIRED_MANY => format!("Hello, {}! Greeting: {}. Roots: {}", name(), greeting(), root_uris()),
        REQUIRED_ROUNDS => {
            let name = field(answers, "step1", "name").unwrap_or("stranger");
            let color = field(answers, "step2", "color").unwrap_or("no color");
            format!("{name} likes {color}")
        }
        _ => format!("Asked for: {}", keys(answers)),
    })
}

fn root_uris(answer: &Value) -> String {
    let roots = answer["roots"].as_array().map(Vec::as_slice).unwrap_or_default();
    roots.iter().filter_map(|root| root["uri"].as_str()).collect::<Vec<_>>().join(", ")
}

fn keys(answers: &InputResponses) -> String {
    let keys: Vec<&str> = answers.keys().map(String::as_str).collect();
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

fn contact() -> Value {
    json!({
        "username": { "type": "string", "description": "The user's name." },
        "email": { "type": "string", "description": "The user's address." }
    })
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "A name.", "default": "John Doe" },
            "age": { "type": "integer", "description": "An age.", "default": 30 },
            "score": { "type": "number", "description": "A score.", "default": 95.5 },
            "status": {
                "type": "string",
                "description": "A status.",
                "enum": ["active", "inactive", "pending"],
                "default": "active"
            },
            "verified": { "type": "boolean", "description": "Whether it was verified.", "default": true }
        }
    })
}

fn enums() -> Value {
    let titled = |values: [&str; 3], titles: [&str; 3]| -> Value {
        values.iter().zip(titles).map(|(value, title)| json!({ "const": value, "title": title })).collect()
    };
    let options = ["option1", "option2", "option3"];
    let values = ["value1", "value2", "value3"];
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": options },
            "titledSingle": { "type": "string", "oneOf": titled(values, ["First", "Second", "Third"]) },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"]
            },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
            "titledMulti": { "type": "array", "items": { "anyOf": titled(values, ["One", "Two", "Three"]) } }
        }
    })
}
