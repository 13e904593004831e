//! The hub: the bus over HTTP, for people, programs and monitoring (feature `hub`).
//!
//! Configurable, with defaults, by [`Options`] (the file `hub.json`):
//!
//! | field | default | meaning |
//! |---|---|---|
//! | `max_body_bytes` | 1 MiB | the largest request body |
//! | `retention.done_hours` | 24 | how long done and cancelled messages stay |
//! | `retention.idempotency_hours` | 24 | how long they stay that have an idempotency key, if that is longer |
//! | `retention.failed_days` | none | how long dead letters stay; none: until someone drops them |
//! | `retention.log_days` | 35 | how long the log stays, in whole weeks |
//! | `allowed_hosts` | `[]` | names by which clients may call the hub, beside loopback |
//! | `wait_max_s` | 60 | the longest `?wait=` |
//! | `max_waiters` | 1000 | how many may wait at once |
//! | `request_timeout_s` | 30 | how long any other request may take |
//! | `open_reads` | on loopback, but through a proxy | whether reading needs no token |
//! | `require_admin_for_non_get` | true | whether all but reads needs the admin token, whatever the policies say |
//! | `api_origins` | `[]` | pages on the web that may call everything else |
//! | `tls_terminated` | false | whether all clients come through TLS that a proxy ends |
//! | `rate_limit.per_address` | 1000/s, 4000 at once | requests of one address |
//! | `rate_limit.per_key` | 2000/s, 8000 at once | requests with one key |
//! | `rate_limit.trusted_proxies` | `[]` | proxies that are believed for whom they speak |
//! | `rate_limit.wrong_tokens_per_minute` | 10 | wrong admin tokens of one address before it is not heard for a while |
//! | `max_connections_per_address` | 500 | connections of one address |
//! | `allowed_origins` | `[]` | pages on the web that may call `/rest/v1`, `/realtime/v1` and `/mcp` |
//! | `rest.max_body_bytes` | 16 MiB | the largest request body there |
//! | `rest.max_answer_bytes` | 32 MiB | the largest answer there |
//! | `rest.max_rows` | 1000 | how many rows of a table are given at once |
//! | `rest.statement_timeout_ms` | 15000 | how long the database may take over one request |
//! | `rest.max_connections` | 10 | how many requests it works on at once; of one tenant at most three quarters |
//! | `realtime.max_connections` | 10000 | sockets at once |
//! | `realtime.max_connections_per_key` | 2000 | sockets at once with one key |
//! | `realtime.max_channels` | 100 | channels of one socket |
//! | `realtime.joins_per_second` | 500 | joins with one key |
//! | `realtime.events_per_second` | 100 | broadcasts and presence calls of one socket |
//! | `realtime.max_frame_bytes` | 1 MiB | the largest frame that a client may send |
//! | `realtime.max_record_bytes` | 1 MiB | the largest row that is told whole |
//! | `realtime.queue_frames` | 1024 | frames that may wait for a slow socket before it is dropped |
//! | `realtime.queue_bytes` | 4 MiB | bytes that may |
//! | `realtime.queue_bytes_all` | 256 MiB | bytes that may for all sockets together |
//! | `realtime.silence_s` | 60 | after how long a silent socket is closed |
//! | `events.max_streams` | 256 | streams of events at once |
//! | `mcp.max_body_bytes` | 4 MiB | the largest request body below `/mcp`, and the largest frame of a socket there |
//! | `mcp.max_calls_per_key` | 1000 | requests of one key that are waited for at once |
//! | `mcp.max_sessions` | 10000 | sessions of clients that still have them |
//! | `mcp.max_sessions_per_key` | 1000 | those of one key |
//! | `mcp.session_idle_s` | 1800 | after how long a session that nobody uses ends |
//! | `mcp.max_sockets` | 1000 | WebSockets at `/mcp/ws`; of one key at most half as many |
//! | `artifacts.store` | `folder` | where artifacts are kept: `folder`, or `s3` |
//! | `artifacts.s3` | | `endpoint`, `region`, `bucket`, `prefix`, `path_style` of the bucket |
//!
//! From the environment come secrets alone, which the caller reads: the admin token, `COGO_ADMIN_TOKEN`, and
//! those that sign the keys of remote callers, `COGO_JWT_SECRET`, and seal what is set over the API, `COGO_ENV_KEY`.
//!
//! Every answer that is an error has one shape ([`ApiError`]), whoever gives it: this module, a role's
//! routes, the router or a panic; but below `/rest/v1` and `/realtime/v1` it has PostgREST's.

