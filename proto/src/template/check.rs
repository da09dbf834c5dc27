//! What a place would refuse whatever the arguments, said when the template is
//! applied.

use std::borrow::Cow;

use super::{
    Template, TemplateError,
    node::{Node, Output},
    shell,
};

/// What reads the text of a template in one language, with values in it.
trait Place: Clone {
    fn text(&mut self, text: &str);
    /// A variable of the environment.
    fn trusted(&mut self);
    /// # Errors
    /// If no value can stand here: the message and the hint.
    fn value(&mut self) -> Result<(), Wrong>;
    /// What two ways through a condition lead to.
    fn join(self, other: Self) -> Self;
}

/// A message and a hint.
type Wrong = (Cow<'static, str>, &'static str);

fn wrong(message: &'static str, hint: &'static str) -> Result<(), Wrong> {
    Err((message.into(), hint))
}

impl Template {
    /// Checks a template for a URL: no value can stand in its scheme, user, host
    /// or port.
    ///
    /// # Errors
    /// With the place of the first such value.
    pub fn check_url(&self) -> Result<(), TemplateError> {
        walk(&self.nodes, &mut Authority::default())
    }

    /// Checks a template for a statement of SQL: no value can stand within
    /// quotes or a comment.
    ///
    /// # Errors
    /// With the place of the first such value.
    pub fn check_sql(&self) -> Result<(), TemplateError> {
        walk(&self.nodes, &mut Sql::default())
    }

    /// Checks a template for a command of a shell: values stand where words do.
    ///
    /// # Errors
    /// With the place of the first that does not.
    pub fn check_shell(&self) -> Result<(), TemplateError> {
        walk(&self.nodes, &mut Shell::default())
    }
}

fn walk<P: Place>(nodes: &[Node], place: &mut P) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => place.text(text),
            Node::Output(output) if output.expr.is_trusted() => place.trusted(),
            Node::Output(output) => check(output, place)?,
            Node::If { then, otherwise, .. } => {
                let mut other = place.clone();
                walk(then, place)?;
                walk(otherwise, &mut other)?;
                *place = place.clone().join(other);
            }
            Node::Each { body, otherwise, .. } | Node::With { body, otherwise, .. } => {
                let mut other = place.clone();
                walk(otherwise, &mut other)?;
                walk(body, place)?;
                // Again from where one turn ends.
                walk(body, &mut place.clone())?;
                *place = place.clone().join(other);
            }
        }
    }
    Ok(())
}

fn check(output: &Output, place: &mut impl Place) -> Result<(), TemplateError> {
    place.value().map_err(|(message, hint)| TemplateError {
        offset: output.at,
        message: message.into_owned(),
        hint: Some(hint.to_owned()),
    })
}

/// How far a URL is.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Authority {
    #[default]
    Before,
    /// After the colon, and after the first slash.
    Colon,
    Slash,
    Within,
    /// A variable stands first, which may hold all of it.
    Variable,
    Over,
}

impl Place for Authority {
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            *self = match (*self, c) {
                (Authority::Before, ':') => Authority::Colon,
                (Authority::Colon, '/') => Authority::Slash,
                (Authority::Slash, '/') => Authority::Within,
                (Authority::Within | Authority::Variable, '/' | '?' | '#') => Authority::Over,
                (Authority::Variable, ':') => Authority::Colon,
                (state, _) => state,
            };
        }
    }

    fn trusted(&mut self) {
        if *self == Authority::Before {
            *self = Authority::Variable;
        }
    }

    fn value(&mut self) -> Result<(), Wrong> {
        if *self == Authority::Over {
            return Ok(());
        }
        wrong(
            "an argument cannot choose the server that a URL points to",
            "arguments may stand after the first `/` behind the host; use `{{env.NAME}}` for a host that differs",
        )
    }

    fn join(self, other: Self) -> Self {
        self.min(other)
    }
}

