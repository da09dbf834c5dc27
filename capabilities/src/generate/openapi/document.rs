//! References within a document, followed within bounds.

use serde_json::Value;

use crate::generate::bounded;

/// References that lead to references.
const STEPS_MAX: usize = 16;

/// A document.
pub struct Document<'a> {
    root: &'a Value,
}

impl<'a> Document<'a> {
    pub fn new(root: &'a Value) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &'a Value {
        self.root
    }

    /// What a value is, or what it refers to.
    ///
    /// # Errors
    /// Why there is no such thing, in words.
    pub fn resolve(&self, value: &'a Value) -> Result<&'a Value, String> {
        let mut value = value;
        for _ in 0..STEPS_MAX {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            value = self.find(reference)?;
        }
        Err("a reference leads in circles".to_owned())
    }

    /// What one reference stands for.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn find(&self, reference: &str) -> Result<&'a Value, String> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!("`{}` is in another document, which is not read", bounded(reference, 120)));
        };
        self.root
            .pointer(&percent_decoded(pointer))
            .ok_or_else(|| format!("`{}` leads nowhere", bounded(reference, 120)))
    }
}

fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_followed_and_circles_end() {
        let root = json!({
            "a~/b {x}": {"$ref": "#/c"}, "c": 7,
            "one": {"$ref": "#/two"}, "two": {"$ref": "#/one"},
        });
        let document = Document::new(&root);
        let resolve = |reference: &str| {
            let value = json!({"$ref": reference});
            let value: &'static Value = Box::leak(Box::new(value));
            let root: &'static Value = Box::leak(Box::new(document.root().clone()));
            Document::new(root).resolve(value).cloned()
        };
        assert_eq!(resolve("#/a~0~1b%20%7Bx%7D"), Ok(json!(7)));
        assert_eq!(resolve("#/one"), Err("a reference leads in circles".into()));
        assert_eq!(resolve("#/x"), Err("`#/x` leads nowhere".into()));
        assert_eq!(resolve("b.yaml#/x"), Err("`b.yaml#/x` is in another document, which is not read".into()));
        assert_eq!(percent_decoded("%zz%"), "%zz%");
    }
}
