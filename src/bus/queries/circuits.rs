//! The SQL of circuit breakers.

use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};

const CIRCUIT_COLUMNS: &str =
    "tenant, key, state, forced, version, open_for_ms, prober, reason, worker_id,
    evidence, opened_at, updated_at";

pub(crate) async fn circuits(db: impl PgExecutor<'_>, tenant: &str) -> sqlx::Result<Vec<Circuit>> {
    let sql = format!("select {CIRCUIT_COLUMNS} from bus_circuits($1)");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(tenant).fetch_all(db).await
}

pub(crate) async fn circuit_open(
    db: impl PgExecutor<'_>,
    id: &breaker::Id,
    worker: &str,
    reason: &str,
    seen_version: i64,
    policy: &Value,
    evidence: &Value,
) -> sqlx::Result<Circuit> {
    let sql = format!("select {CIRCUIT_COLUMNS} from bus_circuit_open($1, $2, $3, $4, $5, $6, $7)");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&id.tenant)
        .bind(&id.key)
        .bind(worker)
        .bind(reason)
        .bind(seen_version)
        .bind(policy)
        .bind(evidence)
        .fetch_one(db)
        .await
}

/// The answer of `bus_circuit_probe`.
#[derive(sqlx::FromRow)]
struct Probed {
    granted: bool,
    #[sqlx(flatten)]
    circuit: Circuit,
}

pub(crate) async fn circuit_probe(
    db: impl PgExecutor<'_>,
    id: &breaker::Id,
    worker: &str,
    lease_ms: i32,
) -> sqlx::Result<(bool, Circuit)> {
    let probed: Probed =
        sqlx::query_as("select p.granted, (p.circuit).* from bus_circuit_probe($1, $2, $3, $4) p")
            .bind(&id.tenant)
            .bind(&id.key)
            .bind(worker)
            .bind(lease_ms)
            .fetch_one(db)
            .await?;
    Ok((probed.granted, probed.circuit))
}

pub(crate) async fn circuit_report(
    db: impl PgExecutor<'_>,
    id: &breaker::Id,
    worker: &str,
    ok: Option<bool>,
    reason: Option<&str>,
) -> sqlx::Result<Option<Circuit>> {
    let sql = format!("select {CIRCUIT_COLUMNS} from bus_circuit_report($1, $2, $3, $4, $5)");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&id.tenant)
        .bind(&id.key)
        .bind(worker)
        .bind(ok)
        .bind(reason)
        .fetch_optional(db)
        .await
}

pub(crate) async fn circuit_set(
    db: impl PgExecutor<'_>,
    id: &breaker::Id,
    action: CircuitAction,
    actor: Option<&str>,
    reason: Option<&str>,
) -> sqlx::Result<Circuit> {
    let sql = format!("select {CIRCUIT_COLUMNS} from bus_circuit_set($1, $2, $3, $4, $5, $6)");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&id.tenant)
        .bind(&id.key)
        .bind(action.as_str())
        .bind(actor)
        .bind(reason)
        .bind(action.open_ms())
        .fetch_one(db)
        .await
}
