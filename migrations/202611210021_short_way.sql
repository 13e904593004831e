-- The short way of a message: enqueued and claimed by one insert, and completed by one small statement. What a call
-- costs here is mostly to set statements up, not what they do: of one message, enqueue, claim and settle took 1.3 ms of
-- processor, of 32 messages together 0.13 ms each. So what nearly every message needs is done by as few statements, as
-- small ones and as few changes of rows as can be; all else goes the way that it went.

-- Whether these messages, which are valid, may be inserted as claimed by a worker of these topics and this tenant: none is
-- special, and nothing of the worker's waits that would come first.
create function cogo.are_next(messages jsonb, topics text[], tenant text) returns boolean
    language plpgsql stable
    as $$
begin
    return (
            select bool_and((are_next.tenant = '*' or coalesce(m ->> 'tenant', 'default') = are_next.tenant)
                    and (m ->> 'role') || '/' || (m ->> 'service') = any (topics)
                    and coalesce((m ->> 'delay_ms')::bigint, 0) = 0
                    and m ->> 'ordering_key' is null and m ->> 'idempotency_key' is null)
                and count(distinct (m ->> 'id')::uuid) = count(m ->> 'id')
            from jsonb_array_elements(messages) m
        )
        and not exists (select from cogo.limits where max_queued is not null)
        -- A way for each, or other tenants' messages would have to be looked through.
        and case when are_next.tenant = '*' then not exists (
            select from unnest(topics) t
            cross join lateral (
                select a.id from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null
                    and a.role = split_part(t, '/', 1) and a.service = split_part(t, '/', 2)
                order by a.role, a.service, a.tenant, a.rank_at, a.id limit 1
            ) waiting
        ) else not exists (
            select from unnest(topics) t
            cross join lateral (
                select a.id from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null and a.tenant = are_next.tenant
                    and a.role = split_part(t, '/', 1) and a.service = split_part(t, '/', 2)
                order by a.role, a.service, a.tenant, a.rank_at, a.id limit 1
            ) waiting
        ) end;
end
$$;

-- bus_enqueue, and then bus_claim for a worker that is beside the sender, in one transaction. A row for each message, in
-- the batch's order (`ord`), as bus_enqueue answers; `message` is there too where it was claimed. After these come, without
-- `ord`, other messages that were claimed: the next by rank, whoever sent them.
--
-- Where nothing waits on the worker's topics, what is enqueued is next: then it is inserted as claimed, which is what
-- an insert and a claim would have made of it, without the row and the index entries in between. Not so for batches with
-- delays, ordering keys or idempotency keys, of other topics or tenants, for which there are not places enough, or where
-- something is limited: these are enqueued and then claimed.
--
-- Not for tokens (CG403): they send by bus_enqueue. Errors: those of bus_enqueue and bus_claim. Locks: as bus_enqueue, and
-- a claim waits for nothing, so that nothing is waited for with it.
create function public.bus_enqueue_and_claim(
        messages jsonb, worker text, topics text[], max integer default 1, lease_ms integer default 30000,
        tenant text default 'default')
    returns table (ord bigint, id uuid, trace_id uuid, duplicate boolean, message public.agent_messages)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
        set plan_cache_mode = force_generic_plan set jit = off
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    lease constant interval := make_interval(secs => lease_ms / 1000.0);
    asked constant integer := case jsonb_typeof(messages) when 'array' then jsonb_array_length(messages) end;
    answered integer;
    known integer;
