//! What has changed between two versions of a file, for a line of the log.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// How many changes are told; a file that was written anew has many.
const TOLD_MAX: usize = 10;
/// How much of a value is told.
const VALUE_MAX: usize = 80;

/// Every field that differs, as `path: old -> new`, joined by commas; empty when nothing does.
pub(super) fn changes<T: Serialize>(old: &T, new: &T) -> String {
    let value = |of| serde_json::to_value(of).unwrap_or_default();
    let mut found = Vec::new();
    compare("", Some(&value(old)), Some(&value(new)), &mut found);
    let more = found.len().saturating_sub(TOLD_MAX);
    found.truncate(TOLD_MAX);
    let mut told = found.join(", ");
    if more > 0 {
        let _to_a_string = write!(told, " and {more} more");
    }
    told
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) {
        let added = new.keys().filter(|key| !old.contains_key(*key));
        for key in old.keys().chain(added) {
            let dot = if path.is_empty() { "" } else { "." };
            compare(&format!("{path}{dot}{key}"), old.get(key), new.get(key), found);
        }
        return;
    }
    let told = |value: Option<&Value>| match value {
        None => "unset".to_owned(),
        Some(value) => {
            let text = value.to_string();
            let short: String = text.chars().take(VALUE_MAX).collect();
            if short.len() < text.len() { short + "…" } else { short }
        }
    };
    found.push(format!("{path}: {} -> {}", told(old), told(new)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let old = json!({"a": {"x": 1, "y": [1]}, "b": 2, "same": true});
        let new = json!({"a": {"x": 1, "y": [2]}, "c": {"z": 3}, "same": true});
        let told = changes(&old, &new);
        assert_eq!(told, r#"a.y: [1] -> [2], b: 2 -> unset, c: unset -> {"z":3}"#);
        assert_eq!(changes(&old, &old), "");
        let many: Value = (0..15).map(|n| (n.to_string(), json!(n))).collect();
        assert!(changes(&json!({}), &many).ends_with("9: unset -> 9 and 5 more"));
        assert!(changes(&json!({}), &json!({"long": "x".repeat(1000)})).len() < 150);
    }
}
