//! Questions to the client, in the way of its era.
//!
//! A legacy client gets real requests on its stream, and the tool waits for the
//! answers. A modern client gets an `input_required` result and asks again with
//! the answers, so between two rounds the fixture holds nothing: what it has
//! learned travels in the sealed `requestState`. A tool says what it wants to
//! know, as a `Script`, and does not see the difference.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use rmcp::RoleServer;
use rmcp::model::{
    ClientCapabilities, CreateMessageRequest, CreateMessageRequestParams, ElicitRequest, ElicitRequestParams,
    ErrorData, InputRequest, InputRequiredResult, InputResponses, ListRootsRequest, ProtocolVersion,
    RequestStateCodec, SamplingMessage, SealOptions,
};
use rmcp::service::{RequestContext, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a legacy client may take for one answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a modern client may take to come back with a `requestState`.
const STATE_TTL: Duration = Duration::from_secs(600);
const SAMPLE_TOKENS_MAX: u32 = 100;

/// One request that may need answers, with what its client sent along.
pub struct Asking<'a> {
    pub context: &'a RequestContext<RoleServer>,
    /// Binds a sealed state to the tool or prompt that made it.
    pub name: &'a str,
    pub responses: Option<&'a InputResponses>,
    pub state: Option<&'a str>,
    pub seal: &'a RequestStateCodec,
}

/// Questions in rounds; those of one round are asked together.
pub struct Script {
    rounds: Vec<BTreeMap<String, InputRequest>>,
    sealed: bool,
}

pub enum Asked {
    /// Everything that was asked, by key; each one an object.
    Answered(InputResponses),
    Required(InputRequiredResult),
}

/// What travels in `requestState`.
#[derive(Default, Serialize, Deserialize)]
struct Progress {
    round: usize,
    answers: InputResponses,
}

impl Script {
    pub fn new() -> Self {
        Self { rounds: vec![BTreeMap::new()], sealed: false }
    }

    /// Adds a question to the current round.
    pub fn ask(mut self, key: &str, question: InputRequest) -> Self {
        self.rounds.last_mut().expect("a script starts with a round").insert(key.to_owned(), question);
        self
    }

    /// The questions that follow are asked after those before are answered.
    pub fn then(mut self) -> Self {
        self.rounds.push(BTreeMap::new());
        self.sealed()
    }

    /// Sends a `requestState` along, and accepts no answers without it.
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// Leaves out questions for which the client has declared no capability.
    pub fn only_declared(mut self, context: &RequestContext<RoleServer>) -> Self {
        let declared = context.client_capabilities().unwrap_or_default();
        for round in &mut self.rounds {
            round.retain(|_, question| is_declared(question, &declared));
        }
        self
    }

    pub async fn run(self, asking: &Asking<'_>) -> Result<Asked, ErrorData> {
        let declared = asking.context.client_capabilities().unwrap_or_default();
        for question in self.rounds.iter().flat_map(BTreeMap::values) {
            if !is_declared(question, &declared) {
                return Err(undeclared(asking.context, needed_by(question)));
            }
        }
        if is_modern(asking.context) { self.resume(asking) } else { self.request(asking.context).await }
    }

    /// The modern way: one step per call.
    fn resume(mut self, asking: &Asking<'_>) -> Result<Asked, ErrorData> {
        let mut progress = match asking.state {
            Some(state) if self.sealed => open(asking, state)?,
            _ => Progress::default(),
        };
        if progress.round >= self.rounds.len() {
            return Err(bad_state());
        }
        let may_answer = !self.sealed || asking.state.is_some();
        let answers = asking.responses.filter(|_| may_answer);
        let round = &self.rounds[progress.round];
        // Anything but an object is no answer, so its question is asked again.
        let answered: InputResponses = round
            .keys()
            .filter_map(|key| {
                Some((key.clone(), answers?.get(key).filter(|answer| answer.is_object())?.clone()))
            })
            .collect();
        if answered.len() == round.len() {
            progress.answers.extend(answered);
            progress.round += 1;
        }
        if progress.round == self.rounds.len() {
            return Ok(Asked::Answered(progress.answers));
        }
        let questions = self.rounds.swap_remove(progress.round);
        let state = if self.sealed { Some(seal(asking, &progress)?) } else { None };
        Ok(Asked::Required(InputRequiredResult::new(Some(questions), state)))
    }

