//! Settings of the LLM agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A prompt for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Llm {
    pub model: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Llm> {
    let model = fields.template("model");
    if model.is_none() {
        fields.missing("model", "for example `model: gpt-4o`");
    }
    Some(Llm { model: model? })
}
