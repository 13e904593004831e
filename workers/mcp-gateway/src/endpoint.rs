//! `/mcp`: one MCP server whose tools are all the tools of all machines.
//!
//! | part | job |
//! |---|---|
//! | `http`, `reply` | streamable HTTP: one request in; JSON or a stream out |
//! | `ws` | WebSocket: one JSON-RPC message a frame |

//! | `lifecycle`, `routing` | which revision a request is of; headers that must say what the body says |
//! | `asked` | a request, with who sent it and what it carries |
//! | `tools`, `call`, `tasks`, `resources` | the methods that the endpoint answers itself |
//! | `calls`, `places` | what clients wait for and may cancel; how many of each may be |
//! | `sessions` | sessions of revisions before 2026-07-28: whose they are, how many, until when |
//! | `server` | what rmcp serves: `initialize`, `server/discover`, `subscriptions/listen`, streams of sessions |
//! | `rpc` | JSON-RPC |
//!
//! A tool's definition and its result are given as its server gave them; rmcp's types would drop what they do not
//! know, so they do not pass through them. All that is added is `_meta["cogo/message_id"]` and
//! `_meta["cogo/trace_id"]`, and for clients of 2026-07-28 `resultType`, where the tool's server is older than that.
//!
//! A call is a message of the bus. Whoever waits for it may go away: the call goes on, and the same idempotency key
//! or task finds its result. So of a client of 2026-07-28 that closes a request, the *request* is cancelled, as that
//! revision demands; the call is cancelled by `notifications/cancelled`, or `tasks/cancel`, alone.

mod asked;
mod call;
mod calls;
mod http;
mod lifecycle;
mod places;
mod reply;
mod resources;
mod routing;
mod rpc;
mod server;
mod sessions;
mod tasks;
mod tools;
mod ws;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cogo::artifact::Store;
use cogo::hub::{Principal, Principals, Routes};
use cogo::shutdown::{Shutdown, Tasks};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::asked::Asked;
use self::calls::Calls;
use self::places::{Place, Places};
use self::rpc::{Answer, Incoming, RpcError};
use self::server::Server;
use self::sessions::Sessions;
use crate::mesh::Mesh;
use crate::platform;

/// How often a stream on which nothing happens is told that it is alive: more often than what lies between two
/// machines closes what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When somebody who waits for too much may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much of everything there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// What `hub.json` says of it.
    pub hub: cogo::hub::Mcp,
    /// How long a finished task can be asked for, if that is bounded.
    pub task_ttl: Option<Duration>,
}

impl Limits {
    /// Those of a hub.
    #[must_use]
    pub fn new(options: &cogo::hub::Options) -> Self {
        let done = options.retention.done_for();
        Self { hub: options.mcp.clone(), task_ttl: Some(done) }
    }

    fn session_idle(&self) -> Duration {
        Duration::from_secs(self.hub.session_idle_s.into())
    }
}

/// The endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    builtin: platform::Deps,
    artifacts: Store,
    principals: Principals,
    limits: Limits,
    calls: Calls,
    /// Requests that are waited for.
    seats: Places,
    /// Artifacts that are read, or on their way: each is in memory as a whole.
    reads: Places,
    sockets: Places,
    sessions: Sessions,
    tasks: Tasks,
    draining: CancellationToken,
    rmcp: StreamableHttpService<Server, Sessions>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that calls tools by `mesh` and those of `builtin` itself, and reads what is in `artifacts`,
    /// for whom `principals` lets in, until `shutdown` drains.
    #[must_use]
    pub fn new(
        mesh: Mesh,
        builtin: platform::Deps,
        artifacts: Store,
        principals: Principals,
        limits: Limits,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Self {
        let sessions = Sessions::start(limits.session_idle(), tasks, shutdown);
        let (catalogue, of_sessions) = (mesh.catalogue().clone(), tasks.clone());
        let config = StreamableHttpServerConfig::default()
            // The hub checks who may call by which name, and from which page, for all its routes.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_json_response(true)
            .with_max_request_body_bytes(limits.hub.max_body_bytes)
            .with_cancellation_token(shutdown.draining().clone());
        let rmcp = StreamableHttpService::new(
            move || Ok(Server::new(catalogue.clone(), of_sessions.clone(), None)),
            Arc::new(sessions.clone()),
            config,
        );
        Self(Arc::new(Inner {
            mesh,
            builtin,
            artifacts,
            principals,
            limits,
            calls: Calls::default(),
            seats: Places::default(),
            reads: Places::default(),
            sockets: Places::default(),
            sessions,
            tasks: tasks.clone(),
            draining: shutdown.draining().clone(),
            rmcp,
        }))
    }

    /// The routes `/mcp` and `/mcp/toolsets/{toolset}`, for the hub to mount as open routes: they ask themselves who
    /// calls.
    pub fn routes(&self) -> Routes {
        Routes::new()
            .any("/mcp", http::all)
            .any("/mcp/toolsets/{toolset}", http::of_toolset)
            .get("/mcp/ws", ws::upgrade)
            .with_state(self.clone())
    }

    /// Whether the endpoint answers the method itself; all others are rmcp's.
    fn is_own(method: &str) -> bool {
        matches!(
            method,
            "tools/list"
                | "tools/call"
                | "tasks/get"
                | "tasks/update"
                | "tasks/cancel"
                | "tasks/result"
                | "tasks/list"
                | "resources/read"
                | "resources/list"
                | "resources/templates/list"
        )
    }

    /// Answers one request. Its seat is its caller's to keep, until the answer has been sent.
    async fn answer(&self, asked: Asked, message: Incoming) -> Answer {
        let params = message.params;
        match message.method.as_str() {
            "tools/list" => self.list_tools(&asked, params).await,
            "tools/call" => self.call_tool(&asked, params).await,
            "tasks/get" => self.get_task(&asked, params).await,
            "tasks/update" => self.update_task(&asked, params).await,
            "tasks/cancel" => self.cancel_task(&asked, params).await,
            "resources/read" => self.read_resource(&asked, params).await,
            "resources/list" => Ok(Self::list_resources(&asked)),
            "resources/templates/list" => Ok(Self::list_templates(&asked)),
            method => Err(RpcError::no_method(method).with(json!({ "method": method }))),
        }
    }

    /// Counts a request of `who` for as long as the place is kept.
    fn seat(&self, who: &Principal) -> Result<Place, RpcError> {
        let max = self.0.limits.hub.max_calls_per_key;
        self.0.seats.take(who, usize::MAX, max).map_err(|_| {
            let message = format!(
                "this key waits for {max} calls already, and may not for more (hub.json, mcp.max_calls_per_key); wait \
                 for one of them to end, or call as a task"
            );
            RpcError::too_many(message, RETRY_AFTER)
        })
    }

    /// Does as a client says that cancels one of its requests.
    async fn cancelled(&self, who: &Principal, scope: calls::Scope, message: &Incoming) {
        let Some(id) = message.params.get("requestId") else { return };
        let Some(waiting) = calls::Key::new(scope, id).and_then(|key| self.0.calls.find(&key))
        else {
            return; // it has ended, or never was
        };
        waiting.unwanted.cancel();
        if let Some(id) = waiting.id.get() {
            self.cancel_call(who, *id).await;
        }
    }
}
