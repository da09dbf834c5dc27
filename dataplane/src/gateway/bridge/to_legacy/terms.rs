//! What a modern request allows a legacy backend: what it may ask, and what it
//! may say while it works.

use bytes::Bytes;

use crate::{
    gateway::{
        bridge::translate::member,
        call::{Call, Question},
    },
    mcp::{
        Key, Limits, Message, Method, RpcError,
        meta::{LogLevel, Meta},
        splice::{Object, Patch},
        text,
    },
};

/// Of one request.
#[derive(Debug, Default)]
pub struct Terms {
    sampling: Option<Bytes>,
    elicitation: Option<Bytes>,
    roots: bool,
    /// From which level on it wants log lines; none: it wants none.
    pub level: Option<LogLevel>,
}

impl Terms {
    pub fn of(call: &Call) -> Self {
        let declared = |name| member(&call.client.capabilities, name).filter(|raw| raw.starts_with(b"{"));
        Self {
            sampling: declared("sampling"),
            elicitation: declared("elicitation"),
            roots: declared("roots").is_some(),
            level: Meta::of(&call.params).ok().and_then(|meta| meta.log_level()),
        }
    }

    /// The capabilities of a legacy client that can do as much. Always in the
    /// same order, for who opens a session with the same words shares it.
    pub fn capabilities(&self) -> Bytes {
        let mut all = Object::default();
        if let Some(elicitation) = &self.elicitation {
            all = all.set("elicitation", elicitation);
        }
        if self.roots {
            // Nobody tells when they have changed.
            all = all.set("roots", &b"{}"[..]);
        }
        if let Some(sampling) = &self.sampling {
            all = all.set("sampling", sampling);
        }
        all.finish()
    }

    /// Whether the backend may say something that has to find this very call.
    pub fn needs_own_session(&self) -> bool {
        self.sampling.is_some() || self.elicitation.is_some() || self.roots || self.level.is_some()
    }

    /// The error for a question that the client may not be asked.
    pub fn refusal(&self, question: &Question) -> Option<Bytes> {
        let allowed = match question.method {
            Method::CreateMessage => self.sampling.is_some(),
            Method::RootsList => self.roots,
            Method::Elicit if wants_visit(question) => self.visits_urls(),
            Method::Elicit => self.fills_forms(),
            _ => false,
        };
        (!allowed).then(|| RpcError::method_not_found(question.method.as_str()).to_json())
    }

    pub fn visits_urls(&self) -> bool {
        self.elicitation.as_ref().is_some_and(|raw| member(raw, "url").is_some())
    }

    /// Also who says nothing of any way.
    fn fills_forms(&self) -> bool {
        self.elicitation
            .as_ref()
            .is_some_and(|raw| member(raw, "form").is_some() || member(raw, "url").is_none())
    }

    /// Whether a notification of the backend belongs into the response: what is
    /// not about this request, and what the modern era does not have, does not.
    pub fn lets_pass(&self, message: &Bytes) -> bool {
        let Ok(Message::Notification(told)) = Message::parse(message.clone(), Limits::BACKEND) else {
            return false;
        };
        match told.method {
            Method::Progress | Method::Other(_) => true,
            Method::LogMessage => {
                let said = told.params.text(Key::Level).and_then(|level| LogLevel::parse(&level));
                // What has no level that we know is let through to who wants everything.
                self.level.is_some_and(|lowest| said.unwrap_or(LogLevel::Debug) >= lowest)
            }
            _ => false,
        }
    }
}

fn wants_visit(question: &Question) -> bool {
    member(&question.params, "mode").is_some_and(|mode| text::is(&mode, "url"))
}

/// A question without what only the legacy era has in one: names under which the
/// backend would hear of its progress, of its end, or as a task.
pub fn modern(question: Question) -> Question {
    let Ok(patch) = Patch::of(&question.params) else { return question };
    let mut patch = patch.remove("task");
    if question.method == Method::Elicit {
        patch = patch.remove(Key::ElicitationId.as_str());
    }
    let params = match member(&question.params, "_meta") {
        Some(_) => patch.remove_in("_meta", Key::ProgressToken.as_str()).finish(),
        None => patch.finish(),
    };
    Question { params, ..question }
}
