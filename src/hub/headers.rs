//! The headers that keep browsers in bounds, on every answer: those of helmet 8, as strict as an API allows. What a
//! handler set itself stands.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

/// What a page may do that came from here: nothing. What a tool sent back may be a page, and must not act as one of
/// ours.
const NOTHING: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";
/// What a page may ask of the machine that shows it: nothing that needs asking.
const NO_FEATURES: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), usb=()";
/// A year, as helmet has it.
const TLS_ALONE: &str = "max-age=31536000; includeSubDomains";

/// Whatever is answered, and to whom.
const ALWAYS: [(HeaderName, &str); 12] = [
    (header::CONTENT_SECURITY_POLICY, NOTHING),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("origin-agent-cluster"), "?1"),
    (HeaderName::from_static("permissions-policy"), NO_FEATURES),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_DNS_PREFETCH_CONTROL, "off"),
    (HeaderName::from_static("x-download-options"), "noopen"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
    // The filters that this asks for did harm; browsers that still have one leave it off.
    (header::X_XSS_PROTECTION, "0"),
];

/// Adds them; `tls` where the client is known to speak TLS to a proxy, since others would be shut out.
pub(crate) fn protect(response: &mut Response, path: &str, tls: bool) {
    let is_artifact =
        path.starts_with("/artifacts/") && response.status() < StatusCode::BAD_REQUEST;
    let caching = if is_artifact { "private, no-cache" } else { "no-store" };
    let strict = tls.then_some((header::STRICT_TRANSPORT_SECURITY, TLS_ALONE));
    let headers = response.headers_mut();
    for (name, value) in ALWAYS.into_iter().chain([(header::CACHE_CONTROL, caching)]).chain(strict)
    {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