begin
    if cogo.restricted() then
        raise exception 'bus_enqueue_and_claim: not for tokens; use bus_enqueue' using errcode = 'CG403';
    end if;
    -- Each only if what is before it holds: what is wrong is told by the other way.
    if (case
            when asked is null then false
            when (asked between 1 and max and max <= 10000 and lease_ms between 100 and 86400000
                and length(worker) between 1 and 255 and cardinality(topics) between 1 and 1000
                and pg_column_size(messages) <= 4194304 and octet_length(messages::text) <= 16777216) is not true then false
            when cogo.message_problem(messages) is not null then false
            else cogo.are_next(messages, topics, bus_enqueue_and_claim.tenant)
        end)
    then
        return query
            with input as materialized (
                select e.ord, coalesce((m ->> 'id')::uuid, cogo.uuid_v7(moment)) as id,
                    coalesce((m ->> 'trace_id')::uuid, gen_random_uuid()) as trace_id,
                    coalesce(m ->> 'tenant', 'default') as tenant, m ->> 'role' as role, m ->> 'service' as service,
                    coalesce((m ->> 'shard')::integer, 0) as shard, m ->> 'intent' as intent, m -> 'payload' as payload,
                    (m ->> 'parent_id')::uuid as parent_id,
                    coalesce((m ->> 'priority')::smallint, 0::smallint) as priority,
                    coalesce((m ->> 'max_attempts')::integer, 5) as max_attempts,
                    (m ->> 'deadline_ms')::bigint as deadline_ms
                from jsonb_array_elements(messages) with ordinality as e (m, ord)
            ), added as (
                insert into public.agent_messages as a (id, tenant, role, service, shard, intent, payload, trace_id,
                    parent_id, priority, max_attempts, run_at, status, claim_no, attempts, claimed_by, claimed_at,
                    lease_until, created_at, updated_at, rank_at, deadline_ms, deadline_at)
                select i.id, i.tenant, i.role, i.service, i.shard, i.intent, i.payload, i.trace_id,
                    i.parent_id, i.priority, i.max_attempts, moment, 'claimed', cogo.first_claim_no(moment) + 1, 1,
                    worker, moment, moment + lease, moment, moment, moment - i.priority * interval '1 minute',
                    i.deadline_ms, moment + make_interval(secs => i.deadline_ms / 1000.0)
                from input i
                -- As in bus_enqueue: two batches with the same ids wait for each other without a deadlock.
                order by i.tenant, i.id, i.ord
                on conflict do nothing
                returning a.*
            ), logged as (
                insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
                    created_at, payload)
                select cogo.event_type(a.intent, 'scheduled'), a.id, a.trace_id, a.tenant, a.service, a.role, a.shard, moment,
                    jsonb_build_object('intent', a.intent, 'payload', a.payload, 'priority', a.priority,
                        'max_attempts', a.max_attempts, 'run_at', a.run_at)
                    || case when a.parent_id is null then '{}' else jsonb_build_object('parent_id', a.parent_id) end
                    || case when a.deadline_ms is null then '{}' else jsonb_build_object('deadline_ms', a.deadline_ms) end
                from added a
            )
            select i.ord, a.id, a.trace_id, false, a::public.agent_messages
            from added a join input i on i.id = a.id;
        get diagnostics answered = row_count;
        if answered = asked then
            return;
        end if;
        -- Some were known. More statements, and so more snapshots: they see what the first waited for.
        if exists (
            select from jsonb_array_elements(messages) m
            cross join lateral (
                select a.tenant from public.agent_messages a where a.id = (m ->> 'id')::uuid limit 1
            ) known
            where known.tenant <> coalesce(m ->> 'tenant', 'default')
        ) then
            raise exception 'messages: an id belongs to a message of another tenant' using errcode = 'CG409';
        end if;
        return query
            select e.ord, known.id, known.trace_id, true, null::public.agent_messages
            from jsonb_array_elements(messages) with ordinality as e (m, ord)
            cross join lateral (
                select a.id, a.trace_id, a.created_at, a.xmin as made_by from public.agent_messages a
                where a.id = (m ->> 'id')::uuid limit 1
            ) known
            -- But for those that were added just now.
            where not (known.created_at = moment and known.made_by = pg_current_xact_id()::xid);
        get diagnostics known = row_count;
        if answered + known < asked then
            -- Retention removed one of them between the statements.
            raise exception 'messages: a message with the same id was just removed; send again'
                using errcode = '40001';
        end if;
        return;
    end if;

    return query
        select row_number() over (), e.id, e.trace_id, e.duplicate, null::public.agent_messages
        from cogo_unscoped.bus_enqueue(messages) e;
    return query
        select null::bigint, null::uuid, null::uuid, null::boolean, m
        from cogo_unscoped.bus_claim(worker, topics, max, lease_ms, bus_enqueue_and_claim.tenant) m;
end
$$;

-- As in 202611210010_claim.sql: what is not but results of messages without ordering keys goes there.
alter function cogo.settle(jsonb) rename to settle_each;

