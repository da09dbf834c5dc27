//! The prompt templates of a tool set.

use std::collections::BTreeSet;

use super::{
    super::{
        check::{Checker, is_env_name, is_tool_name, quoted},
        problem::closest,
    },
    resource::{UriTemplate, compile, unknown_name},
};
use crate::{
    pb::resource as pb,
    template::{Names, Template},
};

const PROMPTS_MAX: usize = 1_000;
/// Of one prompt.
const ARGUMENTS_MAX: usize = 100;
const MESSAGES_MAX: usize = 100;
/// Of one argument: as many as one completion may suggest.
const VALUES_MAX: usize = 100;
const ARGUMENT_NAME_BYTES_MAX: usize = 64;
/// They mean something else in templates.
const TAKEN_NAMES: [&str; 2] = ["env", "this"];

/// A prompt template.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub arguments: Vec<PromptArgument>,
    pub messages: Vec<PromptMessage>,
    /// Not listed.
    pub hidden: bool,
}

/// Something that a prompt takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptArgument {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub required: bool,
    /// To suggest.
    pub values: Vec<String>,
}

/// One message that a prompt makes.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptMessage {
    pub role: Role,
    pub content: PromptContent,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
}

/// What a message holds.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptContent {
    Text(Template),
    /// The URI of a resource of the same set.
    Resource(String),
}

pub(in crate::resource) fn check(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    wire: &pb::ToolSet,
) -> Vec<Prompt> {
    if wire.prompts.len() > PROMPTS_MAX {
        let message = format!("{} prompts are too many, at most {PROMPTS_MAX}", wire.prompts.len());
        checker.problem("spec.prompts", message);
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut prompts = Vec::with_capacity(wire.prompts.len());
    for (i, prompt) in wire.prompts.iter().enumerate() {
        let path = format!("spec.prompts[{i}]");
        if !is_tool_name(&prompt.name) {
            let message = format!(
                "{} is not the name of a prompt: 1 to 128 of A-Z, a-z, 0-9 and '_.-'",
                quoted(&prompt.name)
            );
            checker.problem(&format!("{path}.name"), message);
        } else if !seen.insert(&prompt.name) {
            let message = format!("the set has two prompts named {:?}", prompt.name);
            checker.problem(&format!("{path}.name"), message);
        }
        let messages = prompt.messages.len();
        if messages == 0 {
            let hint = "add `messages: [{role: user, text: ...}]`";
            checker.problem_with_hint(&format!("{path}.messages"), "the prompt makes no message", hint);
        } else if messages > MESSAGES_MAX {
            let message = format!("{messages} messages are too many, at most {MESSAGES_MAX}");
            checker.problem(&format!("{path}.messages"), message);
        }
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let context = Context { names, arguments: check_arguments(checker, &path, prompt), set: wire };
        let messages = prompt.messages.iter().enumerate();
        prompts.push(Prompt {
            name: prompt.name.clone(),
            title: some(&prompt.title),
            description: some(&prompt.description),
            messages: messages
                .filter_map(|(i, message)| {
                    check_message(checker, &context, &format!("{path}.messages[{i}]"), message)
                })
                .collect(),
            arguments: context.arguments,
            hidden: wire.hidden || prompt.hidden,
        });
    }
    prompts
}

fn check_arguments(checker: &mut Checker<'_>, path: &str, prompt: &pb::BoundPrompt) -> Vec<PromptArgument> {
    let path = format!("{path}.arguments");
    if prompt.arguments.len() > ARGUMENTS_MAX {
        let message = format!("{} arguments are too many, at most {ARGUMENTS_MAX}", prompt.arguments.len());
        checker.problem(&path, message);
        return Vec::new();
    }
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut seen = BTreeSet::new();
    for (i, argument) in prompt.arguments.iter().enumerate() {
        let at = format!("{path}[{i}].name");
        let name = argument.name.as_str();
        if name.len() > ARGUMENT_NAME_BYTES_MAX || !is_env_name(name) || TAKEN_NAMES.contains(&name) {
            let message = format!(
                "{} is not the name of an argument: letters, digits and '_', not `env` or `this`",
                quoted(name)
            );
            checker.problem(&at, message);
        } else if !seen.insert(name) {
            checker.problem(&at, format!("the prompt has two arguments named {name:?}"));
        }
        if argument.values.len() > VALUES_MAX {
            let message = format!("{} values are too many, at most {VALUES_MAX}", argument.values.len());
            checker.problem(&format!("{path}[{i}].values"), message);
        }
    }
    let argument = |argument: &pb::PromptArgument| PromptArgument {
        name: argument.name.clone(),
        title: some(&argument.title),
        description: some(&argument.description),
        required: argument.required,
        values: argument.values.clone(),
    };
    prompt.arguments.iter().map(argument).collect()
}

/// What a message may refer to.
struct Context<'a> {
    names: Names<'a>,
    arguments: Vec<PromptArgument>,
    set: &'a pb::ToolSet,
}

