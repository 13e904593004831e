//! `POST /api/mcp/{toolset}/{tool}`: a tool called over plain HTTP. The body is the arguments, the answer the tool's
//! result; the call is as durable as any other, and goes on when the connection is lost.

mod answer;
mod prefer;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Json, Response};
use cogo::error::Code;
use cogo::hub::{
    self, ApiError, PathParams, Principal, Principals, Routes, StrictJson, StrictQuery,
};
use cogo::message::{DEADLINE_MS_MAX, TraceId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::answer::Told;
use self::prefer::Prefer;
use crate::mesh::{Mesh, Refusal, Request, Verdict};
use crate::platform;
use crate::trace::{self, Asked, CallSpan, End};

/// How long a caller waits that does not say how long.
const WAIT: Duration = Duration::from_secs(30);

struct Calls {
    mesh: Mesh,
    principals: Principals,
    wait_max: Duration,
    waiters: Semaphore,
    max_waiters: usize,
}

/// The route by which tools are called over plain HTTP. `options` say how long a call may be waited for, and by how
/// many at once.
pub fn routes(mesh: Mesh, principals: Principals, options: &hub::Options) -> Routes {
    let calls = Calls {
        mesh,
        principals,
        wait_max: Duration::from_secs(options.wait_max_s.into()),
        waiters: Semaphore::new(options.max_waiters),
        max_waiters: options.max_waiters,
    };
    Routes::new().post("/api/mcp/{toolset}/{tool}", call).with_state(Arc::new(calls))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    wait: Option<String>,
    deadline_ms: Option<u64>,
    priority: Option<i16>,
}

async fn call(
    State(calls): State<Arc<Calls>>,
    path: PathParams,
    StrictQuery(query): StrictQuery<Query>,
    headers: HeaderMap,
    StrictJson(arguments): StrictJson<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let who = calls.principals.of(&headers)?;
    if query.deadline_ms.is_some_and(|ms| !(1..=DEADLINE_MS_MAX).contains(&ms)) {
        let rule = format_args!("must be from 1 to {DEADLINE_MS_MAX} (a year)");
        return Err(ApiError::invalid("deadline_ms", rule));
    }
    if path.text("toolset") == platform::TOOLSET {
        return operate(&calls, &who, path.text("tool"), arguments).await;
    }
    let prefer = Prefer::of(&headers);
    let wait = match &query.wait {
        Some(text) => hub::parse_wait(text, calls.wait_max)?,
        None if prefer.is_async() && prefer.wait().is_none() => Duration::ZERO,
        None => prefer.wait().unwrap_or(WAIT).min(calls.wait_max),
    };
    // Before anything is queued: who may not wait should hear so, and call in another way.
    let _place = match wait.is_zero() {
        true => None,
        false => Some(calls.waiters.try_acquire().map_err(|_| full(calls.max_waiters))?),
    };
    let key = one(&headers, "idempotency-key")?;
    let (toolset, tool) = (path.text("toolset"), path.text("tool"));
    let (trace_id, header) = (trace_id(&headers)?, trace::in_headers(&headers));
    let mut span = trace::server_span(&Asked {
        method: "tools/call",
        toolset: Some(toolset),
        tool: Some(tool),
        trace_id,
        header: header.as_ref(),
        ..Asked::default()
    });
    let request = Request {
        toolset: toolset.to_owned(),
        tool: tool.to_owned(),
        arguments: Some(arguments),
        idempotency_key: key.map(str::to_owned),
        trace_id: span.trace_id(),
        place: span.place(),
        deadline: query.deadline_ms.map(Duration::from_millis),
        priority: query.priority,
        ..Request::default()
    };
    let started = match calls.mesh.start(&who, request).await {
        Ok(started) => started,
        Err(refusal) => return Err(refused(refusal, span)),
    };
    span.message(started.id, started.duplicate);
    let verdict = match wait.is_zero() {
        true => Verdict::Pending,
        false => calls.mesh.verdict(&started, wait, None).await?,
    };
    let traceparent = span.traceparent();
    let told =
        Told { started, key, traceparent, prefer, waited: wait, by_query: query.wait.is_some() };
    span.end(answer::end(&verdict));
    Ok(told.response(verdict))
}

/// A tool of the bus itself: the hub answers at once, and there is no message.
async fn operate(
    calls: &Calls,
    who: &Principal,
    tool: &str,
    arguments: Map<String, Value>,
) -> Result<Response, ApiError> {
    let deps = platform::Deps { policies: calls.mesh.policies() };
    let result = platform::call(who, &deps, tool, Some(arguments)).await?;
    Ok(Json(json!({"ok": true, "result": result})).into_response())
}

/// The answer where nothing was queued.
fn refused(refusal: Refusal, span: CallSpan) -> ApiError {
    let trace_id = span.trace_id();
    span.end(End::Failed(refusal.code().as_str()));
    let error = ApiError::from(refusal);
    match trace_id {
        Some(trace_id) => error.with_trace_id(trace_id.0),
        None => error,
    }
}

fn full(max: usize) -> ApiError {
    let message = format!(
        "wait: {max} requests wait already; try again later, or with Prefer: respond-async"
    );
    ApiError::new(Code::RateLimited, message)
}

/// The header's value, if there is one.
fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value.trim())),
        (Some(Err(_)), _) => Err(ApiError::invalid(name, "must be visible ASCII")),
        (Some(_), Some(_)) => Err(ApiError::invalid(name, "must stand in the request once")),
    }
}

/// The trace that the caller wants the call to belong to.
fn trace_id(headers: &HeaderMap) -> Result<Option<TraceId>, ApiError> {
    let Some(text) = one(headers, "x-trace-id")? else { return Ok(None) };
    let id = Uuid::try_parse(text).ok().filter(|_| matches!(text.len(), 32 | 36));
    let id = id.ok_or_else(|| ApiError::invalid("x-trace-id", "must be a UUID"))?;
    Ok(Some(TraceId(id)))
}
