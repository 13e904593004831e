//! The SQL of `bus/dead_letter.rs`.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgExecutor, PgRow};
use sqlx::query::QueryAs;
use uuid::Uuid;

use super::Operated;
use crate::bus::dead_letter::{DeadLetter, Filter};
use crate::message::{MessageId, Stored};

/// Why the message `m` ended: the reason of the event that is as old as its end. The time also says in
/// which partition of the log that event is.
macro_rules! reason {
    () => {
        "(select e.reason from bus_events e
            where e.message_id = m.id and e.created_at = m.done_at
                and e.event_type like '%\\_dead\\_lettered'
            order by e.seq desc limit 1)"
    };
}

/// Dead letters that fit a filter and come after a place in the list, the latest first. The status alone, and
/// no parameter, decides that the index of the dead letters is read; the times go into it as bounds whatever
/// plan is kept.
macro_rules! fitting {
    () => {
        concat!(
            " from agent_messages m
            where m.status = 'failed'
                and m.done_at >= coalesce($1, '-infinity'::timestamptz)
                and m.done_at < coalesce($2, 'infinity'::timestamptz)
                and (m.done_at, m.id) < (coalesce($3, 'infinity'::timestamptz),
                    coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
                and ($5::text is null or m.tenant = $5) and ($6::text is null or m.role = $6)
                and ($7::text is null or m.service = $7) and ($8::text is null or m.intent = $8)
                and ($9::uuid is null or m.trace_id = $9)
                and ($10::text is null or m.error ->> 'class' = $10)
                and ($11::text is null or ",
            reason!(),
            " = $11)
            order by m.done_at desc, m.id desc limit $12"
        )
    };
}

/// A place in the list of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Place {
    pub(crate) done_at: DateTime<Utc>,
    pub(crate) id: MessageId,
}

fn bound<'q, T>(
    sql: &'static str,
    filter: &'q Filter,
    after: Option<Place>,
    max: i64,
) -> QueryAs<'q, sqlx::Postgres, T, PgArguments>
where
    T: for<'r> sqlx::FromRow<'r, PgRow>,
{
    sqlx::query_as(sql)
        .bind(filter.since)
        .bind(filter.until)
        .bind(after.map(|place| place.done_at))
        .bind(after.map(|place| place.id))
        .bind(filter.tenant.as_deref())
        .bind(filter.role.as_deref())
        .bind(filter.service.as_deref())
        .bind(filter.intent.as_deref())
        .bind(filter.trace_id)
        .bind(filter.class.as_deref())
        .bind(filter.reason.as_deref())
        .bind(max)
}

/// What a dead letter is, beside the message; for a row named `m`.
macro_rules! letter_columns {
    () => {
        concat!(
            message_columns!("m"),
            ", m.error ->> 'class' as class, ",
            reason!(),
            " as reason, (
                select coalesce(array_agg(e.payload ->> 'artifacts' order by e.seq), '{}')
                from bus_events e
                where e.message_id = m.id and e.created_at >= m.created_at
                    and e.event_type like '%\\_failed'
                    and jsonb_typeof(e.payload -> 'artifacts') = 'string'
            ) as artifacts"
        )
    };
}

pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    max: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    const SQL: &str = concat!("select ", letter_columns!(), fitting!());
    bound(SQL, filter, None, max).fetch_all(db).await
}

/// A dead letter of a list, and how many that has where nothing is left out.
#[cfg(feature = "hub")]
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Listed {
    #[sqlx(flatten)]
    pub(crate) letter: DeadLetter,
    pub(crate) fitting: i64,
}

/// As [`list`], as far as what they carry adds up to `bytes`: each may have megabytes. The first is always there.
#[cfg(feature = "hub")]
pub(crate) async fn list_within(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    max: i64,
    bytes: i64,
) -> sqlx::Result<Vec<Listed>> {
    const SQL: &str = concat!(
        "select * from (
            select f.*, count(*) over () as fitting,
                sum(coalesce(octet_length(f.payload::text), 0) + coalesce(octet_length(f.result::text), 0)
                    + coalesce(octet_length(f.error::text), 0)) over (
                    order by f.done_at desc, f.id desc rows between unbounded preceding and 1 preceding) as ahead
            from (select ",
        letter_columns!(),
        fitting!(),
        ") f
        ) l
        where coalesce(l.ahead, 0) < $13
        order by l.done_at desc, l.id desc"
    );
    bound(SQL, filter, None, max).bind(bytes).fetch_all(db).await
}

pub(crate) async fn places(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    after: Option<Place>,
    max: i64,
) -> sqlx::Result<Vec<Place>> {
    const SQL: &str = concat!("select m.done_at, m.id", fitting!());
    bound(SQL, filter, after, max).fetch_all(db).await
}

/// One message as a dead letter, whether it is one or not.
pub(crate) async fn one(
    db: impl PgExecutor<'_>,
    id: MessageId,
) -> sqlx::Result<Option<DeadLetter>> {
    const SQL: &str =
        concat!("select ", letter_columns!(), " from agent_messages m where m.id = $1");
    sqlx::query_as(SQL).bind(id).fetch_optional(db).await
}

/// What an event says about a message's way into the dead-letter queue.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Trail {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) attempt: i32,
    pub(crate) worker_id: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) class: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) artifacts: Option<String>,
    pub(crate) max_attempts: Option<i32>,
    pub(crate) changed: bool,
    #[sqlx(try_from = "Stored")]
    pub(crate) previous: Option<Value>,
}

/// A message's failures, ends and new beginnings, in order. What they say is cut to what a person reads: an
/// error's detail may be megabytes.
pub(crate) async fn trail(
    db: impl PgExecutor<'_>,
    id: MessageId,
    max: i64,
) -> sqlx::Result<Vec<Trail>> {
    sqlx::query_as(
        "select e.id, e.event_type, e.attempt, e.worker_id, e.reason, e.created_at,
                coalesce(e.payload #>> '{error,class}', e.payload ->> 'class') as class,
                left(e.payload #>> '{error,message}', 10000) as message,
                case when e.payload ->> 'duration_ms' ~ '^[0-9]{1,15}$'
                    then (e.payload ->> 'duration_ms')::bigint end as duration_ms,
                case when jsonb_typeof(e.payload -> 'artifacts') = 'string'
                    then e.payload ->> 'artifacts' end as artifacts,
                case when e.event_type like '%\\_requeued'
                    then (e.payload ->> 'max_attempts')::integer end as max_attempts,
                e.payload ? 'payload' as changed, e.payload -> 'previous' as previous
            from bus_events e
            where e.message_id = $1
                and e.event_type ~ '_(failed|lease_expired|dead_lettered|cancelled|requeued)$'
            order by e.seq limit $2",
    )
    .bind(id)
    .bind(max)
    .fetch_all(db)
    .await
}

/// `messages` as `bus_requeue` takes them.
pub(crate) async fn requeue(
    db: impl PgExecutor<'_>,
    messages: &Value,
    reason: Option<&str>,
) -> sqlx::Result<Vec<Operated>> {
    sqlx::query_as("select id, code from bus_requeue($1, $2)")
        .bind(messages)
        .bind(reason)
        .fetch_all(db)
        .await
}

pub(crate) async fn drop_dead(
    db: impl PgExecutor<'_>,
    messages: &Value,
    reason: Option<&str>,
) -> sqlx::Result<Vec<Operated>> {
    sqlx::query_as("select id, code from bus_drop($1, $2)")
        .bind(messages)
        .bind(reason)
        .fetch_all(db)
        .await
}
