//! A message on the bus, and where it stands.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::stored::{Stored, stored, stored_if_any};
use crate::message::{MessageId, TraceId};

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

/// A message as the database holds it: a row of `agent_messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Message {
    /// See [`NewMessage::id`](super::NewMessage::id).
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
    /// Where it waits.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{}/{}", self.role, self.service)
    }
}