-- Settles a batch (cogo.settle_each says how). Results, which nearly all settles are, go by a statement of their own, which
-- knows of no retries, circuits or ordering keys. Its outcomes and locks are the same.
create function cogo.settle(items jsonb)
    returns table (ord bigint, outcome text)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    settled bigint[];
    asked constant integer := case jsonb_typeof(items) when 'array' then jsonb_array_length(items) end;
begin
    if asked = 0 then
        return;
    end if;
    if (case
            when asked is null or asked > 10000 or octet_length(items::text) > 16777216 then true
            when not cogo.are_results(items) then true
            else cogo.any_ordered()
        end)
    then
        return query select * from cogo.settle_each(items);
        return;
    end if;
    with input as materialized (
        select e.ord, (c ->> 'id')::uuid as id, (c ->> 'claim_no')::bigint as claim_no,
            coalesce(c -> 'result', 'null') as result, left(c ->> 'reason', 200) as reason,
            coalesce(nullif(c -> 'meta', 'null'), '{}') as meta
        from jsonb_array_elements(items) with ordinality as e (c, ord)
    ), locked as materialized (
        select i.*, m.claimed_by
        from (select * from input order by id) i
        cross join lateral (
            select a.status, a.claim_no, a.claimed_by from public.agent_messages a
            -- One that has a key by now is another message under the same id.
            where a.id = i.id and a.ordering_key is null
            limit 1 for update
        ) m
        where m.status = 'claimed' and m.claim_no = i.claim_no
    ), changed as (
        update public.agent_messages m
        set status = 'done', parked_for = null, result = l.result, error = null, done_at = moment,
            updated_at = moment, claimed_by = null, claimed_at = null, lease_until = null
        from locked l
        where m.id = l.id
        returning l.*, m.trace_id, m.tenant, m.service, m.role, m.shard, m.intent, m.attempts
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            attempt, worker_id, reason, created_at, payload)
        select cogo.event_type(c.intent, 'succeeded'), c.id, c.trace_id, c.tenant, c.service, c.role,
            c.shard, c.attempts, c.claimed_by, c.reason, moment,
            c.meta || jsonb_build_object('result', c.result) || jsonb_build_object('claim_no', c.claim_no)
        from changed c
        order by c.ord
    )
    select coalesce(array_agg(ord), '{}') into settled from changed;

    return query select o, 'settled' from unnest(settled) as o;
    if cardinality(settled) < asked then
        -- Why, is found out there; there they change nothing either, since the claims are not in force.
        return query
            select r.ord, s.outcome
            from (
                select e.ord, row_number() over (order by e.ord) as nth
                from jsonb_array_elements(items) with ordinality as e (c, ord)
                where e.ord <> all (settled)
            ) r
            join cogo.settle_each((
                select jsonb_agg(c order by e.ord) from jsonb_array_elements(items) with ordinality as e (c, ord)
                where e.ord <> all (settled)
            )) s on s.ord = r.nth;
    end if;
end
$$;

-- Whether all of a batch of settles are results, and valid as cogo.read_claims has it; what is not is told there.
create function cogo.are_results(items jsonb) returns boolean
    language plpgsql immutable parallel safe
    as $$
begin
    return (
        select coalesce(bool_and(case when jsonb_typeof(c) = 'object'
                and c ->> 'id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                and c ->> 'claim_no' ~ '^[0-9]{1,18}$'
                and c ->> 'op' = 'complete'
                and not c ? 'retry_in_ms' and not c ? 'park'
                and coalesce(jsonb_typeof(c -> 'meta'), 'object') in ('object', 'null')
            then true else false end), false)
            and count(distinct lower(c ->> 'id')) = count(*)
        from jsonb_array_elements(items) c);
end
$$;

-- As in 202611210018_operate.sql, with the new function for those who are no tokens.
do $$
declare
    body constant text := (select prosrc from pg_proc where oid = 'cogo.grant_rights()'::regprocedure);
    changed constant text := replace(body,
        'for_workers constant text[] := ''{bus_enqueue,', 'for_workers constant text[] := ''{bus_enqueue,bus_enqueue_and_claim,');
    note text;
begin
    if changed = body then
        raise exception 'cogo.grant_rights: is not as it was in 202611210018_operate.sql';
    end if;
    execute format('create or replace function cogo.grant_rights() returns setof text language plpgsql volatile as %L', changed);
    for note in select cogo.grant_rights() loop
        raise warning '%', note;
    end loop;
end
$$;
