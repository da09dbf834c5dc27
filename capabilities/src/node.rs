//! What YAML and JSON have in common: a tree of values that know their places.

use crate::source::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    pub data: Data,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Data {
    /// A text, or what is not quoted and so may be a number or such.
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the text; no key is there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

/// The text of a scalar, with quotes and escapes undone.
#[derive(Clone, Debug)]
pub struct Scalar {
    pub text: String,
    /// Without quotes, so that what it is depends on how it reads.
    pub plain: bool,
}

/// What a scalar reads as (YAML 1.2.2 §10.3.2, which contains JSON's).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

impl Scalar {
    pub fn read(&self) -> Reading<'_> {
        if self.plain { read_plain(&self.text) } else { Reading::Text(&self.text) }
    }
}

/// What a text without quotes is.
pub fn read_plain(text: &str) -> Reading<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Reading::Null,
        "true" | "True" | "TRUE" => return Reading::Bool(true),
        "false" | "False" | "FALSE" => return Reading::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Reading::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Reading::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Reading::Float(f64::NAN),
        _ => {}
    }
    let integer = match text.split_at_checked(2) {
        Some(("0o", digits)) if digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            i128::from_str_radix(digits, 8).ok()
        }
        Some(("0x", digits)) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            i128::from_str_radix(digits, 16).ok()
        }
        _ => None,
    };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let integer = integer.or_else(|| digits(unsigned).then(|| text.parse().ok()).flatten());
    if let Some(integer) = integer {
        return Reading::Integer(integer);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let is_float = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(digits);
    match text.parse() {
        Ok(float) if is_float => Reading::Float(float),
        _ => Reading::Text(text),
    }
}

impl Node {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "an object",
            Data::Scalar(scalar) => match scalar.read() {
                Reading::Null => "nothing",
                Reading::Bool(_) => "true or false",
                Reading::Integer(_) | Reading::Float(_) => "a number",
                Reading::Text(_) => "a text",
            },
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar) if scalar.read() == Reading::Null)
    }

    /// The entries, if it is an object.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is one or reads as one: numbers and booleans keep the
    /// text that they were written as.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(scalar) if scalar.read() != Reading::Null => Some(&scalar.text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match &self.data {
            Data::Scalar(scalar) => match scalar.read() {
                Reading::Bool(value) => Some(value),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a key, if it is an object that has it and it is not null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.as_map()?.iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then_some(&entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_read_as_in_the_core_schema() {
        assert_eq!(read_plain("~"), Reading::Null);
        assert_eq!(read_plain("True"), Reading::Bool(true));
        assert_eq!(read_plain("yes"), Reading::Text("yes"));
        assert_eq!(read_plain("-12"), Reading::Integer(-12));
        assert_eq!(read_plain("0x1F"), Reading::Integer(31));
        assert_eq!(read_plain("0o17"), Reading::Integer(15));
        assert_eq!(read_plain("0x"), Reading::Text("0x"));
        assert_eq!(read_plain("1.5e3"), Reading::Float(1500.0));
        assert_eq!(read_plain(".5"), Reading::Float(0.5));
        assert_eq!(read_plain("1e300"), Reading::Float(1e300));
        assert_eq!(read_plain("."), Reading::Text("."));
        assert_eq!(read_plain("1e"), Reading::Text("1e"));
        assert_eq!(read_plain("2025-06-18"), Reading::Text("2025-06-18"));
        assert_eq!(read_plain("30s"), Reading::Text("30s"));
        assert_eq!(read_plain("é"), Reading::Text("é"));
        assert_eq!(read_plain("infinity"), Reading::Text("infinity"));
    }
}
