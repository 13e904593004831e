//! What became of a message, as a caller of a tool is told.

use cogo::message::{Message, MessageId, Status};
use cogo::retry::ErrorClass;
use serde_json::{Value, json};

/// JSON-RPC 2.0, section 5.1: the params are not as the method wants them.
const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC 2.0, section 5.1: what went wrong is the server's business.
const INTERNAL_ERROR: i32 = -32603;
/// How much of a reason is told.
const REASON_MAX: usize = 2_000;

/// What a caller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The tool's result (MCP, `CallToolResult`) as it gave it, whether it went well (`isError`) or not, or is a
    /// question (`resultType: input_required`); or, where the bus gave up, a result that says so.
    Result(Value),
    /// The tool's server answered with a JSON-RPC error.
    Failed(Failed),
    /// Somebody cancelled the call.
    Cancelled,
    /// It has not ended yet.
    Pending,
}

/// What became of a call. As [`Outcome`], but the tool's failures stay apart from the bus's.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The tool's result, as it gave it.
    Result(Value),
    /// The tool's server answered with a JSON-RPC error.
    Refused(Failed),
    /// No answer of the tool is to be had: the bus gave up, for the reason that the class tells.
    Dead(Failed),
    /// Somebody cancelled the call.
    Cancelled,
    /// It has not ended yet.
    Pending,
}

/// A call that gave no result.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// The JSON-RPC error code: that of the tool's server, or what fits.
    pub code: i32,
    /// One sentence.
    pub message: String,
    /// What the tool's server said beside that; or of the bus, the class, the message and its trace.
    pub data: Option<Value>,
    /// The class of the failure, as events and policies have it.
    pub class: String,
    /// The message.
    pub id: MessageId,
}

impl Verdict {
    /// What has become of the call whose message is `message`.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message.status {
            Status::Done => Self::Result(message.result.clone().unwrap_or_else(|| json!({}))),
            Status::Cancelled => Self::Cancelled,
            Status::Failed => Self::of_failure(message),
            Status::Delayed | Status::Queued | Status::Claimed => Self::Pending,
        }
    }

    fn of_failure(message: &Message) -> Self {
        let error = message.error.as_ref().unwrap_or(&Value::Null);
        let class = error["class"].as_str().unwrap_or("unknown").to_owned();
        let detail = &error["detail"];
        // The tool said that it failed: that is a result of the tool.
        if detail["isError"] == true {
            return Self::Result(detail.clone());
        }
        // Its server said so: that is an error of the server.
        let code = detail["code"].as_i64().and_then(|code| i32::try_from(code).ok());
        if let (Some(code), Some(text)) = (code, detail["message"].as_str()) {
            let (message_text, data) = (text.to_owned(), detail.get("data").cloned());
            return Self::Refused(Failed {
                code,
                message: message_text,
                data,
                class,
                id: message.id,
            });
        }
        let said = error["message"].as_str().unwrap_or("no reason is known");
        let code = match ErrorClass::of(&class) {
            Some(ErrorClass::InvalidParams) => INVALID_PARAMS,
            _ => INTERNAL_ERROR,
        };
        let mut data = json!({
            "cogo/class": class, "cogo/message_id": message.id, "cogo/trace_id": message.trace_id,
        });
        if error["may_have_run"] == true {
            data["cogo/may_have_run"] = json!(true);
        }
        let text = explain(message, &class, said, error["may_have_run"] == true);
        Self::Dead(Failed { code, message: text, data: Some(data), class, id: message.id })
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Result(result) => Self::Result(result),
            Verdict::Refused(failed) => Self::Failed(failed),
            Verdict::Dead(failed) => Self::Result(failed.as_result()),
            Verdict::Cancelled => Self::Cancelled,
            Verdict::Pending => Self::Pending,
        }
    }
}

impl Failed {
    /// As a result (`isError`), which a model reads; an error it may never see.
    #[must_use]
    pub fn as_result(&self) -> Value {
        let mut result = json!({
            "content": [{"type": "text", "text": self.message}], "isError": true,
        });
        if let Some(data @ Value::Object(_)) = &self.data {
            result["_meta"] = data.clone();
        }
        result
    }
}

/// Whether a tool's result is a question (MCP 2026-07-28, `InputRequiredResult`).
pub(super) fn asks_for_input(result: &Value) -> bool {
    result["resultType"] == "input_required"
}

