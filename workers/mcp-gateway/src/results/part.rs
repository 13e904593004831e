//! One part of a result's content, as bytes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// What a part is, apart from the message that it came in.
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    pub(super) mime: String,
    pub(super) name: String,
}

impl Part {
    /// Whether it can be replaced. A link is one already.
    pub(super) fn is_one(item: &Value) -> bool {
        item.is_object() && item["type"] != "resource_link"
    }

    /// The part at `at` of the content. What is not as it should be is kept as it came, as JSON.
    pub(super) fn of(item: &Value, at: usize) -> Self {
        let text = |value: &Value, field: &str| value[field].as_str().map(str::to_owned);
        let decoded = |data: &str| BASE64_STANDARD.decode(data).ok();
        let number = at + 1;
        let found = match item["type"].as_str().unwrap_or_default() {
            kind @ ("image" | "audio") => {
                let bytes = item["data"].as_str().and_then(decoded);
                bytes.zip(text(item, "mimeType")).map(|(bytes, mime)| {
                    let name = format!("{kind}-{number}{}", ending(&mime));
                    Self { bytes, mime, name }
                })
            }
            "text" => text(item, "text").map(|text| Self {
                bytes: text.into_bytes(),
                mime: "text/plain; charset=utf-8".to_owned(),
                name: format!("text-{number}.txt"),
            }),
            "resource" => {
                let resource = &item["resource"];
                let bytes = text(resource, "text").map(String::into_bytes);
                let bytes = bytes.or_else(|| resource["blob"].as_str().and_then(decoded));
                bytes.map(|bytes| Self {
                    bytes,
                    mime: text(resource, "mimeType")
                        .unwrap_or_else(|| cogo::artifact::OCTETS.to_owned()),
                    name: text(resource, "uri")
                        .map(|uri| uri.chars().take(200).collect())
                        .unwrap_or_else(|| format!("resource-{number}")),
                })
            }
            _ => None,
        };
        found.unwrap_or_else(|| Self {
            bytes: super::json_bytes(item),
            mime: "application/json".to_owned(),
            name: format!("content-{number}.json"),
        })
    }
}

fn ending(mime: &str) -> String {
    let kind = mime.split_once('/').map(|(_, kind)| kind).unwrap_or_default();
    let plain =
        !kind.is_empty() && kind.len() <= 8 && kind.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { format!(".{kind}") } else { String::new() }
}
