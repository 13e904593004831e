//! All SQL of the bus client: one function a statement, each taking an executor.
//!
//! Transitions are the `bus_*` functions of `migrations/`; what is here calls them and reads tables.

pub(super) mod arrays;
pub(super) mod replay;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::event::{Cursor, Event};
use crate::message::{Message, MessageId, Status, Stored, TraceId};

/// What `bus_enqueue` answers for one message.
#[derive(Debug, Clone, serde::Deserialize, sqlx::FromRow)]
pub(crate) struct Enqueued {
    pub(crate) id: MessageId,
    pub(crate) trace_id: TraceId,
    pub(crate) duplicate: bool,
}

/// `bus_enqueue`, with an array of messages as JSON: for tokens, who are held to their scope there. Others have
/// [`arrays::enqueue`].
#[cfg(feature = "hub")]
pub(crate) async fn enqueue(
    db: impl PgExecutor<'_>,
    messages: &str,
) -> sqlx::Result<Vec<Enqueued>> {
    sqlx::query_as("select id, trace_id, duplicate from bus_enqueue($1::jsonb)")
        .bind(messages)
        .fetch_all(db)
        .await
}

/// The columns of a message, for a row named `m` or a composite `(m)`.
macro_rules! message_columns {
    ($row:literal) => {
        concat!(
            $row,
            ".id, ",
            $row,
            ".tenant, ",
            $row,
            ".role, ",
            $row,
            ".service, ",
            $row,
            ".shard, ",
            $row,
            ".intent, ",
            $row,
            ".payload, ",
            $row,
            ".trace_id, ",
            $row,
            ".parent_id, ",
            $row,
            ".idempotency_key, ",
            $row,
            ".priority, ",
            $row,
            ".status, ",
            $row,
            ".attempts, ",
            $row,
            ".max_attempts, ",
            $row,
            ".claim_no, ",
            $row,
            ".run_at, ",
            $row,
            ".claimed_by, ",
            $row,
            ".claimed_at, ",
            $row,
            ".lease_until, ",
            $row,
            ".result, ",
            $row,
            ".error, ",
            $row,
            ".created_at, ",
            $row,
            ".updated_at, ",
            $row,
            ".done_at, ",
            $row,
            ".deadline_at, ",
            $row,
            ".ordering_key, ",
            $row,
            ".parked_for"
        )
    };
}

// After the macro that they use.
#[cfg(feature = "hub")]
pub(crate) mod activity;
pub(crate) mod backlog;
pub(crate) mod dead_letters;
pub(crate) mod env;
#[cfg(feature = "hub")]
pub(crate) mod lists;
#[cfg(feature = "hub")]
pub(crate) mod log;
pub(crate) mod offers;
#[cfg(feature = "hub")]
pub(crate) mod pending;

/// One row of `bus_step`: the outcome of a settle, or a claimed message.
#[derive(Debug)]
pub(crate) enum StepRow {
    Outcome {
        ord: i64,
        outcome: String,
    },
    Claimed(Box<Message>),
    /// Claimed, and its payload is none that a handler could be given.
    Unreadable(Box<Message>),
}

impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for StepRow {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        Self::at(row, 0)
    }
}

impl StepRow {
    /// Reads one whose columns begin at place `first`: ord, outcome, and those of the message. By their places, as
    /// [`Message::at`] does it.
    fn at(row: &sqlx::postgres::PgRow, first: usize) -> sqlx::Result<Self> {
        use sqlx::Row as _;
        match row.try_get::<Option<i64>, _>(first)? {
            Some(ord) => Ok(Self::Outcome { ord, outcome: row.try_get(first + 1)? }),
            None => {
                let message = Box::new(Message::at(row, first + 2)?);
                // What stands in for an unreadable payload may also be one: look again, which is rare.
                let readable = message.payload.get("unreadable").is_none()
                    || row.try_get::<Value, _>("payload").is_ok();
                Ok(if readable { Self::Claimed(message) } else { Self::Unreadable(message) })
            }
        }
    }
}