/// Where in a statement of SQL something stands.
#[derive(Clone, Default, PartialEq, Eq)]
struct Sql {
    state: SqlState,
    /// The last character, and the one before it.
    before: [Option<char>; 2],
    /// Of a `$tag$`, while it is read, and of the one that is open.
    tag: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum SqlState {
    #[default]
    Plain,
    Quote,
    /// `E'...'`, where a backslash escapes.
    EscapeQuote,
    Escaped,
    Name,
    Line,
    Block(u32),
    /// Reading a tag that may open a text.
    Tag,
    Dollar,
    /// The two ways through a condition differ.
    Unclear,
}

impl Sql {
    fn next(&mut self, c: char) -> SqlState {
        use SqlState::{Block, Dollar, EscapeQuote, Escaped, Line, Name, Plain, Quote, Tag};
        let [last, second] = self.before;
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
        match (self.state, c) {
            (Plain, '\'') if matches!(last, Some('e' | 'E')) && !is_word(second) => EscapeQuote,
            (Plain, '\'') => Quote,
            (Plain, '"') => Name,
            (Plain, '-') if last == Some('-') => Line,
            (Plain, '*') if last == Some('/') => Block(1),
            (Plain, '$') if !is_word(last) => {
                self.tag = "$".to_owned();
                Tag
            }
            (Tag, '$') => {
                self.tag.push(c);
                Dollar
            }
            (Tag, _) if c.is_alphanumeric() || c == '_' => {
                self.tag.push(c);
                Tag
            }
            (Tag, _) => {
                self.state = Plain;
                self.next(c)
            }
            (Quote | EscapeQuote, '\'') | (Name, '"') | (Line, '\n') => Plain,
            (EscapeQuote, '\\') => Escaped,
            (Escaped, _) => EscapeQuote,
            (Block(depth), '*') if last == Some('/') => Block(depth + 1),
            (Block(1), '/') if last == Some('*') => Plain,
            (Block(depth), '/') if last == Some('*') => Block(depth - 1),
            (state, _) => state,
        }
    }
}

impl Place for Sql {
    fn text(&mut self, text: &str) {
        let mut closing = String::new();
        for c in text.chars() {
            let was = self.state;
            self.state = self.next(c);
            self.before = [Some(c), self.before[0]];
            if was == SqlState::Dollar {
                closing.push(c);
                if closing.ends_with(&self.tag) {
                    (self.state, self.before) = (SqlState::Plain, [None; 2]);
                }
            } else {
                closing.clear();
            }
            if was != self.state {
                // Signs of two characters do not share one.
                self.before = [None; 2];
            }
        }
    }

    fn trusted(&mut self) {
        self.before = [None; 2];
    }

    fn value(&mut self) -> Result<(), Wrong> {
        match self.state {
            SqlState::Plain => {
                self.before = [None; 2];
                Ok(())
            }
            SqlState::Quote
            | SqlState::EscapeQuote
            | SqlState::Escaped
            | SqlState::Dollar
            | SqlState::Tag => wrong(
                "an argument cannot stand within quotes in SQL",
                "remove the quotes: the argument is bound as a value, whatever it holds",
            ),
            SqlState::Name => wrong(
                "an argument cannot be the name of a table or a column",
                "write the name, or choose between names with `{{#if (eq x \"a\")}}a{{else}}b{{/if}}`",
            ),
            SqlState::Line | SqlState::Block(_) => {
                wrong("an argument cannot stand in a comment", "remove it from the comment")
            }
            SqlState::Unclear => wrong(
                "quotes are opened or closed in only one way through a condition",
                "open and close them in the same way",
            ),
        }
    }

    fn join(self, other: Self) -> Self {
        if self.state == other.state && self.tag == other.tag {
            return self;
        }
        Sql { state: SqlState::Unclear, ..self }
    }
}

/// Where in a command something stands.
#[derive(Clone, Default)]
struct Shell(shell::Reader);

impl Place for Shell {
    fn text(&mut self, text: &str) {
        // What depends on values is only known with them.
        let _ = self.0.read(text);
    }

    fn trusted(&mut self) {
        self.0.value("x");
    }

    fn value(&mut self) -> Result<(), Wrong> {
        self.0
            .check()
            .map_err(|refused| (refused.message.into(), "see the rules for shells in docs/templates.md"))?;
        self.0.value("x");
        Ok(())
    }

