//! Reads the settings of an agent, which are free-form on the wire, field by
//! field: with a problem for what is wrong, missing or unknown.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use prost_types::{Struct, value::Kind as Json};
use serde_json::{Map, Number, Value};

use crate::{
    resource::{
        Kind,
        check::{Checker, quoted},
        problem::{closest, key_path},
    },
    template::{Names, Template, TemplateError, Tree},
};

use super::text::Text;

/// Of one list or map of an agent's settings.
const ENTRIES_MAX: usize = 1_000;

/// An object of settings that is being read.
pub(in crate::resource) struct Fields<'c, 'a> {
    pub checker: &'c mut Checker<'a>,
    names: Names<'c>,
    path: String,
    object: Map<String, Value>,
    known: BTreeSet<&'static str>,
}

impl<'c, 'a> Fields<'c, 'a> {
    pub fn new(
        checker: &'c mut Checker<'a>,
        names: Names<'c>,
        path: impl Into<String>,
        object: Map<String, Value>,
    ) -> Self {
        Self { checker, names, path: path.into(), object, known: BTreeSet::new() }
    }

    /// Where a field stands: `spec.tools[2].routing.config.url`.
    pub fn path(&self, name: &str) -> String {
        key_path(&self.path, name)
    }

    pub fn problem(&mut self, name: &str, message: impl Into<String>, hint: Option<String>) {
        let path = if name.is_empty() { self.path.clone() } else { self.path(name) };
        self.checker.report(&path, message.into(), hint);
    }

