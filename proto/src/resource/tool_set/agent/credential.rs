//! What an agent shows to be let in.
//!
//! It is the operator's: no argument of a call stands in it, so that a caller
//! can be nobody but whom the operator has said.

use super::{
    super::{fields::Fields, text::Text},
    header::{check_header, is_fixed},
};

/// What is shown to a server, at each request.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// `Authorization: Bearer TEXT`.
    Bearer(Text),
    /// `Authorization: Basic ...`.
    Basic { username: Text, password: Text },
    /// A header of its own.
    Header { name: String, value: Text },
    /// A parameter of the URL's query.
    Query { name: String, value: Text },
}

impl Credential {
    /// What is shown to be let in: `{bearer: TEXT}`, `{basic: {username,
    /// password}}`, `{header: {name, value}}` or `{query: {name, value}}`; also
    /// as others write it: `{type: bearer, token: TEXT}`.
    pub(in crate::resource) fn at(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Self> {
        Self::read(fields.object(name)?)
    }

    fn read(mut fields: Fields<'_, '_>) -> Option<Self> {
        let read = match fields.text("type") {
            Some(kind) => Self::typed(&mut fields, &kind),
            None => Self::plain(&mut fields),
        };
        if let Some(read) = &read {
            read.check(&mut fields);
        }
        fields.finish();
        read
    }

    fn plain(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let bearer = fields.text_or_secret("bearer").map(Self::Bearer);
        let basic = fields.object("basic").and_then(|mut inner| {
            let pair = inner.text_or_secret("username").zip(inner.text_or_secret("password"));
            if pair.is_none() {
                inner.problem("", "needs a `username` and a `password`", None);
            }
            inner.finish();
            pair.map(|(username, password)| Self::Basic { username, password })
        });
        let header = fields.object("header").and_then(named);
        let header = header.map(|(name, value)| Self::Header { name, value });
        let query = fields.object("query").and_then(named);
        let query = query.map(|(name, value)| Self::Query { name, value });
        let mut all = [bearer, basic, header, query].into_iter().flatten();
        let one = all.next();
        if one.is_none() || all.next().is_some() {
            let hint = "for example `{bearer: {secret: name}}`";
            fields.problem(
                "",
                "needs exactly one of `bearer`, `basic`, `header` and `query`",
                Some(hint.into()),
            );
        }
        one
    }

    fn typed(fields: &mut Fields<'_, '_>, kind: &str) -> Option<Self> {
        let read = match kind {
            "bearer" => fields.text_or_secret("token").map(Self::Bearer),
            "basic" => {
                let pair = fields.text_or_secret("username").zip(fields.text_or_secret("password"));
                pair.map(|(username, password)| Self::Basic { username, password })
            }
            "api_key" | "apiKey" | "header" => {
                let name = fields.text("header").unwrap_or_else(|| "X-API-Key".to_owned());
                fields.text_or_secret("key").map(|value| Self::Header { name, value })
            }
            _ => {
                let hint = "one of bearer, basic, api_key";
                fields.problem("type", "is not a way to be let in", Some(hint.into()));
                return None;
            }
        };
        if read.is_none() {
            let wanted = match kind {
                "bearer" => "a `token`",
                "basic" => "a `username` and a `password`",
                _ => "a `key`",
            };
            fields.problem("", format!("needs {wanted}"), None);
        }
        read
    }

    fn check(&self, fields: &mut Fields<'_, '_>) {
        let texts: &[&Text] = match self {
            Self::Bearer(text) => &[text],
            Self::Basic { username, password } => &[username, password],
            Self::Header { value, .. } | Self::Query { value, .. } => &[value],
        };
        let of_arguments = |text: &&Text| matches!(text, Text::Template(template) if !is_fixed(template));
        if texts.iter().any(of_arguments) {
            let hint = "write the text itself, `{{env.NAME}}` or `{secret: name}`";
            fields.problem("", "an argument decides who is asking", Some(hint.to_owned()));
        }
        if let Self::Header { name, value } = self
            && let Some((message, hint)) = check_header(name, value)
        {
            fields.problem("", message, hint);
        }
    }
}

fn named(mut fields: Fields<'_, '_>) -> Option<(String, Text)> {
    let pair = fields.text("name").zip(fields.text_or_secret("value"));
    if pair.is_none() {
        fields.problem("", "needs a `name` and a `value`", None);
    }
    fields.finish();
    pair
}
