//! The helpers that a template may call. There are no others: a template
//! decides and shows, it does not compute.

use std::{borrow::Cow, cmp::Ordering, ops::RangeInclusive};

use serde_json::Value;

use crate::resource::closest;

/// Something that can be called in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    And,
    Or,
    Not,
    Len,
    Lookup,
    Json,
    Default,
}

/// Of `and` and `or`.
const OPERANDS_MAX: usize = 16;

const ALL: [(&str, Helper, &str); 13] = [
    ("eq", Helper::Eq, "{{#if (eq mode \"fast\")}}"),
    ("ne", Helper::Ne, "{{#if (ne mode \"fast\")}}"),
    ("gt", Helper::Gt, "{{#if (gt count 1)}}"),
    ("gte", Helper::Gte, "{{#if (gte count 1)}}"),
    ("lt", Helper::Lt, "{{#if (lt count 1)}}"),
    ("lte", Helper::Lte, "{{#if (lte count 1)}}"),
    ("and", Helper::And, "{{#if (and a b)}}"),
    ("or", Helper::Or, "{{#if (or a b)}}"),
    ("not", Helper::Not, "{{#if (not a)}}"),
    ("len", Helper::Len, "{{len items}}"),
    ("lookup", Helper::Lookup, "{{lookup items 0}}"),
    ("json", Helper::Json, "{{json filter}}"),
    ("default", Helper::Default, "{{default name \"x\"}}"),
];

impl Helper {
    /// Finds a helper; otherwise what is wrong, and what to do.
    pub fn named(name: &str) -> Result<Self, (String, String)> {
        if let Some((_, helper, _)) = ALL.iter().find(|(known, _, _)| *known == name) {
            return Ok(*helper);
        }
        if matches!(name, "if" | "unless" | "each" | "with") {
            let message = format!("`{name}` is a block");
            return Err((message, format!("write `{{{{#{name} ...}}}}...{{{{/{name}}}}}`")));
        }
        let hint = match closest(name, ALL.iter().map(|(name, _, _)| *name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("helpers are {}", ALL.map(|(name, _, _)| name).join(", ")),
        };
        Err((format!("there is no helper `{name}`"), hint))
    }

    /// How many operands.
    pub fn takes(self) -> RangeInclusive<usize> {
        match self {
            Helper::Not | Helper::Len | Helper::Json => 1..=1,
            Helper::And | Helper::Or => 2..=OPERANDS_MAX,
            _ => 2..=2,
        }
    }

    pub fn example(self) -> &'static str {
        ALL.iter().find(|(_, helper, _)| *helper == self).map_or("", |(_, _, example)| example)
    }

    /// What it gives for these operands; none if there is no such thing. An
    /// operand that is not there counts as null.
    pub fn call<'a>(self, operands: Vec<Option<Cow<'a, Value>>>) -> Option<Cow<'a, Value>> {
        let bool = |value: bool| Some(Cow::Owned(Value::Bool(value)));
        let is_true = |operand: &Option<Cow<'a, Value>>| operand.as_deref().is_some_and(truthy);
        let mut operands = operands.into_iter();
        match self {
            Helper::And => return bool(operands.all(|operand| is_true(&operand))),
            Helper::Or => return bool(operands.any(|operand| is_true(&operand))),
            _ => {}
        }
        let (a, b) = (operands.next().flatten(), operands.next().flatten());
        let order = || compare(a.as_deref()?, b.as_deref()?);
        let same = || equal(a.as_deref().unwrap_or(&Value::Null), b.as_deref().unwrap_or(&Value::Null));
        match self {
            Helper::Eq => bool(same()),
            Helper::Ne => bool(!same()),
            Helper::Gt => bool(order() == Some(Ordering::Greater)),
            Helper::Gte => bool(order().is_some_and(Ordering::is_ge)),
            Helper::Lt => bool(order() == Some(Ordering::Less)),
            Helper::Lte => bool(order().is_some_and(Ordering::is_le)),
            Helper::Not => bool(!is_true(&a)),
            Helper::Len => Some(Cow::Owned(Value::from(length(a.as_deref())))),
            Helper::Lookup => {
                let key = b?;
                match key.as_ref() {
                    Value::String(key) => member(a?, key),
                    Value::Number(index) => member(a?, &index.to_string()),
                    _ => None,
                }
            }
            Helper::Json => Some(Cow::Owned(Value::String(a?.to_string()))),
            Helper::Default => a.filter(|value| !value.is_null()).or(b),
            Helper::And | Helper::Or => None,
        }
    }
}

/// The member of an object or a list.
pub(super) fn member<'a>(value: Cow<'a, Value>, key: &str) -> Option<Cow<'a, Value>> {
    fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
        match value {
            Value::Object(entries) => entries.get(key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }
    match value {
        Cow::Borrowed(value) => find(value, key).map(Cow::Borrowed),
        Cow::Owned(value) => find(&value, key).cloned().map(Cow::Owned),
    }
}

/// Whether a condition holds: not for null, false, 0, and what is empty.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a == b || compare(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64(), a.as_u64(), b.as_u64()) {
            (Some(a), Some(b), ..) => Some(a.cmp(&b)),
            (_, _, Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

fn length(value: Option<&Value>) -> usize {
    match value {
        Some(Value::String(text)) => text.chars().count(),
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(entries)) => entries.len(),
        _ => 0,
    }
}
