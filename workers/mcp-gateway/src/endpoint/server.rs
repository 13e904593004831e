//! What rmcp serves of the endpoint: opening a session, telling what there is, and that it has changed.
//!
//! Tools and their results do not pass through rmcp's types, which would drop what they do not know.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use cogo::hub::Principal;
use cogo::shutdown::Tasks;
use rmcp::model::{
    CompleteRequestMethod, CompleteRequestParams, CompleteResult, ErrorData, Extensions,
    Implementation, ListPromptsRequestMethod, ListPromptsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, SubscriptionFilter,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::catalogue::Catalogue;

/// Machines come and go in groups; one notification is enough for all that changes within this time.
const DEBOUNCE: Duration = Duration::from_millis(250);

const INSTRUCTIONS: &str = "\
The tools here are those of many machines, joined by COGO. A tool's name is <toolset>__<tool>; a toolset's tools \
belong together, and may run on any machine that offers it. Every call is durable: it is queued, retried by policy \
and kept, also where the machine is away for a moment, so a call may take longer than the tool itself. A result's \
_meta has cogo/message_id and cogo/trace_id, by which it can be looked up again. Where an error says that a call may \
have run, do not repeat it unless repeating does no harm; the same cogo/idempotency_key in a call's _meta gives the \
same call's result instead of calling again.";

/// Who a request is of, for what rmcp serves; the front puts it into the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) who: Principal,
    pub(super) toolset: Option<Arc<str>>,
}

impl Caller {
    fn of(extensions: &Extensions) -> Option<Self> {
        if let Some(caller) = extensions.get::<Self>() {
            return Some(caller.clone());
        }
        extensions.get::<Parts>()?.extensions.get::<Self>().cloned()
    }
}

/// One session, or one request where there are none.
pub(super) struct Server {
    catalogue: Catalogue,
    tasks: Tasks,
    /// Who it is of, where the transport says it once.
    caller: Option<Caller>,
    ended: CancellationToken,
    _ends: DropGuard,
}

impl Server {
    pub(super) fn new(catalogue: Catalogue, tasks: Tasks, caller: Option<Caller>) -> Self {
        let ended = CancellationToken::new();
        Self { catalogue, tasks, caller, _ends: ended.clone().drop_guard(), ended }
    }

    fn changes(&self, extensions: &Extensions) -> Option<watch::Receiver<u64>> {
        let caller = Caller::of(extensions).or_else(|| self.caller.clone())?;
        let mut changed = self.catalogue.changed(caller.who.tenant());
        changed.mark_unchanged();
        Some(changed)
    }
}

/// Waits for a change, and for those that come with it. False once there can be none any more.
async fn change(changed: &mut watch::Receiver<u64>) -> bool {
    if changed.changed().await.is_err() {
        return false;
    }
    tokio::time::sleep(DEBOUNCE).await;
    changed.mark_unchanged();
    true
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_resources()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        let server = Implementation::new("cogo", env!("CARGO_PKG_VERSION"))
            .with_title("COGO")
            .with_description("The tools of all joined machines, called durably");
        ServerConfig::new(capabilities).with_server_info(server).with_instructions(INSTRUCTIONS)
    }

    /// rmcp would answer with an empty list, which says that there could be some.
    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    /// As [`Server::list_prompts`]: there is nothing whose arguments could be completed.
    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let Some(mut changed) = self.changes(&context.extensions) else { return };
        let (ended, peer) = (self.ended.clone(), context.peer);
        self.tasks.spawn(async move {
            let telling = async {
                while change(&mut changed).await {
                    if peer.notify_tool_list_changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = telling => {}
                () = ended.cancelled() => {}
            }
        });
    }

    fn accepted_subscription_filter(
        &self,
        _requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter::builder().tools_list_changed().build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let extensions = &context.request_context().extensions;
        let Some(mut changed) = self.changes(extensions) else {
            context.cancelled().await;
            return Ok(());
        };
        let sink = context.sink().clone();
        let telling = async {
            while change(&mut changed).await {
                if sink.accepted().tools_list_changed != Some(true) {
                    continue;
                }
                if sink.notify_tool_list_changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = context.cancelled() => {}
        }
        Ok(())
    }
}
