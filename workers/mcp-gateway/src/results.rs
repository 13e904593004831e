//! Results that are too large for a message: their largest parts become artifacts, and links in their places.
//!
//! What is replaced keeps its place in `content`; `_meta["cogo/artifacts"]` says what was. Content goes first, the
//! largest part of it first of all, and `structuredContent` last: clients check it against the tool's `outputSchema`,
//! so that it is there as it was or not at all. Where links alone would not do, the whole content goes as one artifact.

mod part;

use std::time::Duration;

use cogo::artifact::{ArtifactRef, Error, Store};
use serde_json::{Map, Value, json};

use self::part::Part;

/// The field of `_meta` that says what became artifacts.
pub const META: &str = "cogo/artifacts";
/// A part that is smaller is not worth a link, which has some 500 bytes with what is said of it.
const WORTH: usize = 1024;
/// The most parts that become artifacts one by one.
const MAX_PARTS: usize = 64;
/// The first pause before a store that did not answer is asked again; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the parts of one result go.
pub(crate) struct Keep<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tenant: &'a str,
    /// The largest result that stays as it is, in bytes of JSON.
    pub(crate) max_bytes: usize,
}

impl Keep<'_> {
    /// Makes `result`, a `CallToolResult`, small enough. What is small enough is given back as it is.
    ///
    /// # Errors
    /// When a part could not be kept. Parts that were kept before it stay, and retention takes them.
    pub(crate) async fn fit(&self, mut result: Value) -> Result<Value, Error> {
        let whole = size(&result);
        // What has neither is no result of a tool: an error, or a question.
        let is_one =
            ["content", "structuredContent"].iter().any(|field| result.get(field).is_some());
        if whole <= self.max_bytes || !is_one {
            return Ok(result);
        }
        let mut kept = Kept { left: whole, told: Vec::new() };
        self.content(&mut result, &mut kept).await?;
        if kept.left > self.max_bytes {
            self.structured(&mut result, &mut kept).await?;
        }
        if kept.left > self.max_bytes {
            self.rest(&mut result, &mut kept).await?;
        }
        tell(&mut result, kept.told);
        Ok(result)
    }

    /// The largest parts of the content, one by one.
    async fn content(&self, result: &mut Value, kept: &mut Kept) -> Result<(), Error> {
        let Some(content) = result.get_mut("content").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        let mut sizes: Vec<_> = content.iter().map(size).enumerate().collect();
        sizes.retain(|(at, size)| *size >= WORTH && Part::is_one(&content[*at]));
        sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        for (at, was) in sizes.into_iter().take(MAX_PARTS) {
            if kept.left <= self.max_bytes {
                break;
            }
            let part = Part::of(&content[at], at);
            let kind = content[at]["type"].clone();
            let artifact = self.put(part.bytes, &part.mime).await?;
            let mut link = link(&artifact, &part.name);
            if let Some(annotations) = content[at].get("annotations") {
                link["annotations"] = annotations.clone();
            }
            kept.note(format!("/content/{at}"), kind, &artifact, was, &link);
            content[at] = link;
        }
        Ok(())
    }

    /// The structured content as a whole.
    async fn structured(&self, result: &mut Value, kept: &mut Kept) -> Result<(), Error> {
        let Some(fields) = result.as_object_mut() else { return Ok(()) };
        if fields.get("structuredContent").is_none_or(|content| size(content) < WORTH) {
            return Ok(());
        }
        let Some(content) = fields.shift_remove("structuredContent") else { return Ok(()) };
        let (was, bytes) = (size(&content), json_bytes(&content));
        let artifact = self.put(bytes, "application/json").await?;
        let mut link = link(&artifact, "structuredContent.json");
        link["description"] =
            json!("The structured content of this result, which is too large to stand in it");
        kept.note("/structuredContent".to_owned(), json!("structured"), &artifact, was, &link);
        append(fields, link);
        Ok(())
    }

    /// Many small parts, or what nobody foresaw: the result as a whole, of which only a link stays.
    async fn rest(&self, result: &mut Value, kept: &mut Kept) -> Result<(), Error> {
        let bytes = json_bytes(result);
        let artifact = self.put(bytes, "application/json").await?;
        let mut link = link(&artifact, "result.json");
        link["description"] = json!("This result as a whole, which is too large for a message");
        let failed = result.get("isError").cloned();
        kept.told.clear();
        kept.note(String::new(), json!("result"), &artifact, 0, &link);
        let mut fields = Map::from_iter([("content".to_owned(), json!([link]))]);
        if let Some(failed) = failed {
            fields.insert("isError".to_owned(), failed);
        }
        *result = Value::Object(fields);
        Ok(())
    }

    /// Asks again and again where the store does not answer; whoever waits for all this says how long.
    async fn put(&self, bytes: Vec<u8>, mime: &str) -> Result<ArtifactRef, Error> {
        let mut pause = PAUSE;
        loop {
            match self.store.put(self.tenant, bytes.clone(), mime).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!("Cannot keep an artifact; trying again: {error}");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
    }
}

/// What has become of a result so far.
struct Kept {
    /// How large it is now, with what will be said of it.
    left: usize,
    told: Vec<Value>,
}

impl Kept {
    fn note(&mut self, at: String, kind: Value, artifact: &ArtifactRef, was: usize, link: &Value) {
        let told = json!({
            "replaced": at, "type": kind, "uri": artifact.uri(), "mimeType": artifact.mime,
            "size": artifact.bytes,
        });
        self.left = (self.left + size(link) + size(&told)).saturating_sub(was);
        self.told.push(told);
    }
}

fn tell(result: &mut Value, told: Vec<Value>) {
    let Some(fields) = result.as_object_mut() else { return };
    let meta = fields.entry("_meta").or_insert_with(|| json!({}));
    if !meta.is_object() {
        *meta = json!({});
    }
    meta[META] = Value::Array(told);
}

/// MCP, "Tools", resource links.
fn link(artifact: &ArtifactRef, name: &str) -> Value {
    json!({
        "type": "resource_link", "uri": artifact.uri(), "name": name, "mimeType": artifact.mime,
        "size": artifact.bytes,
    })
}

fn append(fields: &mut Map<String, Value>, item: Value) {
    match fields.get_mut("content").and_then(Value::as_array_mut) {
        Some(content) => content.push(item),
        None => drop(fields.insert("content".to_owned(), json!([item]))),
    }
}

fn json_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// How long a value is when it is written, without writing it anywhere.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests;
