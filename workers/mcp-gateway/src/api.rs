//! The routes `/api/mcp/*`, for the hub to mount. Who may call them is the hub's business.
//!
//! | route | job |
//! |---|---|
//! | `POST /api/mcp/{toolset}/{tool}` | a tool called, and its result waited for |
//! | `GET /api/mcp/tools` | what the mesh offers a tenant |
//! | `GET /api/mcp/pins`, `POST …/approve`, `…/revoke` | which definitions of tools are approved |
//! | `POST /api/mcp/enqueue` | a tool call onto the bus |
//! | `GET /api/mcp/toolsets`, `PUT`, `PATCH`, `DELETE /api/mcp/toolsets/{name}` | the servers of `configs/mcp.json`, changed |
//! | `GET /api/mcp/config` | the toolsets, without secrets |
//! | `GET /api/mcp/health` | all toolsets, pinged side by side |
//! | `GET /api/mcp/ping/{toolset}/{tool}` | the server pinged and the tool found, never run |

mod call;
mod catalogue;
mod enqueue;
mod toolsets;
mod view;

use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Json};
use cogo::bus::{self, Bus, Receipt};
use cogo::error::Code;
use cogo::hub::openapi::Fragment;
use cogo::hub::{ApiError, PathParams, Routes};
use cogo::live::Live;
use cogo::message::{NewMessage, valid_name};
use cogo::retry::Policies;
use serde_json::json;

use crate::catalogue::Catalogue;
use crate::gateway::Gateway;
use crate::toolsets::Toolsets;
use crate::upstream::{CallError, Upstream};

pub use self::call::routes as call_routes;
pub use self::catalogue::routes as catalogue_routes;

/// What all the routes of this module take and give, for [`Routes::describe`].
const DESCRIPTIONS: [Fragment; 2] = [
    Fragment { name: "mcp-gateway/src/api/openapi.json", json: include_str!("api/openapi.json") },
    Fragment {
        name: "mcp-gateway/src/api/openapi_toolsets.json",
        json: include_str!("api/openapi_toolsets.json"),
    },
];

/// What the routes need of a bus: [`Bus`], or something that stands for it in a test.
pub trait Publish: Send + Sync + 'static {
    /// Publishes one message, as [`Bus::publish`].
    fn publish(
        &self,
        message: NewMessage,
    ) -> impl Future<Output = Result<Receipt, bus::Error>> + Send;
}

impl Publish for Bus {
    async fn publish(&self, message: NewMessage) -> Result<Receipt, bus::Error> {
        Bus::publish(self, message).await
    }
}

struct Api<B> {
    toolsets: Arc<Toolsets>,
    policies: Live<Policies>,
    offered: Option<Catalogue>,
    bus: B,
}

impl Gateway {
    /// The routes `/api/mcp/*` that are about the servers of this process, and `enqueue`, which takes what `offered`
    /// says that other machines offer as well. `policies` say how many attempts a message has, and what deadline,
    /// whose sender does not.
    pub fn routes<B: Publish>(
        &self,
        bus: B,
        policies: impl Into<Live<Policies>>,
        offered: Option<Catalogue>,
    ) -> Routes {
        let toolsets = Arc::clone(self.toolsets());
        let api = Api { toolsets, policies: policies.into(), offered, bus };
        Routes::new()
            .post("/api/mcp/enqueue", enqueue::enqueue::<B>)
            .get("/api/mcp/config", config::<B>)
            .get("/api/mcp/health", health::<B>)
            .get("/api/mcp/ping/{toolset}/{tool}", ping::<B>)
            .with_state(Arc::new(api))
            .merge(toolsets::routes(Arc::clone(self.toolsets()), self.config_dir()))
            .describe(DESCRIPTIONS[0])
            .describe(DESCRIPTIONS[1])
    }
}

impl<B> Api<B> {
    fn toolset(&self, name: &str) -> Result<Arc<Upstream>, ApiError> {
        self.toolsets.get(name).ok_or_else(|| {
            let known = self.toolsets.names().join(", ");
            let message = format!("toolset: there is no {name:?}; there are: {known}");
            ApiError::new(Code::NotFound, message)
        })
    }

    /// That there is a toolset of this name: a server of this process, or what a machine offers to `tenant`.
    async fn known(&self, tenant: &str, name: &str) -> Result<(), ApiError> {
        let own = self.toolset(name).map(drop);
        let (Err(unknown), Some(offered)) = (&own, &self.offered) else { return own };
        if !valid_name(tenant) {
            return own;
        }
        let offered = offered.snapshot(tenant).await?;
        if offered.toolsets().any(|toolset| toolset == name) {
            return Ok(());
        }
        let names: Vec<_> = offered.toolsets().collect();
        let message = format!("{}; machines offer: {}", unknown.message(), names.join(", "));
        Err(ApiError::new(Code::NotFound, message))
    }
}

async fn config<B: Publish>(State(api): State<Arc<Api<B>>>) -> impl IntoResponse {
    Json(json!({ "ok": true, "toolsets": view::config(&api.toolsets) }))
}

/// Always 200: that a toolset is down is an answer. `healthy` says whether all are up.
async fn health<B: Publish>(State(api): State<Arc<Api<B>>>) -> impl IntoResponse {
    let pings = api.toolsets.ping_all().await;
    let healthy = pings.values().all(Result::is_ok);
    let toolsets: serde_json::Map<_, _> = pings
        .into_iter()
        .map(|(name, ping)| {
            let view = view::health(api.toolsets.get(&name).map(|u| u.state()), ping);
            (name, view)
        })
        .collect();
    Json(json!({ "ok": true, "healthy": healthy, "toolsets": toolsets }))
}

async fn ping<B: Publish>(
    State(api): State<Arc<Api<B>>>,
    path: PathParams,
) -> Result<impl IntoResponse, ApiError> {
    let (toolset, tool) = (path.text("toolset"), path.text("tool"));
    let upstream = api.toolset(toolset)?;
    let down = |error: CallError| ApiError::new(Code::Unavailable, error.message);
    let report = upstream.ping().await.map_err(down)?;
    let found = match upstream.tool(tool) {
        Some(found) => Some(found),
        None => upstream.refresh().await.map_err(down)?.get(tool).cloned(),
    };
    let Some(found) = found else {
        let message =
            format!("tool: {toolset} has no {tool:?}; it has: {}", report.tools.join(", "));
        return Err(ApiError::new(Code::NotFound, message));
    };
    Ok(Json(json!({
        "ok": true, "toolset": toolset, "tool": *found, "server": report.server,
        "latency_ms": report.latency_ms,
    })))
}
