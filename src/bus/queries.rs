//! All SQL of the bus client: one function a statement, each taking an executor.
//!
//! Transitions are the `bus_*` functions of `migrations/`; what is here calls them and reads tables.

// Before those that use its macro.
#[macro_use]
mod columns;

#[cfg(feature = "hub")]
pub(crate) mod activity;
pub(super) mod arrays;
pub(crate) mod backlog;
pub(crate) mod circuits;
pub(crate) mod dead_letters;
pub(crate) mod env;
pub(crate) mod events;
#[cfg(feature = "hub")]
pub(crate) mod lists;
#[cfg(feature = "hub")]
pub(crate) mod log;
pub(crate) mod offers;
#[cfg(feature = "hub")]
pub(crate) mod pending;
pub(super) mod replay;
pub(crate) mod workers;

use serde_json::Value;
use sqlx::postgres::PgExecutor;

use crate::message::{Message, MessageId, TraceId};

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
