//! A message: a unit of work, and the names by which it is addressed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef, Postgres};
use sqlx::types::Json;
use sqlx::{Column as _, Row as _};
use uuid::Uuid;

/// The longest total deadline of a message, in milliseconds: a year.
pub const DEADLINE_MS_MAX: u64 = 31_536_000_000;

/// The tenant of a message that names none.
pub const DEFAULT_TENANT: &str = "default";
/// What a worker claims for that serves all tenants. No message has this tenant.
pub const ALL_TENANTS: &str = "*";

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id of version 7 (RFC 9562, section 5.7): ids made later sort later.
            #[must_use]
            #[allow(clippy::new_without_default)] // a default id would be a surprise
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// Names one message for ever, across attempts and requeues.
    MessageId
}

uuid_id! {
    /// Ties together all messages and events of one piece of work.
    TraceId
}

/// Where a message waits: the worker role that handles it, and the service within that role
/// (for the MCP gateway the toolset). Written `role/service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    role: String,
    service: String,
}

/// A name that does not fit [`valid_name`] or [`valid_intent`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {rule}")]
pub struct InvalidName {
    /// The field that holds the name.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What it must look like.
    pub rule: &'static str,
}

/// The rule that tenants, roles and services follow, in words.
pub const NAME_RULE: &str =
    "1 to 64 letters, digits, `_` or `-`, beginning with a letter or a digit";
/// The rule that intents follow, in words.
pub const INTENT_RULE: &str = "at most 64 characters: words of a-z, 0-9 and `_`, each beginning \
                               with a letter, joined by dots";

/// Whether `name` can name a tenant, a role or a service. The SQL functions check the same rule.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let head = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    head && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether `intent` can say what a message asks for, such as `mcp.call`.
#[must_use]
pub fn valid_intent(intent: &str) -> bool {
    intent.len() <= 64
        && intent.split('.').all(|word| {
            word.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
}

fn check_name(field: &'static str, value: &str) -> Result<(), InvalidName> {
    if valid_name(value) {
        Ok(())
    } else {
        Err(InvalidName { field, value: value.to_owned(), rule: NAME_RULE })
    }
}

impl Topic {
    /// The topic of a service within a worker role.
    ///
    /// # Errors
    /// When either does not fit [`NAME_RULE`].
    pub fn new(role: impl Into<String>, service: impl Into<String>) -> Result<Self, InvalidName> {
        let (role, service) = (role.into(), service.into());
        check_name("role", &role)?;
        check_name("service", &service)?;
        Ok(Self { role, service })
    }

    /// The worker role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The service within the role.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.service)
    }
}

impl FromStr for Topic {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (role, service) = text.split_once('/').ok_or_else(|| InvalidName {
            field: "topic",
            value: text.to_owned(),
            rule: "of the form role/service",
        })?;
        Self::new(role, service)
    }
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Status {
    /// Not yet due: set by an enqueue, a retry or a release with a delay; a restart changes nothing,
    /// whoever reaps next promotes it.
    Delayed,
    /// Waiting for a worker. Survives any restart.
    Queued,
    /// Held by a worker until `lease_until`; when that passes, whoever reaps puts it back.
    Claimed,
    /// Finished with a result.
    Done,
    /// The dead-letter queue: no attempt is left, or none would help. Stays until requeued or dropped.
    Failed,
    /// Withdrawn by an operator or by its sender.
    Cancelled,
}

impl Status {
    /// The word that the database and JSON use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens to the message by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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
            role: topic.role.clone(),
            service: topic.service.clone(),
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

/// A `jsonb` column that is read whatever is in it. Postgres stores what serde_json refuses to read, such as
/// 1e400 or a few hundred arrays within each other; one such value must not keep the rest of the row, nor the
/// other rows of an answer, from whoever asked. It becomes `{"unreadable": <why>}`.
#[derive(Debug)]
pub(crate) struct Stored(Option<Value>);

impl sqlx::Type<Postgres> for Stored {
    fn type_info() -> PgTypeInfo {
        <Value as sqlx::Type<Postgres>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <Value as sqlx::Type<Postgres>>::compatible(ty)
    }
}

impl<'r> sqlx::Decode<'r, Postgres> for Stored {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = Option::<Json<Box<RawValue>>>::decode(value)?;
        Ok(Self::read(text.as_ref().map(|text| text.get())))
    }
}

impl Stored {
    fn read(text: Option<&str>) -> Self {
        Self(text.map(|text| {
            serde_json::from_str(text).unwrap_or_else(|why| json!({"unreadable": why.to_string()}))
        }))
    }
}

impl From<Stored> for Option<Value> {
    fn from(stored: Stored) -> Self {
        stored.0
    }
}

impl From<Stored> for Value {
    fn from(stored: Stored) -> Self {
        stored.0.unwrap_or_default()
    }
}

/// Text that is read whatever is in it, as [`Stored`] does it.
fn read_stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stored, D::Error> {
    let text = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(Stored::read(text.as_deref().map(RawValue::get)))
}

pub(crate) fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    read_stored(deserializer).map(Value::from)
}

