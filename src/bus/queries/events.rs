//! The SQL by which programs read and write the log: of a message, of a trace, and of all of it, as it grows.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::event::{Cursor, Event};
use crate::message::{MessageId, TraceId};

const EVENT_COLUMNS: &str =
    "e.xid::text || '.' || e.seq as cursor, e.id, e.event_type, e.message_id,
    e.trace_id, e.tenant, e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload,
    e.created_at";

/// The events of one message, in the order in which they happened to it, without waiting for foreign
/// transactions: a message's own events are ordered by its row's locks.
pub(crate) async fn message_events(
    db: impl PgExecutor<'_>,
    id: MessageId,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {EVENT_COLUMNS} from bus_events e where e.message_id = $1 order by e.seq limit $2"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(max).fetch_all(db).await
}

/// The events of one message's progress that come after the one numbered `after`.
pub(crate) async fn progress(
    db: impl PgExecutor<'_>,
    id: MessageId,
    after: i64,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {EVENT_COLUMNS} from bus_events e
            where e.message_id = $1 and e.seq > $2 and e.event_type like '%\\_progress'
            order by e.seq limit $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(after).bind(max).fetch_all(db).await
}

/// How much is read of the payload of an event among many where that is large, in characters.
#[cfg(feature = "hub")]
const EXCERPT: usize = 1200;

/// [`EVENT_COLUMNS`], for those who read many: an event may hold a whole message, of megabytes.
#[cfg(feature = "hub")]
pub(super) fn excerpts() -> String {
    let cut = format!(
        "case when octet_length(e.payload::text) <= 16384 then e.payload else jsonb_build_object('truncated', true,
            'bytes', octet_length(e.payload::text), 'beginning', left(e.payload::text, {EXCERPT})) end as payload"
    );
    EVENT_COLUMNS.replace("e.payload", &cut)
}

/// As [`message_events`], of large payloads only the beginning.
#[cfg(feature = "hub")]
pub(crate) async fn message_excerpts(
    db: impl PgExecutor<'_>,
    id: MessageId,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {} from bus_events e where e.message_id = $1 order by e.seq limit $2",
        excerpts()
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(max).fetch_all(db).await
}

/// As [`trace_events`], of large payloads only the beginning.
#[cfg(feature = "hub")]
pub(crate) async fn trace_excerpts(
    db: impl PgExecutor<'_>,
    trace: TraceId,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {} from bus_events e where e.trace_id = $1 order by e.seq limit $2",
        excerpts()
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(trace).bind(max).fetch_all(db).await
}

/// What was said to one message while it ran.
pub(crate) async fn inputs(
    db: impl PgExecutor<'_>,
    id: MessageId,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {EVENT_COLUMNS} from bus_events e
            where e.message_id = $1 and e.event_type like '%\\_input'
            order by e.seq limit $2"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(max).fetch_all(db).await
}

/// The events of one trace, by time and number.
pub(crate) async fn trace_events(
    db: impl PgExecutor<'_>,
    trace: TraceId,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {EVENT_COLUMNS} from bus_events e where e.trace_id = $1 order by e.seq limit $2"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(trace).bind(max).fetch_all(db).await
}

pub(crate) async fn read_events(
    db: impl PgExecutor<'_>,
    after: Cursor,
    max: i32,
    filter: &Value,
) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as("select * from bus_read_events($1, $2, $3)")
        .bind(after.to_string())
        .bind(max)
        .bind(filter)
        .fetch_all(db)
        .await
}

/// What the feed needs of an event; a payload may be megabytes, and nobody who waits looks at it.
#[derive(Debug, Clone, serde::Deserialize, sqlx::FromRow)]
#[cfg_attr(not(feature = "hub"), allow(dead_code))] // only a hub tells others what happened
pub(crate) struct Head {
    #[sqlx(try_from = "String")]
    pub(crate) cursor: Cursor,
    pub(crate) event_type: String,
    pub(crate) message_id: Option<MessageId>,
    pub(crate) tenant: String,
    pub(crate) role: String,
    pub(crate) service: String,
    pub(crate) attempt: i32,
    pub(crate) worker_id: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    /// The messages that retention let go, at most a thousand.
    pub(crate) purged: Option<sqlx::types::Json<Vec<uuid::Uuid>>>,
}

pub(crate) async fn read_heads(
    db: impl PgExecutor<'_>,
    after: Cursor,
    max: i32,
) -> sqlx::Result<Vec<Head>> {
    sqlx::query_as(
        "select cursor, event_type, message_id, tenant, role, service, attempt, worker_id, created_at,
            case when event_type = 'messages_purged' then payload -> 'ids' end as purged
        from bus_read_events($1, $2)",
    )
    .bind(after.to_string())
    .bind(max)
    .fetch_all(db)
    .await
}

pub(crate) async fn log_end(db: impl PgExecutor<'_>) -> sqlx::Result<String> {
    sqlx::query_scalar("select bus_log_end()").fetch_one(db).await
}

pub(crate) async fn append_events(db: impl PgExecutor<'_>, events: &Value) -> sqlx::Result<i32> {
    sqlx::query_scalar("select bus_append_event($1)").bind(events).fetch_one(db).await
}
