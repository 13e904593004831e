//! SQL of RemoteEnv.

use serde_json::Value;
use sqlx::postgres::PgExecutor;
use sqlx::types::Json;

use crate::bus::env::{Names, Sealed};

pub(crate) async fn names(
    db: impl PgExecutor<'_>,
    tenant: &str,
    after: Option<i64>,
) -> sqlx::Result<Names> {
    let answer: Json<Names> = sqlx::query_scalar("select bus_env_names($1, $2)")
        .bind(tenant)
        .bind(after)
        .fetch_one(db)
        .await?;
    Ok(answer.0)
}

pub(crate) async fn read(
    db: impl PgExecutor<'_>,
    names: &[String],
    tenant: &str,
) -> sqlx::Result<Vec<Sealed>> {
    sqlx::query_as("select name, version, ciphertext, key_id from bus_env_read($1, $2)")
        .bind(names)
        .bind(tenant)
        .fetch_all(db)
        .await
}

pub(crate) async fn set(
    db: impl PgExecutor<'_>,
    entries: &Value,
    tenant: &str,
    who: Option<&str>,
    why: Option<&str>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("select bus_env_set($1, $2, $3, $4)")
        .bind(entries)
        .bind(tenant)
        .bind(who)
        .bind(why)
        .fetch_one(db)
        .await
}

pub(crate) async fn unset(
    db: impl PgExecutor<'_>,
    names: &[String],
    tenant: &str,
    who: Option<&str>,
) -> sqlx::Result<i32> {
    sqlx::query_scalar("select bus_env_unset($1, $2, $3)")
        .bind(names)
        .bind(tenant)
        .bind(who)
        .fetch_one(db)
        .await
}
