//! The rows of answers, where they are not simply what the bus gives.

use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::bus::circuit::Circuit;
use crate::bus::error::Error;
use crate::bus::queries::StepRow;
use crate::bus::queries::backlog::Parked;
use crate::bus::queries::workers::Depth;
use crate::error::Code;
use crate::event::{Cursor, Event};
use crate::message::{Message, MessageId, TraceId, stored};

/// Reads an answer's JSON.
pub(super) fn read<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => odd(call, &error.to_string()),
        // Not even JSON, such as a web page that somebody answers in the hub's place.
        _ => Error::NotThere { call, message: format!("the answer is not one of a bus: {error}") },
    })
}

/// The one row of an answer: functions give an array where they return a table, and an object where a row.
pub(super) fn read_row<T: DeserializeOwned>(
    call: &'static str,
    body: &[u8],
) -> Result<Option<T>, Error> {
    if body.trim_ascii_start().starts_with(b"[") {
        let mut rows: Vec<T> = read(call, body)?;
        rows.truncate(1);
        return Ok(rows.pop());
    }
    read(call, body)
}

/// As [`read_row`], where there always is one.
pub(super) fn read_one<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T, Error> {
    read_row(call, body)?.ok_or_else(|| odd(call, "no row"))
}

fn odd(call: &'static str, why: &str) -> Error {
    Error::Refused {
        code: Code::Internal,
        message: format!("{call}: the answer is not one of a bus: {why}"),
    }
}

/// A row of `bus_step`.
#[derive(Deserialize)]
struct Stepped {
    ord: Option<i64>,
    outcome: Option<String>,
    message: Option<Box<RawValue>>,
}

/// Reads the rows of `bus_step`.
pub(super) fn steps(body: &[u8]) -> Result<Vec<StepRow>, Error> {
    let rows: Vec<Stepped> = read("bus_step", body)?;
    rows.into_iter().map(step).collect()
}

fn step(row: Stepped) -> Result<StepRow, Error> {
    if let Some(ord) = row.ord {
        return Ok(StepRow::Outcome { ord, outcome: row.outcome.unwrap_or_default() });
    }
    let text = row.message.ok_or_else(|| odd("bus_step", "a row without a message"))?;
    let message: Box<Message> = read("bus_step", text.get().as_bytes())?;
    // What stands in for an unreadable payload may also be one: look again, which is rare.
    #[derive(Deserialize)]
    struct Payload {
        #[serde(rename = "payload")]
        _payload: Value,
    }
    let readable = message.payload.get("unreadable").is_none()
        || serde_json::from_str::<Payload>(text.get()).is_ok();
    Ok(if readable { StepRow::Claimed(message) } else { StepRow::Unreadable(message) })
}

/// A row of `bus_events`, which has no cursor but what makes one.
#[derive(Deserialize)]
pub(super) struct EventRow {
    #[serde(deserialize_with = "number")]
    xid: u64,
    seq: i64,
    id: Uuid,
    event_type: String,
    message_id: Option<MessageId>,
    trace_id: TraceId,
    tenant: String,
    service: String,
    role: String,
    shard: i32,
    attempt: i32,
    worker_id: Option<String>,
    reason: Option<String>,
    #[serde(deserialize_with = "stored")]
    payload: Value,
    created_at: DateTime<Utc>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            cursor: Cursor { xid: row.xid, seq: row.seq },
            id: row.id,
            event_type: row.event_type,
            message_id: row.message_id,
            trace_id: row.trace_id,
            tenant: row.tenant,
            service: row.service,
            role: row.role,
            shard: row.shard,
            attempt: row.attempt,
            worker_id: row.worker_id,
            reason: row.reason,
            payload: row.payload,
            created_at: row.created_at,
        }
    }
}

/// A number that may be written as text: Postgres gives `xid8` as such.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map_err(D::Error::custom),
        other => other.as_u64().ok_or_else(|| D::Error::custom("is no number")),
    }
}

