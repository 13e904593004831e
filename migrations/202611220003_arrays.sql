-- A batch in arrays. Of the 38 us of the server's processor that a message of 1,000 took on a busy machine, an insert of its two rows
-- by hand was 17. The rest was shared by some twenty looks into its JSON in four passes, the event's JSON, an insert that asks
-- whether each row is known, and the answer. Now what messages have in common is read, looked at and put into JSON once a batch;
-- what each has of its own (id, trace, payload) goes in arrays; and what is new, which nearly all is, goes by a plain insert.
-- docs/performance.md has the figures.
--
-- The common part is called a head: a message without id, trace_id and payload. Messages that differ in anything else have
-- heads of their own; `head_of` says which is whose.

-- Heads, which are valid, as columns of the tables: what they leave out, and what follows from them. The event is without
-- what each message has of its own.
create function cogo.message_heads(heads jsonb, moment timestamptz)
    returns table (no bigint, tenant text, role text, service text, shard integer, intent text, parent_id uuid,
        idempotency_key text, priority smallint, max_attempts integer, run_at timestamptz, deadline_ms bigint,
        ordering_key text, rank_at timestamptz, deadline_at timestamptz, status text, event_type text, event jsonb)
    language sql stable
    as $$
        select no, tenant, role, service, shard, intent, parent_id, idempotency_key, priority, max_attempts, run_at,
            deadline_ms, ordering_key, run_at - priority * interval '1 minute',
            moment + make_interval(secs => deadline_ms / 1000.0),
            case when run_at > moment then 'delayed' else 'queued' end,
            cogo.event_type(intent, 'scheduled'),
            jsonb_build_object('intent', intent, 'priority', priority, 'max_attempts', max_attempts, 'run_at', run_at)
                || case num_nonnulls(parent_id, idempotency_key, deadline_ms, ordering_key) when 0 then '{}' else
                    jsonb_strip_nulls(jsonb_build_object('parent_id', parent_id, 'idempotency_key', idempotency_key,
                        'deadline_ms', deadline_ms, 'ordering_key', ordering_key)) end
        from (
            select no, coalesce(h ->> 'tenant', 'default') as tenant, h ->> 'role' as role, h ->> 'service' as service,
                coalesce((h ->> 'shard')::integer, 0) as shard, h ->> 'intent' as intent,
                (h ->> 'parent_id')::uuid as parent_id, h ->> 'idempotency_key' as idempotency_key,
                coalesce((h ->> 'priority')::smallint, 0::smallint) as priority,
                coalesce((h ->> 'max_attempts')::integer, 5) as max_attempts,
                moment + make_interval(secs => coalesce((h ->> 'delay_ms')::bigint, 0) / 1000.0) as run_at,
                (h ->> 'deadline_ms')::bigint as deadline_ms, h ->> 'ordering_key' as ordering_key
            from jsonb_array_elements(heads) with ordinality as e (h, no)
            -- Or each of these would be read again wherever it is used.
            offset 0
        ) h
    $$;

-- Enqueues messages whose ids, traces and heads were looked at, and answers with those that were known already, as
-- [{ord, id, trace_id, status}] by their places in the batch; null, if all are new. The payloads' sizes and the limits are looked
-- at here. Where head_of is null, all are of the first head.
--
-- Errors: CG409, CG413, CG429; 40001 where retention came in between. Locks: as 202611210008_order_and_limits.sql has it.
create function cogo.enqueue(ids uuid[], traces uuid[], payloads jsonb[], heads jsonb, head_of integer[]) returns jsonb
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    problem text;
    place bigint;
    size bigint;
    written bigint := 0;
    moment constant timestamptz := cogo.now();
    asked constant integer := cardinality(ids);
    claim_no constant bigint := cogo.first_claim_no(moment);
    has_keys constant boolean := heads @? '$[*].idempotency_key ? (@ != null)';
    has_orders constant boolean := heads @? '$[*].ordering_key ? (@ != null)';
    numbers bigint[];
    -- Of the events' ids: a random UUID, whose last eight digits are the places in the batch. To draw one for each
    -- message takes 1.5 us.
    event_ids text;
    inserted uuid[];
    ordered uuid[];
    known jsonb;
