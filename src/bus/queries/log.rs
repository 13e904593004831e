//! The SQL by which people look at the log: pages of it, from its end or from its beginning.
//!
//! A page is read in stretches. A filter that fits few events would else read all of the log for one page; so first the
//! end of a stretch is looked up in the index, and then what fits is read between the two. What was not reached is the
//! next page's.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgExecutor;
use uuid::Uuid;

use super::events::excerpts;
use crate::bus::log::{Filter, Order};
use crate::event::{Cursor, Event};
use crate::message::{MessageId, TraceId};

/// What a reader may see: below the oldest transaction that runs, since what commits late would else come up behind it.
pub(super) const BELOW_HORIZON: &str = "e.xid < pg_snapshot_xmin(pg_current_snapshot())";

/// As much as is told of a tool's name, and of an error's class: whoever may enqueue chooses them, and they may be
/// megabytes. Nobody looks for a longer name.
pub(super) const TOOL_MAX: usize = 255;

/// The tool of the message of the event `e`: from its row, and where that is gone from the event it began with. The
/// payload's key for it is `$key`.
fn tool_of(key: &str) -> String {
    format!(
        "coalesce(
            (select left(m.payload ->> {key}, {TOOL_MAX}) from agent_messages m where m.id = e.message_id),
            (select left(b.payload #>> array['payload', {key}], {TOOL_MAX}) from bus_events b
                where b.message_id = e.message_id and b.event_type like '%\\_scheduled' and b.payload ? 'intent'
                order by b.seq limit 1))"
    )
}

/// `>` and `<`, turned round where the log is read backwards.
fn directions(order: Order) -> (&'static str, &'static str, &'static str) {
    match order {
        Order::Asc => (">", "<=", "asc"),
        Order::Desc => ("<", ">=", "desc"),
    }
}

/// Where the log ends for readers.
pub(crate) const LAST: Cursor = Cursor { xid: i64::MAX as u64, seq: i64::MAX };

/// The `scan`th event after (or before) `from`, if there are so many; none beyond `bound`.
pub(crate) async fn edge(
    db: impl PgExecutor<'_>,
    order: Order,
    from: Cursor,
    bound: Cursor,
    scan: i64,
) -> sqlx::Result<Option<Cursor>> {
    let (past, within, direction) = directions(order);
    let sql = format!(
        "select e.xid::text || '.' || e.seq from bus_events e
            where (e.xid, e.seq) {past} ($1::xid8, $2) and (e.xid, e.seq) {within} ($3::xid8, $4)
                and {BELOW_HORIZON}
            order by e.xid {direction}, e.seq {direction} offset $5 limit 1"
    );
    let found: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(from.xid.to_string())
        .bind(from.seq)
        .bind(bound.xid.to_string())
        .bind(bound.seq)
        .bind(scan - 1)
        .fetch_optional(db)
        .await?;
    Ok(found.and_then(|text| text.parse().ok()))
}

/// What fits `filter` after (or before) `from`, as far as `to` and that included.
pub(crate) async fn stretch(
    db: impl PgExecutor<'_>,
    order: Order,
    (from, to): (Cursor, Cursor),
    filter: &Filter,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let (past, within, direction) = directions(order);
    let sql = format!(
        "select {} from bus_events e
            where (e.xid, e.seq) {past} ($1::xid8, $2) and (e.xid, e.seq) {within} ($3::xid8, $4)
                and {BELOW_HORIZON}
                and ($6::text is null or e.tenant = $6) and ($7::text is null or e.role = $7)
                and ($8::text is null or e.service = $8) and ($9::text is null or e.worker_id = $9)
                and ($10::text[] is null or e.event_type = any ($10))
                and ($11::text is null or starts_with(e.event_type, $11))
                and ($12::timestamptz is null or e.created_at >= $12)
                and ($13::timestamptz is null or e.created_at < $13)
                and ($14::uuid is null or e.message_id = $14) and ($15::uuid is null or e.trace_id = $15)
                and ($16::text is null or {} = $16)
            order by e.xid {direction}, e.seq {direction} limit $5",
        excerpts(),
        tool_of("$17")
    );
    bound(sql, (from, to), filter, max).fetch_all(db).await
}

/// As [`stretch`], of one message or one trace: these are few, and have indexes of their own.
pub(crate) async fn of_one(
    db: impl PgExecutor<'_>,
    order: Order,
    (from, to): (Cursor, Cursor),
    filter: &Filter,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let (past, within, direction) = directions(order);
    // No cast and no alternative around the column, so that its index is used whatever plan is kept.
    let (by, other) = match filter.message_id {
        Some(_) => ("e.message_id = $14", "($15::uuid is null or e.trace_id = $15)"),
        None => ("e.trace_id = $15", "($14::uuid is null or e.message_id = $14)"),
    };
    let sql = format!(
        "select {} from (
                select * from bus_events o where o.{} offset 0
            ) e
            where (e.xid, e.seq) {past} ($1::xid8, $2) and (e.xid, e.seq) {within} ($3::xid8, $4)
                and {BELOW_HORIZON} and {other}
                and ($6::text is null or e.tenant = $6) and ($7::text is null or e.role = $7)
                and ($8::text is null or e.service = $8) and ($9::text is null or e.worker_id = $9)
                and ($10::text[] is null or e.event_type = any ($10))
                and ($11::text is null or starts_with(e.event_type, $11))
                and ($12::timestamptz is null or e.created_at >= $12)
                and ($13::timestamptz is null or e.created_at < $13)
                and ($16::text is null or {} = $16)
            order by e.xid {direction}, e.seq {direction} limit $5",
        excerpts(),
        &by[2..],
        tool_of("$17")
    );
    bound(sql, (from, to), filter, max).fetch_all(db).await
}

