//! A command for `sh`, for tools that ask for a shell.
//!
//! A value in single quotes is a value wherever the shell expects plain words,
//! and only there. So the text before it is read as the shell reads it, and
//! where it stands in anything else it is refused.

use serde_json::Value;

use super::{
    Piece, Pieces, Refused,
    target::{plain, refused},
};

impl Pieces {
    /// As a command for a POSIX shell, each value in single quotes. A list that
    /// is a word of its own becomes one word for each item.
    ///
    /// # Errors
    /// For a value that would be the command, stands within quotes, backquotes,
    /// a comment, arithmetic or a here-document, after a backslash, or would be
    /// an option; and for a NUL.
    pub fn shell(&self) -> Result<String, Refused> {
        let mut command = String::new();
        let mut reader = Reader::default();
        for (i, piece) in self.0.iter().enumerate() {
            if let Piece::Literal(literal) = piece {
                reader.read(literal)?;
                command.push_str(literal);
                continue;
            }
            reader.check()?;
            let ends = match self.0.get(i + 1) {
                None => true,
                Some(Piece::Literal(after)) => after.starts_with([' ', '\t', '\n', ';', '|', '&', ')']),
                Some(_) => false,
            };
            match piece {
                Piece::Value(Value::Array(items)) if !reader.word && ends => {
                    let word = |item: &Value| {
                        reader.check_option(matches!(item, Value::Number(_)), &plain(item))?;
                        quoted(&plain(item))
                    };
                    command.push_str(&items.iter().map(word).collect::<Result<Vec<_>, _>>()?.join(" "));
                }
                piece => {
                    let text = piece.text();
                    if reader.hollow() {
                        reader.check_option(matches!(piece, Piece::Value(Value::Number(_))), &text)?;
                    }
                    command.push_str(&quoted(&text)?);
                    reader.value(&text);
                }
            }
            reader.word = true;
        }
        Ok(command)
    }
}