begin
    if pg_column_size(payloads) > 4194304 then
        select format('messages[%s].payload: at most 4 MiB, not %s bytes', ord - 1, pg_column_size(p)) into problem
            from unnest(payloads) with ordinality as e (p, ord)
            where pg_column_size(p) > 4194304
            order by ord limit 1;
        if problem is not null then
            raise exception '%', problem using errcode = 'CG413';
        end if;
    end if;
    -- A number such as 1e131071 takes a few bytes to store, and each of its digits to read: a message full
    -- of them could be claimed by nobody (54000), and would fail every claim that comes upon it. In half a kB there is no
    -- room for so many.
    if pg_column_size(payloads) > 512 then
        -- One after the other, so that it ends where there is too much: to write out 1 GiB takes 3 s.
        for place, size in
            select ord, octet_length(p::text) from unnest(payloads) with ordinality as e (p, ord) where pg_column_size(p) > 512
        loop
            if size > 16777216 then
                raise exception 'messages[%].payload: at most 16 MiB when written out', place - 1 using errcode = 'CG413';
            end if;
            written := written + size;
            if written > 1073741824 then
                raise exception 'messages: at most 1 GiB when written out; send them in several calls' using errcode = 'CG413';
            end if;
        end loop;
    end if;

    if exists (select from cogo.limits where max_queued is not null) then
        perform cogo.admit((
            select jsonb_agg((heads -> (coalesce(head_of[i.ord], 1) - 1)) || jsonb_build_object('id', ids[i.ord]) order by i.ord)
            from generate_series(1, asked) as i (ord)));
    end if;
    if has_orders then
        -- A statement of its own: what follows must see what others did while this waited.
        perform pg_advisory_xact_lock(n) from (
            select distinct cogo.order_lock(h.tenant, h.role, h.service, h.ordering_key) as n
            from cogo.message_heads(heads, moment) h
            where h.ordering_key is not null
            order by 1
            offset 0
        ) sorted;
        -- Under the locks, so that numbers grow within each key as its messages are committed.
        select array_agg(case when i.ordered then nextval('cogo.ordering_no_seq') end order by i.ord) into numbers
            from (
                select i.ord, h.h ->> 'ordering_key' is not null as ordered
                from generate_series(1, asked) as i (ord)
                join jsonb_array_elements(heads) with ordinality as h (h, no) on h.no = coalesce(head_of[i.ord], 1)
                order by i.ord
            ) i;
    end if;

    -- Nothing but an id can be known, and hardly ever is one: so all are taken for new, and if they are not, nothing of this
    -- has happened. To ask of each row cost 1.5 us and 49 bytes of log a message of 1,000. This costs each batch a subtransaction:
    -- not for a few messages, since whoever sends many lone ones in one transaction would have more of them than Postgres keeps
    -- at hand (64). That eight is the place to begin was not measured: for 1, 4 and 8 messages both ways were alike.
    if asked >= 8 and not has_keys and not has_orders then
        event_ids := left(gen_random_uuid()::text, 28);
        begin
            with head as materialized (
                select * from cogo.message_heads(heads, moment)
            ), input as materialized (
                select i.ord, ids[i.ord] as id, traces[i.ord] as trace_id, payloads[i.ord] as payload, h.*
                from generate_series(1, asked) as i (ord)
                join head h on h.no = coalesce(head_of[i.ord], 1)
            ), logged as (
                insert into public.bus_events (event_type, id, message_id, trace_id, tenant, service, role, shard,
                    created_at, payload)
                select event_type, (event_ids || to_hex(268435456 + ord))::uuid, id, trace_id, tenant, service, role, shard,
                    moment, event || jsonb_build_object('payload', payload)
                from input
            )
            insert into public.agent_messages (id, tenant, role, service, shard, intent, payload, trace_id,
                parent_id, priority, max_attempts, run_at, status, claim_no, created_at,
                updated_at, rank_at, deadline_ms, deadline_at)
            select id, tenant, role, service, shard, intent, payload, trace_id,
                parent_id, priority, max_attempts, run_at, status, claim_no, moment,
                moment, rank_at, deadline_ms, deadline_at
            from input
            -- As below: two batches with the same ids wait for each other without a deadlock.
            order by tenant, id;
            return null;
        exception
            when unique_violation then null;
        end;
    end if;

    with head as materialized (
        select * from cogo.message_heads(heads, moment)
    ), input as (
        select i.ord, ids[i.ord] as id, traces[i.ord] as trace_id, payloads[i.ord] as payload, numbers[i.ord] as ordering_no, h.*
        from generate_series(1, asked) as i (ord)
        join head h on h.no = coalesce(head_of[i.ord], 1)
    ), added as (
        insert into public.agent_messages (id, tenant, role, service, shard, intent, payload, trace_id,
            parent_id, idempotency_key, priority, max_attempts, run_at, status, claim_no, created_at,
            updated_at, rank_at, deadline_ms, deadline_at, ordering_key, ordering_no, parked_for)
        select id, tenant, role, service, shard, intent, payload, trace_id,
            parent_id, idempotency_key, priority, max_attempts, run_at, status, claim_no, moment,
            moment, rank_at, deadline_ms, deadline_at, ordering_key, ordering_no,
            case when ordering_key is not null then 'ordering' end
        from input
        -- Within one key the batch's first comes first; without a key nothing but the id can conflict.
        order by tenant, idempotency_key nulls last, case when idempotency_key is null then id end, ord
        on conflict do nothing
        returning id, trace_id, tenant, service, role, shard, intent, payload, priority, max_attempts, run_at, parent_id,
            idempotency_key, deadline_ms, ordering_key, ordering_no
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            created_at, payload)
        select cogo.event_type(intent, 'scheduled'), id, trace_id, tenant, service, role, shard, moment,
            case num_nonnulls(parent_id, idempotency_key, deadline_ms, ordering_key) when 0 then
                jsonb_build_object('intent', intent, 'payload', payload, 'priority', priority,
                    'max_attempts', max_attempts, 'run_at', run_at)
            else
                jsonb_build_object('intent', intent, 'payload', payload, 'priority', priority,
                    'max_attempts', max_attempts, 'run_at', run_at)
                || jsonb_strip_nulls(jsonb_build_object('parent_id', parent_id, 'idempotency_key', idempotency_key,
                    'deadline_ms', deadline_ms, 'ordering_key', ordering_key, 'ordering_no', ordering_no))
            end
        from added
    )
    select coalesce(array_agg(id), '{}'), array_agg(id) filter (where ordering_key is not null)
        into inserted, ordered from added;
    if ordered is not null then
        perform cogo.advance(ordered);
    end if;
    if cardinality(inserted) = asked then
        return null;
    end if;

    -- Some were known. A second statement, and so a second snapshot: it sees what the first waited for.
    if exists (
        select from generate_series(1, asked) as i (ord)
            cross join lateral (
                select a.tenant from public.agent_messages a where a.id = ids[i.ord] limit 1
            ) known
        -- Not joined with the heads: with one for each message that was a loop within a loop.
        where known.tenant <> coalesce(heads -> (coalesce(head_of[i.ord], 1) - 1) ->> 'tenant', 'default')
    ) then
        raise exception 'messages: an id belongs to a message of another tenant' using errcode = 'CG409';
    end if;
    select coalesce(jsonb_agg(jsonb_build_object('ord', i.ord, 'id', m.id, 'trace_id', m.trace_id, 'status', m.status)
            order by i.ord), '[]')
        into known
        from (
            select i.ord, ids[i.ord] as id, h.tenant, h.idempotency_key,
                -- In the order in which they were inserted.
                row_number() over (partition by ids[i.ord] order by h.tenant, h.idempotency_key nulls last, i.ord) = 1 as first
            from generate_series(1, asked) as i (ord)
            join cogo.message_heads(heads, moment) h on h.no = coalesce(head_of[i.ord], 1)
        ) i
        cross join lateral (
            select a.id, a.trace_id, a.status from public.agent_messages a where a.id = i.id
            union all
            select a.id, a.trace_id, a.status from public.agent_messages a
                where a.tenant = i.tenant and a.idempotency_key = i.idempotency_key and a.id <> i.id
            limit 1
        ) m
        where not (i.first and i.id = any (inserted));
    if jsonb_array_length(known) + cardinality(inserted) < asked then
        -- Retention removed the first message between the two statements.
        raise exception 'messages: a message with the same key was just removed; send again'
            using errcode = '40001';
    end if;
    return known;
