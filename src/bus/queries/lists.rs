//! The SQL of lists for people: messages, traces and workers.
//!
//! Messages and traces are found by the events that they began with, newest first. An index of `agent_messages` by
//! time would be one more to write at each enqueue, claim and settle; the log is in that order as it is. So a list goes
//! as far back as the log does.

use sqlx::postgres::PgExecutor;

use super::log::{BELOW_HORIZON, TOOL_MAX};
use super::workers::WorkerRow;
use crate::bus::lists::{Listed, MessageFilter, TraceFilter, Traced, WorkerPlace};
use crate::event::Cursor;

/// The events `s` that messages began with, newest first, from before `$1.$2` down to `$3.$4`.
fn beginnings() -> String {
    let below_horizon = BELOW_HORIZON.replace("e.", "s.");
    format!(
        "(s.xid, s.seq) < ($1::xid8, $2) and (s.xid, s.seq) >= ($3::xid8, $4) and {below_horizon}
            and s.event_type like '%\\_scheduled' and s.payload ? 'intent'"
    )
}

pub(crate) async fn messages(
    db: impl PgExecutor<'_>,
    (from, to): (Cursor, Cursor),
    filter: &MessageFilter,
    max: i64,
) -> sqlx::Result<Vec<Listed>> {
    // An id may come back once its message is gone; then the older event is not this message's.
    let sql = format!(
        "select s.xid::text || '.' || s.seq as cursor, m.id, m.tenant, m.role, m.service, m.shard, m.intent,
                m.trace_id, m.parent_id, m.idempotency_key, m.priority, m.status, m.attempts, m.max_attempts,
                m.claim_no, m.run_at, m.claimed_by, m.claimed_at, m.lease_until, m.created_at, m.updated_at,
                m.done_at, m.deadline_at, m.ordering_key, m.parked_for, left(m.payload ->> $10, {TOOL_MAX}) as tool,
                case when octet_length(m.error::text) <= 16384 then m.error
                    else jsonb_build_object('class', left(m.error ->> 'class', {TOOL_MAX}),
                        'message', left(m.error ->> 'message', 1000), 'truncated', true) end as error
            from bus_events s
            cross join lateral (select * from agent_messages a where a.id = s.message_id limit 1) m
            where {} and m.created_at = s.created_at
                and ($6::text is null or s.tenant = $6) and ($7::text is null or s.role = $7)
                and ($8::text is null or s.service = $8) and ($9::text is null or m.status = $9)
                and ($11::text is null or m.payload ->> $10 = $11)
            order by s.xid desc, s.seq desc limit $5",
        beginnings()
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(from.xid.to_string())
        .bind(from.seq)
        .bind(to.xid.to_string())
        .bind(to.seq)
        .bind(max)
        .bind(filter.tenant.clone())
        .bind(filter.role.clone())
        .bind(filter.service.clone())
        .bind(filter.status.map(|status| status.as_str()))
        .bind(filter.tool_key)
        .bind(filter.tool.clone())
        .fetch_all(db)
        .await
}

/// How many events of one trace are looked at; one with many retries has a few hundred.
const TRACE_EVENTS: i64 = 1000;

/// A trace stands where the newest of its messages begins. What it is, its events say: a message is what its last
/// beginning or end made of it, and the trace is failed if one of its messages is.
pub(crate) async fn traces(
    db: impl PgExecutor<'_>,
    (from, to): (Cursor, Cursor),
    filter: &TraceFilter,
    max: i64,
) -> sqlx::Result<Vec<Traced>> {
    let sql = format!(
        "select s.xid::text || '.' || s.seq as cursor, s.trace_id, s.tenant, s.message_id, t.first_at, t.last_at,
                t.events, t.messages, t.attempts, t.status,
                case when s.payload ->> 'intent' = $9 then s.service end as toolset,
                case when s.payload ->> 'intent' = $9
                    then left(s.payload #>> array['payload', $10], {TOOL_MAX}) end as tool,
                case when t.status <> 'done' then t.class end as class,
                case when t.status <> 'done' then t.message end as message
            from bus_events s
            cross join lateral (
                select min(k.first_at) as first_at, max(k.last_at) as last_at, sum(k.events)::bigint as events,
                    count(k.message_id) as messages, sum(k.attempts)::bigint as attempts,
                    case when bool_or(k.last = 'dead_lettered') then 'failed'
                        when bool_or(k.last in ('scheduled', 'requeued')) then 'waiting' else 'done' end as status,
                    (array_agg(left(k.error ->> 'class', {TOOL_MAX}) order by k.erred desc nulls last))[1] as class,
                    (array_agg(left(k.error ->> 'message', 1000) order by k.erred desc nulls last))[1] as message
                from (
                    select e.message_id, min(e.created_at) as first_at, max(e.created_at) as last_at,
                        count(*) as events,
                        count(*) filter (where w.what in ('succeeded', 'failed', 'lease_expired')) as attempts,
                        (array_agg(w.what order by e.seq desc)
                            filter (where w.what in ('scheduled', 'succeeded', 'dead_lettered', 'cancelled',
                                'requeued')))[1] as last,
                        max(e.seq) filter (where e.payload ? 'error') as erred,
                        (array_agg(e.payload -> 'error' order by e.seq desc)
                            filter (where e.payload ? 'error'))[1] as error
                    from (
                        select * from bus_events a where a.trace_id = s.trace_id order by a.seq limit {TRACE_EVENTS}
                    ) e
                    cross join lateral (
                        select case when e.event_type like '%\\_retry\\_scheduled' and not e.payload ? 'intent'
                            then null
                            else substring(e.event_type from
                                '_(scheduled|succeeded|failed|lease_expired|dead_lettered|cancelled|requeued)$')
                            end as what
                    ) w
                    group by e.message_id
                ) k
            ) t
            where {} and ($6::text is null or s.tenant = $6)
                and ($7::text is null or s.payload ->> 'intent' = $9 and s.service = $7)
                and ($11::text is null
                    or s.payload ->> 'intent' = $9 and s.payload #>> array['payload', $10] = $11)
                and ($12::timestamptz is null or s.created_at >= $12)
                and not exists (
                    select from bus_events n
                    where n.trace_id = s.trace_id and (n.xid, n.seq) > (s.xid, s.seq)
                        and n.event_type like '%\\_scheduled' and n.payload ? 'intent' and {})
                and ($8::text is null or t.status = $8)
            order by s.xid desc, s.seq desc limit $5",
        beginnings(),
        BELOW_HORIZON.replace("e.", "n.")
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(from.xid.to_string())
        .bind(from.seq)
        .bind(to.xid.to_string())
        .bind(to.seq)
        .bind(max)
        .bind(filter.tenant.clone())
        .bind(filter.service.clone())
        .bind(filter.status.map(|status| status.as_str()))
        .bind(filter.intent)
        .bind(filter.tool_key)
        .bind(filter.tool.clone())
        .bind(filter.since)
        .fetch_all(db)
        .await
}

/// Workers after a place in the list: those online first, then by tenant and id, which stay what they are.
pub(crate) async fn workers(
    db: impl PgExecutor<'_>,
    after: Option<&WorkerPlace>,
    state: Option<&str>,
    max: i64,
) -> sqlx::Result<Vec<WorkerRow>> {
    sqlx::query_as(
        "select id, tenant, role, host, version, topics, info, in_flight::bigint, lease_ms::bigint, status,
                started_at, last_seen_at
            from workers
            where ($4::text is null or status = $4)
                and ($1::text is null or ($1 = 'online' and status = 'offline')
                    or status = $1 and (tenant, id) > ($2, $3))
            order by status desc, tenant, id limit $5",
    )
    .bind(after.map(|place| place.status.as_str()))
    .bind(after.map(|place| place.tenant.as_str()))
    .bind(after.map(|place| place.id.as_str()))
    .bind(state)
    .bind(max)
    .fetch_all(db)
    .await
}
