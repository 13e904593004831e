//! The one shape of every answer that is an error.

use std::any::Any;
use std::error::Error as StdError;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::bus;
use crate::error::{Code, chain};

/// The longest message that is answered: some quote what was sent.
const MESSAGE_MAX: usize = 500;

/// An error as a caller sees it:
/// `{"ok":false,"error":"<slug>","code":"<slug>","message":"…","trace_id":"…"}`.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    status: StatusCode,
    message: String,
    trace_id: Option<Uuid>,
    headers: Vec<(HeaderName, HeaderValue)>,
    details: Vec<(String, Value)>,
}

impl ApiError {
    /// An error of `code`; `message` is for the caller, and names the field where there is one.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let status =
            StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (headers, details) = (Vec::new(), Vec::new());
        let error =
            Self { code, status, message: message.into(), trace_id: None, headers, details };
        match code {
            Code::RateLimited | Code::Unavailable => {
                error.with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            _ => error,
        }
    }

    /// A field or parameter that breaks its rule.
    #[must_use]
    pub fn invalid(field: &str, rule: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, format!("{field}: {rule}"))
    }

    /// A failure that the caller can do nothing about. What it was goes to the log, under the trace id
    /// that the caller is given.
    #[must_use]
    pub fn internal(doing: &str, error: &(dyn StdError + 'static)) -> Self {
        let trace_id = Uuid::now_v7();
        tracing::error!(
            trace.id = %trace_id, error = %chain(error),
            "Failed: {doing} (trace {trace_id})"
        );
        Self::untold(trace_id)
    }

    fn untold(trace_id: Uuid) -> Self {
        Self::new(Code::Internal, "an internal failure; the hub's log has it under this trace id")
            .with_trace_id(trace_id)
    }

    /// Names the trace that the error belongs to; without it, a new one is made up.
    #[must_use]
    pub fn with_trace_id(mut self, trace_id: Uuid) -> Self {
        self.trace_id = Some(trace_id);
        self
    }

    /// Answers with another status than the code's own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to try again: in the header `Retry-After`, which counts whole seconds and so is rounded up,
    /// and in `retry_after_ms`.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits make a header");
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.with_header(header::RETRY_AFTER, value).with_detail("retry_after_ms", ms)
    }

    /// Adds a field to the answer's JSON; the five that every error has cannot be replaced.
    #[must_use]
    pub fn with_detail(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.push((field.into(), value.into()));
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for the caller.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }
}

impl From<bus::Error> for ApiError {
    /// What the bus refused is told as it is; what the database said never is.
    fn from(error: bus::Error) -> Self {
        match &error {
            bus::Error::Full { message, retry_after } => {
                Self::new(Code::RateLimited, message.clone()).with_retry_after(*retry_after)
            }
            bus::Error::Data { .. } => {
                let trace_id = Uuid::now_v7();
                tracing::info!(trace.id = %trace_id, error = %chain(&error), "Refused data");
                let message = "the data holds what the database cannot store";
                Self::new(Code::InvalidArgument, message).with_trace_id(trace_id)
            }
            _ => match error.code() {
                Code::Unavailable | Code::Timeout => {
                    let trace_id = Uuid::now_v7();
                    tracing::warn!(
                        trace.id = %trace_id, error = %chain(&error),
                        "The database did not answer a request (trace {trace_id})"
                    );
                    Self::new(Code::Unavailable, "the database does not answer; try again")
                        .with_trace_id(trace_id)
                }
                Code::Internal => Self::internal("a call to the bus", &error),
                code => Self::new(code, error.to_string()),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let told = self.clone();
        let trace_id = self.trace_id.unwrap_or_else(Uuid::now_v7);
        let slug = self.code.as_str();
        let five = [
            ("ok", json!(false)),
            ("error", json!(slug)),
            ("code", json!(slug)),
            ("message", json!(shortened(self.message))),
            ("trace_id", json!(trace_id)),
        ];
        let mut body: Map<String, Value> =
            five.map(|(field, value)| (field.to_owned(), value)).into_iter().collect();
        for (field, value) in self.details {
            body.entry(field).or_insert(value);
        }
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        response.headers_mut().extend(self.headers);
        // For what must be told in another shape.
        response.extensions_mut().insert(told);
        response
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        message.push('…');
    }
    message
}

/// The answer to a request whose handler panicked. What it said goes to the log alone.
pub(crate) fn of_panic(panic: Box<dyn Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    let trace_id = Uuid::now_v7();
    tracing::error!(trace.id = %trace_id, "A request's handler panicked (trace {trace_id}): {said}");
    ApiError::untold(trace_id).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_error_is_never_told() {
        let source = sqlx::Error::Configuration("password=hunter2 in select".into());
        let error = ApiError::from(bus::Error::Database { call: "bus_enqueue", source });
        assert_eq!(error.code(), Code::Internal);
        assert!(!error.message().contains("select") && !error.message().contains("bus_enqueue"));
        let source = sqlx::Error::PoolTimedOut;
        let error = ApiError::from(bus::Error::Database { call: "bus_enqueue", source });
        assert_eq!(error.code(), Code::Unavailable);
        assert!(!error.message().contains("pool"));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = shortened("é".repeat(400));
        assert!(cut.len() <= MESSAGE_MAX + 3 && cut.ends_with('…'));
    }
}
