//! `/api/metrics/…`: figures of what happens, from the log and the tables alone, so that any hub gives the same answer,
//! and a new one the same as the one before it.

mod snapshot;
mod summary;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Stopwatch;
use crate::hub::Hub;
use crate::hub::cached::Cached;
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
pub(crate) use snapshot::snapshot;
use summary::Summary;

/// How old figures may be: a page that shows them asks every second or two, and several may.
const AGE: Duration = Duration::from_secs(1);
/// The longer it takes the older they may be, so that those who watch cost the database a fifth of its time at most.
const SHARE: u32 = 4;
/// But not older than that.
const AGE_MAX: Duration = Duration::from_secs(30);
/// The window in seconds unless asked otherwise, and its bounds.
const WINDOW_S: u32 = 900;
const WINDOWS_S: (u32, u32) = (60, 86_400);
/// Figures of so many windows are kept; who asks for yet others has them found out each time.
const KEPT: usize = 16;

type Found = Result<Arc<Summary>, ApiError>;

/// Figures that were found out lately, by window. They take a while of the database's time, so those who ask at once
/// share them.
#[derive(Default)]
pub(crate) struct Summaries {
    by_window: Mutex<HashMap<u32, Arc<Cached<Found>>>>,
    /// How long it took the last time, in milliseconds.
    took_ms: AtomicU64,
}

impl Summaries {
    async fn get(&self, hub: &Hub, window_s: u32) -> Found {
        let cached = {
            let mut kept = self.by_window.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= KEPT && !kept.contains_key(&window_s) {
                kept.clear();
            }
            Arc::clone(kept.entry(window_s).or_default())
        };
        let age = AGE.max(SHARE * Duration::from_millis(self.took_ms.load(Ordering::Relaxed)));
        let find = async {
            let began = Stopwatch::start();
            let found = Summary::of(&hub.state.bus, window_s).await?;
            self.took_ms.store(began.elapsed_ms(), Ordering::Relaxed);
            Ok(Arc::new(found))
        };
        cached.get(age.min(AGE_MAX), find).await
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WindowQuery {
    window_s: Option<u32>,
}

fn window(given: Option<u32>) -> Result<u32, ApiError> {
    let window = given.unwrap_or(WINDOW_S);
    if (WINDOWS_S.0..=WINDOWS_S.1).contains(&window) {
        return Ok(window);
    }
    let (least, most) = WINDOWS_S;
    Err(ApiError::invalid("window_s", format_args!("must be from {least} to {most}")))
}

/// `GET /api/metrics/summary`: calls, queue, workers, breakers, and a series over time.
pub(crate) async fn summary(
    State(hub): State<Arc<Hub>>,
    StrictQuery(WindowQuery { window_s }): StrictQuery<WindowQuery>,
) -> Result<Json<Value>, ApiError> {
    let found = hub.summaries.get(&hub, window(window_s)?).await?;
    Ok(Json(found.whole()))
}

/// `GET /api/metrics/mcp/summary`: the calls alone.
pub(crate) async fn mcp_summary(
    State(hub): State<Arc<Hub>>,
    StrictQuery(WindowQuery { window_s }): StrictQuery<WindowQuery>,
) -> Result<Json<Value>, ApiError> {
    let found = hub.summaries.get(&hub, window(window_s)?).await?;
    Ok(Json(json!({
        "ok": true, "at": found.at, "window_s": found.window_s, "truncated": found.truncated, "mcp": found.mcp,
    })))
}
