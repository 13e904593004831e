//! The SQL of limits on what waits, and of what is parked.

use serde_json::Value;
use sqlx::postgres::PgExecutor;

pub(crate) async fn set_limits(db: impl PgExecutor<'_>, limits: &Value) -> sqlx::Result<bool> {
    sqlx::query_scalar("select bus_set_limits($1)").bind(limits).fetch_one(db).await
}

/// A limit, and how much waits within it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
pub struct Limit {
    /// `tenant` or `topic`.
    pub kind: String,
    /// The tenant or the topic (`role/service`); `*` stands for each that has no limit of its own.
    pub name: String,
    /// How many messages may wait, if there is a limit.
    pub max_queued: Option<i64>,
    /// A tenant's share of the workers that serve all tenants, in relation to the others'.
    pub weight: f32,
    /// How many wait now; unknown for `*`.
    pub waiting: Option<i64>,
}

pub(crate) async fn limits(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Limit>> {
    sqlx::query_as("select kind, name, max_queued, weight, waiting from bus_limits()")
        .fetch_all(db)
        .await
}

/// How many messages of a role and service are due and may not be claimed, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
pub struct Parked {
    /// The worker role.
    pub role: String,
    /// The service within the role.
    pub service: String,
    /// `ordering`: an earlier message of the same ordering key is under way. `circuit:<key>`: that circuit
    /// breaker is open.
    pub reason: String,
    /// How many.
    pub messages: i64,
    /// How long the oldest has been due.
    pub oldest_ms: Option<i64>,
}

pub(crate) async fn parked(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Parked>> {
    sqlx::query_as(
        "select role, service, reason, messages, oldest_ms from bus_parked() order by 1, 2, 3",
    )
    .fetch_all(db)
    .await
}
