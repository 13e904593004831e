//! Arguments: checked against the tool's own schema, then read as what they are.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cogo::message::{MessageId, TraceId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::answer::VALUE_BYTES;
use crate::mesh::Refusal;

/// Reads arguments that fit the tool's schema. What a schema cannot say, such as that a time is one, is told here.
pub(super) fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let pointer =
            if path == "." { String::new() } else { format!("/{}", path.replace('.', "/")) };
        let message = format!("{pointer}: {}", error.into_inner());
        Refusal::InvalidArguments { pointer, message }
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetMessage {
    pub(super) id: MessageId,
    #[serde(default = "few")]
    pub(super) events: u32,
    #[serde(default = "bytes")]
    pub(super) max_bytes: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetTrace {
    pub(super) trace_id: TraceId,
    #[serde(default = "some")]
    pub(super) limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListWorkers {
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) topic: Option<String>,
    #[serde(default = "some")]
    pub(super) limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeadLetters {
    pub(super) role: Option<String>,
    pub(super) service: Option<String>,
    pub(super) intent: Option<String>,
    pub(super) class: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) until: Option<DateTime<Utc>>,
    #[serde(default = "few")]
    pub(super) limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CircuitStatus {
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) include_closed: bool,
    #[serde(default = "some")]
    pub(super) limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enqueue {
    pub(super) topic: String,
    pub(super) intent: String,
    pub(super) payload: Value,
    pub(super) idempotency_key: Option<String>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) parent_id: Option<MessageId>,
    #[serde(default)]
    pub(super) priority: i16,
    pub(super) max_attempts: Option<i32>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) ordering_key: Option<String>,
    #[serde(default)]
    pub(super) delay_ms: u64,
}

impl Enqueue {
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requeue {
    pub(super) id: MessageId,
    pub(super) reason: Option<String>,
}

fn few() -> u32 {
    20
}

fn some() -> u32 {
    50
}

fn bytes() -> usize {
    VALUE_BYTES
}
