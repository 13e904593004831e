//! A definition's one text: the same definition gives the same text, and so the same hash, on every machine.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The JSON of `value` with each object's keys in the order of their bytes and without white space.
#[must_use]
pub fn text(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// The SHA-256 of a text, in hexadecimal.
#[must_use]
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            // Whether a map keeps its keys in order depends on what else the program is built with.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| key.as_bytes());
            text.push('{');
            for (at, (key, item)) in members.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(item, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        text(&serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn the_text_does_not_depend_on_order_or_white_space() {
        let one = of(
            r#"{"name": "a", "inputSchema": {"type": "object", "b": [1, {"y": null, "x": true}]}}"#,
        );
        let other =
            of(r#"{"inputSchema":{"b":[1,{"x":true,"y":null}],"type":"object"},"name":"a"}"#);
        assert_eq!(one, other);
        assert_eq!(
            one,
            r#"{"inputSchema":{"b":[1,{"x":true,"y":null}],"type":"object"},"name":"a"}"#
        );
        assert_ne!(
            one,
            of(
                r#"{"name": "a", "inputSchema": {"type": "object", "b": [{"y": null, "x": true}, 1]}}"#
            )
        );
    }

    #[test]
    fn the_hash_is_that_of_the_text_as_everybody_computes_it() {
        let text = of(r#"{"name": "ü\n\"", "n": 1.5}"#);
        assert_eq!(text, "{\"n\":1.5,\"name\":\"ü\\n\\\"\"}");
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
