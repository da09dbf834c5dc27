//! Settings of the subprocess agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A program that is run for each call.
#[derive(Clone, Debug, PartialEq)]
pub struct Subprocess {
    pub command: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Subprocess> {
    let command = fields.template("command");
    if command.is_none() {
        fields.missing("command", "for example `command: date`");
    }
    Some(Subprocess { command: command? })
}
