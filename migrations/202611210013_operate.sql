-- Requeue with new params and a link to what went before, retention that keeps idempotency keys, and what is
-- parked. What is not restated here is as it was in 202611210004_operate.sql.

-- The rows that a batch of ids names, or an error. Errors: CG400.
create or replace function cogo.read_ids(messages jsonb)
    returns table (ord bigint, id uuid, item jsonb)
    language plpgsql immutable parallel safe rows 50
    as $$
#variable_conflict use_column
declare
    problem text;
begin
    if jsonb_typeof(messages) is distinct from 'array' then
        raise exception 'messages: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(messages) > 10000 then
        raise exception 'messages: at most 10000 in one call' using errcode = 'CG413';
    end if;
    select format('messages[%s]%s', ord - 1, what) into problem from (
        select ord, case
            when jsonb_typeof(m) <> 'object' then ': must be an object'
            when coalesce(m ->> 'id', '') !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.id: must be a UUID'
            when coalesce(m ->> 'max_attempts', '1') !~ '^[0-9]{1,4}$'
                or (m ->> 'max_attempts')::int not between 1 and 1000
                then '.max_attempts: must be a whole number from 1 to 1000'
            when m ? 'payload' and m ? 'params'
                then '.params: must not stand beside payload'
            when coalesce(jsonb_typeof(m -> 'params'), 'object') <> 'object'
                then '.params: must be an object'
            when row_number() over (partition by lower(m ->> 'id') order by ord) > 1
                then '.id: stands twice in the batch'
        end as what
        from jsonb_array_elements(messages) with ordinality as e (m, ord)
    ) checked
    where what is not null order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    return query
        select ord, (m ->> 'id')::uuid, m
        from jsonb_array_elements(messages) with ordinality as e (m, ord);
end
$$;

-- Brings messages back from the dead-letter queue (or from cancelled) with all their attempts and their whole
-- deadline before them: messages are [{id, max_attempts?, payload? | params?}]. payload takes the place of the
-- old one, params that of the field params within it. The event links to what went before. A row a message, in
-- order: code is null, 'CG404', 'CG409' where the message is not finished that way, or 'CG400' where its
-- payload has no place for params. Errors: CG400; CG413 as bus_enqueue.
create or replace function public.bus_requeue(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    problem text;
    answers jsonb;
    orders bigint[];
    ordered uuid[];
begin
    select format('messages[%s].%s: at most 4 MiB, and 16 MiB when written out', ord - 1, what) into problem
        from cogo.read_ids(messages) r
        cross join lateral (values ('payload', r.item -> 'payload'), ('params', r.item -> 'params')) as v (what, given)
        where pg_column_size(given) > 4194304 or octet_length(given::text) > 16777216
        order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG413';
    end if;
    orders := cogo.lock_orders((select array_agg(r.id) from cogo.read_ids(messages) r));
    with input as materialized (
        select * from cogo.read_ids(messages)
    ), locked as materialized (
        select i.ord, m.id, m.status, m.attempts, m.max_attempts as max_attempts_before,
            coalesce((i.item ->> 'max_attempts')::integer, m.max_attempts) as max_attempts,
            i.item ? 'payload' or i.item ? 'params' as changes,
            not i.item ? 'params' or jsonb_typeof(m.payload) = 'object' as fits,
            case when i.item ? 'payload' then i.item -> 'payload'
                when i.item ? 'params' and jsonb_typeof(m.payload) = 'object'
                    then m.payload || jsonb_build_object('params', i.item -> 'params')
                else m.payload end as payload
        from (select * from input order by id) i
        cross join lateral (
            select a.id, a.status, a.attempts, a.max_attempts, a.payload from public.agent_messages a
            where a.id = i.id
                and (a.ordering_key is null
                    or cogo.order_lock(a.tenant, a.role, a.service, a.ordering_key) = any (orders))
            limit 1 for update
        ) m
    ), changed as (
        update public.agent_messages m
        set status = 'queued', attempts = 0, max_attempts = l.max_attempts, payload = l.payload,
            claim_no = m.claim_no + 1, run_at = moment, updated_at = moment, done_at = null,
            rank_at = moment - m.priority * interval '1 minute',
            deadline_at = moment + make_interval(secs => m.deadline_ms / 1000.0),
            -- They are null already. But this statement may know the row as it was before it was locked, claimed
            -- say, and checks the constraints on that one first.
            claimed_by = null, claimed_at = null, lease_until = null,
            -- Behind whatever of its key is under way; before what came after it.
            parked_for = case when m.ordering_key is not null then 'ordering' end
        from locked l
        -- Filtered by what was locked, so that the planner expects few and looks each up.
        where m.id = l.id and l.status in ('failed', 'cancelled') and l.fits
        returning m.*, l.ord, l.changes, l.attempts as attempts_before, l.max_attempts_before,
            l.status as status_before
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
            shard, attempt, reason, created_at, payload)
        select cogo.event_type(c.intent, 'requeued'), c.id, c.trace_id, c.tenant, c.service, c.role, c.shard,
            c.attempts_before, left(bus_requeue.reason, 200), moment,
            jsonb_build_object('run_at', c.run_at, 'max_attempts', c.max_attempts,
                'claim_no', c.claim_no, 'from', c.status_before,
                'previous', jsonb_build_object('attempts', c.attempts_before,
                    'max_attempts', c.max_attempts_before, 'error', c.error,
                    'event', history.last, 'events', history.events))
            || case when c.changes then jsonb_build_object('payload', c.payload) else '{}' end
        from changed c
        cross join lateral (
            select count(*) as events, (array_agg(e.id order by e.seq desc)
                filter (where e.event_type ~ '_(dead_lettered|cancelled)$'))[1] as last
            from public.bus_events e where e.message_id = c.id
        ) history
        order by c.ord
    )
    select coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'code',
                case when c.ord is not null then null when l.ord is null then 'CG404'
                    when not l.fits and l.status in ('failed', 'cancelled') then 'CG400' else 'CG409' end)
                order by i.ord), '[]'),
            array_agg(c.id) filter (where c.ordering_key is not null)
        into answers, ordered
        from input i left join locked l using (ord) left join changed c using (ord);
    if ordered is not null then
        perform cogo.advance(ordered);
    end if;
    return query select (a ->> 'id')::uuid, a ->> 'code' from jsonb_array_elements(answers) a;
