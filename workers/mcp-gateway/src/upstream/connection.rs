//! One connection to an MCP server: handshake, list of tools, requests.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cogo::error::chain;
use cogo::shutdown::Tasks;
use rmcp::model::{
    CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest,
    CreateMessageRequestMethod, DiscoverRequest, ElicitRequestParams, ElicitResult,
    ElicitationCreateRequestMethod, ErrorCode, ErrorData, Implementation, ListRootsRequestMethod,
    ListToolsRequest, PaginatedRequestParams, PingRequest, ProgressNotificationParam,
    ProgressToken, ProtocolVersion, RequestId, RequestMetaObject, ServerResult, SubscriptionFilter,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer, PeerRequestOptions,
    RequestContext, RequestHandle, RunningService, ServiceError, Subscription,
    serve_client_with_lifecycle_and_ct,
};
use rmcp::transport::IntoTransport;
use rmcp::{ClientHandler, RoleClient};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::tools::{Tool, Tools};
use super::wire::{Probe, Wire};

/// How many pages of tools are read, so that a server whose cursor never ends cannot keep us.
const MAX_PAGES: usize = 100;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Its name; empty if it does not say.
    pub name: String,
    /// Its version; empty if it does not say.
    pub version: String,
    /// The MCP revision that was agreed on.
    pub protocol: String,
}

/// What takes a call's progress reports.
pub(super) type ProgressSink = Arc<dyn Fn(Value) + Send + Sync>;

/// Where progress reports go, by token, and the last value that was reported.
pub(super) type ProgressSinks = Mutex<HashMap<ProgressToken, (f64, ProgressSink)>>;

/// An established connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    pub(super) wire: Arc<Wire>,
    pub(super) server: Server,
    pub(super) progress: Arc<Sinks>,
    tools: RwLock<Arc<Tools>>,
    changed: Arc<Notify>,
    legacy: bool,
    announces_changes: bool,
    subscription: Mutex<Option<Subscription>>,
    tasks: Tasks,
    _closes: DropGuard,
}

/// How long a reply waits for progress reports that came before it.
const REPORTS_WITHIN: Duration = Duration::from_millis(50);
/// How long a `notifications/cancelled` may take to be written.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

/// See [`ProgressSinks`]; and how many reports were passed on to them.
#[derive(Default)]
pub(super) struct Sinks(pub(super) ProgressSinks, watch::Sender<u64>);

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sinks")
    }
}

/// Why a connection could not be established.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the MCP handshake failed")]
    Handshake(#[source] Box<ClientInitializeError>),
    #[error("the MCP handshake took longer than {0:?}")]
    HandshakeTimeout(Duration),
    #[error("the list of tools could not be read")]
    Tools(#[source] ServiceError),
    #[error("the list of tools took longer than {0:?}")]
    ToolsTimeout(Duration),
}

impl Error {
    /// Whether another way to begin might do.
    pub(super) fn of_handshake(&self) -> bool {
        matches!(self, Self::Handshake(_) | Self::HandshakeTimeout(_))
    }
}

/// How to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// `server/discover` (MCP 2026-07-28), and `initialize` if the server does not know it.
    Probe,
    /// `initialize` (up to MCP 2025-11-25) at once, for servers that `server/discover` silences.
    Initialize,
}

impl Lifecycle {
    fn mode(self) -> ClientLifecycleMode {
        match self {
            Self::Initialize => ClientLifecycleMode::Initialize,
            Self::Probe => ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
        }
    }
}

impl Connection {
    /// Waits until the progress reports that came so far were passed on: rmcp has them done beside the reply, which
    /// may so overtake the last of them.
    pub(super) async fn pass_on_reports(&self) {
        let due = self.wire.reports();
        if *self.progress.1.borrow() >= due {
            return;
        }
        let mut passed_on = self.progress.1.subscribe();
        let all = passed_on.wait_for(|passed_on| *passed_on >= due);
        // One that rmcp takes for a subscription's is never passed on.
        let _too_long = tokio::time::timeout(REPORTS_WITHIN, all).await;
    }

