//! The fixture as the SDK sees it: one handler per session or request, over what
//! the whole process shares. Everything here is delegation; behavior is in the
//! module of its capability.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams,
    GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, Reference, RequestStateCodec, ServerCapabilities, ServerInfo,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::{RoleServer, ServerHandler};

use crate::audience::{Audience, Session};
use crate::folder::Folder;
use crate::mode::Mode;
use crate::{prompts, resources, tools};

/// Long enough to be worth caching, so that a gateway that caches is seen to.
pub const CACHE_TTL_MS: u64 = 60_000;

/// The same in every process: a retry may reach another fixture than the first try.
const REQUEST_STATE_KEY: &[u8] = b"a key that protects nothing but test state";

/// What all sessions and requests of one process have in common.
pub struct Shared {
    mode: Mode,
    page_size: Option<usize>,
    pub unicode_names: bool,
    pub audience: Audience,
    pub tasks: TaskManager,
    pub seal: RequestStateCodec,
    /// Whether the list of tools holds one more at this moment.
    pub dynamic_tool: AtomicBool,
    pub dynamic_prompt: AtomicBool,
    /// How often the watched resource has changed.
    pub watched_revision: AtomicU64,
    pub slow_calls: SlowCalls,
    pub folder: Folder,
    /// How many sessions, or requests without one, there have been.
    sessions: AtomicU64,
}

/// Ends of `slow` calls, for tests that ask whether a cancellation arrived.
#[derive(Default)]
pub struct SlowCalls {
    pub started: AtomicU64,
    pub finished: AtomicU64,
    pub cancelled: AtomicU64,
}

impl Shared {
    pub fn new(mode: Mode, page_size: Option<usize>, unicode_names: bool, folder: Option<PathBuf>) -> Self {
        Self {
            mode,
            page_size,
            unicode_names,
            audience: Audience::default(),
            tasks: TaskManager::new(),
            seal: RequestStateCodec::new_unchecked(REQUEST_STATE_KEY),
            dynamic_tool: AtomicBool::new(false),
            dynamic_prompt: AtomicBool::new(false),
            watched_revision: AtomicU64::new(0),
            slow_calls: SlowCalls::default(),
            folder: Folder::new(folder),
            sessions: AtomicU64::new(0),
        }
    }

    /// One page of `items`, and where the next one starts. A cursor is the index
    /// of its first item, as text, so a test can see that it came back unchanged.
    fn page<T>(
        &self,
        items: Vec<T>,
        request: Option<PaginatedRequestParams>,
    ) -> Result<(Vec<T>, Option<String>), ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let start = match &cursor {
            None => 0,
            Some(text) => {
                text.parse().ok().filter(|start| *start > 0 && *start < items.len()).ok_or_else(|| {
                    ErrorData::invalid_params(format!("no page starts at cursor {text:?}"), None)
                })?
            }
        };
        let size = self.page_size.unwrap_or(usize::MAX).max(1);
        let end = start.saturating_add(size);
        let next = (end < items.len()).then(|| end.to_string());
        Ok((items.into_iter().skip(start).take(size).collect(), next))
    }
}

/// The handler of one session, or of one request without a session.
pub struct Fixture {
    pub shared: Arc<Shared>,
    pub session: Arc<Session>,
}

impl Fixture {
    pub fn new(shared: Arc<Shared>) -> Self {
        let number = shared.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared, session: Arc::new(Session::new(number)) }
    }
}

/// A list with the page, the next cursor and the caching hints.
macro_rules! list {
    ($result:ident, $page:expr) => {{
        let (items, next_cursor) = $page?;
        let mut list =
            $result::with_all_items(items).with_ttl_ms(CACHE_TTL_MS).with_cache_scope(CacheScope::Public);
        list.next_cursor = next_cursor;
        Ok(list)
    }};
}

impl ServerHandler for Fixture {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(self.shared.mode.versions())
    }

    fn get_info(&self) -> ServerInfo {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed();
        let capabilities =
            if self.shared.mode.has_tasks() { capabilities.enable_tasks() } else { capabilities };
        ServerInfo::new(capabilities.build())
            .with_server_info(Implementation::new("mt-fixture", env!("CARGO_PKG_VERSION")))
            .with_instructions("A backend for tests of MCP gateways.")
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.shared.audience.join(&self.session, context.peer);
    }

    /// The transport reads header annotations from here, for every call.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::list(&self.shared).into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        list!(ListToolsResult, self.shared.page(tools::list(&self.shared), request))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, &context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        list!(ListResourcesResult, self.shared.page(resources::list(), request))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        list!(ListResourceTemplatesResult, self.shared.page(resources::templates(&self.shared), request))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = resources::read(&self.shared, &request.uri)?;
        Ok(read.with_ttl_ms(CACHE_TTL_MS).with_cache_scope(CacheScope::Public).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.watch(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.unwatch(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let _subscribed = self.shared.audience.subscribe(subscription.sink().clone());
        subscription.cancelled().await;
        Ok(())
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        list!(ListPromptsResult, self.shared.page(prompts::list(&self.shared), request))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&self.shared, request, &context).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let values = match &request.r#ref {
            Reference::Resource(_) => resources::completions(&request.argument),
            Reference::Prompt(_) => prompts::completions(&request.argument),
            _ => Vec::new(),
        };
        let values = CompletionInfo::with_all_values(values)
            .map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(values))
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.set_log_level(request.level);
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.shared.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.cancel_task(&request.task_id)
    }
}

/// Turns one of the fixture's switches and says how it stands now.
pub fn toggle(switch: &AtomicBool) -> bool {
    !switch.fetch_xor(true, Ordering::SeqCst)
}