/// Reads the rows of `bus_stats`, in the order that the bus gives them.
pub(super) fn depths(call: &'static str, body: &[u8]) -> Result<Vec<Depth>, Error> {
    let mut rows: Vec<Depth> = read(call, body)?;
    rows.sort_by(|a, b| {
        let key = |row: &Depth| (row.role.clone(), row.service.clone(), row.status.as_str());
        key(a).cmp(&key(b))
    });
    Ok(rows)
}

/// Reads the rows of `bus_parked`, in the order that the bus gives them.
pub(super) fn parked(call: &'static str, body: &[u8]) -> Result<Vec<Parked>, Error> {
    let mut rows: Vec<Parked> = read(call, body)?;
    rows.sort_by(|a, b| {
        let key = |row: &Parked| (row.role.clone(), row.service.clone(), row.reason.clone());
        key(a).cmp(&key(b))
    });
    Ok(rows)
}

/// The answer of `bus_circuit_probe`.
#[derive(Deserialize)]
struct Probed {
    granted: bool,
    circuit: Circuit,
}

/// Reads the row of `bus_circuit_probe`.
pub(super) fn probed(call: &'static str, body: &[u8]) -> Result<(bool, Circuit), Error> {
    let probed: Probed = read_one(call, body)?;
    Ok((probed.granted, probed.circuit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> String {
        format!(
            r#"[{{"ord":1,"outcome":"settled","message":null}},{{"ord":null,"outcome":null,"message":
            {{"id":"0190a1b2-0000-7000-8000-000000000001","tenant":"default","role":"echo",
            "service":"default","shard":0,"intent":"echo","payload":{payload},
            "trace_id":"0190a1b2-0000-7000-8000-000000000002","parent_id":null,
            "idempotency_key":null,"priority":0,"status":"claimed","attempts":1,"max_attempts":5,
            "claim_no":9007199254740993,"run_at":"2026-11-21T00:00:00+00:00","claimed_by":"w",
            "claimed_at":"2026-11-21T00:00:00.123456+00:00","lease_until":null,"result":null,
            "error":null,"created_at":"2026-11-21T00:00:00+00:00",
            "updated_at":"2026-11-21T00:00:00+00:00","done_at":null,"deadline_at":null,
            "ordering_key":null,"parked_for":null,"of_a_later_release":1}}}}]"#
        )
    }

    #[test]
    fn a_claimed_message_is_read_exactly_and_an_unreadable_payload_is_told_apart() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for (payload, is_readable) in [
            (r#"{"n": 18446744073709551615}"#, true),
            (r#"{"unreadable": "so it says"}"#, true),
            ("null", true),
            ("1e400", false),
            (r#"{"unreadable": 1e400}"#, false),
            (deep.as_str(), false),
        ] {
            let rows = steps(message(payload).as_bytes()).expect(payload);
            assert!(
                matches!(&rows[0], StepRow::Outcome { ord: 1, outcome } if outcome == "settled")
            );
            match &rows[1] {
                StepRow::Claimed(claimed) => {
                    assert!(is_readable, "{payload}");
                    assert_eq!(claimed.claim_no, 9_007_199_254_740_993);
                    assert_eq!(
                        claimed.payload,
                        serde_json::from_str::<Value>(payload).expect("JSON")
                    );
                }
                StepRow::Unreadable(claimed) => {
                    assert!(!is_readable, "{payload}");
                    assert!(claimed.payload["unreadable"].is_string(), "{payload}");
                }
                StepRow::Outcome { .. } => panic!("{payload}"),
            }
        }
    }

    #[test]
    fn what_is_no_answer_of_a_bus_is_said_so() {
        for (body, code) in [
            ("", Code::NotFound),
            ("<html>", Code::NotFound),
            ("{}", Code::Internal),
            (r#"[{"ord":null,"message":null}]"#, Code::Internal),
            (r#"[{"message":{}}]"#, Code::Internal),
        ] {
            let error = steps(body.as_bytes()).expect_err(body);
            assert_eq!(error.code(), code, "{body}");
            assert!(error.to_string().starts_with("bus_step: "), "{error}");
            assert_eq!(error.may_pass(), code == Code::NotFound, "{body}");
        }
    }
}
