//! The SQL of who works here, and of how much waits.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::message::{Status, Stored};

pub(crate) async fn worker_seen(db: impl PgExecutor<'_>, worker: &Value) -> sqlx::Result<bool> {
    sqlx::query_scalar("select bus_worker_seen($1)").bind(worker).fetch_one(db).await
}

pub(crate) async fn worker_gone(
    db: impl PgExecutor<'_>,
    worker: &str,
    reason: &str,
    tenant: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar("select bus_worker_gone($1, $2, $3)")
        .bind(worker)
        .bind(reason)
        .bind(tenant)
        .fetch_one(db)
        .await
}

/// How many messages of a role and service have a status.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
pub struct Depth {
    /// The worker role.
    pub role: String,
    /// The service within the role.
    pub service: String,
    /// `delayed`, `queued`, `claimed` or `failed`.
    pub status: Status,
    /// How many.
    pub messages: i64,
    /// How long the oldest has been due (queued), held (claimed) or dead (failed), or how long until it is
    /// due (delayed).
    pub oldest_ms: Option<i64>,
}

pub(crate) async fn stats(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Depth>> {
    sqlx::query_as("select * from bus_stats() order by role, service, status").fetch_all(db).await
}

/// A row of `workers`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
pub struct WorkerRow {
    /// Who it is.
    pub id: String,
    /// Whose work it does; `*` for everybody's.
    pub tenant: String,
    /// What it does.
    pub role: String,
    /// Where it runs.
    pub host: String,
    /// Which version it is.
    pub version: String,
    /// What it claims.
    pub topics: Vec<String>,
    /// What else it says of itself, such as the tools that it offers.
    #[sqlx(try_from = "Stored")]
    #[serde(default)]
    pub info: Value,
    /// How many messages it has in hand, as it said last.
    #[serde(default)]
    pub in_flight: i64,
    /// How long it may be silent before it is taken for lost, if it is known.
    #[serde(default)]
    pub lease_ms: Option<i64>,
    /// `online` or `offline`.
    pub status: String,
    /// Since when it has been online.
    pub started_at: DateTime<Utc>,
    /// When it was last seen.
    pub last_seen_at: DateTime<Utc>,
}

pub(crate) async fn workers(db: impl PgExecutor<'_>, max: i64) -> sqlx::Result<Vec<WorkerRow>> {
    sqlx::query_as(
        "select id, tenant, role, host, version, topics, info, in_flight::bigint, lease_ms::bigint, status,
                started_at, last_seen_at
            from workers order by status desc, last_seen_at desc, tenant, id limit $1",
    )
    .bind(max)
    .fetch_all(db)
    .await
}