end
$$;

-- Heads with a payload, which makes messages of them.
create function cogo.with_payload(heads jsonb) returns jsonb
    language plpgsql immutable parallel safe
    as $$
begin
    return (
        select jsonb_agg(case jsonb_typeof(h) when 'object' then h || '{"payload": null}' else h end order by no)
        from jsonb_array_elements(heads) with ordinality as e (h, no));
end
$$;

-- What is wrong with heads, naming the first message that has one of them; null if nothing is. Errors: as bus_enqueue tells them.
create function cogo.head_problem(heads jsonb, head_of integer[]) returns text
    language plpgsql stable parallel safe
    as $$
declare
    problem text;
    number integer;
    place integer;
begin
    -- Nearly always there is one, and each statement takes longer than to look at it.
    problem := cogo.message_problem(case
        when jsonb_array_length(heads) = 1 and jsonb_typeof(heads -> 0) = 'object'
            then jsonb_build_array((heads -> 0) || '{"payload": null}')
        else cogo.with_payload(heads) end);
    if problem is not null then
        number := substring(problem from '^messages\[([0-9]+)\]')::integer + 1;
        place := case when head_of is null then 1 else array_position(head_of, number) end;
        -- One that no message has can be named by its own place alone.
        problem := regexp_replace(problem, '^messages\[[0-9]+\]',
            case when place is null then format('heads[%s]', number - 1) else format('messages[%s]', place - 1) end);
    end if;
    return problem;
