//! ConfigService: the messages of the API on one side, the registry on the other.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use mt_proto::{
    pb::control::{
        self, ApplyRequest, ApplyResponse, Change, DeleteRequest, DeleteResponse, DiffRequest, DiffResponse,
        Generation, GetRequest, GetResponse, HistoryRequest, HistoryResponse, ListRequest, ListResponse,
        ResourceRef, StoredResource, UndoRequest, UndoResponse, WatchRequest, WatchResponse,
        config_service_server::ConfigService,
    },
    resource::{Key, Kind},
};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status;
use crate::{
    registry::{Edit, Error, Loaded, Outcome, Registry, Terms, plan},
    store::Commit,
};

/// Watches at a time.
pub const WATCHES_MAX: usize = 1024;
/// Elements of a page.
pub const PAGE_MAX: u32 = 1000;
const LIST_PAGE_DEFAULT: u32 = 100;
const HISTORY_PAGE_DEFAULT: u32 = 50;
/// A page ends early when it gets larger than this: clients take 4 MiB.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// The service.
pub struct Service {
    registry: Registry,
    watches: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Service {
    pub fn new(registry: Registry, shutdown: CancellationToken) -> Self {
        Self { registry, watches: Arc::new(Semaphore::new(WATCHES_MAX)), shutdown }
    }
}

type Changes = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigService for Service {
    type WatchStream = Changes;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        let terms = Terms {
            expected_generation: request.expected_generation,
            dry_run: request.dry_run,
            author: request.author,
            message: request.message,
        };
        let delete: Result<_, _> = request.delete.into_iter().map(|r| key("delete", Some(r))).collect();
        let outcome = self.registry.apply(request.resources, &delete?, &request.prune_labels, terms).await?;
        let (generation, changes) = answer(outcome);
        Ok(Response::new(ApplyResponse { generation, changes }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let key = key("ref", request.r#ref)?;
        let loaded = self.registry.at(request.generation).await?;
        let resource = stored(&loaded, &key).ok_or(Error::NotFound(vec![key]))?;
        Ok(Response::new(GetResponse { resource: Some(resource) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        let kind = kind("kind", request.kind)?;
        let size = page_size(request.page_size, LIST_PAGE_DEFAULT)?;
        let (generation, after) = match request.page_token.as_str() {
            "" => (request.generation, None),
            token => list_token(token).map(|(generation, key)| (generation, Some(key)))?,
        };
        let loaded = self.registry.at(generation).await?;
        let mut page = ListResponse { generation: loaded.generation, ..Default::default() };
        let mut bytes = 0;
        for (key, resource) in loaded.set.iter() {
            let skipped = after.as_ref().is_some_and(|after| key <= after);
            let wanted =
                kind.is_none_or(|kind| key.kind == kind) && plan::has(resource, &request.match_labels);
            if skipped || !wanted {
                continue;
            }
            if page.resources.len() >= size || bytes > PAGE_BYTES_MAX {
                let last = page.resources.last().and_then(|last| Key::of(last.resource.as_ref()?));
                page.next_page_token =
                    last.map(|key| format!("{}:{key}", loaded.generation)).unwrap_or_default();
                break;
            }
            bytes += resource.encoded_len();
            page.resources.extend(stored(&loaded, key));
        }
        Ok(Response::new(page))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let request = request.into_inner();
        let keys = request.refs.into_iter().map(|one| key("refs", Some(one))).collect::<Result<_, _>>()?;
        let terms = Terms {
            expected_generation: request.expected_generation,
            dry_run: request.dry_run,
            author: request.author,
            message: request.message,
        };
        let (generation, changes) = answer(self.registry.delete(keys, terms).await?);
        Ok(Response::new(DeleteResponse { generation, changes }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let request = request.into_inner();
        let edits = self.registry.diff(request.from_generation, request.to_generation).await?;
        Ok(Response::new(DiffResponse { changes: edits.into_iter().map(change).collect() }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, HISTORY_PAGE_DEFAULT)?;
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| bad_token())?),
        };
        let commits = self.registry.history(before, size).await?;
        let last = commits.last().filter(|last| commits.len() == size && last.revision > 1);
        let next_page_token = last.map(|last| last.revision.to_string()).unwrap_or_default();
        let generations = commits.iter().map(|commit| generation(commit)).collect();
        Ok(Response::new(HistoryResponse { generations, next_page_token }))
    }

    async fn undo(&self, request: Request<UndoRequest>) -> Result<Response<UndoResponse>, Status> {
        let request = request.into_inner();
        let terms = Terms {
            expected_generation: request.expected_generation,
            dry_run: request.dry_run,
            author: request.author,
            message: request.message,
        };
        let (generation, changes) = answer(self.registry.undo(request.generation, terms).await?);
        Ok(Response::new(UndoResponse { generation, changes }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Changes>, Status> {
        let request = request.into_inner();
        let kind = kind("kind", request.kind)?;
        let Ok(slot) = self.watches.clone().try_acquire_owned() else {
            return Err(status::exhausted(format!("there are {WATCHES_MAX} watches")));
        };
        let head = self.registry.watch();
        let now = *head.borrow();
        let at = match request.after_generation {
            0 => now,
            after if after > now => return Err(Error::NoGeneration { generation: after, head: now }.into()),
            after => after,
        };
        if at < now {
            // Says at once whether what follows is still kept.
            self.registry.commit(at + 1).await?;
            self.registry.changes_of(at + 1).await?;
        }
        let watch = Watch {
            registry: self.registry.clone(),
            head,
            shutdown: self.shutdown.clone(),
            kind,
            at,
            phase: if at < now { Phase::Begin } else { Phase::BeginAtHead },
            _slot: slot,
        };
        let changes = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(response) => Some((Ok(response), Some(watch))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// One watch. Holds a position and reads the log when asked, so a slow client
/// costs nothing.
struct Watch {
    registry: Registry,
    head: watch::Receiver<u64>,
    shutdown: CancellationToken,
    kind: Option<Kind>,
    at: u64,
    phase: Phase,
    _slot: OwnedSemaphorePermit,
}

/// Which bookmark is still to come.
enum Phase {
    /// The one with the start, and after the backlog the one with the head.
    Begin,
    /// The one with the start, which is the head.
    BeginAtHead,
    /// The one after the backlog.
    Backlog,
    Live,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        let bookmark = |generation| WatchResponse { generation, changes: vec![] };
        loop {
            let head = *self.head.borrow_and_update();
            match self.phase {
                Phase::Begin | Phase::BeginAtHead => {
                    let backlog = matches!(self.phase, Phase::Begin);
                    self.phase = if backlog { Phase::Backlog } else { Phase::Live };
                    return Ok(bookmark(self.at));
                }
                Phase::Backlog if self.at >= head => {
                    self.phase = Phase::Live;
                    return Ok(bookmark(self.at));
                }
                Phase::Backlog | Phase::Live => {}
            }
            if self.at < head {
                self.at += 1;
                let mut edits = self.registry.changes_of(self.at).await?;
                edits.retain(|edit| self.kind.is_none_or(|kind| edit.key.kind == kind));
                if edits.is_empty() {
                    continue;
                }
                return Ok(WatchResponse {
                    generation: self.at,
                    changes: edits.into_iter().map(change).collect(),
                });
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
                changed = self.head.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the store is closed"));
                },
            }
        }
    }
}

fn answer(outcome: Outcome) -> (u64, Vec<Change>) {
    (outcome.generation, outcome.edits.into_iter().map(change).collect())
}

fn change(edit: Edit) -> Change {
    let whole = |resource: Arc<_>| Arc::unwrap_or_clone(resource);
    Change { r#ref: Some(reference(&edit.key)), before: edit.before.map(whole), after: edit.after.map(whole) }
}

fn reference(key: &Key) -> ResourceRef {
    ResourceRef { kind: key.kind.to_pb().into(), name: key.name.to_string() }
}

fn stored(loaded: &Loaded, key: &Key) -> Option<StoredResource> {
    let (resource, generation, etag) = loaded.stored(key)?;
    Some(StoredResource { resource: Some(Arc::unwrap_or_clone(resource)), generation, etag })
}

fn generation(commit: &Commit) -> Generation {
    Generation {
        number: commit.revision,
        commit_time: Some(commit.time.into()),
        author: commit.author.clone(),
        message: commit.message.clone(),
        changed: commit
            .changes
            .iter()
            .filter_map(|c| Key::parse(&c.key))
            .map(|key| reference(&key))
            .collect(),
    }
}

fn key(field: &str, reference: Option<ResourceRef>) -> Result<Key, Status> {
    let reference = reference.ok_or_else(|| status::argument(field, "is missing"))?;
    let kind = kind(field, reference.kind)?.ok_or_else(|| status::argument(field, "has no kind"))?;
    let name = reference.name.parse().map_err(|error| status::argument(field, format!("{error}")))?;
    Ok(Key::new(kind, name))
}

/// None is all kinds.
fn kind(field: &str, number: i32) -> Result<Option<Kind>, Status> {
    match control::Kind::try_from(number) {
        Ok(kind) => Ok(Kind::from_pb(kind)),
        Err(_) => Err(status::argument(field, format!("there is no kind {number}"))),
    }
}

fn page_size(asked: u32, default: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(default as usize),
        1..=PAGE_MAX => Ok(asked as usize),
        _ => Err(status::argument("page_size", format!("must be 1 to {PAGE_MAX}, not {asked}"))),
    }
}

fn list_token(token: &str) -> Result<(u64, Key), Status> {
    let parts = token.split_once(':');
    let parsed = parts.and_then(|(generation, key)| Some((generation.parse().ok()?, Key::parse(key)?)));
    parsed.ok_or_else(bad_token)
}

fn bad_token() -> Status {
    status::argument("page_token", "is not one of ours")
}
