//! What an answer that is no success means.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use serde::Deserialize;

use crate::bus::error::{self, Error};
use crate::error::Code;

/// As much of an answer that is not ours as a message quotes.
const QUOTE: usize = 100;

/// The JSON of PostgREST's errors, and of the hub's; a gateway before it may send less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    code: Option<String>,
    message: Option<String>,
    details: Option<String>,
    hint: Option<String>,
}

/// The error behind an answer. The `code` goes first: PostgREST answers 400 to SQLSTATEs that it does not know,
/// where the hub has a status of its own.
pub(super) fn of_answer(
    call: &'static str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let told: Option<Told> = serde_json::from_slice(body).ok();
    let is_json = told.is_some();
    let Told { code, message, details, hint } = told.unwrap_or_default();
    let code = code.unwrap_or_default();
    let mut text = message.unwrap_or_else(|| quote(status, headers, body));
    let after = details.as_deref().and_then(error::retry_after_of).or_else(|| retry_after(headers));
    if let Some(known) = Code::from_sqlstate(&code) {
        if known == Code::RateLimited {
            let retry_after = after.unwrap_or(error::RETRY_AFTER);
            return Error::Full { message: text, retry_after };
        }
        return Error::Refused { code: known, message: text };
    }
    let unavailable = |message| Error::Unavailable { call, message, retry_after: after };
    match code.as_str() {
        "PGRST301" | "PGRST302" | "PGRST303" => return Error::Unauthorized { message: text },
        "PGRST202" | "PGRST205" | "42883" | "42P01" | "3F000" => {
            return Error::NotThere { call, message: text };
        }
        error::DENIAL if status == StatusCode::UNAUTHORIZED => {
            return Error::Unauthorized { message: text };
        }
        error::DENIAL => return Error::Denied { call, message: text },
        // Of what the database says of itself, only that; its words may be anybody's data.
        state if is_sqlstate(state) && error::passes(state) => return unavailable(text),
        state if is_sqlstate(state) && error::blames(state) => {
            return Error::Refused {
                code: Code::InvalidArgument,
                message: format!("{call}: the data holds what the database cannot store: {text}"),
            };
        }
        // Whatever the status says then: that of what the server itself cannot do, such as a statement of a schema that has
        // changed (0A000), is 400 as well.
        state if is_sqlstate(state) && status.is_client_error() => {
            return Error::Refused {
                code: Code::Internal,
                message: format!("{call}: the database failed ({state}): {text}"),
            };
        }
        _ => {}
    }
    if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
        text = format!("{text} ({hint})");
    }
    match status.as_u16() {
        401 => Error::Unauthorized { message: text },
        // A hub says why in JSON. This is somebody before it, or in its place.
        403 if !is_json => Error::NotThere { call, message: text },
        403 => Error::Refused { code: Code::Forbidden, message: format!("{call}: {text}") },
        404 | 405 | 410 => Error::NotThere { call, message: text },
        300..=399 => Error::NotThere { call, message: text },
        409 => Error::Refused { code: Code::Conflict, message: text },
        413 => Error::Refused {
            code: Code::PayloadTooLarge,
            message: format!("{call}: the request is larger than the hub takes: {text}"),
        },
        // Not a limit on what waits, which has a code: the hub, or what stands before it, has too much to do.
        429 => unavailable(text),
        408 | 425 | 500..=599 => unavailable(text),
        _ if is_json => {
            Error::Refused { code: Code::InvalidArgument, message: format!("{call}: {text}") }
        }
        _ => Error::NotThere { call, message: text },
    }
}

/// Whether a code is one of Postgres' own: neither one of ours, nor one that asks for a status (`PTnnn`).
fn is_sqlstate(code: &str) -> bool {
    code.len() == 5
        && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && !code.starts_with("CG")
        && !code.starts_with("PT")
}