#[allow(clippy::too_many_arguments)] // the function's own arguments
pub(crate) async fn step(
    db: impl PgExecutor<'_>,
    settles: &str,
    worker: &str,
    topics: &[String],
    max: i32,
    lease_ms: i32,
    tenant: &str,
) -> sqlx::Result<Vec<StepRow>> {
    const SQL: &str = concat!(
        "select s.ord, s.outcome, ",
        message_columns!("(s.message)"),
        " from bus_step($1::jsonb, $2, $3, $4, $5, $6) s"
    );
    sqlx::query_as(SQL)
        .bind(settles)
        .bind(worker)
        .bind(topics)
        .bind(max)
        .bind(lease_ms)
        .bind(tenant)
        .fetch_all(db)
        .await
}

/// One row of `bus_enqueue_and_claim`: what became of a message of the batch, or a claim, or both.
struct EnqueuedOrClaimed {
    enqueued: Option<(i64, Enqueued)>,
    claimed: Option<StepRow>,
}

impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for EnqueuedOrClaimed {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        use sqlx::Row as _;
        let enqueued = match row.try_get::<Option<i64>, _>(0)? {
            Some(place) => {
                let (id, trace_id) = (row.try_get(1)?, row.try_get(2)?);
                Some((place, Enqueued { id, trace_id, duplicate: row.try_get(3)? }))
            }
            None => None,
        };
        // Four columns of the one, then two and the message of the other.
        let claimed = match row.try_get::<Option<MessageId>, _>(6)? {
            Some(_) => Some(StepRow::at(row, 4)?),
            None => None,
        };
        Ok(Self { enqueued, claimed })
    }
}

/// What became of the messages, in their order, and what was claimed.
pub(crate) async fn enqueue_and_claim(
    db: impl PgExecutor<'_>,
    messages: &str,
    worker: &str,
    topics: &[String],
    max: i32,
    lease_ms: i32,
    tenant: &str,
) -> sqlx::Result<(Vec<Enqueued>, Vec<StepRow>)> {
    const SQL: &str = concat!(
        "select s.ord as place, s.id as new_id, s.trace_id as new_trace_id, s.duplicate,
            null::bigint as ord, null::text as outcome, ",
        message_columns!("(s.message)"),
        " from bus_enqueue_and_claim($1::jsonb, $2, $3, $4, $5, $6) s"
    );
    let rows: Vec<EnqueuedOrClaimed> = sqlx::query_as(SQL)
        .bind(messages)
        .bind(worker)
        .bind(topics)
        .bind(max)
        .bind(lease_ms)
        .bind(tenant)
        .fetch_all(db)
        .await?;
    let (mut enqueued, mut claimed) = (Vec::new(), Vec::new());
    for row in rows {
        enqueued.extend(row.enqueued);
        claimed.extend(row.claimed);
    }
    enqueued.sort_by_key(|(place, _)| *place);
    Ok((enqueued.into_iter().map(|(_, row)| row).collect(), claimed))
}

/// What `bus_extend` answers for one claim.
#[derive(Debug, serde::Deserialize, sqlx::FromRow)]
pub(crate) struct Extended {
    pub(crate) id: MessageId,
    pub(crate) claim_no: i64,
    pub(crate) code: Option<String>,
}

pub(crate) async fn extend(
    db: impl PgExecutor<'_>,
    claims: &Value,
    lease_ms: i32,
) -> sqlx::Result<Vec<Extended>> {
    sqlx::query_as("select id, claim_no, code from bus_extend($1, $2)")
        .bind(claims)
        .bind(lease_ms)
        .fetch_all(db)
        .await
}

/// What `bus_reap` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, sqlx::FromRow)]
pub struct Reaped {
    /// Delayed messages that became due.
    pub promoted: i32,
    /// Claims whose lease ran out.
    pub expired: i32,
    /// Of these, how many had no attempt left.
    pub dead: i32,
    /// When there will be something to do again, in milliseconds, if anything is foreseen.
    pub next_due_ms: Option<i64>,
}

pub(crate) async fn reap(db: impl PgExecutor<'_>, max: i32) -> sqlx::Result<Reaped> {
    sqlx::query_as("select promoted, expired, dead, next_due_ms from bus_reap($1)")
        .bind(max)
        .fetch_one(db)
        .await
}

/// What an operator's call did to one message.
#[derive(Debug, Clone, serde::Deserialize, sqlx::FromRow)]
pub(crate) struct Operated {
    pub(crate) id: MessageId,
    pub(crate) code: Option<String>,
}