impl Context<'_> {
    fn has_resource(&self, uri: &str) -> bool {
        let fits = |template: &str| UriTemplate::parse(template).is_ok_and(|t| t.matches(uri).is_some());
        let is = |resource: &pb::BoundResource| resource.uri == uri || fits(&resource.uri_template);
        self.set.resources.iter().any(is)
    }
}

fn check_message(
    checker: &mut Checker<'_>,
    context: &Context<'_>,
    path: &str,
    message: &pb::PromptMessage,
) -> Option<PromptMessage> {
    let role = match message.role.as_str() {
        "" | "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let hint = closest(other, ["user", "assistant"]).unwrap_or("user");
            let hint = format!("did you mean {hint:?}?");
            checker.problem_with_hint(
                &format!("{path}.role"),
                format!("{} is not a role", quoted(other)),
                hint,
            );
            Role::User
        }
    };
    let content = match &message.content {
        Some(pb::prompt_message::Content::Text(text)) => {
            let path = format!("{path}.text");
            let template = compile(checker, context.names, &path, text)?;
            let known: Vec<String> = context.arguments.iter().map(|argument| argument.name.clone()).collect();
            if let Some(name) = unknown_name(&template, &known) {
                let hint = format!("add `arguments: [{{name: {name}}}]`");
                checker.problem_with_hint(&path, format!("the prompt has no argument {name:?}"), hint);
            }
            PromptContent::Text(template)
        }
        Some(pb::prompt_message::Content::Resource(uri)) => {
            if !context.has_resource(uri) {
                let uris = context.set.resources.iter().map(|resource| resource.uri.as_str());
                let hint = match closest(uri, uris) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "add it to the `resources` of the set".to_owned(),
                };
                let message = format!("the set has no resource {}", quoted(uri));
                checker.problem_with_hint(&format!("{path}.resource"), message, hint);
            }
            PromptContent::Resource(uri.clone())
        }
        None => {
            checker.problem_with_hint(path, "the message says nothing", "add `text: ...`");
            return None;
        }
    };
    Some(PromptMessage { role, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ResourceSet;

    fn problems(change: impl FnOnce(&mut pb::BoundPrompt)) -> Vec<String> {
        let content = pb::prompt_message::Content::Text("Hello {{name}}".to_owned());
        let mut prompt = pb::BoundPrompt {
            name: "greet".to_owned(),
            arguments: vec![pb::PromptArgument { name: "name".to_owned(), ..Default::default() }],
            messages: vec![pb::PromptMessage { content: Some(content), ..Default::default() }],
            ..Default::default()
        };
        change(&mut prompt);
        let resource = pb::BoundResource { uri: "docs://a".to_owned(), ..Default::default() };
        let family = pb::BoundResource { uri_template: "wiki://{page}".to_owned(), ..Default::default() };
        let wire =
            pb::ToolSet { prompts: vec![prompt], resources: vec![resource, family], ..Default::default() };
        let set = ResourceSet::default();
        let mut checker = Checker::new(&set);
        check(&mut checker, Names::default(), &wire);
        let problems = checker.into_problems();
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn a_message_reads_only_the_arguments_of_its_prompt() {
        assert_eq!(problems(|_| {}), [""; 0]);
        assert_eq!(
            problems(|prompt| prompt.arguments.clear()),
            ["spec.prompts[0].messages[0].text: the prompt has no argument \"name\""]
        );
    }

    #[test]
    fn arguments_have_names_of_their_own() {
        let named = |name: &str| pb::PromptArgument { name: name.to_owned(), ..Default::default() };
        for name in ["", "a b", "a-b", "1a", "env", "this", &"x".repeat(65)] {
            assert_eq!(problems(|prompt| prompt.arguments.push(named(name))).len(), 1, "{name:?}");
        }
        assert_eq!(
            problems(|prompt| prompt.arguments.push(named("name"))),
            ["spec.prompts[0].arguments[1].name: the prompt has two arguments named \"name\""]
        );
        let many = vec![String::new(); VALUES_MAX + 1];
        assert_eq!(problems(|prompt| prompt.arguments[0].values = many).len(), 1);
    }

    #[test]
    fn a_message_may_hold_a_resource_of_the_set() {
        let holds = |uri: &str| {
            let content = pb::prompt_message::Content::Resource(uri.to_owned());
            problems(|prompt| prompt.messages[0].content = Some(content))
        };
        assert_eq!(holds("docs://a"), [""; 0]);
        assert_eq!(holds("wiki://start"), [""; 0]);
        assert_eq!(
            holds("docs://b"),
            ["spec.prompts[0].messages[0].resource: the set has no resource \"docs://b\""]
        );
    }
}
