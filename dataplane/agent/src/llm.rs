//! The LLM agent: asks a model of OpenAI (or of anybody who speaks like it),
//! Anthropic or Ollama, in the words of each.
//!
//! Arguments become text inside messages whose number and roles the author has
//! written; nothing of them gets into the address, a header or another message.
//! What a model does with a text is not this file's business.

mod anthropic;
mod chat;
mod lines;
mod ollama;
mod openai;
mod request;
mod telling;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use metrics::counter;
use mt_proto::resource::{
    Llm,
    agent::llm::{AnswerFormat, Provider},
};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::{
    chat::{Chat, Complaint, Reply},
    lines::{Events, Lines},
    request::Request,
    telling::Telling,
};
use crate::{Failure, OUTPUT_BYTES_MAX, Output, Reason, Run, client, schema::Schemas};

/// After the first try; only where nothing of an answer has come.
const RETRIES_MAX: u32 = 2;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// What a provider may make a call wait before it is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// Of an answer as it comes over the wire, with all that is around the text.
const ANSWER_BYTES_MAX: usize = 4 * OUTPUT_BYTES_MAX;
/// Of a body that says what is wrong.
const COMPLAINT_BYTES_MAX: usize = 64 << 10;
/// For the end of a stream after the end of the answer, so that the connection
/// can be used again.
const END_MAX: Duration = Duration::from_millis(50);
/// Anthropic's, for a service that has too much to do.
const OVERLOADED: u16 = 529;
/// In `_meta` of a result.
const USAGE_META: &str = "io.magictunnel/usage";

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<Llm>,
    answers: Schemas,
}

/// Why there is no answer, and whether to try again: after this time at least.
struct Trouble {
    failure: Failure,
    again: Option<Duration>,
}

impl Trouble {
    fn again(failure: Failure) -> Self {
        Self { failure, again: Some(Duration::ZERO) }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, again: None }
    }
}

impl Runner {
    pub fn new(config: &Arc<Llm>) -> Self {
        Self { config: config.clone(), answers: Schemas::default() }
    }

