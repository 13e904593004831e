//! What `jsonb` can hold, which is a little less than JSON.

use std::io;

use serde::Serialize;
use serde_json::Value;

/// The largest payload that a message may carry; the `bus_*` functions have the same limit.
pub const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// Whether `value` holds the character U+0000, which RFC 8259 allows and `jsonb` does not.
pub(crate) fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value))
        }
        _ => false,
    }
}

/// `value` with every U+0000 replaced by U+FFFD: for results, which come from tools that nobody asked to
/// avoid it, and which must not be lost for one character.
pub(crate) fn storable(value: Value) -> Value {
    if !holds_nul(&value) {
        return value;
    }
    match value {
        Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => Value::Array(items.into_iter().map(storable).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key.replace('\0', "\u{fffd}"), storable(value)))
                .collect(),
        ),
        other => other,
    }
}

/// How many bytes `value` is as JSON.
pub(crate) fn size(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written as JSON is refused when it is sent.
    serde_json::to_writer(&mut count, value).map_or(0, |()| count.0)
}

/// About how many bytes `value` takes in memory.
pub(crate) fn weight(value: &Value) -> usize {
    let beneath = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| size_of::<String>() + key.len() + weight(value)).sum()
        }
        _ => 0,
    };
    size_of::<Value>() + beneath
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_is_found_and_replaced_wherever_it_is() {
        let value = json!({"a\0": ["x\0y", {"b": 1}]});
        assert!(holds_nul(&value));
        assert_eq!(storable(value), json!({"a\u{fffd}": ["x\u{fffd}y", {"b": 1}]}));
        assert!(!holds_nul(&json!({"a": [1, "x", null]})));
    }

    #[test]
    fn what_is_long_is_heavy_wherever_it_is() {
        let long = "x".repeat(1000);
        for heavy in [json!(long), json!([1, {"a": long}]), json!({long.clone(): 1})] {
            assert!((1000..1500).contains(&weight(&heavy)), "{}", weight(&heavy));
        }
        assert!(weight(&json!(vec![0; 1000])) > 1000 * weight(&json!(0)));
    }
}