/// What to say of an answer that says nothing of itself.
fn quote(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(to) = header(LOCATION) {
        return format!("{status}: moved to {to}");
    }
    let kind = header(CONTENT_TYPE).unwrap_or("nothing that is known");
    if kind.contains("html") {
        return format!("{status}: a web page was answered, and not by a hub");
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(QUOTE).collect();
    if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
}

/// `Retry-After` in seconds; its other form, a date, would have us compare clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, headers: &[(&'static str, &str)], body: &str) -> Error {
        let status = StatusCode::from_u16(status).expect("a status");
        let headers = headers.iter().map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, value.parse().expect("a header"))
        });
        of_answer("bus_x", status, &headers.collect(), body.as_bytes())
    }

    fn told(status: u16, code: &str) -> Error {
        let body = json!({"code": code, "details": null, "hint": null, "message": "said"});
        of(status, &[], &body.to_string())
    }

    #[test]
    fn the_code_decides_whatever_the_status_is() {
        for status in [400, 403, 404, 409, 500] {
            for (state, code) in [
                ("CG400", Code::InvalidArgument),
                ("CG403", Code::Forbidden),
                ("CG404", Code::NotFound),
                ("CG409", Code::Conflict),
                ("CG413", Code::PayloadTooLarge),
                ("CG429", Code::RateLimited),
                ("42501", Code::Forbidden),
                ("PGRST202", Code::NotFound),
                ("PGRST303", Code::Unauthorized),
                ("42883", Code::NotFound),
                ("22P02", Code::InvalidArgument),
                ("23514", Code::InvalidArgument),
                ("P0001", Code::InvalidArgument),
                ("40001", Code::Unavailable),
                ("57014", Code::Unavailable),
            ] {
                let error = told(status, state);
                assert_eq!(error.code(), code, "{status} {state}: {error:?}");
                assert_eq!(error.is_transient(), code == Code::Unavailable, "{state}");
            }
        }
        assert_eq!(told(401, "42501").code(), Code::Unauthorized, "nobody is anon on purpose");
    }

    #[test]
    fn what_the_database_cannot_do_now_is_not_taken_for_a_wrong_request() {
        for state in ["0A000", "26000", "28P01", "42703", "55000"] {
            for status in [400, 403] {
                let error = told(status, state);
                assert!(
                    !error.is_final() && !error.blames_content(),
                    "{status} {state}: {error:?}"
                );
            }
            assert!(told(500, state).is_transient(), "{state}");
        }
        // What has no such code is the hub's or a gateway's own.
        assert_eq!(told(400, "CG415").code(), Code::InvalidArgument);
        assert_eq!(told(403, "nope!").code(), Code::Forbidden);
        let denied = told(403, "42501");
        assert!(denied.is_denied() && !denied.is_final());
        assert!(denied.to_string().contains("`cogo migrate`"), "{denied}");
    }

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let full = |error| match error {
            Error::Full { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        let body = r#"{"code":"CG429","details":"retry_after_ms=1500","message":"full"}"#;
        assert_eq!(full(of(429, &[("retry-after", "2")], body)), Duration::from_millis(1500));
        let body = r#"{"code":"CG429","message":"full"}"#;
        assert_eq!(full(of(429, &[("retry-after", "2")], body)), Duration::from_secs(2));
        assert_eq!(full(of(400, &[], body)), Duration::from_secs(1));
    }

    #[test]
    fn without_a_code_the_status_decides() {
        let kong = r#"{"message":"Invalid API key","hint":"Double check your key."}"#;
        let error = of(401, &[], kong);
        assert!(matches!(&error, Error::Unauthorized { message } if message.contains("Double")));
        assert!(error.to_string().contains("cogo token"), "{error}");
        let busy = of(429, &[("retry-after", "7")], "slow down");
        assert!(busy.is_transient(), "{busy:?}");
        assert!(matches!(busy, Error::Unavailable { retry_after: Some(after), .. }
            if after == Duration::from_secs(7)));
        for status in [500, 502, 503, 504, 408, 520] {
            assert!(of(status, &[], "<html>").is_transient(), "{status}");
        }
        assert_eq!(of(413, &[], "").code(), Code::PayloadTooLarge);
    }

    #[test]
    fn an_answer_of_somebody_else_says_that_the_url_is_wrong() {
        let html = of(404, &[("content-type", "text/html")], "<h1>Welcome to nginx</h1>");
        let moved = of(301, &[("location", "https://elsewhere/")], "");
        let forbidden = of(403, &[("content-type", "text/html")], "<h1>Forbidden</h1>");
        for error in [html, moved, forbidden] {
            let text = error.to_string();
            assert_eq!(error.code(), Code::NotFound);
            assert!(text.contains("Check the URL"), "{text}");
        }
        let odd = of(404, &[], "\u{1b}[31mred");
        assert!(!odd.to_string().contains('\u{1b}'), "{odd}");
    }
}
