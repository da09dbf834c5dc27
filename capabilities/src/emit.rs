//! Writes YAML, in block style, so that people like to read it and every
//! parser of YAML 1.1 or 1.2 reads the same.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::node::{Reading, read_plain};

/// A list of scalars that fits is written in one line.
const LINE_CHARS_MAX: usize = 72;

/// A value as one document, ending with a line feed.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => block_object(&mut out, object, 0, false),
        Value::Array(items) if !items.is_empty() => block_list(&mut out, items, 0),
        other => {
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
    out
}

/// `started`: the first key continues a line, after `- `.
fn block_object(out: &mut String, object: &Map<String, Value>, indent: usize, started: bool) {
    for (i, (key, value)) in object.iter().enumerate() {
        if i > 0 || !started {
            pad(out, indent);
        }
        let key = scalar(key);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{key}:");
                block_object(out, inner, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() && flow(items).is_none() => {
                let _ = writeln!(out, "{key}:");
                block_list(out, items, indent + 2);
            }
            Value::String(text) if is_literal(text) => {
                let keep = if text.ends_with('\n') { "" } else { "-" };
                let _ = writeln!(out, "{key}: |{keep}");
                for line in text.lines() {
                    if !line.is_empty() {
                        pad(out, indent + 2);
                    }
                    let _ = writeln!(out, "{line}");
                }
            }
            other => {
                let _ = writeln!(out, "{key}: {}", inline(other));
            }
        }
    }
}

fn block_list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        pad(out, indent);
        out.push_str("- ");
        match item {
            Value::Object(object) if !object.is_empty() => block_object(out, object, indent + 2, true),
            Value::Array(inner) if !inner.is_empty() && flow(inner).is_none() => {
                out.push('\n');
                block_list(out, inner, indent + 2);
            }
            other => {
                let _ = writeln!(out, "{}", inline(other));
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A scalar, an empty collection, or a short list, on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => scalar(text),
        Value::Array(items) => flow(items).unwrap_or_else(|| "[]".into()),
        Value::Object(_) => "{}".into(),
    }
}

/// A list on one line, if it has only scalars and fits.
fn flow(items: &[Value]) -> Option<String> {
    let mut line = String::from("[");
    for (i, item) in items.iter().enumerate() {
        if item.is_array() || item.is_object() {
            return None;
        }
        line.push_str(if i > 0 { ", " } else { "" });
        line.push_str(&inline(item));
        if line.chars().count() > LINE_CHARS_MAX {
            return None;
        }
    }
    line.push(']');
    Some(line)
}

/// A text without quotes where nobody could take it for something else.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || " _-./@+:=()$".contains(c);
    let option = text.trim_start_matches('-');
    let starts = option.starts_with(|c: char| c.is_ascii_alphabetic())
        || text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '/' | '_' | '$'));
    let yaml_1_1 = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    // A number, a date or a time to some parser.
    let like_number = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b"_:.-+ xXoOtTzZ".contains(&b));
    starts
        && text.chars().all(legal)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !like_number
        && !yaml_1_1.contains(&text.to_ascii_lowercase().as_str())
        && matches!(read_plain(text), Reading::Text(_))
}

/// Whether a text of several lines can stand as it is, under `|`.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let clean = |c: char| {
        c == '\n' || (!c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
    };
    body.contains('\n')
        && text.chars().all(clean)
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && !body.lines().any(|line| line.ends_with(' '))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
