//! What every answer has: the shape of errors, and the headers that keep browsers in bounds.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::clock::Stopwatch;
use crate::error::Code;
use crate::hub::body_limits::BodyLimits;
use crate::hub::client::Clients;
use crate::hub::error::ApiError;
use crate::hub::{guard, headers, origins, rest};

/// The outermost layer. An error that is not JSON comes from the router, from a library or from a role
/// that does not know better; it gets the one shape.
pub(crate) async fn shape(
    (limits, clients): (BodyLimits, Arc<Clients>),
    mut request: Request,
    next: Next,
) -> Response {
    let began = Stopwatch::start();
    let client = clients.of(&request);
    request.extensions_mut().insert(client);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body_max = limits.of(&path);
    let mut response = next.run(request).await;
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_json(&response) {
        let error = reshaped(&response, &method, &path, body_max);
        response = in_place_of(&response, error);
    }
    if guard::is_remote(&path)
        && let Some(error) = response.extensions().get::<ApiError>()
    {
        response = in_place_of(&response, rest::Error::from(error));
    }
    headers::protect(&mut response, &path, client.tls);
    tracing::debug!(
        http.method = %method, http.path = path, http.status = status.as_u16(),
        duration_ms = began.elapsed_ms(), "Answered {method} {path} with {}", status.as_u16()
    );
    response
}

/// Another answer, which the same pages may read.
fn in_place_of(response: &Response, other: impl IntoResponse) -> Response {
    let mut other = other.into_response();
    let kept = response.headers().iter().filter(|(name, _)| origins::is_for_pages(name));
    for (name, value) in kept {
        other.headers_mut().append(name.clone(), value.clone());
    }
    other
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn reshaped(response: &Response, method: &Method, path: &str, body_max: usize) -> ApiError {
    let status = response.status();
    let allow = response.headers().get(header::ALLOW);
    let reason = status.canonical_reason().unwrap_or("refused");
    let (code, message) = match status.as_u16() {
        401 => (Code::Unauthorized, "this needs credentials".to_owned()),
        403 => (Code::Forbidden, "the credentials do not reach this far".to_owned()),
        404 => (Code::NotFound, format!("there is nothing at {path}")),
        405 => {
            let allowed = allow.and_then(|allow| allow.to_str().ok()).unwrap_or("nothing");
            let message = format!("{path} does not answer {method}; it answers {allowed}");
            (Code::MethodNotAllowed, message)
        }
        408 | 504 => (Code::Timeout, "no answer came in time".to_owned()),
        413 => (Code::PayloadTooLarge, format!("body: at most {body_max} bytes")),
        415 => {
            let message = "content-type: the path does not take this type".to_owned();
            (Code::UnsupportedMediaType, message)
        }
        429 => (Code::RateLimited, "too much at once; try again later".to_owned()),
        503 => (Code::Unavailable, "not available now; try again later".to_owned()),
        _ if status.is_client_error() => (Code::InvalidArgument, reason.to_lowercase()),
        _ => (Code::Internal, "an internal failure".to_owned()),
    };
    let mut error = ApiError::new(code, message).with_status(status);
    let kept =
        [header::ALLOW, header::RETRY_AFTER, header::CONTENT_RANGE, header::WWW_AUTHENTICATE];
    for name in kept {
        if let Some(value) = response.headers().get(&name) {
            error = error.with_header(name, value.clone());
        }
    }
    error
}