    /// The legacy way: the requests of a round go out together.
    async fn request(self, context: &RequestContext<RoleServer>) -> Result<Asked, ErrorData> {
        let mut answers = InputResponses::new();
        for round in self.rounds {
            let asked = round.into_iter().map(|(key, question)| async {
                let answer = tokio::time::timeout(ANSWER_DEADLINE, request(context, question)).await;
                answer
                    .map_err(|_| ErrorData::internal_error("the client did not answer in time", None))?
                    .map(|a| (key, a))
            });
            answers.extend(try_join_all(asked).await?);
        }
        Ok(Asked::Answered(answers))
    }
}

pub fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

/// Refuses a client that has not declared what it needs. Legacy revisions have no
/// code for it.
pub fn undeclared(context: &RequestContext<RoleServer>, needed: ClientCapabilities) -> ErrorData {
    if is_modern(context) {
        ErrorData::missing_required_client_capability(needed)
    } else {
        ErrorData::invalid_request(format!("the client has not declared {}", json!(needed)), None)
    }
}

/// A question for a form with these `properties`, all of them required.
pub fn form(message: &str, properties: Value) -> InputRequest {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    form_with_schema(message, schema)
}

/// A question for a form with this schema.
pub fn form_with_schema(message: &str, schema: Value) -> InputRequest {
    InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: serde_json::from_value(schema).expect("schemas here are written by hand and valid"),
    }))
}

pub fn sample(prompt: &str) -> InputRequest {
    let messages = vec![SamplingMessage::user_text(prompt)];
    InputRequest::CreateMessage(CreateMessageRequest::new(CreateMessageRequestParams::new(
        messages,
        SAMPLE_TOKENS_MAX,
    )))
}

pub fn roots() -> InputRequest {
    InputRequest::ListRoots(ListRootsRequest::default())
}

/// The field of a form that the client has filled in.
pub fn field<'a>(answers: &'a InputResponses, key: &str, field: &str) -> Option<&'a str> {
    answers.get(key)?.get("content")?.get(field)?.as_str()
}

/// The text of a sampled message; its content is one block or an array of blocks.
pub fn sampled_text<'a>(answers: &'a InputResponses, key: &str) -> Option<&'a str> {
    let content = answers.get(key)?.get("content")?;
    content.get(0).unwrap_or(content).get("text")?.as_str()
}

async fn request(context: &RequestContext<RoleServer>, question: InputRequest) -> Result<Value, ErrorData> {
    let peer = &context.peer;
    let answer = match question {
        InputRequest::Elicitation(form) => {
            peer.create_elicitation(form.params).await.map(|answer| json!(answer))
        }
        InputRequest::CreateMessage(message) => {
            peer.create_message(message.params).await.map(|answer| json!(answer))
        }
        InputRequest::ListRoots(_) => peer.list_roots().await.map(|answer| json!(answer)),
        _ => return Err(ErrorData::internal_error("a question of a kind unknown here", None)),
    };
    answer.map_err(|error| match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(other.to_string(), None),
    })
}

fn is_declared(question: &InputRequest, declared: &ClientCapabilities) -> bool {
    match question {
        InputRequest::Elicitation(_) => declared.elicitation.is_some(),
        InputRequest::CreateMessage(_) => declared.sampling.is_some(),
        InputRequest::ListRoots(_) => declared.roots.is_some(),
        _ => false,
    }
}

fn needed_by(question: &InputRequest) -> ClientCapabilities {
    match question {
        InputRequest::Elicitation(_) => ClientCapabilities::builder().enable_elicitation().build(),
        InputRequest::CreateMessage(_) => ClientCapabilities::builder().enable_sampling().build(),
        _ => ClientCapabilities::builder().enable_roots().build(),
    }
}

fn seal(asking: &Asking<'_>, progress: &Progress) -> Result<String, ErrorData> {
    let options = SealOptions::new().associated_data(asking.name.as_bytes()).ttl(STATE_TTL);
    asking
        .seal
        .seal_json_with(progress, &options)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn open(asking: &Asking<'_>, state: &str) -> Result<Progress, ErrorData> {
    asking.seal.open_json_with(state, asking.name.as_bytes()).map_err(|_| bad_state())
}

/// Says nothing about what was wrong: the state is an attacker's to try.
fn bad_state() -> ErrorData {
    ErrorData::invalid_params("requestState was not issued for this request", None)
}