fn bound(
    sql: String,
    (from, to): (Cursor, Cursor),
    filter: &Filter,
    max: i64,
) -> sqlx::query::QueryAs<'static, sqlx::Postgres, Event, sqlx::postgres::PgArguments> {
    let Filter { tenant, role, service, worker, types, prefix, since, until, .. } = filter.clone();
    let (tool, key) = filter.tool.clone().unzip();
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(from.xid.to_string())
        .bind(from.seq)
        .bind(to.xid.to_string())
        .bind(to.seq)
        .bind(max)
        .bind(tenant)
        .bind(role)
        .bind(service)
        .bind(worker)
        .bind(types)
        .bind(prefix)
        .bind(since)
        .bind(until)
        .bind(filter.message_id)
        .bind(filter.trace_id)
        .bind(tool)
        .bind(key)
}

/// The first events of one message, oldest first. Payloads are whole until those before add up to `bytes`; of what comes
/// after that only the beginning is told where it is large: there may be a thousand, each of megabytes.
pub(crate) async fn message_events(
    db: impl PgExecutor<'_>,
    id: MessageId,
    max: i64,
    bytes: i64,
) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as(sqlx::AssertSqlSafe(whole_until("message_id")))
        .bind(id)
        .bind(max)
        .bind(bytes)
        .fetch_all(db)
        .await
}

/// As [`message_events`], of one trace.
pub(crate) async fn trace_events(
    db: impl PgExecutor<'_>,
    trace: TraceId,
    max: i64,
    bytes: i64,
) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as(sqlx::AssertSqlSafe(whole_until("trace_id")))
        .bind(trace)
        .bind(max)
        .bind(bytes)
        .fetch_all(db)
        .await
}

/// The `$2` first events whose `column` is `$1`, with whole payloads until these add up to `$3` bytes.
fn whole_until(column: &str) -> String {
    let columns = excerpts().replacen("case when ", "case when coalesce(e.ahead, 0) < $3 or ", 1);
    format!(
        "select {columns} from (
                select f.*, sum(octet_length(f.payload::text)) over (
                    order by f.seq rows between unbounded preceding and 1 preceding) as ahead
                from (select * from bus_events b where b.{column} = $1 order by b.seq limit $2) f
            ) e
            order by e.seq"
    )
}

/// The first transaction that wrote at `at` or later, by halving: transactions' ids grow with time, all but those that
/// took long, and the log has no index of time, which would be one more to write for each event.
pub(crate) async fn seek(db: impl PgExecutor<'_>, at: DateTime<Utc>) -> sqlx::Result<u64> {
    let found: i64 = sqlx::query_scalar(
        "with recursive halved (low, high) as (
            select coalesce((select e.xid from bus_events e order by e.xid, e.seq limit 1)::text::bigint, 0),
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint
            union all
            select case when p.created_at < $1 then m.middle + 1 else h.low end,
                case when p.created_at < $1 then h.high else m.middle end
            from halved h
            cross join lateral (select h.low + (h.high - h.low) / 2 as middle) m
            cross join lateral (select (
                select e.created_at from bus_events e where e.xid >= m.middle::text::xid8
                order by e.xid, e.seq limit 1) as created_at) p
            where h.low < h.high
        )
        select low from halved where low >= high limit 1",
    )
    .bind(at)
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(found).unwrap_or_default())
}

/// The oldest event that there is.
pub(crate) async fn oldest(db: impl PgExecutor<'_>) -> sqlx::Result<Option<Cursor>> {
    let found: Option<String> = sqlx::query_scalar(
        "select e.xid::text || '.' || e.seq from bus_events e order by e.xid, e.seq limit 1",
    )
    .fetch_optional(db)
    .await?;
    Ok(found.and_then(|text| text.parse().ok()))
}

/// The next events after `after`, of large payloads only the beginning.
pub(crate) async fn following(
    db: impl PgExecutor<'_>,
    after: Cursor,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let sql = format!(
        "select {} from bus_events e
            where (e.xid, e.seq) > ($1::xid8, $2) and {BELOW_HORIZON}
            order by e.xid, e.seq limit $3",
        excerpts()
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(after.xid.to_string())
        .bind(after.seq)
        .bind(max)
        .fetch_all(db)
        .await
}

/// The tools of messages, as far as they have one.
pub(crate) async fn tools(
    db: impl PgExecutor<'_>,
    messages: &[MessageId],
    key: &str,
) -> sqlx::Result<Vec<(MessageId, String)>> {
    let ids: Vec<Uuid> = messages.iter().map(|id| id.0).collect();
    let sql = format!(
        "select e.message_id, t.tool from unnest($1::uuid[]) as e (message_id)
            cross join lateral (select {} as tool) t where t.tool is not null",
        tool_of("$2")
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids).bind(key).fetch_all(db).await
}

/// The database's time.
pub(crate) async fn now(db: impl PgExecutor<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("select bus_now()").fetch_one(db).await
}