end
$$;

-- Withdraws messages that are not finished; a worker that holds one learns it at its next extend or
-- settle. messages are [{id}]; answers as bus_requeue. Errors: CG400.
create or replace function public.bus_cancel(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    answers jsonb;
    orders constant bigint[] := cogo.lock_orders((select array_agg(r.id) from cogo.read_ids(messages) r));
    ended uuid[];
begin
    with input as materialized (
        select * from cogo.read_ids(messages)
    ), locked as materialized (
        select i.ord, m.id, m.status, m.claimed_by
        from (select * from input order by id) i
        cross join lateral (
            select a.id, a.status, a.claimed_by from public.agent_messages a
            where a.id = i.id
                and (a.ordering_key is null
                    or cogo.order_lock(a.tenant, a.role, a.service, a.ordering_key) = any (orders))
            limit 1 for update
        ) m
    ), changed as (
        update public.agent_messages m
        set status = 'cancelled', claim_no = m.claim_no + 1, updated_at = moment, done_at = moment,
            claimed_by = null, claimed_at = null, lease_until = null, parked_for = null
        from locked l
        where m.id = l.id and l.status in ('delayed', 'queued', 'claimed')
        returning m.*, l.ord, l.claimed_by as worker_id
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
            shard, attempt, worker_id, reason, created_at, payload)
        select cogo.event_type(intent, 'cancelled'), id, trace_id, tenant, service, role, shard,
            attempts, worker_id, left(bus_cancel.reason, 200), moment,
            jsonb_build_object('claim_no', claim_no, 'attempts', attempts)
        from changed order by ord
    )
    select coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'code',
                case when c.ord is not null then null when l.ord is null then 'CG404' else 'CG409' end)
                order by i.ord), '[]'),
            array_agg(c.id) filter (where c.ordering_key is not null)
        into answers, ended
        from input i left join locked l using (ord) left join changed c using (ord);
    if ended is not null then
        perform cogo.advance(ended);
    end if;
    return query select (a ->> 'id')::uuid, a ->> 'code' from jsonb_array_elements(answers) a;
end
$$;