fn explain(message: &Message, class: &str, said: &str, may_have_run: bool) -> String {
    let tool = message.payload["tool"].as_str().unwrap_or("the tool");
    let name = format!("{}__{tool}", message.service);
    let mut said = said.trim_end_matches('.').to_owned();
    if said.len() > REASON_MAX {
        said.truncate(said.floor_char_boundary(REASON_MAX));
        said.push('…');
    }
    let run = match (class, may_have_run) {
        (_, true) | ("ambiguous", _) => " It may have run.",
        ("connect" | "circuit_open", false) => " It was not called.",
        ("deadline_exceeded", false) if message.attempts == 0 => {
            " It was not called: no machine that offers it came in time."
        }
        _ => "",
    };
    let advice = ErrorClass::of(class).map_or("", |class| class.treatment().advice);
    format!(
        "{name} gave no result ({class}): {said}.{run} The call is kept as message {}. {advice}",
        message.id
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a0000-0000-7000-8000-000000000001";

    fn message(status: &str, error: Value) -> Message {
        let at = "2026-11-21T00:00:00Z";
        serde_json::from_value(json!({
            "id": ID, "tenant": "default", "role": "mcp-gateway", "service": "demo", "shard": 0,
            "intent": "mcp.call", "payload": {"toolset": "demo", "tool": "echo"},
            "trace_id": ID, "parent_id": null, "idempotency_key": null, "priority": 0,
            "status": status, "attempts": 1, "max_attempts": 4, "claim_no": 1, "run_at": at,
            "claimed_by": null, "claimed_at": null, "lease_until": null, "error": error,
            "created_at": at, "updated_at": at, "done_at": null, "deadline_at": null,
            "ordering_key": null, "parked_for": null,
        }))
        .expect("a message")
    }

    fn dead(error: Value) -> Failed {
        match Verdict::of(&message("failed", error)) {
            Verdict::Dead(failed) => failed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_tool_or_its_server_said_is_told_as_it_was_said() {
        let result = json!({"isError": true, "content": [], "code": 7, "message": "its own"});
        let error = json!({"class": "tool_error", "message": "x", "detail": result});
        assert_eq!(Verdict::of(&message("failed", error)), Verdict::Result(result));
        let detail = json!({"code": -32603, "message": "disk full", "data": [1]});
        let error = json!({"class": "tool_error", "message": "x", "detail": detail});
        let Verdict::Refused(failed) = Verdict::of(&message("failed", error)) else { panic!() };
        assert_eq!((failed.code, failed.message.as_str()), (-32603, "disk full"));
        assert_eq!(failed.data, Some(json!([1])));
    }

    #[test]
    fn where_the_bus_gave_up_the_text_says_what_is_known_and_what_to_do() {
        let failed = dead(json!({"class": "connect", "message": "cannot reach toolset demo."}));
        for part in ["demo__echo gave no result (connect): cannot reach", "was not called", ID] {
            assert!(failed.message.contains(part), "{part}: {}", failed.message);
        }
        let error = json!({"class": "timeout", "message": "too slow", "may_have_run": true});
        let failed = dead(error.clone());
        assert!(failed.message.contains("It may have run."), "{}", failed.message);
        let told = Outcome::from(Verdict::of(&message("failed", error)));
        let Outcome::Result(result) = told else { panic!("{told:?}") };
        assert_eq!(result["isError"], true);
        assert_eq!(result["_meta"]["cogo/may_have_run"], true);
        assert_eq!(result["_meta"]["cogo/class"], "timeout");
        assert_eq!(dead(json!({"class": "invalid_params", "message": "x"})).code, INVALID_PARAMS);
        // A class of a later version, a reason without end, or no reason at all.
        let long = dead(json!({"class": "brand_new", "message": "é".repeat(5000)}));
        assert!(long.class == "brand_new" && long.message.len() < REASON_MAX + 300);
        assert_eq!(dead(Value::Null).class, "unknown");
    }

    #[test]
    fn what_has_not_ended_is_pending_whatever_went_wrong_before() {
        let error = json!({"class": "connect", "message": "x"});
        for status in ["queued", "delayed", "claimed"] {
            assert_eq!(Verdict::of(&message(status, error.clone())), Verdict::Pending);
        }
        assert_eq!(Verdict::of(&message("cancelled", error)), Verdict::Cancelled);
    }
}
