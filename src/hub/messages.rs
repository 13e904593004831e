//! Reading one message or one trace, and waiting for a message.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Code;
use crate::event::Event;
use crate::hub::error::ApiError;
use crate::hub::extract::{PathParams, StrictQuery};
use crate::hub::{Hub, wait};
use crate::message::{Message, MessageId, TraceId};

/// How many events one answer holds; a message has a handful, one with many retries a few hundred.
const EVENTS_MAX: u32 = 1000;
/// How large their payloads may be in all before only the beginnings of large ones are told. One may be 4 MiB, and a key
/// that may do no more than send can have very many of them.
const EVENTS_BYTES: u32 = 16 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageQuery {
    wait: Option<String>,
}

/// `GET /api/messages/{id}`: the message and its events; with `?wait=` once it is finished, or as it is
/// when the time is up.
pub(crate) async fn message(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictQuery(query): StrictQuery<MessageQuery>,
) -> Result<Json<Value>, ApiError> {
    let id = MessageId(path.uuid("id")?);
    let wait = query.wait.map(|text| wait::parse(&text, hub.wait_max())).transpose()?;
    let message = match wait {
        Some(wait) if !wait.is_zero() => wait_for(&hub, id, wait).await?,
        _ => hub.state.bus.message(id).await?,
    };
    let events = hub.state.bus.message_log(id, EVENTS_MAX, EVENTS_BYTES).await?;
    let truncated = is_full(&events);
    Ok(Json(json!({"ok": true, "message": message, "events": events, "truncated": truncated})))
}

async fn wait_for(hub: &Hub, id: MessageId, wait: Duration) -> Result<Message, ApiError> {
    let Ok(_place) = hub.waiters.try_acquire() else {
        let max = hub.state.options.max_waiters;
        let message = format!("wait: {max} requests wait already; try again later");
        return Err(ApiError::new(Code::RateLimited, message));
    };
    Ok(hub.state.feed.wait(id, wait).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// `GET /api/traces/{trace_id}`: what happened within a trace.
pub(crate) async fn trace(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictQuery(NoQuery {}): StrictQuery<NoQuery>,
) -> Result<Json<Value>, ApiError> {
    let id = TraceId(path.uuid("trace_id")?);
    let events = hub.state.bus.trace_log(id, EVENTS_MAX, EVENTS_BYTES).await?;
    if events.is_empty() {
        return Err(ApiError::new(Code::NotFound, format!("trace {id}: not found")));
    }
    let truncated = is_full(&events);
    Ok(Json(json!({"ok": true, "trace_id": id, "events": events, "truncated": truncated})))
}

fn is_full(events: &[Event]) -> bool {
    events.len() >= EVENTS_MAX as usize
}
