//! What an agent shows to be let in.

use super::super::fields::Fields;
use super::Text;

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
    /// Reads `{bearer: TEXT}`, `{basic: {username, password}}`, `{header: {name,
    /// value}}`, `{query: {name, value}}`, or one of the forms with a `type`.
    pub(in crate::resource) fn read(mut fields: Fields<'_, '_>) -> Option<Self> {
        let read = match fields.text("type") {
            Some(kind) => Self::typed(&mut fields, &kind),
            None => Self::plain(&mut fields),
        };
        fields.finish();
        read
    }

    fn plain(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let bearer = fields.text_or_secret("bearer").map(Self::Bearer);
        let basic = fields.object("basic").and_then(|mut inner| {
            let pair = inner.text_or_secret("username").zip(inner.text_or_secret("password"));
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
        match kind {
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
                fields.problem(
                    "type",
                    "is not a way to be let in",
                    Some("one of bearer, basic, api_key".into()),
                );
                None
            }
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
