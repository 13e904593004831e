// MERGE: this file stands for `cogo::hub::{ApiError, StrictJson}`; delete it, and import those.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use cogo::error::Code;
use cogo::message::TraceId;
use serde::de::DeserializeOwned;
use serde_json::json;

pub(super) struct ApiError {
    code: Code,
    message: String,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status());
        let code = self.code.as_str();
        let body = json!({"ok": false, "error": code, "code": code, "message": self.message,
            "trace_id": TraceId::new()});
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(body)).into_response()
    }
}

pub(super) struct StrictJson<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let json = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !json.is_some_and(|mime| mime.starts_with("application/json")) {
            let text = "the body must be application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, text));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::new(Code::PayloadTooLarge, "the body is too large"))?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        serde_path_to_error::deserialize(&mut json).map(Self).map_err(|error| {
            let text = match error.path().to_string().as_str() {
                "." => error.inner().to_string(),
                field => format!("{field}: {}", error.inner()),
            };
            ApiError::new(Code::InvalidArgument, text)
        })
    }
}
