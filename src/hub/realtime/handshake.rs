//! `GET /realtime/v1/websocket`: who may have a socket.

use std::sync::Arc;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::hub::realtime::Inner;
use crate::hub::realtime::admission::{Place, count_refusal};
use crate::hub::realtime::outbox::Outbox;
use crate::hub::realtime::socket;
use crate::hub::realtime::topics::Line;
use crate::identity;
use crate::realtime::wire::Vsn;
use crate::secret::Secret;

/// Where a socket is asked for.
pub(crate) const PATH: &str = "/realtime/v1/websocket";

/// What is read at once. A worker's frames are small; a larger one gets the room that it needs.
const READ_BUFFER: usize = 1024;

pub(crate) async fn websocket(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Some(query) = query(&uri) else {
        return refuse(StatusCode::BAD_REQUEST, "query", "The query cannot be read");
    };
    let token = match token(&headers, asked(&query, "apikey")) {
        Some(token) => Secret::from(token),
        None => return refuse(StatusCode::UNAUTHORIZED, "missing_key", "API key is required"),
    };
    let verified = match inner.keys.verify(token.expose()) {
        Ok(verified) => verified,
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, word(&error), &error.to_string()),
    };
    let vsn = match asked(&query, "vsn").unwrap_or(Vsn::V1.as_str()).parse::<Vsn>() {
        Ok(vsn) => vsn,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "vsn", &error.to_string()),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refuse(rejection.status(), "upgrade", &rejection.body_text()),
    };
    if inner.shutdown.draining().is_cancelled() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The hub is stopping");
    }
    let place = match Place::take(&inner, token.expose()) {
        Ok(place) => place,
        Err(reason) => {
            let mut response =
                refuse(StatusCode::TOO_MANY_REQUESTS, reason, "Too many connected users");
            let soon = header::HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
            return response;
        }
    };
    let max = inner.options.max_frame_bytes;
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(max)
        .max_frame_size(max)
        .on_upgrade(move |socket| async move {
            let line = Line { vsn, outbox: Outbox::new(Arc::clone(&inner.budget)) };
            // Its own task, since this one is not waited for when the process ends.
            let tasks = inner.tasks.clone();
            tasks.spawn(socket::run(socket, inner, Arc::new(line), place, token, verified));
        })
}

fn query(uri: &Uri) -> Option<Vec<(String, String)>> {
    Query::try_from_uri(uri).ok().map(|Query(query)| query)
}

fn asked<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The key that a socket is asked for with.
pub(crate) fn key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    token(headers, asked(&query(uri)?, "apikey")).map(str::to_owned)
}

/// The key: a header's before the address's, as Realtime has it.
fn token<'a>(headers: &'a HeaderMap, apikey: Option<&'a str>) -> Option<&'a str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = header(header::AUTHORIZATION.as_str())?.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case("bearer ").then_some(token)
    };
    let some = |text: &&str| !text.trim().is_empty();
    header("x-api-key")
        .filter(some)
        .or(header("apikey").filter(some))
        .or(apikey.filter(some))
        .or_else(|| bearer().filter(some))
        .map(str::trim)
}

/// A refusal in Realtime's shape.
fn refuse(status: StatusCode, reason: &'static str, error: &str) -> Response {
    count_refusal("connection", reason);
    (status, Json(json!({ "error": error }))).into_response()
}

/// A word for the metric.
pub(crate) fn word(error: &identity::Error) -> &'static str {
    match error {
        identity::Error::Missing => "missing_key",
        identity::Error::Expired { .. } => "expired",
        identity::Error::BadSignature => "signature",
        identity::Error::OpaqueKey => "opaque_key",
        identity::Error::MissingClaim(_) | identity::Error::BadClaim { .. } => "claims",
        _ => "malformed",
    }
}
