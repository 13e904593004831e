//! The SQL of `bus/replay.rs`. All of it but [`trace`] runs within one transaction, so on one connection.

use serde_json::Value;
use sqlx::postgres::{PgConnection, PgExecutor};
use uuid::Uuid;

/// What the first statement of a comparison is: `lock` takes no snapshot, so whatever changes the tables
/// themselves (a dropped partition, a truncated table) comes before the snapshot or waits for its end.
pub(crate) async fn hold_tables(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("lock table bus_events, agent_messages in access share mode")
        .execute(db)
        .await
        .map(drop)
}

/// Keeps writers of `agent_messages` out until the transaction ends.
pub(crate) async fn lock(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select bus_replay_lock()").execute(db).await.map(drop)
}

/// About how many events the log holds, as far as the server has counted them.
pub(crate) async fn events_about(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'bus_events'::regclass",
    )
    .fetch_one(db)
    .await
}

pub(crate) async fn open_purged(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("declare cogo_purged no scroll cursor for select id, seq from bus_replay_purged()")
        .execute(db)
        .await
        .map(drop)
}

/// The next of what retention has purged, in the order of ids; fewer than `max` at the end.
pub(crate) async fn fetch_purged(
    db: &mut PgConnection,
    max: usize,
) -> sqlx::Result<Vec<(Uuid, i64)>> {
    let sql = format!("fetch {max} from cogo_purged");
    // Not prepared: it names a cursor, which a kept statement would outlive.
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).persistent(false).fetch_all(db).await
}

/// The arguments of a range.
#[derive(Debug)]
pub(crate) struct Range<'a> {
    /// Where it begins.
    pub(crate) first: Uuid,
    /// What of it, and perhaps more, retention has purged, and in which event.
    pub(crate) purged: &'a [Uuid],
    pub(crate) purged_seqs: &'a [i64],
    /// Whether `purged` is all to the end.
    pub(crate) all_purged: bool,
    /// About how many events it holds.
    pub(crate) size: i32,
}

/// What `bus_replay_check` answers.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Checked {
    pub(crate) last: Uuid,
    pub(crate) events: i64,
    pub(crate) same: i64,
    pub(crate) unjudged: i64,
    pub(crate) missing: i64,
    pub(crate) extra: i64,
    pub(crate) unknown: i64,
    pub(crate) differing: i64,
    pub(crate) shown: Value,
}

pub(crate) async fn check(
    db: &mut PgConnection,
    range: &Range<'_>,
    show: i32,
) -> sqlx::Result<Checked> {
    sqlx::query_as("select * from bus_replay_check($1, $2, $3, $4, $5, $6)")
        .bind(range.first)
        .bind(range.purged)
        .bind(range.purged_seqs)
        .bind(range.all_purged)
        .bind(range.size)
        .bind(show)
        .fetch_one(db)
        .await
}

/// What `bus_replay_rebuild` answers.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Rebuilt {
    pub(crate) last: Uuid,
    pub(crate) events: i64,
    pub(crate) same: i64,
    pub(crate) unjudged: i64,
    pub(crate) inserted: i64,
    pub(crate) removed: i64,
    pub(crate) unknown: i64,
    pub(crate) replaced: i64,
}

pub(crate) async fn rebuild(db: &mut PgConnection, range: &Range<'_>) -> sqlx::Result<Rebuilt> {
    sqlx::query_as("select * from bus_replay_rebuild($1, $2, $3, $4, $5)")
        .bind(range.first)
        .bind(range.purged)
        .bind(range.purged_seqs)
        .bind(range.all_purged)
        .bind(range.size)
        .fetch_one(db)
        .await
}

/// The new messages and which they repeat.
pub(crate) async fn trace(
    db: impl PgExecutor<'_>,
    trace: Uuid,
    new_trace: Uuid,
    everything: bool,
) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    sqlx::query_as("select id, replays from bus_replay_trace($1, $2, $3)")
        .bind(trace)
        .bind(new_trace)
        .bind(everything)
        .fetch_all(db)
        .await
}
