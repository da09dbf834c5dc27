//! A client of either era, on any wire.
//!
//! Legacy: opens a session and answers what the server asks in it. Modern: says
//! who it is in every request, fulfills what a result asks for, and asks again.
//! It keeps what it was told, and complains of what its era forbids.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

use super::wire::{INBOX_MAX, Inbox, Opened, Wire};

/// How often a modern request may be asked again with more answers.
const ROUNDS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

pub struct Client {
    era: Era,
    wire: Arc<dyn Wire>,
    heard: Arc<Heard>,
    next_id: Mutex<u64>,
    _reading: JoinSet<()>,
}

/// What has come in.
#[derive(Default)]
struct Heard {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    notices: Mutex<Vec<Value>>,
    news: Notify,
    questions: Mutex<Vec<Value>>,
    /// What a server of this era must not say.
    wrong: Mutex<Vec<String>>,
}

/// A request that is under way.
pub struct Pending {
    pub id: u64,
    answer: oneshot::Receiver<Value>,
}

impl Pending {
    pub async fn answer(self) -> Result<Value, String> {
        self.answer.await.map_err(|_| "the conversation has ended".to_owned())
    }
}

impl Client {
    /// Opens a conversation on the wire that `connect` makes.
    pub async fn open(era: Era, connect: impl AsyncFnOnce(Inbox) -> Opened) -> Result<Self, String> {
        let (inbox, arriving) = mpsc::channel(INBOX_MAX);
        let wire = connect(inbox).await?;
        let heard = Arc::new(Heard::default());
        let mut reading = JoinSet::new();
        reading.spawn(read(era, arriving, wire.clone(), heard.clone()));
        let client = Self { era, wire, heard, next_id: Mutex::new(1), _reading: reading };
        match era {
            Era::Legacy => client.initialize().await?,
            Era::Modern => client.discover().await?,
        }
        Ok(client)
    }

    async fn initialize(&self) -> Result<(), String> {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities(),
            "clientInfo": {"name": "matrix", "version": "1"},
        });
        let answer = self.ask("initialize", params).await?;
        if answer["result"]["protocolVersion"] != "2025-11-25" {
            return Err(format!("initialize: {answer}"));
        }
        self.tell("notifications/initialized", json!({})).await
    }

    async fn discover(&self) -> Result<(), String> {
        let answer = self.ask("server/discover", json!({})).await?;
        let versions = answer["result"]["supportedVersions"].as_array();
        if versions.is_none_or(|versions| !versions.contains(&json!("2026-07-28"))) {
            return Err(format!("server/discover: {answer}"));
        }
        Ok(())
    }

    pub fn era(&self) -> Era {
        self.era
    }

    /// Sends a request, and does not wait.
    pub async fn begin(&self, method: &str, mut params: Value) -> Result<Pending, String> {
        let id = {
            let mut next = self.next_id.lock();
            *next += 1;
            *next
        };
        if self.era == Era::Modern {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
            meta["io.modelcontextprotocol/clientCapabilities"] = capabilities();
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "matrix", "version": "1"});
        }
        let (sender, answer) = oneshot::channel();
        self.heard.waiting.lock().insert(id, sender);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.wire.send(&request).await?;
        Ok(Pending { id, answer })
    }

    /// The final answer to a request, with whatever it takes to get it.
    pub async fn ask(&self, method: &str, params: Value) -> Result<Value, String> {
        let mut again = params.clone();
        for _ in 0..ROUNDS_MAX {
            let answer = self.begin(method, again).await?.answer().await?;
            let result = &answer["result"];
            if self.era == Era::Legacy || result.is_null() {
                return Ok(answer);
            }
            match result["resultType"].as_str() {
                Some("complete") => return Ok(answer),
                Some("input_required") => {}
                _ => return Err(format!("a result of no known type: {answer}")),
            }
            let mut responses = json!({});
            for (key, question) in result["inputRequests"].as_object().into_iter().flatten() {
                self.heard.questions.lock().push(question.clone());
                responses[key] = reply(question).ok_or_else(|| format!("{question} was asked"))?;
            }
            again = params.clone();
            again["inputResponses"] = responses;
            if let Some(state) = result.get("requestState") {
                again["requestState"] = state.clone();
            }
        }
        Err(format!("asked for more {ROUNDS_MAX} times"))
    }

    /// Sends a notification.
    pub async fn tell(&self, method: &str, params: Value) -> Result<(), String> {
        self.wire.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await
    }

    /// Gives up a request in the way of its era and wire.
    pub async fn cancel(&self, pending: &Pending) -> Result<(), String> {
        if self.wire.hang_up(pending.id) {
            return Ok(());
        }
        self.tell("notifications/cancelled", json!({"requestId": pending.id})).await
    }

    /// Waits for a notification, which may have come already.
    pub async fn notice(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let news = self.heard.news.notified();
            if let Some(found) = self.heard.notices.lock().iter().find(|notice| is_it(notice)) {
                return found.clone();
            }
            news.await;
        }
    }

    /// All notifications with this method, so far.
    pub fn notices(&self, method: &str) -> Vec<Value> {
        self.heard.notices.lock().iter().filter(|notice| notice["method"] == method).cloned().collect()
    }

    /// What has been asked of the user since the last time.
    pub fn take_questions(&self) -> Vec<Value> {
        std::mem::take(&mut *self.heard.questions.lock())
    }

    /// What nobody should have said since the last time.
    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.wrong.lock())
    }
}

async fn read(era: Era, mut arriving: mpsc::Receiver<Value>, wire: Arc<dyn Wire>, heard: Arc<Heard>) {
    while let Some(message) = arriving.recv().await {
        match (message.get("method"), message.get("id")) {
            (Some(_), None) => {
                heard.notices.lock().push(message);
                heard.news.notify_waiters();
            }
            (Some(_), Some(_)) if era == Era::Modern => {
                heard.wrong.lock().push(format!("a request: {message}"));
            }
            (Some(_), Some(id)) => {
                let answer = match reply(&message) {
                    Some(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                    None => {
                        json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "what?"}})
                    }
                };
                if message["method"] != "ping" {
                    heard.questions.lock().push(message);
                }
                if let Err(reason) = wire.send(&answer).await {
                    heard.wrong.lock().push(format!("an answer was refused: {reason}"));
                }
            }
            (None, id) => {
                let waiting = id.and_then(Value::as_u64).and_then(|id| heard.waiting.lock().remove(&id));
                match waiting {
                    Some(waiting) => _ = waiting.send(message),
                    None => heard.wrong.lock().push(format!("nobody waits for {message}")),
                }
            }
        }
    }
    heard.waiting.lock().clear();
}

fn capabilities() -> Value {
    json!({"elicitation": {}, "sampling": {}, "roots": {}})
}

/// What the user and the model say.
fn reply(question: &Value) -> Option<Value> {
    Some(match question["method"].as_str()? {
        "ping" => json!({}),
        "elicitation/create" => {
            json!({"action": "accept", "content": {"username": "Ada 🙂", "email": "ada@example.com"}})
        }
        "sampling/createMessage" => {
            json!({"role": "assistant", "content": {"type": "text", "text": "Großes Paris"}, "model": "test"})
        }
        "roots/list" => json!({"roots": [{"uri": "file:///workspace"}]}),
        _ => return None,
    })
}