-- Drops messages from the dead-letter queue for good; their events stay. messages are [{id}]; answers
-- as bus_requeue. Errors: CG400.
create or replace function public.bus_drop(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    orders constant bigint[] := cogo.lock_orders((select array_agg(r.id) from cogo.read_ids(messages) r));
begin
    return query
        with input as materialized (
            select * from cogo.read_ids(messages)
        ), locked as materialized (
            select i.ord, m.id, m.status
            from (select * from input order by id) i
            cross join lateral (
                select a.id, a.status from public.agent_messages a
                where a.id = i.id
                    and (a.ordering_key is null
                        or cogo.order_lock(a.tenant, a.role, a.service, a.ordering_key) = any (orders))
                limit 1 for update
            ) m
        ), changed as (
            delete from public.agent_messages m using locked l
            where m.id = l.id and l.status = 'failed'
            returning m.*, l.ord
        ), logged as (
            insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
                shard, attempt, reason, created_at)
            select cogo.event_type(intent, 'dropped'), id, trace_id, tenant, service, role, shard,
                attempts, left(bus_drop.reason, 200), moment
            from changed order by ord
        )
        select i.id, case when c.ord is not null then null when l.ord is null then 'CG404' else 'CG409' end
        from input i left join locked l using (ord) left join changed c using (ord)
        order by i.ord;
end
$$;

-- Appends events that are no transition of a message: of workers, breakers, progress. events are
-- [{event_type, trace_id?, message_id?, tenant?, role?, service?, shard?, attempt?, worker_id?,
-- reason?, payload?}]. Answers with the number appended. Errors: CG400 names the field; CG403 for a
-- type that only a transition may write, since the log must fold to the table.
create or replace function public.bus_append_event(events jsonb) returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
    state text;
    appended integer;
    uuid_form constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
begin
    if jsonb_typeof(events) is distinct from 'array' then
        raise exception 'events: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(events) > 10000 then
        raise exception 'events: at most 10000 in one call' using errcode = 'CG413';
    end if;
    select format('events[%s]%s', ord - 1, what), code into problem, state from (
        select ord, 'CG400' as code, case
            when jsonb_typeof(e) <> 'object' then ': must be an object'
            when coalesce(e ->> 'event_type', '') !~ '^[a-z][a-z0-9_]{0,99}$'
                then '.event_type: must be 1 to 100 of a-z, 0-9 and _'
            when coalesce(e ->> 'trace_id', '00000000-0000-0000-0000-000000000000') !~* uuid_form
                then '.trace_id: must be a UUID'
            when coalesce(e ->> 'message_id', '00000000-0000-0000-0000-000000000000') !~* uuid_form
                then '.message_id: must be a UUID'
            when coalesce(jsonb_typeof(e -> 'payload'), 'object') <> 'object'
                then '.payload: must be an object'
            when octet_length(e::text) > 65536 then ': at most 64 KiB'
            when coalesce(e ->> 'shard', '0') !~ '^[0-9]{1,5}$' then '.shard: must be from 0 to 99999'
            when coalesce(e ->> 'attempt', '0') !~ '^[0-9]{1,5}$' then '.attempt: must be from 0 to 99999'
        end as what
        from jsonb_array_elements(events) with ordinality as x (e, ord)
        union all
        select ord, 'CG403', format('.event_type: %s is written by transitions only', e ->> 'event_type')
        from jsonb_array_elements(events) with ordinality as x (e, ord)
        where e ->> 'event_type' ~ '(^|_)(scheduled|succeeded|failed|requeued|released|dead_lettered|cancelled|lease_expired|dropped|purged|restored)$'
            or e ->> 'event_type' in ('circuit_opened', 'circuit_half_opened', 'circuit_closed')
    ) checked
    where what is not null order by ord, code limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = state;
    end if;
    insert into public.bus_events (event_type, trace_id, message_id, tenant, service, role, shard, attempt,
        worker_id, reason, created_at, payload)
    select e ->> 'event_type', coalesce((e ->> 'trace_id')::uuid, gen_random_uuid()),
        (e ->> 'message_id')::uuid, coalesce(e ->> 'tenant', 'default'), coalesce(e ->> 'service', ''),
        coalesce(e ->> 'role', ''), coalesce((e ->> 'shard')::integer, 0),
        coalesce((e ->> 'attempt')::integer, 0), left(e ->> 'worker_id', 255), left(e ->> 'reason', 200),
        cogo.now(), coalesce(e -> 'payload', '{}')
    from jsonb_array_elements(events) with ordinality as x (e, ord)
    order by ord;
    get diagnostics appended = row_count;
    return appended;
end
$$;