mod arrival;
mod artifacts;
mod audit;
mod auth;
mod bind;
mod blobs;
mod body_limits;
mod cached;
mod caller;
mod circuits;
mod client;
mod conditional;
mod connections;
mod console;
mod dead_letters;
mod env;
mod error;
mod events;
mod extract;
mod failures;
mod gauges;
mod guard;
mod headers;
mod health;
mod host;
mod limits;
mod lists;
pub mod maintenance;
mod messages;
mod metrics;
mod minimal;
pub mod openapi;
mod origins;
mod pending;
mod policies;
mod principal;
mod process;
mod rates;
pub mod realtime;
mod rest;
mod routes;
mod serve;
mod session;
mod shape;
mod shares;
mod stall;
mod status;
mod tools;
mod wait;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use sqlx::postgres::PgPool;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

pub use artifacts::{Query as ArtifactQuery, list_in as list_artifacts};
pub use auth::{AdminToken, InvalidToken};
pub use bind::{BindError, bind};
pub use caller::check as check_callers;
pub use connections::Connections;
pub use error::ApiError;
pub use extract::{PathParams, StrictJson, StrictQuery};
pub use health::Readiness;
pub use limits::{apply_limits, follow_limits};
pub use minimal::minimal_router;
pub use policies::{Policies, Policy, UnknownWho, Verb, Who};
pub use principal::{Principal, Principals};
pub use routes::{Route, Routes};
pub use serve::{CONNECTIONS_MAX, serve, serve_within};
pub use wait::parse as parse_wait;

use crate::artifact;
use crate::bus::{Bus, Feed, Pending};
use crate::identity;
pub use crate::options::{Events, InvalidOptions, Mcp, Options, Rate, RateLimit, Rest, Retention};
use crate::remote_env::{KeyError, Keyring};
use body_limits::BodyLimits;
use cached::Cached;
use client::{Client, Clients};
use events::Live;
use gauges::Gauges;
use guard::Guard;
use host::Hosts;
use metrics::Summaries;
use origins::Origins;
use realtime::Realtime;

/// Gives all metrics in the Prometheus text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the hub serves from.
#[derive(Clone)]
pub struct State {
    /// The commit that the program was built from, where that is known.
    pub commit: Option<&'static str>,
    /// The bus.
    pub bus: Bus,
    /// The feed, on which long polls wait; it ends them when the process drains.
    pub feed: Feed,
    /// What must be ready before the hub says that it is.
    pub readiness: Readiness,
    /// How it is configured; validated by the caller.
    pub options: Options,
    /// Who may call which route; validated by the caller.
    pub policies: Policies,
    /// Who may write.
    pub token: AdminToken,
    /// What signs the keys of remote callers.
    pub keys: identity::Keys,
    /// What seals the values that are set over the API; or why there is nothing.
    pub env_keys: Result<Keyring, KeyError>,
    /// The connections on which remote callers are served, under their own roles; apart from the bus's, so
    /// that they cannot use those up. `rest.max_connections` says how many.
    pub callers: PgPool,
    /// `/realtime/v1`, which follows the log.
    pub realtime: Realtime,
    /// Renders `/metrics`.
    pub metrics: RenderMetrics,
    /// The address that the hub listens on, as the listener gives it.
    pub listen: SocketAddr,
    /// The folder behind `/artifacts`.
    pub artifacts_dir: PathBuf,
    /// The store behind `/mcp/artifacts`.
    pub artifacts: artifact::Store,
}

