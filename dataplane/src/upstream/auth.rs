//! What a node shows to a backend to be let in.
//!
//! All of it is the operator's: what a client has shown to the node never comes
//! here, for a token belongs to the one it was made out to. Values are read
//! when they are needed and again when the backend refuses them. None is ever
//! logged; an error names the secret, not what is in it.

mod credentials;
mod token;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderName;
use mt_proto::resource::{BackendAuth, HttpTransport, ResourceName, Value};

pub use self::credentials::Credentials;
use self::token::Tokens;
use super::{
    secrets::{Secrets, resolve},
    shared::Shared,
};

/// How one backend is shown who asks.
pub struct Auth {
    how: How,
    secrets: Secrets,
    /// What was shown last, unless it is a token.
    current: ArcSwapOption<Credentials>,
}

enum How {
    Nothing,
    Given(BackendAuth),
    Token(Arc<Tokens>),
}

impl Auth {
    pub fn new(backend: &ResourceName, transport: &HttpTransport, secrets: Secrets, shared: &Shared) -> Self {
        let how = match &transport.auth {
            None => How::Nothing,
            Some(BackendAuth::ClientCredentials(terms)) => {
                How::Token(Tokens::new(backend, terms, transport, secrets.clone(), shared))
            }
            Some(given) => How::Given(given.clone()),
        };
        Self { how, secrets, current: ArcSwapOption::empty() }
    }

    /// Whether nothing is shown at all.
    pub fn is_none(&self) -> bool {
        matches!(self.how, How::Nothing)
    }

    /// What to show now. A token is fetched if there is none that is good.
    ///
    /// # Errors
    /// Why there is nothing to show, without any value.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, String> {
        match &self.how {
            How::Token(tokens) => tokens.get().await,
            _ => match self.current.load_full() {
                Some(current) => Ok(current),
                None => self.read(),
            },
        }
    }

    /// Something else to show than what was refused; none if there is nothing
    /// else. A request that was refused was not begun, so it can be sent again.
    pub async fn renew(&self, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        match &self.how {
            How::Token(tokens) => tokens.renew(refused).await,
            How::Given(_) | How::Nothing => self.reread(refused),
        }
    }

    /// The same without asking anybody: whether what is written down somewhere
    /// has changed.
    pub fn reread(&self, refused: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        match &self.how {
            How::Given(_) => self.read().ok().filter(|read| !read.shows_the_same(refused)),
            How::Token(_) | How::Nothing => None,
        }
    }

    /// What was shown in place of something refused is refused as well.
    pub fn refused_again(&self) {
        if let How::Token(tokens) = &self.how {
            tokens.refused_again();
        }
    }

    /// Removes what is shown to the backend from what it says.
    pub fn hide(&self, text: String) -> String {
        let shown = match &self.how {
            How::Token(tokens) => tokens.held(),
            _ => self.current.load_full(),
        };
        shown.map_or(text.clone(), |shown| shown.hide(text))
    }

    fn read(&self) -> Result<Arc<Credentials>, String> {
        let read = match &self.how {
            How::Given(BackendAuth::Bearer(value)) => Credentials::bearer(&self.value(value)?)?,
            How::Given(BackendAuth::ApiKey(header)) => {
                let name = HeaderName::try_from(&header.name)
                    .map_err(|_| format!("{:?} is no header name", header.name))?;
                Credentials::header(name, self.value(&header.value)?, String::new())?
            }
            How::Given(BackendAuth::Query(parameter)) => {
                Credentials::query(&parameter.name, self.value(&parameter.value)?)
            }
            How::Given(BackendAuth::ClientCredentials(_)) | How::Token(_) | How::Nothing => {
                Credentials::default()
            }
        };
        let read = Arc::new(read);
        self.current.store(Some(read.clone()));
        Ok(read)
    }

    fn value(&self, value: &Value) -> Result<String, String> {
        resolve(&self.secrets, value)
    }
}
