//! Which of a caller's `_meta` the tool's server is given.
//!
//! A call passes through two connections, and `_meta` holds what belongs to the one and what belongs to the tool
//! (MCP, "General fields", `_meta`). What is reserved for the protocol is about the caller's own connection, and
//! `cogo/…` is what the gateway itself says; both are left out, whoever sent them.

use serde_json::{Map, Value};

use crate::trace::{TRACEPARENT, TRACESTATE};

/// What a caller can answer, if a tool asks for it (MCP 2026-07-28, SEP-2575: told with each request).
pub(crate) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// What may be asked of a caller by a tool's result, and answered with the next call (SEP-2322). All else of a
/// client's capabilities is between it and the hub.
const ASKABLE: [&str; 3] = ["elicitation", "roots", "sampling"];
/// What the gateway says itself, or what belongs to one connection.
const OWN: [&str; 3] = ["progressToken", TRACEPARENT, TRACESTATE];
/// How much of it there may be: it is a label, not a way to pass arguments.
const MAX_BYTES: usize = 16 * 1024;

/// What of `meta` may go on to the tool's server.
pub(crate) fn passed_on(meta: &Map<String, Value>) -> Map<String, Value> {
    let mut left = MAX_BYTES;
    let mut passed = Map::new();
    for (key, value) in meta {
        let value = match key.as_str() {
            CAPABILITIES => askable(value),
            key if OWN.contains(&key) || is_reserved(key) => None,
            _ => Some(value.clone()),
        };
        let Some(value) = value else { continue };
        let size = key.len() + value.to_string().len();
        if size <= left {
            left -= size;
            passed.insert(key.clone(), value);
        }
    }
    passed
}

fn askable(capabilities: &Value) -> Option<Value> {
    let declared = capabilities.as_object()?;
    let kept = ASKABLE.iter().filter_map(|name| {
        let value = declared.get(*name).filter(|value| value.is_object())?;
        Some(((*name).to_owned(), value.clone()))
    });
    let kept: Map<_, _> = kept.collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// A prefix whose second label is `modelcontextprotocol` or `mcp` is the protocol's, `cogo` is ours.
fn is_reserved(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    let mut labels = prefix.split('.');
    let first = labels.next().unwrap_or_default();
    let ours = ["cogo", "mcp", "modelcontextprotocol"];
    ours.contains(&first) || labels.next().is_some_and(|second| ours[1..].contains(&second))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn passed(meta: Value) -> Value {
        Value::Object(passed_on(meta.as_object().expect("an object")))
    }

    #[test]
    fn what_is_of_the_callers_connection_stays_behind() {
        let meta = json!({
            "progressToken": 7, "traceparent": "00-…", "tracestate": "a=b",
            "cogo/message_id": "forged", "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/related-task": {"taskId": "1"}, "dev.mcp/x": 1, "mcp/x": 1,
            "com.example/user": "u-1", "plain": true,
        });
        assert_eq!(passed(meta), json!({"com.example/user": "u-1", "plain": true}));
    }

    #[test]
    fn of_capabilities_only_what_can_be_asked_goes_on() {
        let meta = json!({CAPABILITIES: {"elicitation": {"form": {}}, "sampling": true,
            "extensions": {"io.modelcontextprotocol/tasks": {}}}});
        assert_eq!(passed(meta), json!({CAPABILITIES: {"elicitation": {"form": {}}}}));
        assert_eq!(passed(json!({CAPABILITIES: {"extensions": {}}})), json!({}));
        assert_eq!(passed(json!({CAPABILITIES: "x"})), json!({}));
    }

    #[test]
    fn it_is_bounded() {
        let meta = json!({"big": "x".repeat(MAX_BYTES), "small": 1});
        assert_eq!(passed(meta), json!({"small": 1}));
    }
}