    /// The field's value, under its name or the same in snake case; what is
    /// null is not there.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.insert(name);
        let value = match self.object.shift_remove(name) {
            Some(value) => Some(value),
            None => self.object.shift_remove(&snake(name)),
        };
        value.filter(|value| !value.is_null())
    }

    /// As [`take`](Self::take), also under names that other programs have for
    /// it.
    pub fn take_any(&mut self, name: &'static str, aliases: &[&'static str]) -> Option<Value> {
        let found = self.take(name);
        aliases.iter().fold(found, |found, alias| {
            let other = self.object.shift_remove(*alias).filter(|value| !value.is_null());
            found.or(other)
        })
    }

    pub fn missing(&mut self, name: &'static str, hint: &str) {
        self.problem(name, format!("`{name}` is missing"), Some(hint.to_owned()));
    }

    fn wrong(&mut self, name: &'static str, wanted: &str) {
        self.problem(name, format!("`{name}` must be {wanted}"), None);
    }

    /// A plain text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.wrong(name, "a text");
                None
            }
        }
    }

    pub fn bool(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            _ => {
                self.wrong(name, "true or false");
                None
            }
        }
    }

    pub fn count(&mut self, name: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        match self.take(name) {
            None => default,
            Some(value) => match value.as_u64().filter(|value| range.contains(value)) {
                Some(value) => value,
                None => {
                    self.wrong(name, &format!("a number of {} to {}", range.start(), range.end()));
                    default
                }
            },
        }
    }

    /// A time such as `30s` or `1m30s`; a bare number is seconds.
    pub fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(value) = self.take(name) else { return default };
        let read = match &value {
            Value::Number(seconds) => {
                seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            }
            Value::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        match read.filter(|time| range.contains(time)) {
            Some(time) => time,
            None => {
                let human = humantime::format_duration;
                let (least, most) = (human(*range.start()), human(*range.end()));
                self.wrong(name, &format!("a time of {least} to {most}, such as `30s`"));
                default
            }
        }
    }

    /// One of a few words.
    pub fn choice(
        &mut self,
        name: &'static str,
        words: &[&'static str],
        default: &'static str,
    ) -> &'static str {
        let Some(text) = self.text(name) else { return default };
        match words.iter().find(|word| word.eq_ignore_ascii_case(&text)) {
            Some(word) => word,
            None => {
                let hint = match closest(&text, words.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("one of {}", words.join(", ")),
                };
                self.problem(name, format!("{} is not a `{name}`", quoted(&text)), Some(hint));
                default
            }
        }
    }

    /// A text with templates in it. A number or a truth value is taken for its
    /// text.
    pub fn template(&mut self, name: &'static str) -> Option<Template> {
        let value = self.take(name)?;
        let path = self.path(name);
        self.compile(&path, value)
    }

    fn compile(&mut self, path: &str, value: Value) -> Option<Template> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => {
                self.checker.problem(path, "must be a text");
                return None;
            }
        };
        match Template::compile(&text, self.names) {
            Ok(template) => Some(template),
            Err(error) => {
                self.template_problem(path, &text, &error);
                None
            }
        }
    }

    fn template_problem(&mut self, path: &str, text: &str, error: &TemplateError) {
        self.checker.report(path, error.placed(text), error.hint.clone());
    }

    /// Says what the place would refuse that the field's template is for:
    /// whether it is fit for it.
    pub fn fits(&mut self, name: &str, template: &Template, checked: Result<(), TemplateError>) -> bool {
        if let Err(error) = &checked {
            self.template_problem(&self.path(name), template.text(), error);
        }
        checked.is_ok()
    }

    /// Texts with templates in them, in order.
    pub fn templates(&mut self, name: &'static str) -> Vec<Template> {
        let path = self.path(name);
        self.list(name)
            .into_iter()
            .enumerate()
            .filter_map(|(i, value)| self.compile(&format!("{path}[{i}]"), value))
            .collect()
    }

    /// A list of anything.
    pub fn list(&mut self, name: &'static str) -> Vec<Value> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() <= ENTRIES_MAX => items,
            Some(Value::Array(_)) => {
                self.wrong(name, &format!("at most {ENTRIES_MAX} elements long"));
                Vec::new()
            }
            Some(_) => {
                self.wrong(name, "a list");
                Vec::new()
            }
        }
    }

    /// A map of anything, in order.
    pub fn map(&mut self, name: &'static str) -> Map<String, Value> {
        match self.take(name) {
            None => Map::new(),
            Some(Value::Object(entries)) if entries.len() <= ENTRIES_MAX => entries,
            Some(Value::Object(_)) => {
                self.wrong(name, &format!("at most {ENTRIES_MAX} entries long"));
                Map::new()
            }
            Some(_) => {
                self.wrong(name, "an object");
                Map::new()
            }
        }
    }

    /// A map from plain names to templates or secrets.
    pub fn text_map(&mut self, name: &'static str) -> Vec<(String, Text)> {
        let path = self.path(name);
        let entries = self.map(name);
        let entry = |(key, value)| Some((String::clone(&key), self.text_at(&key_path(&path, &key), value)?));
        entries.into_iter().filter_map(entry).collect()
    }

    /// A template, or `{secret: name}`.
    pub fn text_or_secret(&mut self, name: &'static str) -> Option<Text> {
        let value = self.take(name)?;
        let path = self.path(name);
        self.text_at(&path, value)
    }

    fn text_at(&mut self, path: &str, value: Value) -> Option<Text> {
        match value {
            Value::Object(entries) => match (entries.len(), entries.get("secret")) {
                (1, Some(Value::String(secret))) => {
                    self.checker.reference(&format!("{path}.secret"), Kind::Secret, secret).map(Text::Secret)
                }
                _ => {
                    let hint = "write a text, or `{secret: name}`";
                    self.checker.problem_with_hint(path, "must be a text or a reference to a secret", hint);
                    None
                }
            },
            other => self.compile(path, other).map(Text::Template),
        }
    }

    /// A value of any shape, with templates for texts.
    pub fn tree(&mut self, name: &'static str) -> Option<Tree> {
        let value = self.take(name)?;
        self.tree_of(name, &value)
    }

    /// A value that was taken from a field, with templates for texts.
    pub fn tree_of(&mut self, name: &str, value: &Value) -> Option<Tree> {
        match Tree::compile(value, self.names) {
            Ok(tree) => Some(tree),
            Err((path, error)) => {
                let path = format!("{}{path}", self.path(name));
                self.checker.report(&path, error.to_string(), error.hint);
                None
            }
        }
    }

    /// Whether there is anything under this name.
    pub fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    /// The field's value, which stays to be read.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        let value = self.object.get(name).or_else(|| self.object.get(&snake(name)));
        value.filter(|value| !value.is_null())
    }

    /// An object that was found somewhere in a value, read the same way.
    pub fn object_at(&mut self, path: String, object: Map<String, Value>) -> Fields<'_, 'a> {
        Fields::new(self.checker, self.names, path, object)
    }

    /// An object whose fields are read the same way.
    pub fn object(&mut self, name: &'static str) -> Option<Fields<'_, 'a>> {
        let object = match self.take(name)? {
            Value::Object(object) => object,
            _ => {
                self.wrong(name, "an object");
                return None;
            }
        };
        let path = self.path(name);
        Some(Fields::new(self.checker, self.names, path, object))
    }

    /// A list of objects, each read the same way.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Fields<'_, 'a>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.path(name);
        let mut all = Vec::new();
        for (i, value) in self.list(name).into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            let Value::Object(object) = value else {
                self.checker.problem(&path, "must be an object");
                continue;
            };
            let mut fields = Fields::new(self.checker, self.names, path, object);
            all.extend(read(&mut fields));
            fields.finish();
        }
        all
    }

    /// A template that no argument of a call gets into: where something is, for
    /// example. The author and the node's environment say it.
    pub fn fixed_template(&mut self, name: &'static str) -> Option<Template> {
        let template = self.template(name)?;
        let fixed = !template.shows_values();
        if !fixed {
            let hint = "write it out, or read a variable of the node as `{{env.NAME}}`";
            let message = format!("`{name}` must not depend on the arguments of a call");
            self.problem(name, message, Some(hint.to_owned()));
        }
        fixed.then_some(template)
    }

    /// Whatever was not taken is a problem.
    pub fn finish(self) {
        let Self { checker, path, object, known, .. } = self;
        for key in object.keys() {
            let hint = match closest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let all: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    format!("here can be {}", all.join(", "))
                }
            };
            checker.problem_with_hint(&key_path(&path, key), format!("unknown setting `{key}`"), hint);
        }
    }
}

/// `max_bytes` for `maxBytes`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// A free-form object of the wire as JSON. Whole numbers are whole again.
pub fn json_object(wire: &Struct) -> Map<String, Value> {
    wire.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json(wire: &prost_types::Value) -> Value {
    match &wire.kind {
        None | Some(Json::NullValue(_)) => Value::Null,
        Some(Json::BoolValue(value)) => Value::Bool(*value),
        Some(Json::StringValue(text)) => Value::String(text.clone()),
        Some(Json::NumberValue(number)) => json_number(*number),
        Some(Json::StructValue(object)) => Value::Object(json_object(object)),
        Some(Json::ListValue(list)) => Value::Array(list.values.iter().map(json).collect()),
    }
}

fn json_number(number: f64) -> Value {
    /// Up to here a double holds every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}