    fn join(mut self, other: Self) -> Self {
        if !self.0.agrees(&other.0) {
            self.0.unclear();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compile;
    use super::*;

    fn refused_at(text: &str, check: fn(&Template) -> Result<(), TemplateError>) -> Option<&str> {
        check(&compile(text).unwrap()).err().map(|error| &text[error.offset..])
    }

    #[test]
    fn an_argument_cannot_choose_the_server() {
        let at = |text| refused_at(text, Template::check_url);
        assert_eq!(at("{{x}}"), Some("{{x}}"));
        assert_eq!(at("http://{{x}}/"), Some("{{x}}/"));
        assert_eq!(at("http://h{{x}}"), Some("{{x}}"));
        assert_eq!(at("http://{{#if a}}{{x}}{{/if}}/"), Some("{{x}}{{/if}}/"));
        assert_eq!(at("http://h{{#if a}}/{{/if}}{{x}}"), Some("{{x}}"));
        assert_eq!(at("{{env.HOST}}{{x}}"), Some("{{x}}"));
        assert_eq!(at("{{env.HOST}}://{{x}}"), Some("{{x}}"));
        for good in [
            "http://h/{{x}}",
            "http://h?{{x}}",
            "{{env.HOST}}/{{x}}",
            "http://{{env.HOST}}/{{x}}",
            "https://{{#if eu}}eu.{{else}}us.{{/if}}h/{{x}}",
            "https://{{eu ? 'a' : 'b'}}.h/{{x}}",
            "http://h",
            "http://{{default env.HOST \"h\"}}/{{x}}",
        ] {
            assert_eq!(at(good), None, "{good}");
        }
    }

    #[test]
    fn an_argument_cannot_stand_in_quotes_of_sql() {
        let at = |text| refused_at(text, Template::check_sql);
        for bad in [
            "SELECT '{{x}}'",
            "SELECT \"{{x}}\"",
            "SELECT 1 -- {{x}}",
            "SELECT /* /* */ {{x}} */ 1",
            "SELECT $$ {{x}} $$",
            "SELECT $a$ $$ {{x}} $a$",
            "SELECT E'\\'{{x}}'",
            "SELECT 'it''s {{x}}'",
            "SELECT {{#if a}}'{{/if}}{{x}}",
            "{{#each a}}'{{x}}{{/each}}",
            "SELECT '{{env.HOST}}{{x}}'",
            "LIKE '%{{x}}%'",
        ] {
            let from = bad.find("{{x}}").unwrap();
            assert_eq!(at(bad), Some(&bad[from..]), "{bad}");
        }
        for good in [
            "SELECT {{x}}",
            "SELECT 'a' || {{x}} || 'b'",
            "SELECT '{{env.HOST}}', {{x}}",
            "SELECT 1 - -{{x}}",
            "SELECT /* a */ {{x}} -- b",
            "SELECT 'it''s', {{x}}",
            "SELECT E'\\'', {{x}}",
            "SELECT $a$ ' $a$, {{x}}",
            "SELECT a$b, {{x}}",
            "SELECT {{x}}::int {{#if a}}LIMIT {{a}}{{/if}}",
            "SELECT 1 --\n, {{x}}",
            "IN ({{#each a}}{{#unless @first}}, {{/unless}}{{this}}{{/each}})",
            "SELECT '\\', {{x}}",
        ] {
            assert_eq!(at(good), None, "{good}");
        }
    }

    #[test]
    fn an_argument_is_a_word_of_a_command() {
        let at = |text| refused_at(text, Template::check_shell);
        for bad in [
            "{{x}}",
            "f '{{x}}'",
            "f \"{{x}}\"",
            "f `g {{x}}`",
            "f {{#if a}}'{{/if}} {{x}}",
            "f {{#if a}};{{/if}} {{x}}",
        ] {
            let from = bad.find("{{x}}").unwrap();
            assert_eq!(at(bad), Some(&bad[from..]), "{bad}");
        }
        for good in [
            "f {{x}}",
            "{{env.HOST}} {{x}}",
            "f {{#if a}}-v{{/if}} --x={{x}} | g {{x}} > 'a b'",
            "f '{{env.HOST}}' {{x}}",
        ] {
            assert_eq!(at(good), None, "{good}");
        }
    }
}
