//! Answers of a bounded size: a model reads all of what it is given.

use cogo::event::Event;
use serde_json::{Value, json};

/// As much of one value as is given unless more is asked for, in bytes of its JSON.
pub(super) const VALUE_BYTES: usize = 16 * 1024;
/// The most that may be asked for.
pub(super) const VALUE_BYTES_MAX: usize = 256 * 1024;
/// As much of the payload of an event, of which there are many.
const EVENT_BYTES: usize = 2 * 1024;

/// A result: as structured content, and as text for clients that do not read that.
pub(super) fn done(answer: Value) -> Value {
    json!({
        "content": [{"type": "text", "text": answer.to_string()}],
        "structuredContent": answer,
        "isError": false,
    })
}

/// What was not done, and what would help.
pub(super) fn refused(why: &str) -> Value {
    json!({"content": [{"type": "text", "text": why}], "isError": true})
}

/// A value of at most about `most` bytes: of a larger one its beginning, marked as such.
pub(super) fn bounded(value: &Value, most: usize) -> Value {
    let text = value.to_string();
    if text.len() <= most {
        return value.clone();
    }
    let beginning = &text[..text.floor_char_boundary(most)];
    json!({"truncated": true, "bytes": text.len(), "beginning": beginning})
}

/// What happened, the oldest first.
pub(super) fn events(events: &[Event]) -> Value {
    let told = |event: &Event| {
        let mut told = json!({
            "type": event.event_type, "at": event.created_at, "attempt": event.attempt,
            "payload": bounded(&event.payload, EVENT_BYTES),
        });
        for (name, value) in [
            ("message_id", event.message_id.map(|id| json!(id))),
            ("worker_id", event.worker_id.as_ref().map(|id| json!(id))),
            ("reason", event.reason.as_ref().map(|reason| json!(reason))),
        ] {
            if let Some(value) = value {
                told[name] = value;
            }
        }
        told
    };
    events.iter().map(told).collect()
}

/// At most `limit` of what was read, and whether there is more: one more than `limit` was asked for.
pub(super) fn cut<T>(mut found: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    (found, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_cut_at_a_character_and_marked() {
        assert_eq!(bounded(&json!({"a": 1}), 7), json!({"a": 1}));
        let cut = bounded(&json!("éééé"), 4);
        assert_eq!(cut, json!({"truncated": true, "bytes": 10, "beginning": "\"é"}));
    }
}
