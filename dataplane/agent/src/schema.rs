//! Arguments and results against the tool's schemas.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::{Failure, Output, Reason, client::excerpt};

/// Findings in one message.
const FINDINGS_MAX: usize = 5;

/// The schemas of one tool, made ready when they are first needed.
#[derive(Default)]
pub struct Schemas {
    arguments: OnceLock<Option<Validator>>,
    result: OnceLock<Option<Validator>>,
}

impl Schemas {
    /// # Errors
    /// With everything that is wrong with the arguments.
    pub fn check_arguments(&self, schema: &Value, arguments: &Map<String, Value>) -> Result<(), Failure> {
        let validator = self.arguments.get_or_init(|| ready(schema)).as_ref();
        let Some(validator) = validator else {
            return Err(Failure::new(Reason::Misconfigured, "the tool's input schema cannot be used"));
        };
        match findings(validator, &Value::Object(arguments.clone())) {
            None => Ok(()),
            Some(findings) => {
                let message = format!("the arguments do not meet the tool's schema: {findings}");
                Err(Failure::new(Reason::InvalidArguments, message))
            }
        }
    }

    /// # Errors
    /// If there is a schema, and the structured result does not meet it or is
    /// not there.
    pub fn check_result(&self, schema: Option<&Value>, output: &Output) -> Result<(), Failure> {
        let Some(schema) = schema else { return Ok(()) };
        let Some(validator) = self.result.get_or_init(|| ready(schema)).as_ref() else {
            return Err(Failure::new(Reason::Misconfigured, "the tool's output schema cannot be used"));
        };
        let wrong = |what: String| {
            Failure::new(Reason::InvalidResult, format!("the result does not meet the tool's schema: {what}"))
        };
        match &output.structured {
            None => Err(wrong("it is not structured".to_owned())),
            Some(value) => findings(validator, value).map_or(Ok(()), |what| Err(wrong(what))),
        }
    }
}

fn ready(schema: &Value) -> Option<Validator> {
    let made = jsonschema::validator_for(schema);
    made.inspect_err(|error| tracing::warn!(%error, "a schema cannot be used")).ok()
}

fn findings(validator: &Validator, value: &Value) -> Option<String> {
    let found: Vec<String> = validator
        .iter_errors(value)
        .take(FINDINGS_MAX)
        // An error repeats the value that it is about, however large that is.
        .map(|error| match error.instance_path().to_string() {
            path if path.is_empty() => excerpt(&error.to_string(), &[]),
            path => excerpt(&format!("{path}: {error}"), &[]),
        })
        .collect();
    (!found.is_empty()).then(|| found.join("; "))
}
