//! `cogo hub --minimal`: health, metrics, what waits, and artifacts; for a machine that has a few megabytes.

use std::sync::Arc;

use axum::extract::OriginalUri;

use crate::error::Code;
use crate::hub::body_limits::BodyLimits;
use crate::hub::error::ApiError;
use crate::hub::routes::Routes;
use crate::hub::{Hub, State, artifacts, dress, gauges, health, pending};

/// What a minimal hub answers. The rules of the whole one hold: hosts, tokens, limits, the shape of errors.
pub fn minimal_router(state: State) -> axum::Router {
    let limits = BodyLimits::new(&state.options);
    let hub = Arc::new(Hub::new(state));
    dress(routes().fallback(nothing).with_state(Arc::clone(&hub)), hub, limits)
}

/// The routes of a minimal hub: each is one of the whole hub's.
fn routes() -> Routes<Arc<Hub>> {
    Routes::new()
        .get("/healthz", health::alive)
        .get("/readyz", health::ready)
        .get("/metrics", gauges::render)
        .get("/api/pending-tasks", pending::pending_tasks)
        .get("/artifacts/{*path}", artifacts::artifact)
}

async fn nothing(OriginalUri(uri): OriginalUri) -> ApiError {
    let message = format!(
        "{}: this is the minimal hub, which has /healthz, /readyz, /metrics, /api/pending-tasks and \
         /artifacts/ alone; ask a hub that was started without --minimal",
        uri.path()
    );
    ApiError::new(Code::NotFound, message)
}
