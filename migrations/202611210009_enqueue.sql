-- bus_enqueue with deadlines, ordering keys and limits; else as it was in 202611210002_enqueue.sql.

-- The first thing that is wrong with a batch of messages, or null. The field is named as the caller
-- wrote it, counted from 0.
create or replace function cogo.message_problem(messages jsonb) returns text
    language sql stable parallel safe
    as $$
    select format('messages[%s]%s', ord - 1, problem)
    from (
        select ord, case
            when jsonb_typeof(m) <> 'object' then ': must be an object'
            when m - '{id,tenant,role,service,shard,intent,payload,trace_id,parent_id,idempotency_key,priority,max_attempts,delay_ms,deadline_ms,ordering_key}'::text[] <> '{}'
                then format('.%s: is not a field of a message', (
                    select k from jsonb_object_keys(
                        m - '{id,tenant,role,service,shard,intent,payload,trace_id,parent_id,idempotency_key,priority,max_attempts,delay_ms,deadline_ms,ordering_key}'::text[]) k
                    order by k limit 1))
            when coalesce(m ->> 'role', '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then '.role: must be 1 to 64 letters, digits, _ or -'
            when coalesce(m ->> 'service', '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then '.service: must be 1 to 64 letters, digits, _ or -'
            when coalesce(m ->> 'tenant', 'default') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then '.tenant: must be 1 to 64 letters, digits, _ or -'
            when length(m ->> 'intent') > 64
                or coalesce(m ->> 'intent', '') !~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$'
                then '.intent: must be words of a-z, 0-9 and _ joined by dots, at most 64 characters'
            when not m ? 'payload' then '.payload: is missing'
            when coalesce(m ->> 'id', '00000000-0000-0000-0000-000000000000')
                !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.id: must be a UUID'
            when coalesce(m ->> 'trace_id', '00000000-0000-0000-0000-000000000000')
                !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.trace_id: must be a UUID'
            when coalesce(m ->> 'parent_id', '00000000-0000-0000-0000-000000000000')
                !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.parent_id: must be a UUID'
            when coalesce(jsonb_typeof(m -> 'idempotency_key'), 'null') not in ('string', 'null')
                or length(m ->> 'idempotency_key') not between 1 and 255
                then '.idempotency_key: must be a string of 1 to 255 characters'
            when coalesce(m ->> 'priority', '0') !~ '^-?[0-9]{1,3}$'
                or (m ->> 'priority')::int not between -100 and 100
                then '.priority: must be a whole number from -100 to 100'
            when coalesce(m ->> 'shard', '0') !~ '^[0-9]{1,5}$'
                then '.shard: must be a whole number from 0 to 99999'
            when coalesce(m ->> 'max_attempts', '1') !~ '^[0-9]{1,4}$'
                or (m ->> 'max_attempts')::int not between 1 and 1000
                then '.max_attempts: must be a whole number from 1 to 1000'
            when coalesce(m ->> 'delay_ms', '0') !~ '^[0-9]{1,11}$'
                or (m ->> 'delay_ms')::bigint > 31536000000
                then '.delay_ms: must be a whole number from 0 to 31536000000 (a year)'
            when coalesce(m ->> 'deadline_ms', '1') !~ '^[0-9]{1,11}$'
                or (m ->> 'deadline_ms')::bigint not between 1 and 31536000000
                then '.deadline_ms: must be a whole number from 1 to 31536000000 (a year)'
            when coalesce(jsonb_typeof(m -> 'ordering_key'), 'null') not in ('string', 'null')
                or length(m ->> 'ordering_key') not between 1 and 255
                then '.ordering_key: must be a string of 1 to 255 characters'
        end as problem
        from jsonb_array_elements(messages) with ordinality as e (m, ord)
    ) checked
    where problem is not null
    order by ord
    limit 1
    $$;

-- Enqueues a batch, all or nothing, and answers in the batch's order.
--
-- A message whose id or (tenant, idempotency_key) is known makes no second one: the answer names the
-- first, with duplicate = true. Errors: CG400 names the field; CG409 an id that belongs to a message
-- of another tenant; CG413 a payload over 4 MiB, or over 16 MiB when written out; CG429 where more would wait
-- than a limit allows, with retry_after_ms in its detail.
--
-- A message with an ordering key is put behind those of its key, and goes at once where there are none.
--
-- Locks: limits, then ordering keys (202611210008_order_and_limits.sql); then new rows, and in the unique
-- indexes their keys, in the order (tenant, key, id), so that two batches with the same keys, or with the
-- same ids, wait for each other without a deadlock.
create or replace function public.bus_enqueue(messages jsonb)
    returns table (id uuid, trace_id uuid, duplicate boolean, status text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
    moment constant timestamptz := cogo.now();
    asked constant integer := case jsonb_typeof(messages) when 'array' then jsonb_array_length(messages) end;
    ids uuid[];
    traces uuid[];
    inserted uuid[];
    numbers bigint[];
    ordered uuid[];
    answered integer;
begin
    if asked is null then
        raise exception 'messages: must be an array' using errcode = 'CG400';
    end if;
    if asked > 10000 then
        raise exception 'messages: at most 10000 in one call, not %', asked using errcode = 'CG413';
    end if;
    problem := cogo.message_problem(messages);
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    if pg_column_size(messages) > 4194304 then
        select format('messages[%s].payload: at most 4 MiB, not %s bytes', ord - 1, pg_column_size(m -> 'payload'))
            into problem
            from jsonb_array_elements(messages) with ordinality as e (m, ord)
            where pg_column_size(m -> 'payload') > 4194304
            order by ord limit 1;
        if problem is not null then
            raise exception '%', problem using errcode = 'CG413';
        end if;
    end if;

    -- A number such as 1e131071 takes a few bytes to store, and each of its digits to read: a message full
    -- of them could be claimed by nobody (54000), and would fail every claim that comes upon it.
    if octet_length(messages::text) > 16777216 then
        select format('messages[%s].payload: at most 16 MiB when written out', ord - 1) into problem
            from jsonb_array_elements(messages) with ordinality as e (m, ord)
            where octet_length((m -> 'payload')::text) > 16777216
            order by ord limit 1;
        if problem is not null then
            raise exception '%', problem using errcode = 'CG413';
        end if;
    end if;

    if exists (select from cogo.limits where max_queued is not null) then
        perform cogo.admit(messages);
    end if;
    if messages @? '$[*].ordering_key ? (@ != null)' then
        -- A statement of its own: what follows must see what others did while this waited.
        perform pg_advisory_xact_lock(n) from (
            select distinct cogo.order_lock(coalesce(m ->> 'tenant', 'default'), m ->> 'role', m ->> 'service',
                m ->> 'ordering_key') as n
            from jsonb_array_elements(messages) m
            where m ->> 'ordering_key' is not null
            order by 1
            offset 0
        ) sorted;
        -- Under the locks, so that numbers grow within each key as its messages are committed.
        select array_agg(case when m ->> 'ordering_key' is not null then nextval('cogo.ordering_no_seq') end order by ord)
            into numbers
            from jsonb_array_elements(messages) with ordinality as e (m, ord);
    end if;

    -- An id and a trace for each that brings none, in the batch's order.
    select coalesce(array_agg(coalesce((m ->> 'id')::uuid, cogo.uuid_v7(moment)) order by ord), '{}'),
            array_agg(coalesce((m ->> 'trace_id')::uuid, gen_random_uuid()) order by ord)
        into ids, traces
        from jsonb_array_elements(messages) with ordinality as e (m, ord);

    with input as (
        select ids[ord] as id,
            coalesce(m ->> 'tenant', 'default') as tenant,
            m ->> 'role' as role,
            m ->> 'service' as service,
            coalesce((m ->> 'shard')::integer, 0) as shard,
            m ->> 'intent' as intent,
            m -> 'payload' as payload,
            traces[ord] as trace_id,
            (m ->> 'parent_id')::uuid as parent_id,
            m ->> 'idempotency_key' as idempotency_key,
            coalesce((m ->> 'priority')::smallint, 0::smallint) as priority,
            coalesce((m ->> 'max_attempts')::integer, 5) as max_attempts,
            moment + make_interval(secs => coalesce((m ->> 'delay_ms')::bigint, 0) / 1000.0) as run_at,
            (m ->> 'deadline_ms')::bigint as deadline_ms,
            m ->> 'ordering_key' as ordering_key,
            numbers[ord] as ordering_no,
            ord
        from jsonb_array_elements(messages) with ordinality as e (m, ord)
    ), added as (
        insert into public.agent_messages (id, tenant, role, service, shard, intent, payload, trace_id,
            parent_id, idempotency_key, priority, max_attempts, run_at, status, claim_no, created_at,
            updated_at, rank_at, deadline_ms, deadline_at, ordering_key, ordering_no, parked_for)
        select id, tenant, role, service, shard, intent, payload, trace_id,
            parent_id, idempotency_key, priority, max_attempts, run_at,
            case when run_at > moment then 'delayed' else 'queued' end, cogo.first_claim_no(moment), moment,
            moment, run_at - priority * interval '1 minute', deadline_ms,
            moment + make_interval(secs => deadline_ms / 1000.0), ordering_key, ordering_no,
            case when ordering_key is not null then 'ordering' end
        from input
        -- Within one key the batch's first comes first; without a key nothing but the id can conflict.
        order by tenant, idempotency_key nulls last, case when idempotency_key is null then id end, ord
        on conflict do nothing
        returning *
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            created_at, payload)
        select cogo.event_type(intent, 'scheduled'), id, trace_id, tenant, service, role, shard, moment,
            jsonb_build_object('intent', intent, 'payload', payload, 'priority', priority,
                'max_attempts', max_attempts, 'run_at', run_at)
            || case when parent_id is null then '{}' else jsonb_build_object('parent_id', parent_id) end
            || case when idempotency_key is null then '{}'
                else jsonb_build_object('idempotency_key', idempotency_key) end
            || case when deadline_ms is null then '{}' else jsonb_build_object('deadline_ms', deadline_ms) end
            || case when ordering_key is null then '{}'
                else jsonb_build_object('ordering_key', ordering_key, 'ordering_no', ordering_no) end
        from added
    )
    select coalesce(array_agg(id), '{}'), array_agg(id) filter (where ordering_key is not null)
        into inserted, ordered from added;
    if ordered is not null then
        perform cogo.advance(ordered);
    end if;

    if cardinality(inserted) = asked then
        return query
            select ids[ord], traces[ord], false,
                case when coalesce((m ->> 'delay_ms')::bigint, 0) > 0 then 'delayed' else 'queued' end
            from jsonb_array_elements(messages) with ordinality as e (m, ord)
            order by ord;
        return;
    end if;

    -- Some were known. A second statement, and so a second snapshot: it sees what the first waited for.
    if exists (
        select from jsonb_array_elements(messages) with ordinality as e (j, ord)
            join public.agent_messages m on m.id = ids[ord]
        where m.tenant <> coalesce(j ->> 'tenant', 'default')
    ) then
        raise exception 'messages: an id belongs to a message of another tenant' using errcode = 'CG409';
    end if;
    return query
        select m.id, m.trace_id, not (i.id = any (inserted) and i.first), m.status
        from (
            select ord, ids[ord] as id, coalesce(j ->> 'tenant', 'default') as tenant,
                j ->> 'idempotency_key' as idempotency_key,
                row_number() over (partition by ids[ord] order by ord) = 1 as first
            from jsonb_array_elements(messages) with ordinality as e (j, ord)
        ) i
        cross join lateral (
            select a.id, a.trace_id, a.status from public.agent_messages a where a.id = i.id
            union all
            select a.id, a.trace_id, a.status from public.agent_messages a
                where a.tenant = i.tenant and a.idempotency_key = i.idempotency_key and a.id <> i.id
            limit 1
        ) m
        order by i.ord;
    get diagnostics answered = row_count;
    if answered < asked then
        -- Retention removed the first message between the two statements.
        raise exception 'messages: a message with the same key was just removed; send again'
            using errcode = '40001';
    end if;
end
$$;
