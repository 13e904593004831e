//! Errors as PostgREST gives them: `{"code","details","hint","message"}`, for clients that know it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::error::{Code, chain};
use crate::hub::error::ApiError;
use crate::identity::Role;

/// The longest message, details or hint that is answered: some quote what was sent.
const TEXT_MAX: usize = 1000;
/// When to try again where a refusal does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What went wrong, for a client of `/rest/v1` or `/realtime/v1`.
#[derive(Debug, Clone)]
pub(crate) struct Error(Box<Told>);

#[derive(Debug, Clone)]
struct Told {
    status: StatusCode,
    code: String,
    message: String,
    details: Option<String>,
    hint: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Error {
    /// An error of PostgREST's `code`, or of one of ours (`CGnnn`).
    pub(crate) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Told {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: code.into(),
            message: shortened(message.into()),
            details: None,
            hint: None,
            headers: Vec::new(),
        }))
    }

    /// A query that cannot be read.
    pub(crate) fn parse(message: impl Into<String>) -> Self {
        Self::new(400, "PGRST100", message)
    }

    /// Says more of what it was.
    pub(crate) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.0.details = Some(shortened(details.into()));
        self
    }

    /// Says what to do.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(shortened(hint.into()));
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says when to try again, in whole seconds, rounded up.
    pub(crate) fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits make a header");
        self.with_header(header::RETRY_AFTER, value)
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        &self.0.code
    }

    /// The sentence for the caller.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What the answer's head says besides.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// What the database said to a caller of `role`, as PostgREST tells it; a defect of ours or of the
    /// server's goes to the log alone.
    pub(crate) fn of_database(error: &sqlx::Error, role: Role) -> Self {
        match error {
            sqlx::Error::Database(refusal) => Self::of_refusal(refusal.as_ref(), role),
            sqlx::Error::PoolTimedOut => {
                let message = "Timed out acquiring connection from connection pool.";
                Self::new(504, "PGRST003", message).with_hint("The hub is busy; try again.")
            }
            error => {
                tracing::warn!(error = %chain(error), "The database did not answer a remote caller");
                Self::new(503, "PGRST001", "Database client error. Retrying the connection.")
                    .with_hint("The hub's database does not answer; try again.")
                    .with_retry_after(RETRY_AFTER)
            }
        }
    }

    fn of_refusal(refusal: &dyn DatabaseError, role: Role) -> Self {
        let state = refusal.code().unwrap_or_default().into_owned();
        let status = status_of(&state, refusal.message(), role);
        if matches!(state.get(..2), Some("XX" | "58" | "F0")) {
            tracing::error!(error = %chain(refusal), "The database failed a remote caller");
            return Self::new(status, state, "The database failed; its log says why.");
        }
        let postgres = refusal.try_downcast_ref::<PgDatabaseError>();
        let details = postgres.and_then(PgDatabaseError::detail).map(str::to_owned);
        let hint = postgres.and_then(PgDatabaseError::hint).map(str::to_owned);
        let mut error = Self::new(status, state, refusal.message());
        if status == 429 {
            let after = details.as_deref().and_then(|text| text.strip_prefix("retry_after_ms="));
            let after =
                after.and_then(|ms| ms.parse().ok()).map_or(RETRY_AFTER, Duration::from_millis);
            error = error.with_retry_after(after);
        } else if status == 503 {
            error = error.with_retry_after(RETRY_AFTER);
        }
        error.0.details = details.map(shortened);
        error.0.hint = hint.map(shortened);
        error
    }
}

/// PostgREST's table of statuses, and ours: `CGnnn` is `nnn`.
fn status_of(state: &str, message: &str, role: Role) -> u16 {
    let own = state.strip_prefix("CG").or_else(|| state.strip_prefix("PT"));
    if let Some(status) = own.and_then(|digits| digits.parse().ok()) {
        return if (400..=599).contains(&status) { status } else { 500 };
    }
    match state {
        "23503" | "23505" => 409,
        "25006" => 405,
        "42883" | "42P01" => 404,
        "42P17" | "53400" | "21000" => 500,
        "42501" if role == Role::Anon => 401,
        "42501" => 403,
        "22023" if message.starts_with("role") && message.ends_with("does not exist") => 401,
        "57P01" => 503,
        "P0001" => 400,
        _ => match state.get(..2) {
            Some("08" | "53") => 503,
            Some("0L" | "0P" | "28") => 403,
            Some(
                "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0"
                | "HV" | "P0" | "XX",
            ) => 500,
            _ => 400,
        },
    }
}

impl From<&ApiError> for Error {
    /// What the hub itself refuses, before or after a route.
    fn from(error: &ApiError) -> Self {
        let status = error.status();
        let code = match error.code() {
            Code::Unauthorized => "PGRST301".to_owned(),
            Code::NotFound => "PGRST125".to_owned(),
            Code::MethodNotAllowed => "PGRST117".to_owned(),
            Code::Timeout => "PGRST003".to_owned(),
            _ => format!("CG{}", status.as_u16()),
        };
        let mut told = Self::new(status.as_u16(), code, error.message());
        told.0.headers = error.headers().to_vec();
        told
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let told = self.0;
        let body = json!({
            "code": told.code, "details": told.details, "hint": told.hint, "message": told.message,
        });
        let mut response = (told.status, Json(body)).into_response();
        response.headers_mut().extend(told.headers);
        if told.status == StatusCode::UNAUTHORIZED {
            let challenge = response.headers_mut().entry(header::WWW_AUTHENTICATE);
            challenge.or_insert(HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_postgrests() {
        for (state, status) in [
            ("CG403", 403),
            ("CG429", 429),
            ("CGabc", 400),
            ("PT409", 409),
            ("PT999", 500),
            ("23505", 409),
            ("25006", 405),
            ("42883", 404),
            ("42501", 403),
            ("40P01", 500),
            ("57014", 500),
            ("53300", 503),
            ("22P02", 400),
            ("P0001", 400),
            ("", 400),
        ] {
            assert_eq!(status_of(state, "", Role::Authenticated), status, "{state}");
        }
        assert_eq!(status_of("42501", "", Role::Anon), 401);
        assert_eq!(status_of("22023", "role \"x\" does not exist", Role::ServiceRole), 401);
    }

    #[test]
    fn a_failure_of_the_connection_is_never_told() {
        let error = sqlx::Error::Configuration("password=hunter2".into());
        let told = Error::of_database(&error, Role::ServiceRole);
        assert_eq!((told.status().as_u16(), told.code()), (503, "PGRST001"));
        assert!(!format!("{told:?}").contains("hunter2"));
    }
}
