//! The SQL of figures: what happened lately, from the log, and what is so, from the tables.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgExecutor;

use crate::bus::activity::{Backlog, Fleet, Row, Window};

/// How many calls, how they ended and how long they took, of one intent: in all, by service and tool, and by step of
/// time; the newest `max` events alone. A call's tool and its beginning are found in the event that it began with:
/// within the window by joining, and before it by the message's own index. Names are cut, as in every list: whoever may
/// enqueue chooses them.
pub(crate) async fn window(
    db: impl PgExecutor<'_>,
    window: &Window,
    max: i64,
) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(
        "with newest as materialized (
            select e.created_at, e.message_id, e.service, e.seq,
                case when e.created_at < $2 then null else case e.event_type when $4 || 'scheduled' then 1
                    when $4 || 'succeeded' then 2 when $4 || 'failed' then 3 when $4 || 'lease_expired' then 3
                    when $4 || 'retry_scheduled' then 4 when $4 || 'dead_lettered' then 5 end end as what,
                e.created_at >= $2 and e.event_type like '%\\_succeeded' as done,
                case when e.event_type = $4 || 'scheduled'
                    then left(e.payload #>> array['payload', $5], 255) end as tool,
                case when e.event_type = $4 || 'succeeded' and e.payload ->> 'duration_ms' ~ '^[0-9]{1,15}$'
                    then (e.payload ->> 'duration_ms')::bigint end as handler_ms,
                case when e.event_type in ($4 || 'failed', $4 || 'lease_expired', $4 || 'dead_lettered')
                    then jsonb_build_object(
                        'class', left(coalesce(e.payload #>> '{error,class}', e.payload ->> 'class'), 255),
                        'message', left(e.payload #>> '{error,message}', 500)) end as error
            from bus_events e
            where e.xid >= $1::xid8
            order by e.xid desc, e.seq desc limit $3
        ), whole as (
            select count(*) as n, count(*) filter (where done) as done from newest
        ), begun as materialized (
            select message_id, min(created_at) as at, min(tool collate \"C\") as tool
            from newest where tool is not null or what = 1 group by message_id
        ), earlier as materialized (
            select m.message_id, o.at, o.tool
            from (
                select distinct c.message_id from newest c
                where c.what is not null and not exists (select from begun b where b.message_id = c.message_id)
            ) m
            cross join lateral (
                select e.created_at as at, left(e.payload #>> array['payload', $5], 255) as tool from bus_events e
                where e.message_id = m.message_id and e.event_type = $4 || 'scheduled'
                order by e.seq limit 1
            ) o
        ), told as (
            select c.what::smallint as what, c.service collate \"C\" as service, c.created_at, c.handler_ms,
                case when c.what = 3 or c.what = 5 and c.error ->> 'message' is not null then c.seq end as erred,
                floor(extract(epoch from c.created_at - $2) / $6)::integer as step,
                coalesce(b.tool, o.tool) collate \"C\" as tool,
                case when c.what = 2
                    then (extract(epoch from c.created_at - coalesce(b.at, o.at)) * 1000)::bigint end as wait_ms
            from newest c
            left join begun b using (message_id)
            left join earlier o using (message_id)
            where c.what is not null
        ), counted as (
            select grouping(step) = 0 as by_step, grouping(service) = 0 as by_tool, step, service, tool,
                count(*) filter (where what = 1) as calls, count(*) filter (where what = 2) as succeeded,
                count(*) filter (where what = 3) as fails, count(*) filter (where what = 4) as retries,
                count(*) filter (where what = 5) as dead_lettered,
                percentile_disc(array[0.5, 0.95]) within group (order by wait_ms)
                    filter (where wait_ms is not null) as waits,
                percentile_disc(array[0.5, 0.95]) within group (order by handler_ms)
                    filter (where handler_ms is not null) as handled,
                max(created_at) as last_at, max(erred) as erred
            from told group by grouping sets ((), (service, tool), (step))
        )
        select k.by_step, k.by_tool, k.step, k.service, k.tool, k.calls, k.succeeded, k.fails, k.retries,
            k.dead_lettered, k.waits[1] as p50_ms, k.waits[2] as p95_ms, k.handled[1] as handler_p50_ms,
            k.handled[2] as handler_p95_ms, k.last_at, t.error ->> 'class' as class, t.error ->> 'message' as message,
            t.created_at as error_at, t.message_id as error_of, w.n as read, w.done
        from counted k
        cross join whole w
        left join newest t on k.by_tool and t.seq = k.erred
        order by k.by_step, k.by_tool, k.step, k.calls desc, k.service, k.tool",
    )
    .bind(window.from_xid.to_string())
    .bind(window.since)
    .bind(max)
    .bind(&window.prefix)
    .bind(window.tool_key)
    .bind(f64::from(window.step_s))
    .fetch_all(db)
    .await
}

/// What waits, is held or is dead, by tenant, role and service. One branch a status, so that each reads its own partial
/// index, which holds all that is asked for.
pub(crate) async fn backlog(
    db: impl PgExecutor<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<Backlog>> {
    sqlx::query_as(
        "select tenant, role, service, sum(queued)::bigint as queued, sum(delayed)::bigint as delayed,
            sum(claimed)::bigint as claimed, sum(parked)::bigint as parked, sum(failed)::bigint as failed,
            greatest((extract(epoch from $1 - min(oldest)) * 1000)::bigint, 0) as oldest_ms
        from (
            select tenant, role, service, count(*) as queued, 0 as delayed, 0 as claimed, 0 as parked, 0 as failed,
                min(run_at) as oldest
            from agent_messages where status = 'queued' and parked_for is null group by 1, 2, 3
            union all
            select tenant, role, service, 0, 0, 0, count(*), 0, min(run_at)
            from agent_messages where status = 'queued' and parked_for = 'ordering' group by 1, 2, 3
            union all
            select tenant, role, service, 0, 0, 0, count(*), 0, min(run_at)
            from agent_messages
            where status = 'queued' and parked_for is not null and parked_for <> 'ordering' group by 1, 2, 3
            union all
            select tenant, role, service, 0, count(*), 0, 0, 0, null
            from agent_messages where status = 'delayed' group by 1, 2, 3
            union all
            select tenant, role, service, 0, 0, count(*), 0, 0, null
            from agent_messages where status = 'claimed' group by 1, 2, 3
            union all
            select tenant, role, service, 0, 0, 0, 0, count(*), null
            from agent_messages where status = 'failed' group by 1, 2, 3
        ) counted
        group by tenant, role, service
        order by sum(queued + delayed + claimed + parked) desc, tenant, role, service",
    )
    .bind(now)
    .fetch_all(db)
    .await
}

/// The messages of an intent that are held by workers: as many as these have hands.
pub(crate) async fn in_flight(db: impl PgExecutor<'_>, intent: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select count(*) from agent_messages where status = 'claimed' and intent = $1",
    )
    .bind(intent)
    .fetch_one(db)
    .await
}

/// The workers, counted. How many messages one takes at once is known of those that say so.
pub(crate) async fn fleet(db: impl PgExecutor<'_>) -> sqlx::Result<Fleet> {
    sqlx::query_as(
        "select count(*) filter (where status = 'online') as online,
            count(*) filter (where status = 'offline') as offline,
            coalesce(sum(in_flight) filter (where status = 'online'), 0)::bigint as in_flight,
            sum(case when info ->> 'capacity' ~ '^[0-9]{1,6}$' then (info ->> 'capacity')::bigint end)
                filter (where status = 'online')::bigint as capacity
        from workers",
    )
    .fetch_one(db)
    .await
}