fn quoted(text: &str) -> Result<String, Refused> {
    if text.contains('\0') {
        return refused("a command cannot hold a NUL character");
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Reads what the author wrote as a shell does, as far as it matters for what
/// comes next.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Reader {
    place: Place,
    /// Whether the last character belongs to a word.
    word: bool,
    /// The word so far, with the values in it.
    current: String,
    /// Whether this command has its name before this word.
    named: bool,
    /// Whether the next word is where output goes or input comes from.
    redirected: bool,
    /// Whether `--` was one of them.
    operands: bool,
    before: Option<char>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Plain,
    Single,
    Double,
    DoubleEscape,
    Escape,
    Backquotes,
    Comment,
    /// From `<<` or `$((` on, nothing is certain any more.
    Lost(&'static str),
}

impl Reader {
    pub fn read(&mut self, literal: &str) -> Result<(), Refused> {
        for c in literal.chars() {
            if self.word && self.hollow() && self.place == Place::Plain {
                // An empty value has begun the word, so what follows it does.
                self.check_option(false, c.encode_utf8(&mut [0; 4]))?;
            }
            self.place = self.next(c);
            self.before = Some(c);
        }
        Ok(())
    }

    fn next(&mut self, c: char) -> Place {
        match (self.place, c) {
            // Quotes begin a word and are no part of it, and a backslash before
            // the end of a line is nothing at all.
            (Place::Plain, '\'') => self.begin(Place::Single),
            (Place::Plain, '"') => self.begin(Place::Double),
            (Place::Plain, '\\') => Place::Escape,
            (Place::Escape, '\n') => Place::Plain,
            (Place::Plain, '`') => self.grow(c, Place::Backquotes),
            (Place::Plain, '#') if !self.word => Place::Comment,
            (Place::Plain, '<') if self.before == Some('<') => Place::Lost("a here-document"),
            (Place::Plain, '(') if self.before == Some('(') => Place::Lost("arithmetic"),
            (Place::Plain, '{') if self.before == Some('$') => Place::Lost("`${`"),
            (Place::Plain, ' ' | '\t') => self.end_word(false),
            (Place::Plain, '<' | '>') => self.redirect(),
            (Place::Plain, '\n' | ';' | '|' | '&' | '(' | ')') => self.end_word(true),
            (Place::Plain | Place::Escape, _) => self.grow(c, Place::Plain),
            (Place::Single, '\'') | (Place::Double, '"') | (Place::Backquotes, '`') => Place::Plain,
            (Place::Double, '\\') => Place::DoubleEscape,
            (Place::DoubleEscape, _) => self.grow(c, Place::Double),
            (Place::Single | Place::Double, _) => self.grow(c, self.place),
            (Place::Comment, '\n') => self.end_word(true),
            (place, _) => place,
        }
    }

    fn grow(&mut self, c: char, place: Place) -> Place {
        self.word = true;
        self.current.push(c);
        place
    }

    fn begin(&mut self, place: Place) -> Place {
        self.word = true;
        place
    }

    fn end_word(&mut self, command: bool) -> Place {
        let names = self.word && !self.redirected && !precedes_command(&self.current);
        self.operands = !command && (self.operands || self.current == "--");
        self.named = !command && (self.named || names);
        self.redirected = !command && self.redirected && !self.word;
        self.word = false;
        self.current.clear();
        Place::Plain
    }

    /// The next word is the name of a file; a number before it is a descriptor.
    fn redirect(&mut self) -> Place {
        if self.current.bytes().all(|byte| byte.is_ascii_digit()) {
            self.word = false;
        }
        let place = self.end_word(false);
        self.redirected = true;
        place
    }

    /// A value stands here.
    pub fn value(&mut self, text: &str) {
        self.current.push_str(text);
        self.word = true;
    }

    /// What follows when two ways through a condition lead to different places.
    pub fn unclear(&mut self) {
        self.place = Place::Lost("a condition that opens or closes quotes");
    }

    /// Whether both are at the same kind of place.
    pub fn agrees(&self, other: &Self) -> bool {
        self.place == other.place && self.named == other.named && self.redirected == other.redirected
    }

    /// Whether the word has no character yet.
    fn hollow(&self) -> bool {
        self.current.is_empty()
    }

    /// Whether a value can stand here.
    pub fn check(&self) -> Result<(), Refused> {
        let place = match self.place {
            Place::Plain if self.before == Some('$') => "`$`",
            Place::Plain if !self.named && !self.word => {
                return refused("a value cannot be the command: write which program runs");
            }
            Place::Plain => return Ok(()),
            Place::Single | Place::Double | Place::DoubleEscape => {
                return refused(
                    "a value in a command cannot stand within quotes; take the quotes away, it gets its own",
                );
            }
            Place::Backquotes => "backquotes",
            Place::Comment => "a comment",
            Place::Escape => "a backslash",
            Place::Lost(place) => place,
        };
        refused(format!("a value in a command cannot stand in or after {place}"))
    }

    fn check_option(&self, number: bool, text: &str) -> Result<(), Refused> {
        if text.starts_with('-') && !number && !self.operands {
            return refused(
                "a value that begins with `-` would be taken for an option; \
                 send another value, or let the tool put `--` before it",
            );
        }
        Ok(())
    }
}

/// Whether a word stands before the name of a command and is none: a variable
/// for it, or a word of the shell's grammar.
fn precedes_command(word: &str) -> bool {
    const KEYWORDS: [&str; 10] = ["!", "{", "if", "then", "elif", "else", "while", "until", "do", "time"];
    let assigns = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    assigns || KEYWORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::render, *};

    fn shell(text: &str, value: Value) -> Result<String, Refused> {
        render(text, json!({"x": value, "empty": ""})).shell()
    }

    #[test]
    fn a_value_is_one_word() {
        assert_eq!(
            shell("echo {{x}}", json!("a b; $(id) `id` 'x'")).unwrap(),
            r"echo 'a b; $(id) `id` '\''x'\'''"
        );
        assert_eq!(shell("f --x={{x}}|g", json!("-v")).unwrap(), "f --x='-v'|g");
        assert_eq!(shell("echo {{x}}; ls", json!(["a b", 2])).unwrap(), "echo 'a b' '2'; ls");
        assert_eq!(shell("f a{{x}}", json!(["b"])).unwrap(), r#"f a'["b"]'"#);
        assert_eq!(
            shell("echo $(basename {{x}}) \"$HOME\"", json!("/a b")).unwrap(),
            "echo $(basename '/a b') \"$HOME\""
        );
    }

    #[test]
    fn a_value_stands_only_where_words_do() {
        for text in [
            "echo '{{x}}'",
            "echo \"{{x}}\"",
            "echo `f {{x}}`",
            "echo # {{x}}",
            "cat <<E\n{{x}}\nE",
            "echo $(( {{x}} ))",
            "{{x}} a",
            "a; {{x}}",
            "a | {{x}}",
            "$({{x}})",
            "echo ${a:-{{x}}}",
            "echo \"$(f {{x}})\"",
            "echo ${{x}}",
            "A=1 {{x}}",
            "A=1 B={{x}} {{x}}",
            ">f {{x}}",
            "2> f {{x}}",
            "! {{x}}",
            "if {{x}}",
            "f; \\\n{{x}}",
        ] {
            let text = text.replace("$(( {{", "$((1+ {{");
            assert!(shell(&text, json!("a")).is_err(), "{text}");
        }
        let escape = [Piece::Literal("echo \\".into()), Piece::Value(json!("a"))];
        assert!(Pieces(escape.to_vec()).shell().is_err());
        assert!(shell("echo {{x}}", json!("a\0")).is_err());
    }

    #[test]
    fn a_value_is_no_option() {
        for text in ["f {{x}}", "f -- a; g {{x}}", "f {{empty}}{{x}}", "f $(g {{x}})"] {
            assert!(shell(text, json!("-rf")).is_err(), "{text}");
        }
        assert!(shell("f {{x}}-e", json!("")).is_err());
        for hidden in ["f \\\n{{x}}", "f a \\\n  {{x}}", "f \"\"{{x}}", "f ''{{x}}"] {
            assert!(shell(hidden, json!("-rf")).is_err(), "{hidden}");
        }
        for plain in ["f >g {{x}}", "A=1 f {{x}}", "f 2>&1 {{x}}", "if f {{x}}", "f a=1 {{x}}"] {
            assert!(shell(plain, json!("a")).is_ok(), "{plain}");
        }
        assert!(shell("f {{x}}", json!(["a", "-e"])).is_err());
        for text in ["f -- {{x}}", "f --x={{x}}", "f ./{{x}}", "f \"a\"{{x}}", "f -- {{empty}}{{x}}"] {
            assert!(shell(text, json!("-rf")).is_ok(), "{text}");
        }
        assert_eq!(shell("f {{x}}", json!(-5)).unwrap(), "f '-5'");
    }
}
