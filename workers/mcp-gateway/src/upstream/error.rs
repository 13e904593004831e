//! What went wrong with a call, and which class that is (DESIGN, invariant 10).

use cogo::retry::ErrorClass;
use rmcp::model::{ErrorCode, ErrorData};
use serde_json::{Value, json};

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What the retry policy decides by.
    pub class: ErrorClass,
    /// Whether the request may have reached the server.
    pub sent: bool,
    /// One sentence for a person.
    pub message: String,
    /// What the server said: the JSON-RPC error object, or a tool's result with `isError`.
    pub detail: Option<Value>,
    /// How long the call took, in milliseconds.
    pub latency_ms: u64,
    /// The call was not for this server: whether it works is not known any better than before.
    pub unasked: bool,
}

impl CallError {
    pub(crate) fn new(class: ErrorClass, sent: bool, message: impl Into<String>) -> Self {
        Self { class, sent, message: message.into(), detail: None, latency_ms: 0, unasked: false }
    }

    /// The call never left. `class` says why.
    pub(super) fn unsent(class: ErrorClass, message: impl Into<String>) -> Self {
        Self::new(class, false, message)
    }

    /// The call is for another machine than this.
    pub(super) fn unasked(message: impl Into<String>) -> Self {
        Self { unasked: true, ..Self::unsent(ErrorClass::Connect, message) }
    }

    /// The answer did not come: `lost` if the call may be made again, else ambiguous.
    pub(crate) fn unanswered(
        lost: ErrorClass,
        repeatable: bool,
        message: impl Into<String>,
    ) -> Self {
        let class = if repeatable { lost } else { ErrorClass::Ambiguous };
        Self::new(class, true, message)
    }

    /// Which class it is when a server answers with a JSON-RPC error of this code (JSON-RPC 2.0, section 5.1).
    pub(super) fn class_of(code: ErrorCode) -> ErrorClass {
        match code {
            // MCP, "Tools", error handling: -32602 for unknown tools and wrong arguments. Some
            // servers answer an unknown tool as an unknown method.
            ErrorCode::INVALID_PARAMS | ErrorCode::METHOD_NOT_FOUND => ErrorClass::InvalidParams,
            // The server could not read what we sent, or does not agree how to speak.
            ErrorCode::PARSE_ERROR
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::HEADER_MISMATCH
            | ErrorCode::UNSUPPORTED_PROTOCOL_VERSION
            | ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY => ErrorClass::Protocol,
            // -32603 and what servers define themselves: the tool was tried and failed.
            _ => ErrorClass::ToolError,
        }
    }

    /// The server refused the request before it looked at what was asked, so that the tool was not tried.
    pub(super) fn refused(tool: &str, error: &ErrorData) -> Self {
        let (code, said) = (error.code.0, &error.message);
        let message = format!("the server did not take the call of {tool} ({code}): {said}");
        Self::unsent(ErrorClass::Connect, message)
    }

    /// The server answered with a JSON-RPC error.
    pub(super) fn answered(tool: &str, error: &ErrorData) -> Self {
        let class = Self::class_of(error.code);
        let message = format!("the tool {tool} failed ({}): {}", error.code.0, error.message);
        let mut detail = json!({ "code": error.code.0, "message": error.message });
        if let Some(data) = &error.data {
            detail["data"] = data.clone();
        }
        Self { detail: Some(detail), ..Self::new(class, true, message) }
    }

    /// The tool answered that it failed (MCP, "Tools", `isError`).
    pub(super) fn tool(tool: &str, result: Value) -> Self {
        let said = result["content"].as_array().and_then(|content| {
            content.iter().find_map(|block| block.get("text").and_then(Value::as_str))
        });
        let message = match said {
            Some(text) => format!("the tool {tool} failed: {}", shorten(text)),
            None => format!("the tool {tool} failed"),
        };
        Self { detail: Some(result), ..Self::new(ErrorClass::ToolError, true, message) }
    }
}

/// The first line, at most 200 characters: the whole is in the detail.
fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
