//! What every answer has: the shape of errors, and the headers that keep browsers in bounds.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::clock::Stopwatch;
use crate::error::Code;
use crate::hub::error::ApiError;
use crate::hub::options::BodyLimits;
use crate::hub::{guard, rest};

/// The outermost layer. An error that is not JSON comes from the router, from a library or from a role
/// that does not know better; it gets the one shape.
pub(crate) async fn shape(limits: BodyLimits, request: Request, next: Next) -> Response {
    let began = Stopwatch::start();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body_max = limits.of(&path);
    let mut response = next.run(request).await;
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_json(&response) {
        response = reshaped(&response, &method, &path, body_max).into_response();
    }
    if guard::is_remote(&path)
        && let Some(error) = response.extensions().get::<ApiError>()
    {
        response = rest::Error::from(error).into_response();
    }
    protect(&mut response, &path);
    tracing::debug!(
        http.method = %method, http.path = path, http.status = status.as_u16(),
        duration_ms = began.elapsed_ms(), "Answered {method} {path} with {}", status.as_u16()
    );
    response
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

fn protect(response: &mut Response, path: &str) {
    let is_artifact =
        path.starts_with("/artifacts/") && response.status() < StatusCode::BAD_REQUEST;
    // What a tool sent back may be a page; it must not act as one of ours.
    let policy = "default-src 'none'; frame-ancestors 'none'; sandbox";
    let caching = if is_artifact { "private, no-cache" } else { "no-store" };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, caching),
        (axum::http::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}
