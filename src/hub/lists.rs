//! Lists, a page at a time: messages, traces and workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bus::WorkerRow;
use crate::bus::dead_letter::Operated;
use crate::bus::lists::{MessageFilter, TraceFilter, TraceStatus, Traced, WorkerPlace};
use crate::error::Code;
use crate::event::Cursor;
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::{PathParams, StrictJson, StrictQuery};
use crate::hub::tools;
use crate::message::{ALL_TENANTS, MessageId, NAME_RULE, Status, valid_name};

/// How many are listed unless asked otherwise, and at most.
const LIMIT: (u32, u32) = (100, 500);
/// The longest name of a tool that is looked for.
const TOOL_MAX: usize = 255;
/// As much of a reason as the log keeps.
const REASON_MAX: usize = 200;

/// How many a page holds.
pub(crate) fn limit(given: Option<u32>) -> Result<u32, ApiError> {
    let limit = given.unwrap_or(LIMIT.0);
    if (1..=LIMIT.1).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid("limit", format_args!("must be from 1 to {}", LIMIT.1)))
}

/// Where a page begins.
pub(crate) fn after(given: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let wrong = || ApiError::invalid("after", "must be the `next` of a page before");
    let read = |text: &str| {
        let plain = text.len() <= 40 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse::<Cursor>().ok().filter(|_| plain).ok_or_else(wrong)
    };
    given.map(read).transpose()
}

/// A tenant, role or the like that is looked for.
pub(crate) fn name(field: &str, given: Option<String>) -> Result<Option<String>, ApiError> {
    match given {
        Some(text) if !valid_name(&text) => {
            Err(ApiError::invalid(field, format_args!("must be {NAME_RULE}")))
        }
        given => Ok(given),
    }
}

