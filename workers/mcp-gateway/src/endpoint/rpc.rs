//! JSON-RPC 2.0, as far as the endpoint writes it itself.

use std::time::Duration;

use cogo::error::Code;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::mesh::{Failed, Refusal};

/// Not JSON.
pub(super) const PARSE_ERROR: i32 = -32700;
/// JSON, but no request.
pub(super) const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
/// The method's parameters are not as they must be.
pub(super) const INVALID_PARAMS: i32 = -32602;
/// What went wrong is none of the caller's doing.
pub(super) const INTERNAL: i32 = -32603;
/// MCP 2026-07-28 (SEP-2243): a header does not say what the body says.
pub(super) const HEADER_MISMATCH: i32 = -32020;
/// MCP 2026-07-28: the client has not declared what the request needs.
pub(super) const MISSING_CAPABILITY: i32 = -32021;
/// MCP 2026-07-28: the revision that the request names is not spoken here.
pub(super) const UNSUPPORTED_VERSION: i32 = -32022;
/// Ours: the caller may not do this.
const FORBIDDEN: i32 = -32003;
/// Ours: the session is unknown, has ended, or is another caller's.
pub(super) const NO_SESSION: i32 = -32001;
/// Ours: the idempotency key stands for another call.
const CONFLICT: i32 = -32004;
/// Ours: a limit is reached; `data.retry_after_ms` says when it may be tried again.
pub(super) const TOO_MANY: i32 = -32005;
/// As LSP has it: the client cancelled the request. It wants no answer, and gets one only where HTTP must give one.
pub(super) const CANCELLED: i32 = -32800;

/// An error, as it goes out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RpcError {
    pub(super) code: i32,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Value>,
}

impl RpcError {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Of a field, and what it must be.
    pub(super) fn invalid(field: &str, rule: impl std::fmt::Display) -> Self {
        Self::new(INVALID_PARAMS, format!("{field}: {rule}"))
    }

    pub(super) fn with(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    pub(super) fn no_method(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("there is no method {method:?}"))
    }

    /// Of a limit.
    pub(super) fn too_many(message: impl Into<String>, retry_after: Duration) -> Self {
        let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        Self::new(TOO_MANY, message)
            .with(json!({ "code": Code::RateLimited.as_str(), "retry_after_ms": ms }))
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        let mut data = json!({ "code": refusal.code().as_str() });
        let code = match refusal {
            Refusal::UnknownTool { near, .. } => {
                if !near.is_empty() {
                    data["near"] = json!(near);
                }
                INVALID_PARAMS
            }
            Refusal::InvalidArguments { pointer, .. } => {
                data["pointer"] = json!(pointer);
                INVALID_PARAMS
            }
            Refusal::Conflict(id) => {
                data["message_id"] = json!(id);
                CONFLICT
            }
            Refusal::Full { retry_after, .. } => return Self::too_many(text, retry_after),
            Refusal::Held { .. } | Refusal::Forbidden { .. } => FORBIDDEN,
            Refusal::NoCall(_) => INVALID_PARAMS,
            Refusal::Bus(error) => return Self::of_bus(&error),
        };
        Self::new(code, text).with(data)
    }
}

impl RpcError {
    /// What the bus refused is said; what went wrong inside it is logged, and not told.
    pub(super) fn of_bus(error: &cogo::bus::Error) -> Self {
        let code = error.code();
        if code.http_status() < 500 {
            let told = match code {
                Code::Forbidden | Code::Unauthorized => FORBIDDEN,
                _ => INVALID_PARAMS,
            };
            return Self::new(told, error.to_string()).with(json!({ "code": code.as_str() }));
        }
        tracing::error!(error = %cogo::error::chain(error), "The bus did not answer a request of /mcp");
        let message = "the bus does not answer; try again, with an idempotency key if the call must not be made twice";
        Self::new(INTERNAL, message).with(json!({ "code": code.as_str() }))
    }
}

impl From<Failed> for RpcError {
    fn from(failed: Failed) -> Self {
        Self { code: failed.code, message: failed.message, data: failed.data }
    }
}

/// What a method gives: its result, or why there is none.
pub(super) type Answer = Result<Value, RpcError>;

/// A response, as text.
pub(super) fn response(id: &Value, answer: &Answer) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: &'a Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a RpcError>,
    }
    let (result, error) = (answer.as_ref().ok(), answer.as_ref().err());
    let response = Response { jsonrpc: "2.0", id, result, error };
    serde_json::to_string(&response).expect("JSON values are JSON")
}

/// A notification, as text.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

/// One message of a client, taken apart.
#[derive(Debug)]
pub(super) struct Incoming {
    /// `null` in what is no request.
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

impl Incoming {
    /// Whether an answer is wanted.
    pub(super) fn is_request(&self) -> bool {
        !self.id.is_null()
    }

    /// The request's `_meta`.
    pub(super) fn meta(&self) -> Option<&Map<String, Value>> {
        self.params.get("_meta")?.as_object()
    }

    /// Reads a message. None for what has no method: a response, which nobody here waits for.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, RpcError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| RpcError::new(PARSE_ERROR, format!("the body is no JSON: {error}")))?;
        let Value::Object(mut message) = value else {
            let message = "the body must be one JSON-RPC message, as an object; batches are not taken";
            return Err(RpcError::new(INVALID_REQUEST, message));
        };
        let refuse = |message: &str| Err(RpcError::new(INVALID_REQUEST, message));
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return refuse("jsonrpc: must be \"2.0\"");
        }
        let id = match message.remove("id") {
            None => Value::Null,
            Some(id @ (Value::String(_) | Value::Number(_))) => id,
            Some(_) => return refuse("id: must be a string or a number"),
        };
        let method = match message.remove("method") {
            None if message.contains_key("result") || message.contains_key("error") => {
                return Ok(None);
            }
            Some(Value::String(method)) => method,
            _ => return refuse("method: must be a string"),
        };
        let params = match message.remove("params") {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return refuse("params: must be an object"),
        };
        Ok(Some(Self { id, method, params }))
    }
}
