//! The SQL of what waits for a worker, and of who could do it.

use sqlx::postgres::PgExecutor;

/// How many messages of a role and service wait for a worker, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
pub struct Pending {
    /// The worker role.
    pub role: String,
    /// The service within the role.
    pub service: String,
    /// How many.
    pub pending: i64,
    /// How long the oldest has been due.
    pub oldest_ms: i64,
}

/// Of `tenant`, or of all for `*`. Who scales workers from zero asks when nobody reaps: so what is due but
/// still called delayed, and what a lost worker holds beyond its lease, waits as well.
///
/// `statement_timestamp()` is what `cogo.now()` gives, which is for the owner's functions alone.
pub(crate) async fn pending(db: impl PgExecutor<'_>, tenant: &str) -> sqlx::Result<Vec<Pending>> {
    // One branch a status, so that each reads its own partial index.
    const SQL: &str = "
        select role, service, sum(n)::bigint as pending,
            greatest(0, extract(epoch from statement_timestamp() - min(oldest)) * 1000)::bigint as oldest_ms
        from (
            select role, service, count(*) as n, min(run_at) as oldest
            from agent_messages
            where status = 'queued' and parked_for is null and ($1 = '*' or tenant = $1)
            group by 1, 2
            union all
            select role, service, count(*), min(run_at)
            from agent_messages
            where status = 'delayed' and parked_for is null and run_at <= statement_timestamp()
                and ($1 = '*' or tenant = $1)
            group by 1, 2
            union all
            select role, service, count(*), min(lease_until)
            from agent_messages
            where status = 'claimed' and lease_until <= statement_timestamp()
                and ($1 = '*' or tenant = $1)
            group by 1, 2
        ) waiting
        group by 1, 2 order by 1, 2";
    sqlx::query_as(SQL).bind(tenant).fetch_all(db).await
}

/// How many workers of each role are online.
pub(crate) async fn online(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select role, count(*) from workers where status = 'online' group by 1 order by 1",
    )
    .fetch_all(db)
    .await
}
