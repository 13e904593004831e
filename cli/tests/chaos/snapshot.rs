//! What the database says after a run: its messages, its log, and whether the two agree.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::process::Command;

use crate::fleet::Fleet;

/// A row of `agent_messages`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) role: String,
    pub(crate) service: String,
    pub(crate) ordering_key: Option<String>,
    pub(crate) ordering_no: Option<i64>,
    pub(crate) deadline_at: Option<DateTime<Utc>>,
    pub(crate) attempts: i64,
    pub(crate) max_attempts: i64,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) payload: Value,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Value>,
}

/// A row of `bus_events` that is about a message.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    pub(crate) message_id: String,
    pub(crate) event_type: String,
    pub(crate) attempt: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) worker_id: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) payload: Value,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) messages: Vec<Message>,
    /// In the order in which they happened.
    pub(crate) events: Vec<Event>,
    /// Where the log does not fold to the table.
    pub(crate) diff: Vec<String>,
}

impl Message {
    /// The tool that it asks for.
    pub(crate) fn tool(&self) -> &str {
        self.payload["tool"].as_str().unwrap_or_default()
    }

    /// The class of its last error.
    pub(crate) fn class(&self) -> &str {
        self.error.as_ref().and_then(|error| error["class"].as_str()).unwrap_or_default()
    }

    /// Whether nothing more will happen to it.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "done" | "failed" | "cancelled")
    }
}

impl Event {
    /// What happened, without the intent: `succeeded`, `lease_expired`, …
    pub(crate) fn what(&self) -> &str {
        const WHATS: &[&str] = &[
            "succeeded",
            "retry_scheduled",
            "scheduled",
            "dead_lettered",
            "lease_expired",
            "failed",
            "requeued",
            "released",
            "cancelled",
            "dropped",
            "progress",
        ];
        let found = WHATS.iter().find(|what| self.event_type.ends_with(*what));
        found.copied().unwrap_or_default()
    }

    /// The claim that it ends, or the number that takes one away.
    pub(crate) fn claim_no(&self) -> Option<i64> {
        self.payload["claim_no"].as_i64()
    }
}

/// Reads everything.
pub(crate) async fn take(fleet: &Fleet) -> Result<Snapshot> {
    let mut connection = fleet.owner().connect().await?;
    let sql = "select to_jsonb(m)::text from agent_messages m order by created_at, id";
    let messages = rows(&mut connection, sql).await?;
    let sql =
        "select to_jsonb(e)::text from bus_events e where message_id is not null order by seq";
    let events = rows(&mut connection, sql).await?;
    connection.close().await?;
    let diff = verify(fleet).await?;
    Ok(Snapshot { messages, events, diff })
}

/// Where the log does not fold to the table, as an operator would ask.
async fn verify(fleet: &Fleet) -> Result<Vec<String>> {
    let socket = fleet.postgres.socket();
    let dir = socket.parent().context("a socket lies in a directory")?;
    let port = fleet.owner().get_port();
    let url = format!(
        "postgres:///{}?host={}&port={port}&user={}",
        fleet.database,
        dir.display(),
        cogo::db::embedded::USER
    );
    let done = Command::new(env!("CARGO_BIN_EXE_cogo"))
        .args(["replay", "verify", "--json"])
        .env("DATABASE_URL", url)
        .output()
        .await
        .context("starting cogo replay verify")?;
    let said = || String::from_utf8_lossy(&done.stderr).into_owned();
    let found: Value = serde_json::from_slice(&done.stdout).with_context(said)?;
    anyhow::ensure!(found["exact"] == done.status.success(), "{found}: {}", said());
    Ok(if done.status.success() { Vec::new() } else { vec![found.to_string()] })
}

/// What became of the circuit breakers, in order.
pub(crate) async fn circuits(fleet: &Fleet) -> Result<Vec<String>> {
    let mut connection = fleet.owner().connect().await?;
    let sql = "select event_type from bus_events where event_type like 'circuit%' order by seq";
    let found = sqlx::query_scalar(sql).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(found)
}

async fn rows<T: for<'a> Deserialize<'a>>(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<Vec<T>> {
    let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await?;
    rows.iter().map(|row| serde_json::from_str(row).context("reading a row")).collect()
}

/// How many messages are not finished.
pub(crate) async fn unfinished(fleet: &Fleet) -> Result<i64> {
    let mut connection = fleet.owner().connect().await?;
    let sql = "select count(*) from agent_messages where done_at is null";
    let count = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count)
}
