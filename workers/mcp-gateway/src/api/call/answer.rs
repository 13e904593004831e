//! What a caller over plain HTTP is told.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Json, Response};
use cogo::error::Code;
use cogo::hub::ApiError;
use cogo::retry::ErrorClass;
use serde_json::json;

use super::prefer::Prefer;
use crate::mesh::{Failed, Started, Verdict};
use crate::trace::{End, TRACEPARENT};

/// JSON-RPC 2.0, section 5.1: no such method, or the params are not as it wants them.
const CALLERS_FAULT: [i32; 2] = [-32601, -32602];

/// What an answer is made of, beside what became of the call.
pub(super) struct Told<'a> {
    pub(super) started: Started,
    pub(super) key: Option<&'a str>,
    /// The hub's span; or where there are none the caller's.
    pub(super) traceparent: Option<String>,
    pub(super) prefer: Prefer,
    pub(super) waited: Duration,
    /// The query said how long to wait, so the preference did not.
    pub(super) by_query: bool,
}

impl Told<'_> {
    /// The answer to a call of which `verdict` is known.
    pub(super) fn response(&self, verdict: Verdict) -> Response {
        let Started { id, trace_id, duplicate } = self.started;
        let base = json!({"ok": true, "id": id, "trace_id": trace_id, "duplicate": duplicate});
        let mut response = match verdict {
            Verdict::Result(result) => {
                let mut body = base;
                body["result"] = result;
                Json(body).into_response()
            }
            Verdict::Pending => {
                let mut body = base;
                body["status"] = json!("pending");
                body["location"] = json!(self.location());
                (StatusCode::ACCEPTED, Json(body)).into_response()
            }
            Verdict::Cancelled => {
                let message = format!("the call {id} was cancelled");
                self.error(ApiError::new(Code::Conflict, message), "cancelled").into_response()
            }
            Verdict::Refused(failed) => self.refused(failed).into_response(),
            Verdict::Dead(failed) => self.dead(failed).into_response(),
        };
        let pending = response.status() == StatusCode::ACCEPTED;
        self.head(response.headers_mut(), pending);
        response
    }

    /// The tool's server answered with an error of its own, which is told as it is.
    fn refused(&self, failed: Failed) -> ApiError {
        let (code, status) = match CALLERS_FAULT.contains(&failed.code) {
            true => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
            false => (Code::Internal, StatusCode::BAD_GATEWAY),
        };
        let message = format!("the tool's server answered ({}): {}", failed.code, failed.message);
        let mut rpc = json!({"code": failed.code, "message": failed.message});
        if let Some(data) = failed.data {
            rpc["data"] = data;
        }
        let error = ApiError::new(code, message).with_status(status).with_detail("rpc", rpc);
        self.error(error, &failed.class)
    }

    /// No answer of the tool is to be had.
    fn dead(&self, failed: Failed) -> ApiError {
        use ErrorClass::{CircuitOpen, Closed, Connect, DeadlineExceeded, InvalidParams, Timeout};
        let (code, status) = match ErrorClass::of(&failed.class) {
            Some(Connect | Closed | CircuitOpen) => {
                (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
            }
            Some(Timeout | DeadlineExceeded) => (Code::Timeout, StatusCode::GATEWAY_TIMEOUT),
            Some(InvalidParams) => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
            _ => (Code::Internal, StatusCode::BAD_GATEWAY),
        };
        let may_have_run =
            failed.data.as_ref().is_some_and(|data| data["cogo/may_have_run"] == true);
        let error = ApiError::new(code, failed.message).with_status(status);
        self.error(error, &failed.class).with_detail("may_have_run", may_have_run)
    }

    fn error(&self, error: ApiError, class: &str) -> ApiError {
        error
            .with_trace_id(self.started.trace_id.0)
            .with_detail("id", self.started.id.to_string())
            .with_detail("class", class)
            .with_detail("location", self.location())
    }

    fn location(&self) -> String {
        format!("/api/messages/{}", self.started.id)
    }

    fn head(&self, headers: &mut HeaderMap, pending: bool) {
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let Started { trace_id, .. } = self.started;
        put(HeaderName::from_static("x-trace-id"), &trace_id.to_string());
        if let Some(traceparent) = &self.traceparent {
            put(HeaderName::from_static(TRACEPARENT), traceparent);
        }
        if let Some(key) = self.key {
            put(HeaderName::from_static("idempotency-key"), key);
        }
        if pending {
            put(header::LOCATION, &self.location());
        }
        let mut applied = Vec::new();
        if self.prefer.is_async() && pending {
            applied.push("respond-async".to_owned());
        }
        if self.prefer.wait().is_some_and(|wait| wait == self.waited) && !self.by_query {
            applied.push(format!("wait={}", self.waited.as_secs()));
        }
        if !applied.is_empty() {
            put(HeaderName::from_static("preference-applied"), &applied.join(", "));
        }
    }
}

/// How a call ended, for its span.
pub(super) fn end(verdict: &Verdict) -> End<'_> {
    match verdict {
        Verdict::Result(result) if result["isError"] == true => End::Failed("tool_error"),
        Verdict::Result(_) => End::Done,
        Verdict::Refused(failed) => End::Refused(failed.code),
        Verdict::Dead(failed) => End::Failed(&failed.class),
        Verdict::Cancelled => End::Cancelled,
        Verdict::Pending => End::Pending,
    }
}
