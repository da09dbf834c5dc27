//! What a service wants to see, as credentials with secrets.

use serde_json::{Map, Value, json};

use super::document::Document;
use crate::generate::{Auth, Notes, Options, SecretDraft, bounded, credential};

/// Gives out credentials, and keeps which secrets they need.
pub struct Security<'a> {
    document: &'a Document<'a>,
    set: String,
    auth: Option<Auth>,
    secrets: Vec<SecretDraft>,
    notes: Vec<String>,
}

/// What one scheme becomes.
enum Scheme {
    Auth(Value),
    /// A header or a parameter of the query.
    Header(String, Value),
    Query(String, Value),
}

impl<'a> Security<'a> {
    pub fn new(document: &'a Document<'a>, options: &Options) -> Self {
        let set = options.name.clone();
        Self { document, set, auth: options.auth.clone(), secrets: Vec::new(), notes: Vec::new() }
    }

    /// Puts what an operation demands into the settings of its request.
    ///
    /// # Errors
    /// Why the service would not let it in.
    pub fn apply(
        &mut self,
        operation: &'a Value,
        config: &mut Map<String, Value>,
        headers: &mut Map<String, Value>,
        query: &mut Map<String, Value>,
    ) -> Result<(), String> {
        if let Some(auth) = self.auth.clone() {
            config.insert("auth".into(), self.chosen(&auth));
            return Ok(());
        }
        let demanded = match operation.get("security") {
            Some(own) => own,
            None => &self.document.root()["security"],
        };
        let Some(alternatives) = demanded.as_array().filter(|all| !all.is_empty()) else { return Ok(()) };
        let mut why = None;
        let mut some: Vec<_> =
            alternatives.iter().filter_map(Value::as_object).filter(|all| !all.is_empty()).collect();
        // A token that has to be got elsewhere, only where nothing else will do.
        some.sort_by_key(|all| all.keys().any(|name| self.is_granted(name)));
        for alternative in some {
            let schemes: Result<Vec<Scheme>, String> =
                alternative.keys().map(|name| self.scheme(name)).collect();
            match schemes {
                Ok(schemes) => {
                    self.put(schemes, config, headers, query);
                    return Ok(());
                }
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        let open = alternatives.iter().any(|a| a.as_object().is_some_and(Map::is_empty));
        match why {
            Some(why) if !open => Err(why),
            _ => Ok(()),
        }
    }

    fn put(
        &mut self,
        schemes: Vec<Scheme>,
        config: &mut Map<String, Value>,
        headers: &mut Map<String, Value>,
        query: &mut Map<String, Value>,
    ) {
        // What has a setting of its own takes it; keys can go elsewhere.
        let (own, keys): (Vec<_>, Vec<_>) =
            schemes.into_iter().partition(|scheme| matches!(scheme, Scheme::Auth(_)));
        for scheme in own.into_iter().chain(keys) {
            match scheme {
                Scheme::Auth(auth) => _ = config.insert("auth".into(), auth),
                Scheme::Header(name, secret) if config.contains_key("auth") => {
                    headers.insert(name, secret);
                }
                Scheme::Query(name, secret) if config.contains_key("auth") => {
                    query.insert(name, secret);
                }
                Scheme::Header(name, value) => {
                    config.insert("auth".into(), json!({"header": {"name": name, "value": value}}));
                }
                Scheme::Query(name, value) => {
                    config.insert("auth".into(), json!({"query": {"name": name, "value": value}}));
                }
            }
        }
    }

    fn is_granted(&self, name: &str) -> bool {
        let scheme = &self.document.root()["components"]["securitySchemes"][name];
        matches!(scheme["type"].as_str(), Some("oauth2" | "openIdConnect"))
    }

    fn scheme(&mut self, name: &str) -> Result<Scheme, String> {
        let written = &self.document.root()["components"]["securitySchemes"][name];
        let shown = bounded(name, 60);
        if written.is_null() {
            return Err(format!("the document does not say what the security scheme `{shown}` is"));
        }
        let scheme = self.document.resolve(written)?;
        let kind = scheme["type"].as_str().unwrap_or_default();
        match kind {
            "http" => match scheme["scheme"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
                "bearer" => Ok(Scheme::Auth(json!({"bearer": self.secret(name, "")}))),
                "basic" => Ok(Scheme::Auth(self.basic(name))),
                other => Err(format!(
                    "the security scheme `{shown}` is {}, which is not spoken",
                    bounded(other, 40)
                )),
            },
            "oauth2" | "openIdConnect" => {
                let note = format!(
                    "the secret for `{shown}` ({kind}) is an access token, which has to be got and renewed elsewhere"
                );
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                Ok(Scheme::Auth(json!({"bearer": self.secret(name, "")})))
            }
            "apiKey" => {
                let field = scheme["name"].as_str().unwrap_or_default().to_owned();
                match scheme["in"].as_str() {
                    Some("header") if !field.is_empty() => Ok(Scheme::Header(field, self.secret(name, ""))),
                    Some("query") if !field.is_empty() => Ok(Scheme::Query(field, self.secret(name, ""))),
                    Some("cookie") if !field.is_empty() => {
                        let secret = self.secret(name, "");
                        let note = format!(
                            "the secret for `{shown}` is the whole cookie: {}=VALUE",
                            bounded(&field, 60)
                        );
                        if !self.notes.contains(&note) {
                            self.notes.push(note);
                        }
                        Ok(Scheme::Header("Cookie".into(), secret))
                    }
                    _ => Err(format!("the security scheme `{shown}` does not say where its key goes")),
                }
            }
            other => {
                Err(format!("the security scheme `{shown}` is {}, which is not spoken", bounded(other, 40)))
            }
        }
    }

    fn chosen(&mut self, auth: &Auth) -> Value {
        let (value, secrets) = credential::chosen(auth, &self.set);
        for secret in secrets {
            if !self.secrets.contains(&secret) {
                self.secrets.push(secret);
            }
        }
        value
    }

    fn basic(&mut self, scheme: &str) -> Value {
        let (username, password) = (self.secret(scheme, "username"), self.secret(scheme, "password"));
        json!({"basic": {"username": username, "password": password}})
    }

    /// A reference to a secret, which is made if it is not there.
    fn secret(&mut self, scheme: &str, part: &str) -> Value {
        let secret = credential::secret(&self.set, &format!("{scheme}-{part}"));
        let reference = json!({"secret": secret.name});
        if !self.secrets.contains(&secret) {
            self.secrets.push(secret);
        }
        reference
    }

    /// All secrets that were given out.
    pub fn into_secrets(self, notes: &mut Notes) -> Vec<SecretDraft> {
        for note in self.notes {
            notes.changed("", note);
        }
        self.secrets
    }
}