end
$$;

-- As in 202611220002_cheaper.sql: what it refuses, and how, is the same, but what messages have in common is looked at once.
create or replace function cogo_unscoped.bus_enqueue(messages jsonb)
    returns table (id uuid, trace_id uuid, duplicate boolean, status text)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    -- What each message has of its own.
    own constant text[] := '{id,trace_id,payload}';
    moment constant timestamptz := cogo.now();
    asked constant integer := case jsonb_typeof(messages) when 'array' then jsonb_array_length(messages) end;
    head jsonb := case jsonb_typeof(messages -> 0) when 'object' then (messages -> 0) - own end;
    valid boolean;
    alike boolean;
    ids uuid[];
    traces uuid[];
    payloads jsonb[];
    heads jsonb;
    head_of integer[];
    statuses text[];
    known jsonb;
begin
    if asked is null then
        raise exception 'messages: must be an array' using errcode = 'CG400';
    end if;
    if asked > 10000 then
        raise exception 'messages: at most 10000 in one call, not %', asked using errcode = 'CG413';
    end if;
    if asked = 0 then
        return;
    end if;

    -- An id and a trace for each that brings none, in the batch's order. A lone message is read without a statement, which
    -- would take longer than to read it.
    if asked = 1 then
        alike := true;
        valid := coalesce(head is not null and messages -> 0 ? 'payload', false)
            and cogo.is_uuid(messages -> 0 ->> 'id') is not false and cogo.is_uuid(messages -> 0 ->> 'trace_id') is not false;
        if valid then
            ids := array[coalesce((messages -> 0 ->> 'id')::uuid, cogo.uuid_v7(moment))];
            traces := array[coalesce((messages -> 0 ->> 'trace_id')::uuid, cogo.uuid_v7(moment))];
            payloads := array[messages -> 0 -> 'payload'];
        end if;
    else
        select bool_and(coalesce(m_payload and m_head is not null
                    and (id is not null or m_id is null) and (trace_id is not null or m_trace is null), false)),
                bool_and(coalesce(m_head = head, false)),
                array_agg(coalesce(id, cogo.uuid_v7(moment))), array_agg(coalesce(trace_id, cogo.uuid_v7(moment))),
                array_agg(payload)
            into valid, alike, ids, traces, payloads
            from (
                select m ->> 'id' as m_id, m ->> 'trace_id' as m_trace, m ? 'payload' as m_payload, m -> 'payload' as payload,
                    case when cogo.is_uuid(m ->> 'id') then (m ->> 'id')::uuid end as id,
                    case when cogo.is_uuid(m ->> 'trace_id') then (m ->> 'trace_id')::uuid end as trace_id,
                    case jsonb_typeof(m) when 'object' then m - own end as m_head
                from jsonb_array_elements(messages) with ordinality as e (m, ord)
                order by ord
            ) read;
    end if;
    if valid and alike then
        heads := jsonb_build_array(head);
    elsif valid then
        with read as materialized (
            select ord, m - own as head from jsonb_array_elements(messages) with ordinality as e (m, ord)
        ), distinct_heads as materialized (
            select head, row_number() over (order by min(ord)) as no from read group by head
        )
        select (select jsonb_agg(h.head order by h.no) from distinct_heads h), array_agg(h.no::integer order by r.ord)
            into heads, head_of
            from read r join distinct_heads h using (head);
    end if;
    if not valid or cogo.head_problem(heads, head_of) is not null then
        raise exception '%', cogo.message_problem(messages) using errcode = 'CG400';
    end if;

    known := cogo.enqueue(ids, traces, payloads, heads, head_of);
    -- A number may be a string here.
    if heads @? '$[*].delay_ms ? (@ > 0 || @.type() == "string")' then
        statuses := array(
            select case when (h ->> 'delay_ms')::bigint > 0 then 'delayed' else 'queued' end
            from jsonb_array_elements(heads) with ordinality as e (h, no) order by no);
    end if;
    if known is null then
        duplicate := false;
        for place in 1 .. asked loop
            id := ids[place];
            trace_id := traces[place];
            status := coalesce(statuses[coalesce(head_of[place], 1)], 'queued');
            return next;
        end loop;
        return;
    end if;
    return query
        select coalesce(k.id, ids[i.ord]), coalesce(k.trace_id, traces[i.ord]), k.ord is not null,
            coalesce(k.status, statuses[coalesce(head_of[i.ord], 1)], 'queued')
        from generate_series(1, asked) as i (ord)
        left join jsonb_to_recordset(known) as k (ord bigint, id uuid, trace_id uuid, status text) on k.ord = i.ord
        order by i.ord;