impl State {
    /// Tells who calls, for routes that take keys as well as the admin token: those that a role mounts below
    /// `/mcp`.
    #[must_use]
    pub fn principals(&self) -> Principals {
        Principals::new(self.token.clone(), self.keys.clone(), self.bus.clone(), self.database())
    }

    /// The connections that one address may hold, for [`serve_within`].
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections::new(&self.options)
    }

    /// The database, for remote callers.
    fn database(&self) -> caller::Database {
        caller::Database {
            pool: self.callers.clone(),
            statement_timeout: Duration::from_millis(self.options.rest.statement_timeout_ms.into()),
            ..self.realtime.callers()
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("listen", &self.listen)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// [`State`], and what the hub keeps beside it.
struct Hub {
    state: State,
    hosts: Hosts,
    /// Which pages on the web may call for remote callers.
    origins: Origins,
    /// The database, for remote callers.
    callers: caller::Database,
    /// What they can call and read there.
    catalogue: rest::Cache,
    /// Whether reading needs no token, for those who come by themselves: see [`Hub::opens_reads_to`].
    open_reads: bool,
    waiters: Semaphore,
    /// Keeps what workers send that do not have this machine's disk.
    artifacts: artifact::Store,
    artifacts_summary: Cached<Result<serde_json::Value, ApiError>>,
    uploads: blobs::Uploads,
    gauges: Gauges,
    schema: Cached<Result<(), String>>,
    counted: Cached<()>,
    /// What waits for workers, of all tenants; none where the database did not say.
    pending: Cached<Option<Vec<Pending>>>,
    /// Figures that were found out lately.
    summaries: Summaries,
    /// What streams of events share.
    live: Live,
}

impl Hub {
    fn new(state: State) -> Self {
        let ip = state.listen.ip().to_canonical();
        Self {
            hosts: Hosts::new(ip, &state.options.allowed_hosts),
            catalogue: rest::Cache::default(),
            origins: Origins::new(&state.options.allowed_origins),
            callers: state.database(),
            open_reads: state.options.open_reads.unwrap_or_else(|| ip.is_loopback()),
            waiters: Semaphore::new(state.options.max_waiters),
            artifacts: state.artifacts.clone(),
            artifacts_summary: Cached::default(),
            uploads: blobs::Uploads::default(),
            gauges: Gauges::default(),
            schema: Cached::default(),
            counted: Cached::default(),
            pending: Cached::default(),
            summaries: Summaries::default(),
            live: Live::new(state.bus.clone(), state.options.events.max_streams),
            state,
        }
    }

    /// Whether this client may read without a token. That the hub listens on loopback says nothing of those for whom a
    /// proxy on this machine speaks.
    fn opens_reads_to(&self, client: &Client) -> bool {
        self.state.options.open_reads.unwrap_or(self.open_reads && !client.forwarded)
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.state.options.request_timeout_s.into())
    }

    fn wait_max(&self) -> Duration {
        Duration::from_secs(self.state.options.wait_max_s.into())
    }
}

/// Everything that the hub answers: its own routes, `role_routes` and `open_routes`. The rules for hosts, rates,
/// limits and errors hold for all, and so does [`State::policies`], which says who may call what; a route that it
/// does not name answers nobody. For remote callers (`/rest/v1`, `/realtime/v1`) a key says who calls. `open_routes`
/// lie at or below `/mcp` and ask [`Principals`] who calls; nobody else does, so each of them must. No time limit
/// holds there.
///
/// # Panics
/// When a role's route is one of the hub's own, or the descriptions of the routes do not fit together.
pub fn router(state: State, role_routes: Routes, open_routes: Routes) -> axum::Router {
    assemble(state, role_routes, open_routes).0
}

/// As [`router`], with the routes that it answers.
///
/// # Panics
/// As there.
pub fn assemble(
    state: State,
    role_routes: Routes,
    open_routes: Routes,
) -> (axum::Router, Vec<Route>) {
    let limits = BodyLimits::new(&state.options);
    let hub = Arc::new(Hub::new(state));
    let admit_origins = |told: origins::Told| {
        let origins = hub.origins.clone();
        from_fn(move |request, next| origins::admit(origins.clone(), told, request, next))
    };
    let remote = rest::routes(&hub)
        .merge(realtime::routes(&hub))
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.remote))
        .layer(admit_origins(origins::REMOTE));
    let open = open_routes
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.open))
        .layer(admit_origins(origins::OPEN));
    let blobs = blobs::routes(&hub)
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.artifact))
        .layer(admit_origins(origins::OPEN));
    let routes = Routes::new()
        .get("/", console::page)
        .get("/favicon.ico", console::icon)
        .get("/console/{*file}", console::part)
        .get("/healthz", health::alive)
        .get("/readyz", health::ready)
        .get("/metrics", gauges::render)
        .get("/api/pending-tasks", pending::pending_tasks)
        .get("/api/session", session::session)
        .get("/api/status", status::status)
        .get("/api/messages", lists::messages)
        .get("/api/messages/{id}", messages::message)
        .post("/api/messages/{id}/cancel", lists::cancel)
        .get("/api/traces", lists::traces)
        .get("/api/traces/{trace_id}", messages::trace)
        .get("/api/workers", lists::workers)
        .get("/api/events", events::list)
        .get("/api/events/stream", events::stream)
        .get("/api/metrics/summary", metrics::summary)
        .get("/api/metrics/mcp/summary", metrics::mcp_summary)
        .get("/api/metrics/mcp/events", events::of_calls)
        .post("/api/metrics/snapshot", metrics::snapshot)
        .get("/api/circuits", circuits::list)
        .post("/api/circuits/{action}", circuits::set)
        .get("/api/dead-letters", dead_letters::list)
        .post("/api/dead-letters/requeue", dead_letters::requeue)
        .post("/api/dead-letters/drop", dead_letters::drop)
        .get("/api/dead-letters/{id}", dead_letters::show)
        .get("/api/env", env::list)
        .put("/api/env/{name}", env::put)
        .delete("/api/env/{name}", env::delete)
        .get("/api/artifacts", artifacts::list)
        .get("/api/metrics/mcp/artifacts/summary", artifacts::summary)
        .get("/artifacts/{*path}", artifacts::artifact)
        .with_state(Arc::clone(&hub))
        .merge(role_routes)
        // The body limit that counts is the one below, which holds without a handler's help.
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.own))
        .merge(remote)
        .merge(open)
        .merge(blobs);
    let routes = openapi::described(routes, hub.open_reads);
    let list = routes.list().to_vec();
    (dress(routes, hub, limits), list)
}

/// Puts around all routes what holds for each: hosts, rates and policies, time, panics, and the shape of answers.
fn dress(routes: Routes, hub: Arc<Hub>, limits: BodyLimits) -> axum::Router {
    let clients = Arc::new(Clients::new(&hub.state.options));
    let guard = Arc::new(Guard::new(Arc::clone(&hub), routes.list()));
    routes
        .into_router()
        .layer(from_fn_with_state(hub, guard::limit_time))
        // Before it is in the audit log what became of an admin's action.
        .layer(CatchPanicLayer::custom(error::of_panic))
        .layer(from_fn_with_state(guard, guard::admit))
        .layer(CatchPanicLayer::custom(error::of_panic))
        .layer(from_fn(move |request, next| {
            shape::shape((limits, Arc::clone(&clients)), request, next)
        }))
}
