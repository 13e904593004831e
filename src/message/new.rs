//! A message before it is on the bus.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::message::name::{DEFAULT_TENANT, INTENT_RULE, InvalidName, check_name, valid_intent};
use crate::message::{MessageId, Topic, TraceId};

/// The longest total deadline of a message, in milliseconds: a year.
pub const DEADLINE_MS_MAX: u64 = 31_536_000_000;

/// A message as it is handed to the bus. Only topic and intent are required.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewMessage {
    /// Chosen by the sender, so that sending again after a lost answer makes no second message.
    pub id: MessageId,
    /// Whose work it is.
    pub tenant: String,
    /// The worker role that handles it.
    pub role: String,
    /// The service within the role.
    pub service: String,
    /// Which of several equal instances of the service; 0 unless sharded.
    pub shard: i32,
    /// What is asked for, such as `mcp.call`.
    pub intent: String,
    /// What the handler gets.
    pub payload: Value,
    /// The work that it belongs to; a new trace when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// The message that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<MessageId>,
    /// The same key in a tenant gives the same message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Higher goes first; from -100 to 100.
    pub priority: i16,
    /// How many claims may be tried in all, the first included; from 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
    /// How long all of it may take, from the enqueue on, in milliseconds; from 1 to [`DEADLINE_MS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Messages of one topic with the same key are handled one at a time, in the order in which they were
    /// enqueued; from 1 to 255 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// How long to wait before the message is due, in milliseconds.
    #[serde(rename = "delay_ms", serialize_with = "as_millis")]
    pub delay: Duration,
}

pub(crate) fn as_millis<S: serde::Serializer>(
    delay: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

impl NewMessage {
    /// A message to `topic` that asks for `intent`, in the default tenant, due at once.
    #[must_use]
    pub fn new(topic: &Topic, intent: impl Into<String>, payload: Value) -> Self {
        Self {
            id: MessageId::new(),
            tenant: DEFAULT_TENANT.to_owned(),
            role: topic.role().to_owned(),
            service: topic.service().to_owned(),
            shard: 0,
            intent: intent.into(),
            payload,
            trace_id: None,
            parent_id: None,
            idempotency_key: None,
            priority: 0,
            max_attempts: None,
            deadline_ms: None,
            ordering_key: None,
            delay: Duration::ZERO,
        }
    }

    /// Gives the message an idempotency key.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Puts the message into an existing trace.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceId) -> Self {
        self.trace_id = Some(trace);
        self
    }

    /// Sets the priority: higher goes first.
    #[must_use]
    pub fn with_priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// Limits the attempts, the first included.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: i32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Makes the message due only after `delay`.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Ends the message in the dead-letter queue if it is not done after `deadline`; rounded up to whole
    /// milliseconds.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        let ms = deadline.as_nanos().div_ceil(1_000_000);
        self.deadline_ms = Some(u64::try_from(ms).unwrap_or(u64::MAX));
        self
    }

    /// Puts the message in line with those of its topic that have the same key.
    #[must_use]
    pub fn with_ordering_key(mut self, key: impl Into<String>) -> Self {
        self.ordering_key = Some(key.into());
        self
    }

    /// Checks the names, before anything is sent; the SQL functions check them again.
    ///
    /// # Errors
    /// Names the first field that does not fit.
    pub fn validate(&self) -> Result<(), InvalidName> {
        check_name("tenant", &self.tenant)?;
        check_name("role", &self.role)?;
        check_name("service", &self.service)?;
        if !valid_intent(&self.intent) {
            return Err(InvalidName {
                field: "intent",
                value: self.intent.clone(),
                rule: INTENT_RULE,
            });
        }
        Ok(())
    }
}
