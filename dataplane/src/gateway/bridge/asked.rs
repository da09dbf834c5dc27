//! What a modern backend asks in an `input_required` result, as questions to a
//! legacy client, and the client's replies as `inputResponses`.
//!
//! Pure: who waits for the replies, and for how long, is decided by `to_modern`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    abilities::Abilities,
    translate::{each_member, member},
};
use crate::{
    gateway::call::{Client, Question, Reply},
    mcp::{
        Method, RpcError,
        error::code,
        splice::{Object, Patch},
        text,
    },
};

/// Questions of one result.
pub const QUESTIONS_MAX: usize = 32;

/// What a backend needs before it can answer.
#[derive(Debug)]
pub struct Asked {
    pub questions: Vec<Question>,
    /// Raw JSON; goes back as it came.
    state: Option<Bytes>,
}

/// Why a client is not asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Unaskable {
    /// The client has not declared what this needs.
    Undeclared(&'static str),
    /// The user would have to visit this URL, and the client cannot say so.
    Visit { message: String, url: String },
}

/// What makes an answer more than a result.
#[derive(Debug)]
pub enum Reading {
    Complete,
    Asks(Asked),
    /// The result is of a kind that nobody has agreed on, or is damaged.
    Broken(String),
}

/// Reads what kind of result it is.
pub fn read(result: &Bytes) -> Reading {
    if memchr::memmem::find(result, b"resultType").is_none() {
        return Reading::Complete;
    }
    let (mut kind, mut requests, mut state) = (None, None, None);
    let read = each_member(result, |name, raw| match &*name {
        "resultType" => kind = Some(raw),
        "inputRequests" => requests = Some(raw),
        "requestState" => state = Some(raw),
        _ => {}
    });
    if read.is_err() {
        return Reading::Complete;
    }
    match kind.as_deref().and_then(text::decode).as_deref() {
        None | Some("complete") => return Reading::Complete,
        Some("input_required") => {}
        Some(other) => return Reading::Broken(format!("answered with the unknown kind of result {other:?}")),
    }
    let mut questions = Vec::new();
    let mut broken = None;
    if let Some(requests) = &requests {
        let read = each_member(requests, |key, raw| match Request::read(&raw) {
            Some((method, params)) => questions.push(Question { key: key.into_owned(), method, params }),
            None => broken = Some(format!("asks {key:?} without a method")),
        });
        if read.is_err() {
            broken = Some("asks in inputRequests that are no object".to_owned());
        }
    }
    if questions.len() > QUESTIONS_MAX {
        broken = Some(format!("asks more than {QUESTIONS_MAX} questions at once"));
    }
    if requests.is_none() && state.is_none() {
        broken = Some("asks for input, and does not say for what".to_owned());
    }
    match broken {
        Some(why) => Reading::Broken(why),
        None => Reading::Asks(Asked { questions, state }),
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Request<'_> {
    fn read(raw: &Bytes) -> Option<(Method, Bytes)> {
        let request: Request<'_> = serde_json::from_slice(raw).ok()?;
        let params = match request.params.map(|params| params.get().as_bytes()) {
            Some(params) if params.starts_with(b"{") => raw.slice_ref(params),
            _ => Bytes::from_static(b"{}"),
        };
        Some((Method::parse(&request.method), params))
    }
}

impl Asked {
    /// The questions in the words of the client's revision. `mint` makes ids of
    /// visits to a URL.
    ///
    /// # Errors
    /// [`Unaskable`], if one of them cannot be put.
    pub fn for_legacy(
        &self,
        client: &Client,
        mut mint: impl FnMut() -> String,
    ) -> Result<Vec<Question>, Unaskable> {
        let abilities = Abilities::of(client);
        self.questions
            .iter()
            .map(|question| {
                let params = legacy_params(question, client, abilities, &mut mint)?;
                Ok(Question { params, ..question.clone() })
            })
            .collect()
    }

    /// The params of the call that brings the replies.
    ///
    /// # Errors
    /// The client has refused to answer one that cannot be refused in the words
    /// of the modern era.
    pub fn answered(&self, params: Patch, replies: Vec<Reply>) -> Result<Patch, RpcError> {
        let mut responses = Object::default();
        for (question, reply) in self.questions.iter().zip(replies) {
            let response = match reply {
                Ok(result) => result,
                Err(_) if question.method == Method::Elicit => Bytes::from_static(br#"{"action":"cancel"}"#),
                Err(error) => return Err(refused(&question.method, &error)),
            };
            responses = responses.set(&question.key, &response);
        }
        let params = match self.questions.is_empty() {
            true => params.remove("inputResponses"),
            false => params.set("inputResponses", responses.finish()),
        };
        Ok(match &self.state {
            Some(state) => params.set("requestState", state.clone()),
            None => params.remove("requestState"),
        })
    }
}

fn refused(method: &Method, error: &Bytes) -> RpcError {
    let said = member(error, "message").and_then(|raw| text::decode(&raw).map(|said| said.into_owned()));
    let said = said.unwrap_or_else(|| "without saying why".to_owned());
    RpcError::new(code::CANNOT_ASK, format!("the client refused {method}: {said}"))
}

fn legacy_params(
    question: &Question,
    client: &Client,
    abilities: Abilities,
    mint: &mut impl FnMut() -> String,
) -> Result<Bytes, Unaskable> {
    let params = question.params.clone();
    let said = |key: &str| {
        let raw = member(&params, key)?;
        text::decode(&raw).map(|text| text.into_owned())
    };
    let declared = |has: bool, what| if has { Ok(()) } else { Err(Unaskable::Undeclared(what)) };
    match question.method {
        Method::Elicit if said("mode").as_deref() == Some("url") => {
            if !abilities.url {
                let (message, url) = (said("message"), said("url"));
                return Err(Unaskable::Visit {
                    message: message.unwrap_or_default(),
                    url: url.unwrap_or_default(),
                });
            }
            Ok(with(&params, |patch| patch.set_text("elicitationId", &mint())))
        }
        Method::Elicit => {
            declared(abilities.form, "elicitation")?;
            if client.version.has_url_elicitation() {
                return Ok(params);
            }
            // There was only one mode, and so no word for it.
            Ok(with(&params, |patch| patch.remove("mode")))
        }
        Method::CreateMessage => {
            declared(abilities.sampling, "sampling")?;
            let uses_tools = member(&params, "tools").is_some() || member(&params, "toolChoice").is_some();
            declared(abilities.sampling_tools || !uses_tools, "sampling.tools")?;
            Ok(params)
        }
        Method::RootsList => declared(abilities.roots, "roots").map(|()| params),
        _ => Err(Unaskable::Undeclared("anything of this kind")),
    }
}

fn with(params: &Bytes, edit: impl FnOnce(Patch) -> Patch) -> Bytes {
    Patch::of(params).map_or_else(|_| params.clone(), |patch| edit(patch).finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::call::{Identity, Scope},
        mcp::{ProtocolVersion, version::ProtocolVersion::*},
    };

    fn asked(result: &'static str) -> Asked {
        match read(&Bytes::from_static(result.as_bytes())) {
            Reading::Asks(asked) => asked,
            other => panic!("{other:?}"),
        }
    }

    fn client(version: ProtocolVersion, capabilities: &'static str) -> Client {
        Client {
            identity: Identity::anonymous(),
            version,
            info: Bytes::new(),
            capabilities: Bytes::from_static(capabilities.as_bytes()),
            scope: Scope::Stateless,
            events: None,
        }
    }

    const FORM: &str = r#"{"resultType":"input_required","requestState":"s\u0031","inputRequests":{
        "na\u006de":{"method":"elicitation/create","params":{"mode":"form","message":"m","requestedSchema":{"a":1.0}}},
        "roots":{"method":"roots/list"}}}"#;
    const URL: &str = r#"{"resultType":"input_required","inputRequests":{
        "u":{"method":"elicitation/create","params":{"mode":"url","message":"go","url":"https://x/y"}}}}"#;

    #[test]
    fn an_answer_without_questions_is_complete() {
        for complete in [
            r#"{"content":[]}"#,
            r#"{"resultType":"complete","requestState":"x"}"#,
            r#"{"text":"resultType"}"#,
        ] {
            assert!(
                matches!(read(&Bytes::from_static(complete.as_bytes())), Reading::Complete),
                "{complete}"
            );
        }
        for broken in [
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":"input_required","inputRequests":[]}"#,
            r#"{"resultType":"input_required","inputRequests":{"a":{}}}"#,
            r#"{"resultType":"task","taskId":"1"}"#,
        ] {
            assert!(matches!(read(&Bytes::from_static(broken.as_bytes())), Reading::Broken(_)), "{broken}");
        }
    }

    #[test]
    fn questions_are_put_in_the_words_of_the_clients_revision() {
        let of = |version| {
            let client = client(version, r#"{"elicitation":{},"roots":{}}"#);
            let questions = asked(FORM).for_legacy(&client, || "id-1".into()).unwrap();
            questions
                .into_iter()
                .map(|q| (q.key, q.method, String::from_utf8(q.params.to_vec()).unwrap()))
                .collect::<Vec<_>>()
        };
        let form = r#"{"mode":"form","message":"m","requestedSchema":{"a":1.0}}"#;
        assert_eq!(
            of(V2025_11_25),
            [("name".into(), Method::Elicit, form.into()), ("roots".into(), Method::RootsList, "{}".into())]
        );
        assert_eq!(of(V2025_06_18)[0].2, r#"{"message":"m","requestedSchema":{"a":1.0}}"#);
        let client = client(V2025_11_25, r#"{"elicitation":{"url":{}}}"#);
        let questions = asked(URL).for_legacy(&client, || "id-1".into()).unwrap();
        assert_eq!(
            &questions[0].params[..],
            br#"{"elicitationId":"id-1","mode":"url","message":"go","url":"https://x/y"}"#
        );
    }

    #[test]
    fn what_was_not_declared_is_not_asked_and_named() {
        let ask = |result, version, capabilities| {
            asked(result).for_legacy(&client(version, capabilities), String::new).unwrap_err()
        };
        assert_eq!(ask(FORM, V2025_11_25, r#"{"roots":{}}"#), Unaskable::Undeclared("elicitation"));
        assert_eq!(ask(FORM, V2025_11_25, r#"{"elicitation":{}}"#), Unaskable::Undeclared("roots"));
        let visit = Unaskable::Visit { message: "go".into(), url: "https://x/y".into() };
        assert_eq!(ask(URL, V2025_11_25, r#"{"elicitation":{}}"#), visit);
        assert_eq!(ask(URL, V2025_06_18, r#"{"elicitation":{"url":{}}}"#), visit);
        const TOOLS: &str = r#"{"resultType":"input_required","inputRequests":{
            "s":{"method":"sampling/createMessage","params":{"messages":[],"tools":[]}}}}"#;
        assert_eq!(
            ask(TOOLS, V2025_06_18, r#"{"sampling":{"tools":{}}}"#),
            Unaskable::Undeclared("sampling.tools")
        );
    }

    #[test]
    fn replies_go_back_with_their_keys_and_the_state_as_it_came() {
        let params = || Patch::of(&Bytes::from_static(br#"{"name":"t","requestState":"old"}"#)).unwrap();
        let replies = vec![Err(Bytes::from_static(b"{}")), Ok(Bytes::from_static(br#"{"roots":[1.0]}"#))];
        let answered = asked(FORM).answered(params(), replies).unwrap().finish();
        assert_eq!(
            std::str::from_utf8(&answered).unwrap(),
            r#"{"inputResponses":{"name":{"action":"cancel"},"roots":{"roots":[1.0]}},"name":"t","requestState":"s\u0031"}"#
        );
        let refusal = Bytes::from_static(br#"{"code":-1,"message":"not now"}"#);
        let replies = vec![Ok(Bytes::from_static(b"{}")), Err(refusal)];
        let error = asked(FORM).answered(params(), replies).unwrap_err();
        assert_eq!((error.code, &*error.message), (-31017, "the client refused roots/list: not now"));
    }
}
