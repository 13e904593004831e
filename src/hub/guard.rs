//! What stands before every route: who calls, by which name, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::Code;
use crate::hub::error::ApiError;
use crate::hub::extract::BodyLimit;
use crate::hub::{Hub, auth};

/// The largest sum of all headers; as much as common proxies pass on.
const HEADER_BYTES_MAX: usize = 16 * 1024;

pub(crate) async fn admit(
    State(hub): State<Arc<Hub>>,
    mut request: Request,
    next: Next,
) -> Response {
    let limit = hub.state.options.body_limits().of(request.uri().path());
    request.extensions_mut().insert(BodyLimit(limit));
    let headers = request.headers();
    let admitted =
        check_size(headers).and_then(|()| hub.hosts.check(request.uri(), headers)).and_then(|()| {
            let path = request.uri().path();
            // There a key says who calls, and the database what they may.
            if is_remote(path) || is_open(path) {
                return Ok(());
            }
            auth::check(&hub.state.token, hub.open_reads, request.method(), path, headers)
        });
    match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Whether a path is one of Supabase's protocols, which remote workers and other clients speak: they carry
/// keys of their own and not the admin token, and are answered in PostgREST's words.
pub(crate) fn is_remote(path: &str) -> bool {
    is_below("/rest/v1", path) || is_below("/realtime/v1", path)
}

/// Whether a path is one of a role's routes that find out themselves who calls ([`crate::hub::Principals`]),
/// because keys are taken there as well as the admin token.
pub(crate) fn is_open(path: &str) -> bool {
    is_below(OPEN_ROOT, path)
}

/// Whether a path is an artifact's.
pub(crate) fn is_blob(path: &str) -> bool {
    is_below("/mcp/artifacts", path)
}

/// Below it lie routes that wait for what was asked for, also where the query does not say so.
const CALLS_ROOT: &str = "/api/mcp";

/// Below it lie the routes that take keys as well as the admin token.
pub(crate) const OPEN_ROOT: &str = "/mcp";

fn is_below(root: &str, path: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_size(headers: &HeaderMap) -> Result<(), ApiError> {
    let size: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size <= HEADER_BYTES_MAX {
        return Ok(());
    }
    let message = format!("headers: at most {HEADER_BYTES_MAX} bytes in all");
    Err(ApiError::new(Code::PayloadTooLarge, message)
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
}

pub(crate) async fn limit_time(
    State(hub): State<Arc<Hub>>,
    request: Request,
    next: Next,
) -> Response {
    // A stream lasts as long as its client wants it; a call that waits has a deadline of its own.
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let calls = request.method() == Method::POST && is_below(CALLS_ROOT, request.uri().path());
    let waits = calls || query.split('&').any(|pair| pair.starts_with("wait="));
    // A wait ends by itself; this is only for what it does before and after.
    let limit = hub.request_timeout() + if waits { hub.wait_max() } else { Duration::ZERO };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s", limit.as_secs());
            ApiError::new(Code::Timeout, message).into_response()
        }
    }
}
