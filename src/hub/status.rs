//! `/api/status`: what is going on, at a glance.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
use crate::hub::messages::NoQuery;

/// How many workers are listed; those online come first.
const WORKERS_MAX: u32 = 500;

pub(crate) async fn status(
    State(hub): State<Arc<Hub>>,
    StrictQuery(NoQuery {}): StrictQuery<NoQuery>,
) -> Result<Json<Value>, ApiError> {
    let bus = &hub.state.bus;
    Ok(Json(json!({
        "ok": true,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": hub.state.commit,
        "schema_version": bus.schema_version().await?,
        "queue": bus.stats().await?,
        "parked": bus.parked().await?,
        "workers": bus.workers(WORKERS_MAX).await?,
    })))
}
