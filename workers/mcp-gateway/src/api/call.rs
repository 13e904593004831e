//! `POST /api/mcp/{toolset}/{tool}`: a tool called over plain HTTP. The body is the arguments, the answer the tool's
//! result; the call is as durable as any other, and goes on when the connection is lost.

mod answer;
mod prefer;
mod traceparent;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use axum::routing::post;
use cogo::error::Code;
use cogo::hub::{self, ApiError, PathParams, Principals, StrictJson, StrictQuery};
use cogo::message::TraceId;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::answer::Told;
use self::prefer::Prefer;
use self::traceparent::TraceParent;
use crate::mesh::{Mesh, Request, Verdict};

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
#[must_use]
pub fn routes(mesh: Mesh, principals: Principals, options: &hub::Options) -> Router {
    let calls = Calls {
        mesh,
        principals,
        wait_max: Duration::from_secs(options.wait_max_s.into()),
        waiters: Semaphore::new(options.max_waiters),
        max_waiters: options.max_waiters,
    };
    Router::new().route("/api/mcp/{toolset}/{tool}", post(call)).with_state(Arc::new(calls))
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
    let parent = one(&headers, "traceparent")?.map(TraceParent::of).transpose()?;
    let trace_id = trace_id(&headers, parent)?;
    let request = Request {
        toolset: path.text("toolset").to_owned(),
        tool: path.text("tool").to_owned(),
        arguments: Some(arguments),
        idempotency_key: key.map(str::to_owned),
        trace_id,
        traceparent: parent.map(|parent| parent.to_string()),
        deadline: query.deadline_ms.map(Duration::from_millis),
        priority: query.priority,
        ..Request::default()
    };
    let started = calls.mesh.start(&who, request).await.map_err(|refusal| {
        let error = ApiError::from(refusal);
        match trace_id {
            Some(trace_id) => error.with_trace_id(trace_id.0),
            None => error,
        }
    })?;
    let verdict = match wait.is_zero() {
        true => Verdict::Pending,
        false => calls.mesh.verdict(&started, wait, None).await?,
    };
    let told = Told { started, key, parent, prefer, waited: wait, by_query: query.wait.is_some() };
    Ok(told.response(verdict))
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

/// The trace that the call belongs to: both headers say the same, or only one does.
fn trace_id(headers: &HeaderMap, parent: Option<TraceParent>) -> Result<Option<TraceId>, ApiError> {
    let of_parent = parent.map(|parent| TraceId(parent.trace));
    let Some(text) = one(headers, "x-trace-id")? else { return Ok(of_parent) };
    let id = Uuid::try_parse(text).ok().filter(|_| matches!(text.len(), 32 | 36));
    let Some(id) = id.map(TraceId) else {
        return Err(ApiError::invalid("x-trace-id", "must be a UUID"));
    };
    if of_parent.is_some_and(|parent| parent != id) {
        return Err(ApiError::invalid("x-trace-id", "differs from the trace id in traceparent"));
    }
    Ok(Some(id))
}
