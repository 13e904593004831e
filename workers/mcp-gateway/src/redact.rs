//! Secrets out of what is kept: by the name of their key, and by their value.

use serde_json::Value;

use crate::secret::Secret;

/// What stands where a secret stood.
pub const MARK: &str = "[redacted]";

/// Parts of key names, folded, that say that a value is a secret.
const PARTS: &[&str] = &[
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "cookie",
    "bearer",
];
/// Endings of key names, folded, that say so. Not a part: `max_tokens` and `tokenizer` are none.
const ENDINGS: &[&str] = &["token", "jwt", "pwd", "pat"];
/// Shorter values are not looked for: they would be found in the middle of innocent text.
const MIN_LEN: usize = 4;
/// JSON inside a string is looked into this deep.
const MAX_NESTED: usize = 2;

/// Hides secrets in JSON.
#[derive(Debug, Default)]
pub struct Redactor {
    values: Vec<Secret>,
}

impl Redactor {
    /// A redactor that knows `values` as secrets, whatever key they stand under.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = Secret>) -> Self {
        let mut values: Vec<_> =
            values.into_iter().filter(|value| value.expose().len() >= MIN_LEN).collect();
        // The longest first: a secret may be part of another ("Bearer x" and "x").
        values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        Self { values }
    }

    /// Hides what stands under the key of a secret, and every known secret. For what is only read by
    /// people: artifacts.
    #[must_use]
    pub fn artifact(&self, value: &Value) -> Value {
        self.value(value, true, MAX_NESTED)
    }

    /// Hides every known secret and leaves all else alone. For what programs go on with: results.
    #[must_use]
    pub fn known(&self, value: Value) -> Value {
        if self.values.is_empty() { value } else { self.value(&value, false, 0) }
    }

    /// Hides every known secret in `text`.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.expose()) {
                text = text.replace(value.expose(), MARK);
            }
        }
        text
    }

    fn value(&self, value: &Value, keys: bool, nested: usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.string(text, keys, nested)),
            Value::Array(items) => {
                items.iter().map(|item| self.value(item, keys, nested)).collect()
            }
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| {
                    let hide = keys && is_secret(key) && !value.is_null() && !value.is_boolean();
                    let value = if hide { MARK.into() } else { self.value(value, keys, nested) };
                    (self.text(key), value)
                })
                .collect(),
            other => other.clone(),
        }
    }

    fn string(&self, text: &str, keys: bool, nested: usize) -> String {
        if keys && nested > 0 && text.trim_start().starts_with(['{', '[']) {
            // Tools like to answer JSON as text; it is written anew only if something was hidden.
            if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                let hidden = self.value(&json, keys, nested - 1);
                if hidden != json {
                    return serde_json::to_string_pretty(&hidden)
                        .unwrap_or_else(|_| MARK.to_owned());
                }
            }
        }
        self.text(text)
    }
}

/// Whether what stands under `key` is a secret, by the key's name.
pub(crate) fn is_secret(key: &str) -> bool {
    let folded: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    PARTS.iter().any(|part| folded.contains(part))
        || ENDINGS.iter().any(|ending| folded.ends_with(ending) && folded != "progresstoken")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_secrets_are_known_however_they_are_written() {
        for key in [
            "Authorization",
            "proxy-authorization",
            "api_key",
            "X-Api-Key",
            "apiKey",
            "APIKEY",
            "FIGMA_API_KEY",
            "access_token",
            "token",
            "refreshToken",
            "Set-Cookie",
            "cookie",
            "client_secret",
            "DB_PASSWORD",
            "aws_secret_access_key",
            "GITHUB_PAT",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["message", "max_tokens", "tokenizer", "path", "author", "key", "progressToken"]
        {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn secrets_are_hidden_by_key_at_any_depth_and_inside_json_strings() {
        let redactor = Redactor::default();
        let given = json!({"a": [{"Api-Key": "k1", "n": 1}], "text": "{\"password\": \"k2\"}",
            "token": {"inner": "k3"}, "secret": null});
        let hidden = redactor.artifact(&given);
        let text = hidden.to_string();
        assert!(!text.contains("k1") && !text.contains("k2") && !text.contains("k3"), "{text}");
        assert_eq!(hidden["a"][0]["n"], 1);
        assert_eq!(hidden["secret"], Value::Null);
    }

    #[test]
    fn text_that_hides_nothing_is_left_as_it_was() {
        let given = json!({"text": "{ \"a\":1}", "x": "[not json"});
        assert_eq!(Redactor::default().artifact(&given), given);
    }

    #[test]
    fn a_known_secret_is_hidden_wherever_it_stands() {
        let secrets =
            ["hunter2-long", "Bearer hunter2-long", "abc"].map(|s| Secret::from(s.to_owned()));
        let redactor = Redactor::new(secrets);
        let given =
            json!({"content": "say Bearer hunter2-long and hunter2-long, abc", "token": "t"});
        let known = redactor.known(given);
        assert_eq!(known["content"], "say [redacted] and [redacted], abc"); // abc is too short
        assert_eq!(known["token"], "t", "a result keeps its own values");
    }
}
