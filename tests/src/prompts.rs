//! Prompts: every kind of content, one that asks the client first, and one that
//! comes and goes.

use std::sync::atomic::Ordering;

use rmcp::RoleServer;
use rmcp::model::{
    ArgumentInfo, ContentBlock, ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
    Prompt, PromptArgument, PromptMessage, ResourceContents, Role,
};
use rmcp::service::RequestContext;
use serde_json::json;

use crate::ask::{self, Asked, Asking, Script};
use crate::server::Shared;
use crate::tools::content::PNG;

const SIMPLE: &str = "test_simple_prompt";
const WITH_ARGUMENTS: &str = "test_prompt_with_arguments";
const WITH_RESOURCE: &str = "test_prompt_with_embedded_resource";
const WITH_IMAGE: &str = "test_prompt_with_image";
const ASKING: &str = "test_input_required_result_prompt";
const DYNAMIC: &str = "dynamic_prompt";

pub fn list(shared: &Shared) -> Vec<Prompt> {
    let required = |name: &str, description: &str| {
        PromptArgument::new(name).with_description(description).with_required(true)
    };
    let mut prompts = vec![
        Prompt::new(SIMPLE, Some("A prompt without arguments."), None),
        Prompt::new(
            WITH_ARGUMENTS,
            Some("A prompt that repeats its arguments."),
            Some(vec![required("arg1", "The first argument."), required("arg2", "The second argument.")]),
        ),
        Prompt::new(
            WITH_RESOURCE,
            Some("A prompt that embeds a resource."),
            Some(vec![required("resourceUri", "The URI of the resource to embed.")]),
        ),
        Prompt::new(WITH_IMAGE, Some("A prompt with an image."), None),
        Prompt::new(ASKING, Some("A prompt that asks for its context first."), None),
    ];
    if shared.dynamic_prompt.load(Ordering::SeqCst) {
        prompts.push(Prompt::new(
            DYNAMIC,
            Some("A prompt that test_trigger_prompt_change adds and removes."),
            None,
        ));
    }
    prompts
}

pub async fn get(
    shared: &Shared,
    request: GetPromptRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let arguments = request.arguments.clone().unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    let text = |text: &str| PromptMessage::new_text(Role::User, text);
    let messages = match request.name.as_str() {
        SIMPLE => vec![text("This is a simple prompt for testing.")],
        WITH_ARGUMENTS => {
            let (first, second) = (argument("arg1"), argument("arg2"));
            vec![text(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        WITH_RESOURCE => {
            let resource =
                ResourceContents::text("Embedded resource content for testing.", argument("resourceUri"));
            let resource = ContentBlock::resource(resource.with_mime_type("text/plain"));
            vec![
                PromptMessage::new(Role::User, resource),
                text("Please process the embedded resource above."),
            ]
        }
        WITH_IMAGE => {
            let image = ContentBlock::image(PNG, "image/png");
            vec![PromptMessage::new(Role::User, image), text("Please analyze the image above.")]
        }
        ASKING => return ask_first(shared, &request, context).await,
        DYNAMIC if shared.dynamic_prompt.load(Ordering::SeqCst) => vec![text("This prompt comes and goes.")],
        other => return Err(ErrorData::invalid_params(format!("unknown prompt {other:?}"), None)),
    };
    Ok(GetPromptResult::new(messages).into())
}

async fn ask_first(
    shared: &Shared,
    request: &GetPromptRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let asking = Asking {
        context,
        name: ASKING,
        responses: request.input_responses.as_ref(),
        state: request.request_state.as_deref(),
        seal: &shared.seal,
    };
    let question =
        ask::form("What context should the prompt use?", json!({ "context": { "type": "string" } }));
    Ok(match Script::new().ask("user_context", question).run(&asking).await? {
        Asked::Required(required) => required.into(),
        Asked::Answered(answers) => {
            let context = ask::field(&answers, "user_context", "context").unwrap_or("none");
            let message = PromptMessage::new_text(Role::User, format!("Use this context: {context}"));
            GetPromptResult::new(vec![message]).into()
        }
    })
}

pub fn completions(argument: &ArgumentInfo) -> Vec<String> {
    let known = if argument.name == "arg1" { &["paris", "park", "party"][..] } else { &["test"] };
    known.iter().filter(|value| value.starts_with(&argument.value)).map(|value| (*value).to_owned()).collect()
}