    /// Dropping the future closes the stream, so that the model stops too.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let stream = self.config.stream.unwrap_or_else(|| run.reporter.wants_progress());
        let chat = Chat::new(&self.config, run, stream)?;
        let request = Request::new(&self.config, run, &chat)?;
        let mut tries = 0;
        let reply = loop {
            let trouble = match self.once(&request, run, stream).await {
                Ok(reply) => break reply,
                Err(trouble) => trouble,
            };
            let Some(least) = trouble.again.filter(|_| tries < RETRIES_MAX) else {
                return Err(trouble.failure);
            };
            let jitter = 0.5 + rand::random::<f64>() / 2.0;
            let pause = (PAUSE_FIRST * 2_u32.pow(tries)).mul_f64(jitter).max(least);
            if pause > PAUSE_MAX || Instant::now() + pause >= run.deadline {
                return Err(trouble.failure);
            }
            tries += 1;
            counter!("mt_agent_llm_retries_total", "provider" => self.config.provider.as_str()).increment(1);
            sleep(pause).await;
        };
        self.output(reply, &chat)
    }

    async fn once(&self, request: &Request, run: &Run<'_>, stream: bool) -> Result<Reply, Trouble> {
        let sent = client::shared()?
            .post(request.url.clone())
            .headers(request.headers.clone())
            .body(request.body.clone())
            .send()
            .await
            .map_err(client::failure_of);
        let response = match sent {
            Ok(response) => response,
            Err(failure) if failure.reason == Reason::Unreachable => return Err(Trouble::again(failure)),
            Err(failure) => return Err(failure.into()),
        };
        if !response.status().is_success() {
            return Err(refused(response, request).await);
        }
        // There are those who do not stream, whatever they are asked for.
        let whole = client::content_type(response.headers()).as_deref() == Some("application/json");
        if stream && !whole {
            return self.streamed(response, request, run).await;
        }
        let body = read(response, ANSWER_BYTES_MAX).await?;
        let nonsense = || Failure::new(Reason::Broken, "the provider's answer makes no sense");
        let value: Value = serde_json::from_slice(&body).map_err(|error| nonsense().detail(error))?;
        if let Some(complaint) = Complaint::of(&value) {
            return Err(complained(&complaint, request, true));
        }
        let reply = match self.config.provider {
            Provider::OpenAi => openai::answer(&value),
            Provider::Anthropic => anthropic::answer(&value),
            Provider::Ollama => ollama::answer(&value),
        };
        let reply = reply.ok_or_else(nonsense)?;
        let mut telling = Telling::new(run.reporter);
        telling.tell(&reply.text).await;
        Ok(reply)
    }

    async fn streamed(
        &self,
        mut response: Response,
        request: &Request,
        run: &Run<'_>,
    ) -> Result<Reply, Trouble> {
        let (mut lines, mut events, mut reply) = (Lines::default(), Events::default(), Reply::default());
        let mut telling = Telling::new(run.reporter);
        let mut received = 0;
        while !reply.is_whole {
            // What waits to be told is told, though nothing more comes.
            let due = telling.due(&reply.text).unwrap_or(run.deadline);
            let Ok(chunk) = timeout_at(due, response.chunk()).await else {
                telling.tell(&reply.text).await;
                if due == run.deadline {
                    return Err(Failure::new(Reason::Timeout, "the model did not finish in time").into());
                }
                continue;
            };
            let Some(chunk) = chunk.map_err(client::failure_of)? else { break };
            received += chunk.len();
            if received > ANSWER_BYTES_MAX || reply.text.len() > OUTPUT_BYTES_MAX {
                return Err(client::too_large(OUTPUT_BYTES_MAX).into());
            }
            lines.push(&chunk);
            while let Some(line) = lines.next() {
                self.line(&mut events, &mut reply, &line, request)?;
            }
            if telling.due(&reply.text).is_some_and(|due| due <= Instant::now()) {
                telling.tell(&reply.text).await;
            }
        }
        if reply.is_whole {
            _ = timeout(END_MAX, response.chunk()).await;
        } else {
            for line in lines.last().into_iter().chain([String::new()]) {
                self.line(&mut events, &mut reply, &line, request)?;
            }
        }
        if !reply.is_whole && reply.stop_reason.is_none() {
            return Err(Failure::new(Reason::Broken, "the provider broke off in its answer").into());
        }
        telling.tell(&reply.text).await;
        Ok(reply)
    }

    fn line(
        &self,
        events: &mut Events,
        reply: &mut Reply,
        line: &str,
        request: &Request,
    ) -> Result<(), Trouble> {
        let data = match self.config.provider {
            Provider::Ollama => (!line.trim().is_empty()).then(|| line.to_owned()),
            Provider::OpenAi | Provider::Anthropic => events.line(line),
        };
        let Some(data) = data else { return Ok(()) };
        // The word may stand in a text as well: only then is it looked at twice.
        if data.contains("\"error\"")
            && let Some(complaint) = serde_json::from_str(&data).ok().as_ref().and_then(Complaint::of)
        {
            return Err(complained(&complaint, request, reply.text.is_empty()));
        }
        let read = match self.config.provider {
            Provider::OpenAi => openai::event(reply, &data),
            Provider::Anthropic => anthropic::event(reply, &data),
            Provider::Ollama => ollama::line(reply, &data),
        };
        read.map_err(|error| {
            Failure::new(Reason::Broken, "the provider's answer makes no sense").detail(error).into()
        })
    }

    fn output(&self, reply: Reply, chat: &Chat) -> Result<Output, Failure> {
        let provider = self.config.provider.as_str();
        for (kind, tokens) in [("input", reply.input_tokens), ("output", reply.output_tokens)] {
            counter!("mt_agent_llm_tokens_total", "provider" => provider, "kind" => kind)
                .increment(tokens.unwrap_or_default());
        }
        if let Some(refusal) = &reply.refusal {
            let said = client::excerpt(refusal, &[]);
            return Err(Failure::new(Reason::Refused, format!("the model refuses: {said}")));
        }
        let usage = json!({
            "provider": provider,
            "model": reply.model.as_ref().unwrap_or(&chat.model),
            "inputTokens": reply.input_tokens,
            "outputTokens": reply.output_tokens,
            "stopReason": reply.stop_reason,
        });
        let mut output = match self.config.format {
            AnswerFormat::Text => Output::text(reply.text),
            AnswerFormat::Json | AnswerFormat::Schema(_) => structured(&reply)?,
        };
        if let AnswerFormat::Schema(schema) = &self.config.format {
            self.answers.check_result(Some(schema), &output)?;
        }
        output.meta.insert(USAGE_META.to_owned(), usage);
        Ok(output)
    }
}

