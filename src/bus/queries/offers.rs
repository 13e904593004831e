//! SQL of what is offered, defined and approved.

use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::bus::offer::{Definition, Offered, Pin};

pub(crate) async fn define(
    db: impl PgExecutor<'_>,
    definitions: &Value,
    tenant: &str,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select * from bus_define($1, $2)")
        .bind(definitions)
        .bind(tenant)
        .fetch_all(db)
        .await
}

pub(crate) async fn definitions(
    db: impl PgExecutor<'_>,
    hashes: &[String],
    tenant: &str,
) -> sqlx::Result<Vec<Definition>> {
    sqlx::query_as("select hash, definition, created_at from bus_definitions($1, $2)")
        .bind(hashes)
        .bind(tenant)
        .fetch_all(db)
        .await
}

pub(crate) async fn offers(
    db: impl PgExecutor<'_>,
    grace_ms: i64,
    tenant: &str,
) -> sqlx::Result<Vec<Offered>> {
    sqlx::query_as(
        "select toolset, tool, hash, online, away, workers, newest, leaves_in_ms from bus_offers($1, $2)",
    )
    .bind(grace_ms)
    .bind(tenant)
    .fetch_all(db)
    .await
}

pub(crate) async fn pins(db: impl PgExecutor<'_>, tenant: &str) -> sqlx::Result<Vec<Pin>> {
    sqlx::query_as("select toolset, tool, hash, pinned_at, pinned_by from bus_pins($1)")
        .bind(tenant)
        .fetch_all(db)
        .await
}

pub(crate) async fn pin(
    db: impl PgExecutor<'_>,
    pins: &Value,
    who: Option<&str>,
    first: bool,
    tenant: &str,
) -> sqlx::Result<i32> {
    sqlx::query_scalar("select bus_pin($1, $2, $3, $4)")
        .bind(pins)
        .bind(who)
        .bind(first)
        .bind(tenant)
        .fetch_one(db)
        .await
}
