//! What `mtctl` answers when a server asks its client something.
//!
//! A person at a terminal is shown elicitations and asked; otherwise they are
//! declined. There is no language model here, so sampling is refused, and no
//! workspace, so there are no roots.

use std::io::{self, BufRead as _, Read as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::form::{self, Field};
use crate::output::{DIM, Output, STRONG, WARN, escape};

/// The longest answer that is read from the terminal.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// A wrong answer is asked again so often.
const TRIES: usize = 3;

/// The person behind `mtctl`, or the lack of one.
#[derive(Debug)]
pub struct Host {
    output: Output,
    progress: Option<ProgressBar>,
}

/// An error as JSON-RPC has it.
pub type Refusal = (i64, &'static str);

impl Host {
    pub fn new(output: Output) -> Self {
        Self { output, progress: None }
    }

    /// What this client can do, as declared to servers. With nobody to ask
    /// nothing is declared: a backend that needs no answers can be shared.
    pub fn capabilities(&self) -> Value {
        if self.output.interactive { json!({"elicitation": {"form": {}, "url": {}}}) } else { json!({}) }
    }

    /// Answers a request of the server. Blocks while the person thinks.
    ///
    /// # Errors
    /// When the answer is that there is none.
    pub fn answer(&mut self, method: &str, params: &Value) -> Result<Value, Refusal> {
        match method {
            "ping" => Ok(json!({})),
            "elicitation/create" => Ok(self.elicit(params)),
            "sampling/createMessage" => {
                self.say(format_args!(
                    "{WARN}note:{WARN:#} the server asked for a language model; mtctl has none and refused"
                ));
                Err((-1, "mtctl has no language model"))
            }
            _ => Err((-32601, "method not found")),
        }
    }

    /// Takes a notification of the server.
    pub fn notice(&mut self, method: &str, params: &Value) {
        match method {
            "notifications/progress" => self.progress(params),
            "notifications/message" => {
                let text = match &params["data"] {
                    Value::String(text) => text.clone(),
                    data => data.to_string(),
                };
                let level = params["level"].as_str().unwrap_or("log");
                self.say(format_args!("{DIM}{}:{DIM:#} {}", escape(level), escape(&text)));
            }
            _ => {}
        }
    }

    /// Takes the progress bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, words: impl std::fmt::Display) {
        match &self.progress {
            Some(bar) => bar.suspend(|| self.output.say(words)),
            None => self.output.say(words),
        }
    }

    fn progress(&mut self, params: &Value) {
        // Hidden by itself where stderr is no terminal.
        let bar = self.progress.get_or_insert_with(|| {
            let style = "{spinner} {msg} {bar:24} {percent:>3} %";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1000).with_style(style)
        });
        let (done, total) = (params["progress"].as_f64(), params["total"].as_f64());
        if let (Some(done), Some(total)) = (done, total.filter(|total| *total > 0.0)) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to 0..=1000"
            )]
            bar.set_position((done / total * 1000.0).clamp(0.0, 1000.0) as u64);
        }
        if let Some(message) = params["message"].as_str() {
            bar.set_message(escape(message).into_owned());
        }
        bar.tick();
    }

    fn elicit(&mut self, params: &Value) -> Value {
        let message = params["message"].as_str().unwrap_or("the server asks something");
        if !self.output.interactive {
            self.say(format_args!(
                "{WARN}note:{WARN:#} declined, as nobody can be asked here: {}",
                escape(message)
            ));
            return json!({"action": "decline"});
        }
        self.finish();
        self.output.say(format_args!("{STRONG}The server asks:{STRONG:#} {}", escape(message)));
        if let Some(url) = params["url"].as_str() {
            self.output.say(format_args!("Open this page yourself, if you trust it: {}", escape(url)));
            let accepted = self.output.confirm("Go on?", false);
            return json!({"action": if accepted { "accept" } else { "decline" }});
        }
        match self.fill(&form::fields(&params["requestedSchema"])) {
            Some(content) if self.output.confirm("Send this?", false) => {
                json!({"action": "accept", "content": content})
            }
            Some(_) => json!({"action": "decline"}),
            None => json!({"action": "cancel"}),
        }
    }

    /// Asks for each field; none if the input ends or stays wrong.
    fn fill(&self, fields: &[Field]) -> Option<Map<String, Value>> {
        let mut content = Map::new();
        for field in fields {
            let value = (0..TRIES).find_map(|_| {
                self.output.say(escape_lines(&field.prompt()));
                let line = match read_line() {
                    Some(line) => line,
                    None => return Some(None),
                };
                match field.read(&line) {
                    Ok(value) => Some(Some(value)),
                    Err(error) => {
                        self.output.say(format_args!("{WARN}{}{WARN:#}", escape(&error)));
                        None
                    }
                }
            })??;
            if let Some(value) = value {
                content.insert(field.name.clone(), value);
            }
        }
        Some(content)
    }
}

fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line).into_owned()).collect::<Vec<_>>().join("\n")
}

fn read_line() -> Option<String> {
    let mut line = String::new();
    let read = io::BufReader::new(io::stdin().lock().take(LINE_BYTES_MAX)).read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn host() -> Host {
        Host::new(Output { format: Format::Table, interactive: false })
    }

    #[test]
    fn without_a_person_elicitation_is_declined_and_not_declared() {
        assert_eq!(host().capabilities(), json!({}));
        assert_eq!(
            host().answer("elicitation/create", &json!({"message": "?"})),
            Ok(json!({"action": "decline"}))
        );
    }

    #[test]
    fn sampling_and_roots_are_refused_and_ping_is_answered() {
        assert_eq!(host().answer("sampling/createMessage", &json!({})).unwrap_err().0, -1);
        assert_eq!(host().answer("roots/list", &json!({})).unwrap_err().0, -32601);
        assert_eq!(host().answer("ping", &Value::Null), Ok(json!({})));
    }
}
