//! By the table: how each message ended.

use serde_json::json;

use super::Evidence;
use super::story::told;

pub(super) fn waiting(evidence: &Evidence) -> Vec<String> {
    let all = evidence.snapshot.messages.iter();
    all.filter(|message| !message.is_finished()).map(told).collect()
}

pub(super) fn results(evidence: &Evidence) -> Vec<String> {
    let done = evidence.snapshot.messages.iter().filter(|message| message.status == "done");
    done.filter_map(|message| {
        let found = message.result.clone().unwrap_or_default();
        let expected = match message.role.as_str() {
            "mcp-gateway" => {
                let text = message.payload["params"]["n"].to_string();
                json!({"content": [{"type": "text", "text": text}]})
            }
            _ => message.payload.clone(),
        };
        (found != expected).then(|| format!("{} has {found}", told(message)))
    })
    .collect()
}

pub(super) fn poison(evidence: &Evidence) -> Vec<String> {
    let all = evidence.snapshot.messages.iter();
    all.filter(|message| message.tool() == "poison" && message.status != "failed")
        .map(told)
        .collect()
}