    /// Shakes hands over `transport` and reads the list of tools, both within `within`.
    pub(super) async fn establish<T, E, A>(
        transport: T,
        lifecycle: Lifecycle,
        wire: Arc<Wire>,
        within: Duration,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Error>
    where
        T: IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (progress, changed) = (Arc::new(Sinks::default()), Arc::new(Notify::new()));
        let handler = Client { progress: Arc::clone(&progress), changed: Arc::clone(&changed) };
        let stop = CancellationToken::new();
        let closes = stop.clone().drop_guard();
        let serve =
            serve_client_with_lifecycle_and_ct(handler, transport, lifecycle.mode(), stop.clone());
        let running = tokio::time::timeout(within, serve)
            .await
            .map_err(|_| Error::HandshakeTimeout(within))?
            .map_err(|error| match error {
                // What HTTP calls a connection begins with its first request.
                ClientInitializeError::TransportError { error, .. } => Error::Connect(error.error),
                error => Error::Handshake(Box::new(error)),
            })?;
        let peer = running.peer().clone();
        tasks.spawn(run(running, Arc::clone(&wire)));
        let info = peer.peer_info();
        let implementation = info.as_ref().and_then(|info| info.server_info.clone());
        let protocol = info.as_ref().map(|info| info.protocol_version.clone()).unwrap_or_default();
        let tools = info.as_ref().and_then(|info| info.capabilities.tools.clone());
        let connection = Arc::new(Self {
            peer,
            wire,
            server: Server {
                name: implementation.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
                version: implementation.map(|i| i.version).unwrap_or_default(),
                protocol: protocol.to_string(),
            },
            progress,
            tools: RwLock::default(),
            changed,
            legacy: protocol.has_initialize(),
            announces_changes: tools.is_some_and(|tools| tools.list_changed == Some(true)),
            subscription: Mutex::new(None),
            tasks: tasks.clone(),
            _closes: closes,
        });
        tokio::time::timeout(within, connection.refresh())
            .await
            .map_err(|_| Error::ToolsTimeout(within))?
            .map_err(Error::Tools)?;
        Ok(connection)
    }

    /// Whether the server was begun with by `initialize`.
    pub(super) fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// The tools, as last listed.
    pub(super) fn tools(&self) -> Arc<Tools> {
        Arc::clone(&self.tools.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the list of tools, all its pages.
    pub(super) async fn refresh(&self) -> Result<(), ServiceError> {
        let mut tools = Tools::default();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            // Not `Peer::list_tools`: its cache may give an older list, even when the server fails.
            let page = PaginatedRequestParams::default().with_cursor(cursor.take());
            let (probe, mut request) =
                (Arc::new(Probe::default()), ListToolsRequest::with_param(page));
            request.extensions.insert(Arc::clone(&probe));
            match self.ask(ClientRequest::ListToolsRequest(request), &probe).await {
                Ok(page) => {
                    let mut page = as_it_came(&probe, page);
                    let Some(listed) = page.get_mut("tools").and_then(Value::as_array_mut) else {
                        return Err(ServiceError::UnexpectedResponse);
                    };
                    let count = listed.len();
                    let before = tools.len();
                    tools.extend(std::mem::take(listed).into_iter().filter_map(Tool::of));
                    if tools.len() < before + count {
                        let left_out = before + count - tools.len();
                        tracing::warn!(
                            "{} lists {left_out} tools that have no name of their own or no inputSchema; they are left out",
                            self.server.name
                        );
                    }
                    let next = page["nextCursor"].as_str().filter(|cursor| !cursor.is_empty());
                    cursor = next.map(str::to_owned);
                }
                // A server without tools need not know the method.
                Err(ServiceError::McpError(e)) if e.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => return Err(error),
            }
            if cursor.is_none() {
                break;
            }
        }
        *self.tools.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tools);
        Ok(())
    }

    /// Waits until the server says that its tools have changed.
    pub(super) async fn tools_changed(&self) {
        if self.legacy || !self.announces_changes {
            return self.changed.notified().await;
        }
        // From MCP 2026-07-28 on, changes are told to those who asked. The subscription is kept:
        // what changes while the list is read again must not be missed.
        let mut subscription = self.subscription.lock().await;
        if subscription.is_none() {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            match self.peer.listen(filter).await {
                Ok(taken) => *subscription = Some(taken),
                Err(error) => tracing::debug!(error = %plain(&error), "No subscription was given"),
            }
        }
        if let Some(changes) = subscription.as_mut()
            && let Ok(Some(_)) = changes.next().await
        {
            return;
        }
        self.changed.notified().await;
    }

