//! An event: something that happened, as the append-only log holds it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::message::{MessageId, Stored, TraceId, stored};

/// A row of `bus_events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Event {
    /// Where the event stands in the log; hand it back to read on from here.
    #[sqlx(try_from = "String")]
    pub cursor: Cursor,
    /// Names the event.
    pub id: Uuid,
    /// `<intent with _>_<what>`, such as `mcp_call_succeeded`.
    pub event_type: String,
    /// The message that it happened to, if any.
    pub message_id: Option<MessageId>,
    /// The work that it belongs to.
    pub trace_id: TraceId,
    /// Whose work it is.
    pub tenant: String,
    /// The service of the message.
    pub service: String,
    /// The role of the message or of the worker.
    pub role: String,
    /// The shard of the message.
    pub shard: i32,
    /// The attempt that it belongs to; 0 before the first.
    pub attempt: i32,
    /// The worker that did it, if one did.
    pub worker_id: Option<String>,
    /// Why, in a word, where there is a reason to give.
    pub reason: Option<String>,
    /// What else is known.
    #[serde(deserialize_with = "stored")]
    #[sqlx(try_from = "Stored")]
    pub payload: Value,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
}

/// A place in the log: everything up to and including it has been read.
///
/// `seq` alone would not do: it becomes visible out of order, and a reader that remembers only the
/// highest one skips what commits late. The transaction's id comes first, and a reader sees only
/// transactions older than every running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// The transaction that wrote the event.
    pub xid: u64,
    /// The event's number within the log.
    pub seq: i64,
}

/// Text that is not of the form `xid.seq`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cursor: {0:?} is not of the form <xid>.<seq>")]
pub struct InvalidCursor(String);

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { xid: 0, seq: 0 };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.xid, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('.')
            .and_then(|(xid, seq)| Some(Self { xid: xid.parse().ok()?, seq: seq.parse().ok()? }))
            .ok_or_else(|| InvalidCursor(text.to_owned()))
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidCursor;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_orders_by_transaction_first() {
        let read = |text: &str| text.parse::<Cursor>().expect("a good cursor");
        assert!(read("2.1") > read("1.9"));
        assert!(read("2.10") > read("2.9"));
        assert_eq!(read("7.3").to_string(), "7.3");
        assert!("7".parse::<Cursor>().is_err());
        assert!("-1.3".parse::<Cursor>().is_err());
    }
}