-- How much waits: a row for each role, service and status that has messages, finished ones but for the
-- dead-letter queue left out (the log has them, and there may be millions). oldest_ms is how long the
-- oldest has been due (queued), held (claimed) or dead (failed), or how long until it is due (delayed).
create or replace function public.bus_stats()
    returns table (role text, service text, status text, messages bigint, oldest_ms bigint)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    -- One branch a status, so that each reads its own partial index.
    return query
        select role, service, 'queued', sum(n)::bigint,
            (extract(epoch from moment - min(oldest)) * 1000)::bigint
            from (
                select role, service, count(*) as n, min(run_at) as oldest
                from public.agent_messages where status = 'queued' and parked_for is null group by 1, 2
                union all
                select role, service, count(*), min(run_at)
                from public.agent_messages where status = 'queued' and parked_for = 'ordering' group by 1, 2
                union all
                select role, service, count(*), min(run_at)
                from public.agent_messages
                where status = 'queued' and parked_for is not null and parked_for <> 'ordering' group by 1, 2
            ) queued
            group by 1, 2
        union all
        select role, service, 'delayed', count(*),
            (extract(epoch from min(run_at) - moment) * 1000)::bigint
            from public.agent_messages where status = 'delayed' group by 1, 2
        union all
        select role, service, 'claimed', count(*),
            (extract(epoch from moment - min(claimed_at)) * 1000)::bigint
            from public.agent_messages where status = 'claimed' group by 1, 2
        union all
        select role, service, 'failed', count(*),
            (extract(epoch from moment - min(done_at)) * 1000)::bigint
            from public.agent_messages where status = 'failed' group by 1, 2;
end
$$;

-- Lets finished messages go, at most `max` a call: done and cancelled ones that have been so for longer
-- than `done_for`, those with an idempotency key for longer than `keyed_for` (null: as done_for) if that is more,
-- so that a key sent again still finds its message; and dead letters for longer than `failed_for` (null: never).
-- One messages_purged event names them. Breakers that have been closed for a day go without one. Answers with the
-- messages' number; call again while it equals `max`.
drop function public.bus_retain(interval, interval, integer);
create function public.bus_retain(
        done_for interval default '24 hours', failed_for interval default null, max integer default 1000,
        keyed_for interval default null)
    returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    gone integer;
begin
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;
    if done_for < interval '0' or failed_for < interval '0' or keyed_for < interval '0' then
        raise exception 'done_for, failed_for, keyed_for: must not be negative' using errcode = 'CG400';
    end if;
    with old_done as materialized (
        select id from public.agent_messages
        where status in ('done', 'cancelled') and idempotency_key is null and done_at < moment - done_for
        order by done_at, id limit max
        for update skip locked
    ), old_keyed as materialized (
        select id from public.agent_messages
        where status in ('done', 'cancelled') and idempotency_key is not null
            and done_at < moment - greatest(done_for, keyed_for)
        order by done_at, id limit max
        for update skip locked
    ), old_failed as materialized (
        select id from public.agent_messages
        where status = 'failed' and done_at < moment - failed_for
        order by done_at, id limit max
        for update skip locked
    ), old as (
        select id from old_done union all select id from old_keyed union all select id from old_failed limit max
    ), purged as (
        delete from public.agent_messages m using old where m.id = old.id returning m.id, m.tenant
    ), logged as (
        insert into public.bus_events (event_type, tenant, created_at, payload)
        select 'messages_purged', tenant, moment, jsonb_build_object('ids', jsonb_agg(id))
        from purged group by tenant
    )
    select count(*) into gone from purged;

    with old as materialized (
        select c.tenant, c.key from public.circuits c
        where c.state = 'closed' and c.updated_at < moment - interval '1 day'
        order by c.tenant, c.key limit max
        for update skip locked
    )
    delete from public.circuits c using old o where c.tenant = o.tenant and c.key = o.key;
    return gone;
end
$$;

-- What is parked, and why: a row for each role, service and reason, which is 'ordering' or 'circuit:<key>'.
create function public.bus_parked()
    returns table (role text, service text, reason text, messages bigint, oldest_ms bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$
        select role, service, parked_for, count(*), (extract(epoch from cogo.now() - min(run_at)) * 1000)::bigint
            from public.agent_messages
            where status = 'queued' and parked_for is not null and parked_for <> 'ordering' group by 1, 2, 3
        union all
        select role, service, 'ordering', count(*), (extract(epoch from cogo.now() - min(run_at)) * 1000)::bigint
            from public.agent_messages where status = 'queued' and parked_for = 'ordering' group by 1, 2
    $$;

revoke all on function public.bus_retain(interval, interval, integer, interval), public.bus_parked() from public;
grant execute on function public.bus_parked() to cogo_bus;
grant execute on function public.bus_retain(interval, interval, integer, interval) to cogo_operator;