    /// Asks for a sign of life: `ping`, or `server/discover` where that has replaced it. Never runs
    /// a tool.
    pub(super) async fn ping(&self) -> Result<(), ServiceError> {
        let probe = Arc::new(Probe::default());
        let request = if self.legacy {
            let mut request = PingRequest::default();
            request.extensions.insert(Arc::clone(&probe));
            ClientRequest::PingRequest(request)
        } else {
            let mut request = DiscoverRequest::new(Default::default());
            request.extensions.insert(Arc::clone(&probe));
            ClientRequest::DiscoverRequest(request)
        };
        match self.ask(request, &probe).await {
            // Also an answer.
            Err(ServiceError::McpError(e)) if e.code == ErrorCode::METHOD_NOT_FOUND => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Asks what is no call of a tool. Who no longer waits for the answer cancels the request: over HTTP it would else
    /// keep one of the few places for requests, until no call finds one.
    async fn ask(
        &self,
        request: ClientRequest,
        probe: &Arc<Probe>,
    ) -> Result<ServerResult, ServiceError> {
        let options = PeerRequestOptions::no_options();
        let mut handle = self.peer.send_request_with_option(request, options).await?;
        let mut cancel = self.cancel_on_drop(&handle, probe);
        let answer = (&mut handle.rx).await.unwrap_or(Err(ServiceError::TransportClosed));
        cancel.armed = false;
        answer
    }

    /// What cancels the request of `handle` unless it is disarmed.
    pub(super) fn cancel_on_drop(
        &self,
        handle: &RequestHandle<RoleClient>,
        probe: &Arc<Probe>,
    ) -> CancelOnDrop {
        CancelOnDrop {
            peer: self.peer.clone(),
            sinks: Arc::clone(&self.progress),
            id: handle.id.clone(),
            token: handle.progress_token.clone(),
            tasks: self.tasks.clone(),
            probe: Arc::clone(probe),
            reason: "the caller went away",
            armed: true,
        }
    }

    /// Request options that carry `meta`.
    pub(super) fn options(meta: &serde_json::Map<String, Value>) -> PeerRequestOptions {
        let mut object = RequestMetaObject::new();
        for (key, value) in meta {
            object.insert(key.clone(), value.clone());
        }
        PeerRequestOptions::no_options().with_meta(object)
    }
}

/// A result as the server sent it, if the transport could see it; else as rmcp understood it.
pub(super) fn as_it_came(probe: &Probe, result: ServerResult) -> Value {
    match (probe.take_raw(), result) {
        (Some(raw), _) => raw,
        (None, ServerResult::CustomResult(raw)) => raw.0,
        (None, typed) => serde_json::to_value(typed).unwrap_or_default(),
    }
}

/// What `error` says, without rmcp's names of Rust types.
pub(super) fn plain(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => chain(&*error.error).to_string(),
        other => chain(other).to_string(),
    }
}

/// Tells the server that an answer is no longer wanted (MCP, "Cancellation").
pub(super) struct CancelOnDrop {
    peer: Peer<RoleClient>,
    sinks: Arc<Sinks>,
    id: RequestId,
    token: ProgressToken,
    tasks: Tasks,
    probe: Arc<Probe>,
    pub(super) reason: &'static str,
    pub(super) armed: bool,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return; // the runtime is gone, and with it the connection
        }
        let (peer, sinks, token) = (self.peer.clone(), Arc::clone(&self.sinks), self.token.clone());
        // What the server never saw needs no notice.
        let notice = (self.armed && !self.probe.withdraw()).then(|| {
            CancelledNotificationParam::new(Some(self.id.clone()), Some(self.reason.to_owned()))
        });
        // Mostly there is nothing to tell and nobody at the sinks: that needs no task of its own.
        if notice.is_none()
            && let Ok(mut sinks) = sinks.0.try_lock()
        {
            sinks.remove(&token);
            return;
        }
        self.tasks.spawn(async move {
            sinks.0.lock().await.remove(&token);
            if let Some(notice) = notice {
                let _ = tokio::time::timeout(CANCEL_WITHIN, peer.notify_cancelled(notice)).await;
            }
        });
    }
}

/// Waits for the end of rmcp's own task, so that nothing of a connection outlives [`Tasks`].
async fn run(running: RunningService<RoleClient, Client>, wire: Arc<Wire>) {
    match running.waiting().await {
        Ok(_) => wire.end("the connection was closed"),
        Err(error) => wire.end(format!("the connection's task failed: {error}")),
    }
}

/// What the server may ask of us: hardly anything.
struct Client {
    progress: Arc<Sinks>,
    changed: Arc<Notify>,
}

#[allow(deprecated)] // sampling and roots: refused, for servers of older revisions that ask
impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let version = env!("CARGO_PKG_VERSION");
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("cogo", version))
            // rmcp's default is 2026-07-28, which has no `initialize`.
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListRootsRequestMethod>())
    }

    async fn create_message(
        &self,
        _params: rmcp::model::CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::CreateMessageResult, ErrorData> {
        Err(ErrorData::method_not_found::<CreateMessageRequestMethod>())
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Err(ErrorData::method_not_found::<ElicitationCreateRequestMethod>())
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        // rmcp runs each notification in a task of its own, so they come in any order; a report's
        // value must grow (MCP, "Progress"), so what does not is an older one.
        let mut sinks = self.progress.0.lock().await;
        if let Some((last, sink)) = sinks.get_mut(&params.progress_token)
            && params.progress > *last
        {
            *last = params.progress;
            let mut report = json!({ "progress": params.progress });
            if let Some(total) = params.total {
                report["total"] = total.into();
            }
            if let Some(message) = params.message {
                report["message"] = message.into();
            }
            sink(report);
        }
        self.progress.1.send_modify(|passed_on| *passed_on += 1);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}
