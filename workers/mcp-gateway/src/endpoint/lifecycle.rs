//! Which revision of MCP a request is of, and what its client can do.
//!
//! From 2026-07-28 on each request says so itself, in `_meta` and in headers; before, a session was opened by
//! `initialize` and remembered it. For the methods that the endpoint answers itself this module makes the checks that
//! the rmcp service makes for the others.

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::routing;
use super::rpc::{
    HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, Incoming, MISSING_CAPABILITY, RpcError,
    UNSUPPORTED_VERSION,
};
use crate::revision::{MODERN, SPOKEN};

/// Names the revision, in a request's headers.
pub(super) const VERSION_HEADER: &str = "mcp-protocol-version";
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
/// The extension by which a call may become a task (SEP-2663).
pub(super) const TASKS: &str = "io.modelcontextprotocol/tasks";

/// What is known of the client that sent a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// It speaks 2026-07-28: results carry `resultType`, and a tool may ask for input.
    pub(super) modern: bool,
    /// It knows tasks.
    pub(super) tasks: bool,
}

impl Client {
    /// Of a session: what its `initialize` declared.
    pub(super) fn of_initialize(params: &Map<String, Value>) -> Self {
        Self { modern: false, tasks: params.get("capabilities").is_some_and(knows_tasks) }
    }

    /// Fails where a task is the only way, and the client does not know tasks.
    pub(super) fn needs_tasks(self) -> Result<(), RpcError> {
        if self.tasks {
            return Ok(());
        }
        let message = format!("this needs a client that declares the extension {TASKS}");
        let needed = json!({ "requiredCapabilities": { "extensions": { (TASKS): {} } } });
        Err(RpcError::new(MISSING_CAPABILITY, message).with(needed))
    }
}

fn knows_tasks(capabilities: &Value) -> bool {
    capabilities["extensions"].get(TASKS).is_some_and(Value::is_object)
}

/// How a request says which revision it is of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// By itself.
    Own(Client),
    /// By its session.
    Session,
}

/// Which status an error has over HTTP. Before 2026-07-28 all that was understood is 200.
pub(super) fn status(client: Client, error: &RpcError) -> StatusCode {
    match error.code {
        _ if !client.modern => StatusCode::OK,
        HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        super::rpc::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// How the request over HTTP says which revision it is of.
///
/// # Errors
/// What it says is missing, contradicts itself, or is not spoken here; to be answered with 400.
pub(super) fn over_http(headers: &HeaderMap, message: &Incoming) -> Result<Lifecycle, RpcError> {
    let header = match headers.get(VERSION_HEADER).map(|value| value.to_str()) {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(_)) => {
            return Err(RpcError::new(INVALID_REQUEST, "MCP-Protocol-Version: must be text"));
        }
    };
    let lifecycle = of_message(message, header)?;
    let named = message.meta().and_then(|meta| meta.get(VERSION_KEY)).and_then(Value::as_str);
    match (named, header) {
        (Some(named), Some(header)) if named != header => {
            let message = format!(
                "MCP-Protocol-Version header ({header}) does not match request _meta protocolVersion ({named})"
            );
            return Err(RpcError::new(HEADER_MISMATCH, message));
        }
        (Some(_), None) => {
            let message = "request _meta protocolVersion requires MCP-Protocol-Version header";
            return Err(RpcError::new(HEADER_MISMATCH, message));
        }
        (None, Some(header)) if !SPOKEN.contains(&header) => {
            return Err(unsupported(header));
        }
        _ => {}
    }
    if header.is_some_and(|version| version >= MODERN) {
        routing::check(headers, message)?;
    }
    Ok(lifecycle)
}

/// How a message says which revision it is of. `fallback` is what the transport says, if it says anything.
pub(super) fn of_message(
    message: &Incoming,
    fallback: Option<&str>,
) -> Result<Lifecycle, RpcError> {
    let meta = message.meta();
    let version = meta.and_then(|meta| meta.get(VERSION_KEY)).and_then(Value::as_str);
    let capabilities =
        meta.and_then(|meta| meta.get(CAPABILITIES_KEY)).filter(|value| value.is_object());
    let modern = version.or(fallback).is_some_and(|version| version >= MODERN);
    if !modern && (version.is_none() || capabilities.is_none()) {
        return Ok(Lifecycle::Session);
    }
    let missing: Vec<_> =
        [(VERSION_KEY, version.is_none()), (CAPABILITIES_KEY, capabilities.is_none())]
            .into_iter()
            .filter_map(|(key, missing)| missing.then_some(key))
            .collect();
    if !missing.is_empty() {
        let message = format!(
            "request _meta is missing or has malformed required fields: {}",
            missing.join(", ")
        );
        return Err(RpcError::new(INVALID_PARAMS, message));
    }
    match version.filter(|version| SPOKEN.contains(version)) {
        None => Err(unsupported(version.unwrap_or_default())),
        Some(version) => Ok(Lifecycle::Own(Client {
            modern: version >= MODERN,
            tasks: capabilities.is_some_and(knows_tasks),
        })),
    }
}

fn unsupported(version: &str) -> RpcError {
    let version: String = version.chars().filter(|c| !c.is_control()).take(64).collect();
    RpcError::new(UNSUPPORTED_VERSION, format!("protocol version {version:?} is not spoken here"))
        .with(json!({ "supported": SPOKEN, "requested": version }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(meta: Value) -> Incoming {
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
        Incoming::read(body.to_string().as_bytes()).unwrap().unwrap()
    }

    fn headers(version: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("mcp-method", "tools/list".parse().unwrap());
        if let Some(version) = version {
            headers.insert(VERSION_HEADER, version.parse().unwrap());
        }
        headers
    }

    fn told(version: &str) -> Value {
        json!({(VERSION_KEY): version, (CAPABILITIES_KEY): {"extensions": {(TASKS): {}}}})
    }

    #[test]
    fn a_request_of_today_says_itself_what_its_client_can_do() {
        let lifecycle = over_http(&headers(Some(MODERN)), &message(told(MODERN))).unwrap();
        assert_eq!(lifecycle, Lifecycle::Own(Client { modern: true, tasks: true }));
    }

    #[test]
    fn a_request_of_yesterday_has_a_session() {
        for version in [None, Some("2025-11-25"), Some("2025-06-18")] {
            let lifecycle = over_http(&headers(version), &message(json!({}))).unwrap();
            assert_eq!(lifecycle, Lifecycle::Session, "{version:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let code = |version, meta| over_http(&headers(version), &message(meta)).unwrap_err().code;
        assert_eq!(code(Some(MODERN), json!({})), INVALID_PARAMS);
        assert_eq!(code(Some(MODERN), json!({(VERSION_KEY): MODERN})), INVALID_PARAMS);
        assert_eq!(code(None, told(MODERN)), HEADER_MISMATCH);
        assert_eq!(code(Some("2025-11-25"), told(MODERN)), HEADER_MISMATCH);
        assert_eq!(code(Some("2099-01-01"), told("2099-01-01")), UNSUPPORTED_VERSION);
        assert_eq!(code(Some("1999-01-01"), json!({})), UNSUPPORTED_VERSION);
    }
}