/// A tool or a worker that is looked for: names that others chose.
pub(crate) fn label(field: &str, given: Option<String>) -> Result<Option<String>, ApiError> {
    let fits =
        |text: &String| (1..=TOOL_MAX).contains(&text.chars().count()) && !text.contains('\0');
    match given {
        Some(text) if !fits(&text) => {
            let rule = format_args!("must be 1 to {TOOL_MAX} characters, none of them U+0000");
            Err(ApiError::invalid(field, rule))
        }
        given => Ok(given),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesQuery {
    tenant: Option<String>,
    role: Option<String>,
    service: Option<String>,
    status: Option<Status>,
    tool: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /api/messages`: messages without what is large, the newest first.
pub(crate) async fn messages(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<MessagesQuery>,
) -> Result<Json<Value>, ApiError> {
    let (limit, after) = (limit(query.limit)?, after(query.after.as_deref())?);
    let filter = MessageFilter {
        tenant: name("tenant", query.tenant)?,
        role: name("role", query.role)?,
        service: name("service", query.service)?,
        status: query.status,
        tool: label("tool", query.tool)?,
        tool_key: tools::TOOL,
    };
    let page = hub.state.bus.message_page(&filter, after, limit).await?;
    Ok(Json(json!({"ok": true, "messages": page.items, "next": page.next})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    reason: Option<String>,
}

/// `POST /api/messages/{id}/cancel`: withdraws a message that has not ended.
pub(crate) async fn cancel(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictJson(Cancel { reason }): StrictJson<Cancel>,
) -> Result<Json<Value>, ApiError> {
    let id = MessageId(path.uuid("id")?);
    let too_long = |text: &str| text.chars().count() > REASON_MAX || text.contains('\0');
    if reason.as_deref().is_some_and(too_long) {
        let rule = format!("must be at most {REASON_MAX} characters, none of them U+0000");
        return Err(ApiError::invalid("reason", rule));
    }
    let done = hub.state.bus.cancel(&[id], reason.as_deref()).await?;
    match done.first().map(|(_, operated)| *operated) {
        Some(Operated::Done) => {
            let message = hub.state.bus.message(id).await?;
            Ok(Json(json!({"ok": true, "id": id, "status": message.status})))
        }
        Some(Operated::NotAllowed | Operated::NoPlaceForParams) => {
            let status = hub.state.bus.message(id).await?.status;
            let message = format!("id: message {id} is {status}, and has ended as it is");
            Err(ApiError::new(Code::Conflict, message))
        }
        Some(Operated::NotFound) | None => {
            Err(ApiError::new(Code::NotFound, format!("message {id}: not found")))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesQuery {
    tenant: Option<String>,
    status: Option<TraceStatus>,
    toolset: Option<String>,
    tool: Option<String>,
    since: Option<DateTime<Utc>>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /api/traces`: what has become of each, the newest first.
pub(crate) async fn traces(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<TracesQuery>,
) -> Result<Json<Value>, ApiError> {
    let (limit, after) = (limit(query.limit)?, after(query.after.as_deref())?);
    let filter = TraceFilter {
        tenant: name("tenant", query.tenant)?,
        service: name("toolset", query.toolset)?,
        tool: label("tool", query.tool)?,
        status: query.status,
        since: query.since,
        intent: tools::INTENT,
        tool_key: tools::TOOL,
    };
    let page = hub.state.bus.trace_page(&filter, after, limit).await?;
    let traces: Vec<Value> = page.items.iter().map(traced).collect();
    Ok(Json(json!({"ok": true, "traces": traces, "next": page.next})))
}

fn traced(trace: &Traced) -> Value {
    let erred = trace.class.is_some() || trace.message.is_some();
    json!({
        "trace_id": trace.trace_id,
        "tenant": trace.tenant,
        "first_at": trace.first_at,
        "last_at": trace.last_at,
        "events": trace.events,
        "messages": trace.messages,
        "attempts": trace.attempts,
        "status": trace.status,
        "toolset": trace.toolset,
        "tool": trace.tool,
        "error": erred.then(|| json!({"class": trace.class, "message": trace.message})),
        "message_id": trace.message_id,
    })
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WorkerState {
    Online,
    Offline,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkersQuery {
    state: Option<WorkerState>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /api/workers`: who works, or has worked lately; those online first.
pub(crate) async fn workers(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<WorkersQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(read_place).transpose()?;
    let state = query.state.map(|state| match state {
        WorkerState::Online => "online",
        WorkerState::Offline => "offline",
    });
    // One more than fits: whether there is one tells whether there is another page.
    let mut rows = hub.state.bus.worker_page(after.as_ref(), state, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(place);
    let workers: Vec<Value> = rows.iter().map(worker).collect();
    Ok(Json(json!({"ok": true, "workers": workers, "next": next})))
}

/// A place in the list of workers, in one word: their names are free text.
fn place(row: &WorkerRow) -> String {
    let parts = json!([row.status, row.tenant, row.id]).to_string();
    BASE64_URL_SAFE_NO_PAD.encode(parts)
}

fn read_place(text: &str) -> Result<WorkerPlace, ApiError> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (status, tenant, id): (String, String, String) = serde_json::from_slice(&bytes).ok()?;
        let fits = (status == "online" || status == "offline")
            && (tenant == ALL_TENANTS || valid_name(&tenant))
            && !id.contains('\0');
        fits.then_some(WorkerPlace { status, tenant, id })
    };
    read().ok_or_else(|| ApiError::invalid("after", "must be the `next` of a page before"))
}

/// A worker as it is told: as in `/api/status`, and what it offers by name.
fn worker(row: &WorkerRow) -> Value {
    let mut told = json!(row);
    told["toolsets"] = json!(toolsets(&row.info));
    told["last_seen"] = json!(row.last_seen_at);
    told["capacity"] = row.info.get("capacity").filter(|n| n.is_u64()).cloned().unwrap_or_default();
    told
}

/// The names of the tools that a worker says it offers, by toolset.
fn toolsets(info: &Value) -> BTreeMap<&str, Vec<&str>> {
    let mut named = BTreeMap::new();
    for (toolset, its) in info.get(tools::TOOLSETS).and_then(Value::as_object).into_iter().flatten()
    {
        let offered = its.get("tools").and_then(Value::as_object);
        let mut names: Vec<&str> =
            offered.into_iter().flatten().map(|(tool, _)| tool.as_str()).collect();
        names.sort_unstable();
        named.insert(toolset.as_str(), names);
    }
    named
}