fn stored_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    read_stored(deserializer).map(Option::from)
}

/// A message as the database holds it: a row of `agent_messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Message {
    /// See [`NewMessage::id`].
    pub id: MessageId,
    /// Whose work it is.
    pub tenant: String,
    /// The worker role that handles it.
    pub role: String,
    /// The service within the role.
    pub service: String,
    /// Which of several equal instances of the service.
    pub shard: i32,
    /// What is asked for.
    pub intent: String,
    /// What the handler gets.
    #[serde(deserialize_with = "stored")]
    #[sqlx(try_from = "Stored")]
    pub payload: Value,
    /// The work that it belongs to.
    pub trace_id: TraceId,
    /// The message that caused this one.
    pub parent_id: Option<MessageId>,
    /// The sender's key, unique in the tenant.
    pub idempotency_key: Option<String>,
    /// Higher goes first.
    pub priority: i16,
    /// Where it stands.
    pub status: Status,
    /// Claims that were tried, the one in flight included.
    pub attempts: i32,
    /// How many may be tried.
    pub max_attempts: i32,
    /// The fencing token: grows with every claim and whenever a claim is taken away.
    pub claim_no: i64,
    /// When it was or becomes due.
    pub run_at: DateTime<Utc>,
    /// The worker that holds it.
    pub claimed_by: Option<String>,
    /// Since when.
    pub claimed_at: Option<DateTime<Utc>>,
    /// Until when, unless extended.
    pub lease_until: Option<DateTime<Utc>>,
    /// What the handler gave, when done.
    #[serde(default, deserialize_with = "stored_if_any")]
    #[sqlx(try_from = "Stored")]
    pub result: Option<Value>,
    /// The last failure, if any.
    #[serde(default, deserialize_with = "stored_if_any")]
    #[sqlx(try_from = "Stored")]
    pub error: Option<Value>,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When its last event happened.
    pub updated_at: DateTime<Utc>,
    /// When it was finished.
    pub done_at: Option<DateTime<Utc>>,
    /// The end of its total deadline, if it has one.
    pub deadline_at: Option<DateTime<Utc>>,
    /// What it is in line with, if anything.
    pub ordering_key: Option<String>,
    /// Why it is not claimed although it is due: `ordering`, behind an earlier message of its key, or
    /// `circuit:<key>`, while that breaker is open.
    pub parked_for: Option<String>,
}

impl Message {
    /// Reads a message whose columns begin at place `first` of a row, in the order of the fields. To look each of them
    /// up by its name takes longer than to read it, and a worker reads thousands.
    pub(crate) fn at(row: &PgRow, first: usize) -> sqlx::Result<Self> {
        debug_assert_eq!(row.column(first).name(), "id");
        debug_assert_eq!(row.column(first + 26).name(), "parked_for");
        let stored = |place| row.try_get::<Stored, _>(first + place);
        Ok(Self {
            id: row.try_get(first)?,
            tenant: row.try_get(first + 1)?,
            role: row.try_get(first + 2)?,
            service: row.try_get(first + 3)?,
            shard: row.try_get(first + 4)?,
            intent: row.try_get(first + 5)?,
            payload: stored(6)?.into(),
            trace_id: row.try_get(first + 7)?,
            parent_id: row.try_get(first + 8)?,
            idempotency_key: row.try_get(first + 9)?,
            priority: row.try_get(first + 10)?,
            status: row.try_get(first + 11)?,
            attempts: row.try_get(first + 12)?,
            max_attempts: row.try_get(first + 13)?,
            claim_no: row.try_get(first + 14)?,
            run_at: row.try_get(first + 15)?,
            claimed_by: row.try_get(first + 16)?,
            claimed_at: row.try_get(first + 17)?,
            lease_until: row.try_get(first + 18)?,
            result: stored(19)?.into(),
            error: stored(20)?.into(),
            created_at: row.try_get(first + 21)?,
            updated_at: row.try_get(first + 22)?,
            done_at: row.try_get(first + 23)?,
            deadline_at: row.try_get(first + 24)?,
            ordering_key: row.try_get(first + 25)?,
            parked_for: row.try_get(first + 26)?,
        })
    }

    /// Where it waits.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{}/{}", self.role, self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["demo", "Figma-2", "a_b", "0"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "a b", "a/b", "a.b", "ü", &"a".repeat(65)] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn intents_follow_the_rule() {
        for good in ["mcp.call", "echo", "a.b_2.c"] {
            assert!(valid_intent(good), "{good}");
        }
        for bad in ["", ".", "mcp.", "Mcp.call", "mcp..call", "mcp.2"] {
            assert!(!valid_intent(bad), "{bad}");
        }
    }

    #[test]
    fn a_topic_is_read_as_it_is_written() {
        let topic: Topic = "mcp-gateway/demo".parse().expect("a good topic");
        assert_eq!((topic.role(), topic.service()), ("mcp-gateway", "demo"));
        assert_eq!(topic.to_string(), "mcp-gateway/demo");
        assert!("demo".parse::<Topic>().is_err());
        assert!("a/b/c".parse::<Topic>().is_err());
    }
}
