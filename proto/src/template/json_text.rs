//! A text that is JSON.

use serde::de::IgnoredAny;

use super::{Piece, Pieces, Refused, target::refused};

impl Pieces {
    /// As a text that is JSON. Between the quotes of a JSON text a value is
    /// escaped; anywhere else it stands as a value of its own type, texts with
    /// quotes around them.
    ///
    /// # Errors
    /// If the template around the values is no JSON with a value at their
    /// places.
    pub fn json_text(&self) -> Result<String, Refused> {
        let mut text = String::new();
        // The same with null for each value: what values can be put into without
        // becoming anything else.
        let mut skeleton = String::new();
        let mut place = Place::Outside;
        for piece in &self.0 {
            match (piece, place) {
                (Piece::Literal(literal), _) => {
                    text.push_str(literal);
                    skeleton.push_str(literal);
                    place = place.after(literal);
                }
                (Piece::Value(value) | Piece::Json(value), Place::Outside) => {
                    text.push_str(&value.to_string());
                    skeleton.push_str("null");
                }
                (value, Place::Inside) => {
                    let quoted = serde_json::Value::String(value.text().into_owned()).to_string();
                    text.push_str(&quoted[1..quoted.len() - 1]);
                }
                (_, Place::Escape) => return refused("a value cannot stand after a backslash"),
            }
        }
        let parse = |text: &str| serde_json::from_str::<IgnoredAny>(text);
        match parse(&skeleton).and_then(|_| parse(&text)) {
            Ok(_) => Ok(text),
            Err(error) => refused(format!("the body is not JSON: {error}")),
        }
    }
}

/// Where in a JSON text something stands.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    /// Between quotes.
    Inside,
    /// Between quotes, after a backslash.
    Escape,
}

impl Place {
    fn after(self, literal: &str) -> Self {
        literal.bytes().fold(self, |place, byte| match (place, byte) {
            (Place::Outside, b'"') => Place::Inside,
            (Place::Inside, b'"') => Place::Outside,
            (Place::Inside, b'\\') => Place::Escape,
            (Place::Escape, _) => Place::Inside,
            (place, _) => place,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::tests::render, *};

    fn check(text: &str, arguments: Value, wanted: Value) {
        let body = render(text, arguments).json_text().unwrap_or_else(|refused| panic!("{text}: {refused}"));
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), wanted, "{body}");
    }

    #[test]
    fn values_are_escaped_in_quotes_and_typed_outside() {
        let nasty = "a\"b\\c\n\u{1}{{x}}";
        check(r#"{"a": "<{{x}}>"}"#, json!({"x": nasty}), json!({"a": format!("<{nasty}>")}));
        check(r#"{"a": {{x}}}"#, json!({"x": nasty}), json!({"a": nasty}));
        check(
            r#"{"a": {{x}}, "b": {{json x}}}"#,
            json!({"x": {"c": [1]}}),
            json!({"a": {"c": [1]}, "b": {"c": [1]}}),
        );
        check(r#"{"a": {{json x}}, "b": "{{json x}}"}"#, json!({"x": "t"}), json!({"a": "t", "b": "\"t\""}));
        check(r#"[1{{#if x}}, {{x}}{{/if}}]"#, json!({"x": -2.5}), json!([1, -2.5]));
        check(r#"{"\"{{x}}": 1}"#, json!({"x": "k"}), json!({"\"k": 1}));
        check("{{x}}", json!({"x": null}), json!(null));
    }

    #[test]
    fn no_value_changes_the_shape() {
        for (text, given) in [
            (r#"{"a": 1{{x}}}"#, json!({"x": 2})),
            (r#"{"a": {{x}}{{x}}}"#, json!({"x": 2})),
            (r#"{ {{x}}: 1}"#, json!({"x": "k"})),
            (r#"["a"#, json!({})),
            (r#"["{{x}}]"#, json!({"x": "\""})),
            (r#"[{{x}}"#, json!({"x": "]"})),
        ] {
            assert!(render(text, given).json_text().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_cannot_end_an_escape() {
        let pieces =
            [Piece::Literal(r#"["\"#.into()), Piece::Value(json!("n")), Piece::Literal(r#""]"#.into())];
        assert!(Pieces(pieces.to_vec()).json_text().is_err());
    }
}
