//! `/api/events`: the log, a page at a time or as a stream.

mod live;
mod stream;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bus::log::{Filter, Order};
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
use crate::hub::lists::{after, label, limit, name};
use crate::hub::{Hub, tools};
use crate::message::{ALL_TENANTS, MessageId, NAME_RULE, TraceId, valid_name};
pub(crate) use live::Live;
pub(crate) use stream::stream;

/// How many types may be asked for at once.
const TYPES_MAX: usize = 50;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Asc,
    Desc,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    tenant: Option<String>,
    role: Option<String>,
    service: Option<String>,
    worker: Option<String>,
    toolset: Option<String>,
    tool: Option<String>,
    #[serde(rename = "type")]
    types: Option<String>,
    trace_id: Option<String>,
    message_id: Option<String>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    order: Option<Direction>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /api/events`: what happened, the newest first unless asked otherwise.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<EventsQuery>,
) -> Result<Json<Value>, ApiError> {
    page(&hub, query, None).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallEventsQuery {
    tenant: Option<String>,
    toolset: Option<String>,
    tool: Option<String>,
    #[serde(rename = "type")]
    types: Option<String>,
    trace_id: Option<String>,
    message_id: Option<String>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    order: Option<Direction>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /api/metrics/mcp/events`: the same of tool calls alone.
pub(crate) async fn of_calls(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<CallEventsQuery>,
) -> Result<Json<Value>, ApiError> {
    let query = EventsQuery {
        tenant: query.tenant,
        role: None,
        service: None,
        worker: None,
        toolset: query.toolset,
        tool: query.tool,
        types: query.types,
        trace_id: query.trace_id,
        message_id: query.message_id,
        since: query.since,
        until: query.until,
        order: query.order,
        limit: query.limit,
        after: query.after,
    };
    page(&hub, query, Some(tools::EVENTS)).await
}

async fn page(
    hub: &Hub,
    query: EventsQuery,
    prefix: Option<&'static str>,
) -> Result<Json<Value>, ApiError> {
    let (limit, after) = (limit(query.limit)?, after(query.after.as_deref())?);
    let order = match query.order {
        Some(Direction::Asc) => Order::Asc,
        Some(Direction::Desc) | None => Order::Desc,
    };
    if query.since.zip(query.until).is_some_and(|(since, until)| since >= until) {
        return Err(ApiError::invalid("until", "must be later than since"));
    }
    let (toolset, tool) = (name("toolset", query.toolset)?, label("tool", query.tool)?);
    let service = name("service", query.service)?;
    if toolset.is_some() && service.is_some() {
        return Err(ApiError::invalid("service", "must not stand beside toolset, which is one"));
    }
    // A service of another role may have a toolset's name.
    let of_calls = toolset.is_some() || tool.is_some();
    let filter = Filter {
        tenant: tenant(query.tenant)?,
        role: name("role", query.role)?,
        service: toolset.or(service),
        worker: label("worker", query.worker)?,
        types: query.types.as_deref().map(types).transpose()?,
        prefix: prefix.or(of_calls.then_some(tools::EVENTS)).map(str::to_owned),
        tool: tool.map(|tool| (tool, tools::TOOL)),
        message_id: uuid("message_id", query.message_id)?.map(MessageId),
        trace_id: uuid("trace_id", query.trace_id)?.map(TraceId),
        since: query.since,
        until: query.until,
    };
    let page = hub.state.bus.log_page(&filter, order, after, limit).await?;
    Ok(Json(json!({"ok": true, "events": page.items, "next": page.next})))
}

/// A tenant; `*` is that of workers for all.
fn tenant(given: Option<String>) -> Result<Option<String>, ApiError> {
    match given {
        Some(text) if text != ALL_TENANTS && !valid_name(&text) => {
            Err(ApiError::invalid("tenant", format_args!("must be * or {NAME_RULE}")))
        }
        given => Ok(given),
    }
}

/// Types of events, with commas between.
fn types(text: &str) -> Result<Vec<String>, ApiError> {
    let types: Vec<String> = text.split(',').map(str::to_owned).collect();
    let fits = |name: &String| {
        (1..=100).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if types.len() > TYPES_MAX || !types.iter().all(fits) {
        let rule = format_args!("must be 1 to {TYPES_MAX} types of events, with commas between");
        return Err(ApiError::invalid("type", rule));
    }
    Ok(types)
}

fn uuid(field: &str, given: Option<String>) -> Result<Option<Uuid>, ApiError> {
    let read = |text: String| {
        let uuid = Uuid::try_parse(&text).ok().filter(|_| text.len() == 36);
        uuid.ok_or_else(|| ApiError::invalid(field, "must be a UUID"))
    };
    given.map(read).transpose()
}