end
$$;

-- bus_enqueue for those who have the batch in arrays: an id, a trace and a payload for each message, and the heads that they
-- have in common, as an array of messages without `id`, `trace_id` and `payload`; `head_of` has the number of each message's
-- head, from 1 on, and is null where there is one head. Answers with the messages that were known already, by their places
-- in the batch from 1 on; no row, if all are new.
--
-- Not for tokens (CG403): they send by bus_enqueue. Errors, locks: as bus_enqueue.
create function public.bus_enqueue_many(
        ids uuid[], traces uuid[], payloads jsonb[], heads jsonb, head_of integer[] default null)
    returns table (ord bigint, id uuid, trace_id uuid, status text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
        set plan_cache_mode = force_generic_plan set jit = off
    as $$
#variable_conflict use_column
declare
    asked constant integer := coalesce(cardinality(ids), -1);
    many constant integer := case jsonb_typeof(heads) when 'array' then jsonb_array_length(heads) end;
    problem text;
    known jsonb;
begin
    if cogo.restricted() then
        raise exception 'bus_enqueue_many: not for tokens; use bus_enqueue' using errcode = 'CG403';
    end if;
    if asked > 10000 then
        raise exception 'ids: at most 10000 messages in one call, not %', asked using errcode = 'CG413';
    end if;
    if asked = 0 then
        return;
    end if;
    if array_ndims(ids) is distinct from 1 or array_lower(ids, 1) <> 1 or array_position(ids, null) is not null then
        raise exception 'ids: must be UUIDs, one for each message' using errcode = 'CG400';
    end if;
    if array_ndims(traces) is distinct from 1 or array_lower(traces, 1) <> 1 or cardinality(traces) <> asked
        or array_position(traces, null) is not null then
        raise exception 'traces: must be UUIDs, one for each of the ids' using errcode = 'CG400';
    end if;
    if array_ndims(payloads) is distinct from 1 or array_lower(payloads, 1) <> 1 or cardinality(payloads) <> asked
        or array_position(payloads, null) is not null then
        raise exception 'payloads: must be JSON, one for each of the ids' using errcode = 'CG400';
    end if;
    if (many between 1 and asked) is not true then
        raise exception 'heads: must be an array of at least one object, and of at most as many as there are ids'
            using errcode = 'CG400';
    end if;
    if head_of is not null then
        if array_ndims(head_of) is distinct from 1 or array_lower(head_of, 1) <> 1 or cardinality(head_of) <> asked
            or (select bool_and(h between 1 and many) from unnest(head_of) h) is not true
            or array_position(head_of, null) is not null then
            raise exception 'head_of: must be numbers from 1 to %, one for each of the ids', many using errcode = 'CG400';
        end if;
    end if;
    if heads @? '$[*] ? (exists (@.id) || exists (@.trace_id) || exists (@.payload))' then
        raise exception 'heads: must be without id, trace_id and payload, of which each message has its own'
            using errcode = 'CG400';
    end if;
    problem := cogo.head_problem(heads, head_of);
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    known := cogo.enqueue(ids, traces, payloads, heads, head_of);
    if known is not null then
        return query select k.ord, k.id, k.trace_id, k.status
            from jsonb_to_recordset(known) as k (ord bigint, id uuid, trace_id uuid, status text) order by k.ord;
    end if;
end
$$;

insert into cogo.function_rights (name, tokens, workers, operators) values ('public.bus_enqueue_many', false, true, false);

do $$
declare
    note text;
begin
    for note in select cogo.grant_rights() loop
        raise warning '%', note;
    end loop;
end
$$;
