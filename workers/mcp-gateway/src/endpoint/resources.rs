//! `resources/*`: what results lead to, where they were too large for a message (`cogo://artifacts/…`).
//!
//! There are too many to list, and who has a link needs no list.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::rpc::{Answer, INTERNAL, INVALID_PARAMS, RpcError};
use super::{Endpoint, RETRY_AFTER};
use crate::artifacts::{self, Error};

/// Before 2026-07-28 a resource that is not there has a code of its own.
const NOT_FOUND: i32 = -32002;
/// How many artifacts may be read at once, or be on their way to who asked for them: an answer has the whole of it, and
/// whoever takes it slowly has it kept for long.
const READS: usize = 16;
/// How many of these of one principal.
const READS_OWN: usize = 4;
/// How the URI of an artifact looks.
const TEMPLATE: &str = "cogo://artifacts/{tenant}/{sha256}";

impl Endpoint {
    /// One artifact, as text where it is text.
    pub(super) async fn read_resource(&self, asked: &Asked, params: Map<String, Value>) -> Answer {
        let Some(uri) = params.get("uri").and_then(Value::as_str) else {
            return Err(RpcError::invalid("uri", "must be a string"));
        };
        let place = self.0.reads.take(&asked.who, READS, READS_OWN).map_err(|_| {
            let message = "too many artifacts are read at once; try again in a moment, or get them from \
                /mcp/artifacts/{tenant}/{sha256}";
            RpcError::too_many(message, RETRY_AFTER)
        })?;
        let _only_once = asked.kept.set(place);
        let (mime, bytes) =
            artifacts::read(&self.0.artifacts, &asked.who, uri).await.map_err(|error| {
                let code = match (&error, asked.client.modern) {
                    (Error::Missing { .. }, true) => INVALID_PARAMS,
                    (Error::Missing { .. }, false) => NOT_FOUND,
                    _ => INTERNAL,
                };
                RpcError::new(code, error.to_string()).with(json!({ "uri": uri }))
            })?;
        let content = match String::from_utf8(bytes) {
            Ok(text) if is_text(&mime) && !is_costly(&text) => {
                json!({ "uri": uri, "mimeType": mime, "text": text })
            }
            Ok(text) => blob(uri, &mime, text.as_bytes()),
            Err(bytes) => blob(uri, &mime, bytes.as_bytes()),
        };
        Ok(cached(asked, json!({ "contents": [content] })))
    }

    /// No list: artifacts are found by the results that link to them.
    pub(super) fn list_resources(asked: &Asked) -> Value {
        cached(asked, json!({ "resources": [] }))
    }

    /// How links look.
    pub(super) fn list_templates(asked: &Asked) -> Value {
        let template = json!({
            "uriTemplate": TEMPLATE, "name": "artifact", "title": "Artifact",
            "description": "A part of a tool's result that was too large for it; the result has the link.",
        });
        cached(asked, json!({ "resourceTemplates": [template] }))
    }
}

fn cached(asked: &Asked, mut result: Value) -> Value {
    if asked.client.modern {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    result
}

/// Whether text is longer in JSON than in Base64: each control character takes six there.
fn is_costly(text: &str) -> bool {
    let controls = text.bytes().filter(|byte| *byte < b' ' && !b"\t\n\r".contains(byte)).count();
    controls > text.len() / 16
}

fn is_text(mime: &str) -> bool {
    mime.starts_with("text/") || mime.ends_with("json") || mime.ends_with("xml")
}

fn blob(uri: &str, mime: &str, bytes: &[u8]) -> Value {
    json!({ "uri": uri, "mimeType": mime, "blob": BASE64_STANDARD.encode(bytes) })
}