pub(crate) async fn cancel(
    db: impl PgExecutor<'_>,
    messages: &Value,
    reason: Option<&str>,
) -> sqlx::Result<Vec<Operated>> {
    sqlx::query_as("select id, code from bus_cancel($1, $2)")
        .bind(messages)
        .bind(reason)
        .fetch_all(db)
        .await
}

pub(crate) async fn message(
    db: impl PgExecutor<'_>,
    id: MessageId,
) -> sqlx::Result<Option<Message>> {
    const SQL: &str =
        concat!("select ", message_columns!("m"), " from agent_messages m where m.id = $1");
    sqlx::query_as(SQL).bind(id).fetch_optional(db).await
}

/// The message that a tenant's idempotency key stands for.
#[cfg(feature = "hub")]
pub(crate) async fn keyed_message(
    db: impl PgExecutor<'_>,
    tenant: &str,
    key: &str,
) -> sqlx::Result<Option<Message>> {
    const SQL: &str = concat!(
        "select ",
        message_columns!("m"),
        " from agent_messages m where m.tenant = $1 and m.idempotency_key = $2"
    );
    sqlx::query_as(SQL).bind(tenant).bind(key).fetch_optional(db).await
}

/// A message, as a waiter needs it.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) message: Message,
    /// Whether its handlers ever reported how far they were.
    pub(crate) reported: bool,
}

impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for Looked {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        use sqlx::Row as _;
        Ok(Self { message: Message::from_row(row)?, reported: row.try_get("reported")? })
    }
}

/// Those of `ids` that are there. Each by its own index entry, whatever the plan was made for.
pub(crate) async fn look_at(
    db: impl PgExecutor<'_>,
    ids: &[MessageId],
) -> sqlx::Result<Vec<Looked>> {
    const SQL: &str = concat!(
        "select ",
        message_columns!("m"),
        ", r.reported from unnest($1::uuid[]) as w (id)
        cross join lateral (
            select * from agent_messages a where a.id = w.id limit 1
        ) m
        cross join lateral (
            select (select true from bus_events e
                where e.message_id = m.id and e.event_type like '%\\_progress' limit 1) is not null as reported
        ) r"
    );
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query_as(SQL).bind(ids).fetch_all(db).await
}

/// Which of `ids` name no message that is still under way.
pub(crate) async fn settled_of(
    db: impl PgExecutor<'_>,
    ids: &[MessageId],
) -> sqlx::Result<Vec<MessageId>> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query_scalar(
        "select w.id from unnest($1::uuid[]) as w (id) where not exists (
            select from agent_messages m
            where m.id = w.id and m.status in ('delayed', 'queued', 'claimed'))",
    )
    .bind(ids)
    .fetch_all(db)
    .await
}

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
fn excerpts() -> String {
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
    pub started_at: chrono::DateTime<chrono::Utc>,
    /// When it was last seen.
    pub last_seen_at: chrono::DateTime<chrono::Utc>,
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

pub(crate) async fn retain(
    db: impl PgExecutor<'_>,
    done_for_s: f64,
    keyed_for_s: f64,
    failed_for_s: Option<f64>,
    max: i32,
) -> sqlx::Result<i32> {
    sqlx::query_scalar(
        "select bus_retain(make_interval(secs => $1), make_interval(secs => $2), $3,
            make_interval(secs => $4))",
    )
    .bind(done_for_s)
    .bind(failed_for_s)
    .bind(max)
    .bind(keyed_for_s)
    .fetch_one(db)
    .await
}

pub(crate) async fn partition(
    db: impl PgExecutor<'_>,
    ahead_weeks: i32,
    keep_s: f64,
) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as("select partition, what from bus_partition($1, make_interval(secs => $2))")
        .bind(ahead_weeks)
        .bind(keep_s)
        .fetch_all(db)
        .await
}

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

pub(crate) async fn notify(
    db: impl PgExecutor<'_>,
    channels: &[&str],
    own: &str,
) -> sqlx::Result<()> {
    sqlx::query("select pg_notify(channel, $2) from unnest($1::text[]) as channel")
        .bind(channels)
        .bind(own)
        .execute(db)
        .await
        .map(drop)
}

/// The newest migration that the database has, or none.
pub(crate) async fn schema_version(db: impl PgExecutor<'_>) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("select bus_schema_version()").fetch_one(db).await
}