/// The answer as the JSON that was asked for. Some put it between fences.
fn structured(reply: &Reply) -> Result<Output, Failure> {
    let text = reply.text.trim();
    let bare = text.strip_prefix("```json").or(text.strip_prefix("```")).and_then(|t| t.strip_suffix("```"));
    let value = serde_json::from_str(bare.unwrap_or(text)).map_err(|error| {
        let why = match reply.stop_reason.as_deref() {
            Some("length" | "max_tokens") => "it was cut at the limit of tokens".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Reason::InvalidResult, format!("the model's answer is not JSON: {why}"))
    })?;
    Ok(Output { structured: Some(value), ..Output::text(bare.unwrap_or(text).trim()) })
}

async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(client::failure_of)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(client::too_large(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a status says that is no success.
async fn refused(response: Response, request: &Request) -> Trouble {
    let status = response.status();
    let after = client::retry_after(response.headers());
    let body = read(response, COMPLAINT_BYTES_MAX).await.unwrap_or_default();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = Complaint::of(&value).map(|complaint| complaint.message);
    let said = client::excerpt(
        &said.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()),
        &request.secrets,
    );
    let with = |text: String| if said.is_empty() { text } else { format!("{text}: {said}") };
    match status {
        // Providers repeat a part of the key here.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let message = "the provider does not accept the key of this tool";
            Failure::new(Reason::Misconfigured, message).detail(format!("{status}")).into()
        }
        StatusCode::TOO_MANY_REQUESTS => limited(after, with).into(),
        status if status.as_u16() == OVERLOADED => {
            Trouble { failure: limited(after, with), again: Some(after.unwrap_or_default()) }
        }
        status => {
            let message = with(format!("the provider answered {}", status.as_u16()));
            let again = status.is_server_error().then(|| after.unwrap_or_default());
            Trouble { failure: Failure::new(Reason::Refused, message), again }
        }
    }
}

fn limited(after: Option<Duration>, with: impl Fn(String) -> String) -> Failure {
    let when = after.map(|after| format!(", try again after {} s", after.as_secs())).unwrap_or_default();
    Failure::new(Reason::Overloaded, with(format!("the provider takes no more requests for now{when}")))
}

/// An error in place of an answer, or of the rest of one.
fn complained(complaint: &Complaint, request: &Request, nothing_came: bool) -> Trouble {
    let said = client::excerpt(&complaint.message, &request.secrets);
    let (reason, again) = match complaint.kind.as_str() {
        "overloaded_error" => (Reason::Overloaded, true),
        "rate_limit_error" => (Reason::Overloaded, false),
        "api_error" | "server_error" => (Reason::Refused, true),
        _ => (Reason::Refused, false),
    };
    let failure = Failure::new(reason, format!("the provider says: {said}"));
    if again && nothing_came { Trouble::again(failure) } else { failure.into() }
}

#[cfg(test)]
mod tests;
