//! `POST /api/mcp/enqueue`: a tool call onto the bus.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json};
use cogo::hub::{ApiError, StrictJson};
use cogo::message::{DEFAULT_TENANT, NewMessage, Topic, TraceId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Api, Publish};
use crate::gateway::ROLE;
use crate::handler::INTENT;
use crate::trace::{self, Asked, CallSpan, End};

/// The longest name of a tool (MCP 2025-11-25, "Tools", tool names: at most 128 characters).
const MAX_TOOL: usize = 128;
/// The header that may hold the idempotency key (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What is asked for. Unknown fields are refused: a misspelt `delay_ms` must not run at once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enqueue {
    toolset: String,
    tool: String,
    #[serde(default)]
    params: Option<Map<String, Value>>,
    tenant: Option<String>,
    priority: Option<i16>,
    shard: Option<i32>,
    idempotency_key: Option<String>,
    trace_id: Option<TraceId>,
    delay_ms: Option<u64>,
    max_attempts: Option<i32>,
    deadline_ms: Option<u64>,
    ordering_key: Option<String>,
}

pub(super) async fn enqueue<B: Publish>(
    State(api): State<Arc<Api<B>>>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<Enqueue>,
) -> Result<impl IntoResponse, ApiError> {
    api.known(body.tenant.as_deref().unwrap_or(DEFAULT_TENANT), &body.toolset).await?;
    let mut message = message(&api, &headers, body)?;
    let mut span = server_span(&headers, &message);
    let publish = {
        let topic = format_args!("{}/{}", message.role, message.service);
        trace::publish_span(span.place().as_ref(), topic)
    };
    trace::put_into(&mut message.payload, publish.place().as_ref());
    message.trace_id = span.trace_id();
    let receipt = api.bus.publish(message).await?;
    publish.end(receipt.id, receipt.duplicate);
    span.message(receipt.id, receipt.duplicate);
    span.end(End::Pending);
    let answer = json!({
        "ok": true, "id": receipt.id, "trace_id": receipt.trace_id, "duplicate": receipt.duplicate,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// The span of the request, in the trace that it asks for.
fn server_span(headers: &HeaderMap, message: &NewMessage) -> CallSpan {
    let text = |name| message.payload.get(name).and_then(Value::as_str);
    trace::server_span(&Asked {
        method: "tools/call",
        toolset: text("toolset"),
        tool: text("tool"),
        trace_id: message.trace_id,
        header: trace::in_headers(headers).as_ref(),
        ..Asked::default()
    })
}

fn message<B>(api: &Api<B>, headers: &HeaderMap, body: Enqueue) -> Result<NewMessage, ApiError> {
    let refuse = |field, rule| Err(ApiError::invalid(field, rule));
    // Whether the toolset answers now does not matter: its message waits. Nor is the tool looked up.
    let toolset = body.toolset.as_str();
    if body.tool.is_empty() || body.tool.len() > MAX_TOOL || body.tool.contains(char::is_control) {
        return refuse("tool", "must be 1 to 128 characters, none of them control characters");
    }
    let header = match headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) => Some(key.to_owned()),
        Some(Err(_)) => return refuse("Idempotency-Key", "must be visible ASCII"),
    };
    let key = match (header, body.idempotency_key) {
        (Some(header), Some(body)) if header != body => {
            return refuse("idempotency_key", "differs from the Idempotency-Key header");
        }
        (header, body) => header.or(body),
    };
    let topic = Topic::new(ROLE.name, toolset).expect("names were checked at loading");
    let shard = body.shard.unwrap_or_default();
    let policy_key = format!("{INTENT}.{toolset}.{}.{shard}", body.tool);
    let policy = api.policies.get().resolve(&policy_key);
    let attempts = || i32::try_from(policy.max_attempts).ok();
    let payload = json!({
        "toolset": toolset, "tool": body.tool, "params": body.params.unwrap_or_default(),
    });
    Ok(NewMessage {
        tenant: body.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
        shard,
        trace_id: body.trace_id,
        idempotency_key: key,
        priority: body.priority.unwrap_or_default(),
        max_attempts: body.max_attempts.or_else(attempts),
        deadline_ms: body.deadline_ms.or(policy.deadline_ms),
        ordering_key: body.ordering_key,
        delay: Duration::from_millis(body.delay_ms.unwrap_or_default()),
        ..NewMessage::new(&topic, INTENT, payload)
    })
}
