-- What a call costs to plan. A function's statement is planned for its parameters five times, and for ever where that
-- looks cheaper than a plan for all of them; and the body of a function in SQL that cannot be put into its caller is
-- read and planned anew at each call. For one message, planning took longer than doing: 1 ms of 3, from enqueue to
-- settle. So the statements on the way of a message keep one plan, and the two functions are PL/pgSQL, which keeps
-- plans at all. docs/query-plans.md has the plans at a million rows; docs/benchmarks-mcp.md what it gave.
--
-- The plan that is kept is made anew when the tables are analyzed, and each statement is written so that any plan of it
-- goes by the right index: rows by id one by one behind a limit, claims in the order of the claim index. A plan that
-- does not know how many rows are asked for expects a tenth of the table, and may look so dear that Postgres would
-- compile it at each call (jit): so none of them is.

-- As in 202611210009_enqueue.sql.
do $$
declare
    body constant text := (select prosrc from pg_proc where oid = 'cogo.message_problem(jsonb)'::regprocedure);
begin
    execute format(
        'create or replace function cogo.message_problem(messages jsonb) returns text
            language plpgsql stable parallel safe
            as %L', E'\nbegin\n    return (' || body || E');\nend\n');
end
$$;

-- As in 202611210008_order_and_limits.sql.
create or replace function cogo.any_ordered() returns boolean
    language plpgsql stable
    as $$
begin
    return (select true from public.agent_messages
        where ordering_key is not null and status in ('delayed', 'queued', 'claimed')
            and parked_for is distinct from 'ordering'
        order by tenant, role, service, ordering_key limit 1) is not null;
end
$$;

-- The same, but put into its caller: it was declared to be less than what it calls.
alter function cogo.first_claim_no(timestamptz) stable;

-- As in 202611210004_operate.sql, with the rights of its caller (202611210014_scope.sql), and with a branch for each way in:
-- one that asked `x is null or column = x` could use the column's index only when it was planned for x.
create or replace function public.bus_read_events(
        after text default '0.0', max integer default 100, filter jsonb default '{}')
    returns table (cursor text, id uuid, event_type text, message_id uuid, trace_id uuid, tenant text,
        service text, role text, shard integer, attempt integer, worker_id text, reason text,
        payload jsonb, created_at timestamptz)
    language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
        set plan_cache_mode = force_generic_plan set jit = off
    as $$
#variable_conflict use_column
declare
    after_xid xid8;
    after_seq bigint;
    horizon constant xid8 := pg_snapshot_xmin(pg_current_snapshot());
    unknown constant jsonb := coalesce(filter, '{}') - '{tenant,message_id,trace_id,worker_id,types}'::text[];
    uuid_form constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
    by_message uuid;
    by_trace uuid;
    by_types text[];
begin
    if coalesce(after, '') !~ '^[0-9]{1,18}\.[0-9]{1,18}$' then
        raise exception 'after: must be a cursor of the form <xid>.<seq>' using errcode = 'CG400';
    end if;
    after_xid := split_part(after, '.', 1)::xid8;
    after_seq := split_part(after, '.', 2)::bigint;
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;
    if jsonb_typeof(filter) is distinct from 'object' then
        raise exception 'filter: must be an object' using errcode = 'CG400';
    end if;
    if unknown <> '{}' then
        raise exception 'filter.%: is not a filter; use tenant, message_id, trace_id, worker_id or types',
            (select k from jsonb_object_keys(unknown) k order by k limit 1) using errcode = 'CG400';
    end if;
    if filter ? 'message_id' and coalesce(filter ->> 'message_id', '') !~* uuid_form then
        raise exception 'filter.message_id: must be a UUID' using errcode = 'CG400';
    end if;
    if filter ? 'trace_id' and coalesce(filter ->> 'trace_id', '') !~* uuid_form then
        raise exception 'filter.trace_id: must be a UUID' using errcode = 'CG400';
    end if;
    if filter ? 'tenant' and jsonb_typeof(filter -> 'tenant') <> 'string' then
        raise exception 'filter.tenant: must be a string' using errcode = 'CG400';
    end if;
    if filter ? 'worker_id' and jsonb_typeof(filter -> 'worker_id') <> 'string' then
        raise exception 'filter.worker_id: must be a string' using errcode = 'CG400';
    end if;
    if filter ? 'types' then
        if jsonb_typeof(filter -> 'types') <> 'array' then
            raise exception 'filter.types: must be an array' using errcode = 'CG400';
        end if;
        by_types := array(select jsonb_array_elements_text(filter -> 'types'));
    end if;
    by_message := (filter ->> 'message_id')::uuid;
    by_trace := (filter ->> 'trace_id')::uuid;

    -- Few rows, by their own index; then in the log's order.
    if by_message is not null then
        return query
            select e.xid::text || '.' || e.seq, e.id, e.event_type, e.message_id, e.trace_id, e.tenant,
                e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload, e.created_at
            from public.bus_events e
            where e.message_id = by_message and (by_trace is null or e.trace_id = by_trace)
                and (e.xid, e.seq) > (after_xid, after_seq) and e.xid < horizon
                and (filter ->> 'tenant' is null or e.tenant = filter ->> 'tenant')
                and (filter ->> 'worker_id' is null or e.worker_id = filter ->> 'worker_id')
                and (by_types is null or e.event_type = any (by_types))
            order by e.xid, e.seq
            limit bus_read_events.max;
    elsif by_trace is not null then
        return query
            select e.xid::text || '.' || e.seq, e.id, e.event_type, e.message_id, e.trace_id, e.tenant,
                e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload, e.created_at
            from public.bus_events e
            where e.trace_id = by_trace
                and (e.xid, e.seq) > (after_xid, after_seq) and e.xid < horizon
                and (filter ->> 'tenant' is null or e.tenant = filter ->> 'tenant')
                and (filter ->> 'worker_id' is null or e.worker_id = filter ->> 'worker_id')
                and (by_types is null or e.event_type = any (by_types))
            order by e.xid, e.seq
            limit bus_read_events.max;
    else
        return query
            select e.xid::text || '.' || e.seq, e.id, e.event_type, e.message_id, e.trace_id, e.tenant,
                e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload, e.created_at
            from public.bus_events e
            where (e.xid, e.seq) > (after_xid, after_seq) and e.xid < horizon
                and (filter ->> 'tenant' is null or e.tenant = filter ->> 'tenant')
                and (filter ->> 'worker_id' is null or e.worker_id = filter ->> 'worker_id')
                and (by_types is null or e.event_type = any (by_types))
            order by e.xid, e.seq
            limit bus_read_events.max;
    end if;
end
$$;

do $$
declare
    f regprocedure;
begin
    foreach f in array array[
        'public.bus_enqueue(jsonb)', 'public.bus_step(jsonb, text, text[], integer, integer, text)',
        'public.bus_claim(text, text[], integer, integer, text)']::regprocedure[]
    loop
        execute format('alter function %s set plan_cache_mode = force_generic_plan', f);
        execute format('alter function %s set jit = off', f);
    end loop;
end
$$;

-- How many tenants wait is told by its parameters, and it is not on the way of a single message.
alter function cogo.claim_fairly(text, text[], integer, interval) set plan_cache_mode = auto;
