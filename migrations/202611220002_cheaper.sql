-- What a message costs in a batch. Of 1,000 enqueued messages, each took 40 us of the server's processor, 14 of them for
-- patterns; of 1,000 results, each took 22 us, 4 of them for patterns. docs/performance.md has the figures, and what else was tried.

-- A pattern that counts, such as [0-9a-f]{8}, takes ten times as long as one that does not: 3 us against 0.3. So lengths are
-- looked at apart. Not strict: then they are put into their callers.
create function cogo.is_name(word text) returns boolean
    language sql immutable parallel safe
    as $$ select word ~ '^[A-Za-z0-9][A-Za-z0-9_-]*$' and length(word) <= 64 $$;

create function cogo.is_uuid(word text) returns boolean
    language sql immutable parallel safe
    as $$
        select word like '________-____-____-____-____________'
            and word ~ '^[0-9a-fA-F]+-[0-9a-fA-F]+-[0-9a-fA-F]+-[0-9a-fA-F]+-[0-9a-fA-F]+$'
    $$;

-- A whole number of at most so many digits.
create function cogo.is_number(word text, digits integer) returns boolean
    language sql immutable parallel safe
    as $$ select word ~ '^[0-9]+$' and length(word) <= digits $$;

-- What is wrong with a batch of messages, naming the first place; null if nothing is. What is absent is not looked at.
create or replace function cogo.message_problem(messages jsonb) returns text
    language plpgsql stable parallel safe
    as $$
begin
    return (
    select format('messages[%s]%s', ord - 1, problem)
    from (
        select ord, case
            when jsonb_typeof(m) <> 'object' then ': must be an object'
            when m - '{id,tenant,role,service,shard,intent,payload,trace_id,parent_id,idempotency_key,priority,max_attempts,delay_ms,deadline_ms,ordering_key}'::text[] <> '{}'
                then format('.%s: is not a field of a message', (
                    select k from jsonb_object_keys(
                        m - '{id,tenant,role,service,shard,intent,payload,trace_id,parent_id,idempotency_key,priority,max_attempts,delay_ms,deadline_ms,ordering_key}'::text[]) k
                    order by k limit 1))
            when cogo.is_name(m ->> 'role') is not true
                then '.role: must be 1 to 64 letters, digits, _ or -'
            when cogo.is_name(m ->> 'service') is not true
                then '.service: must be 1 to 64 letters, digits, _ or -'
            when not cogo.is_name(m ->> 'tenant')
                then '.tenant: must be 1 to 64 letters, digits, _ or -'
            when (length(m ->> 'intent') <= 64 and m ->> 'intent' ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$') is not true
                then '.intent: must be words of a-z, 0-9 and _ joined by dots, at most 64 characters'
            when not m ? 'payload' then '.payload: is missing'
            when not cogo.is_uuid(m ->> 'id') then '.id: must be a UUID'
            when not cogo.is_uuid(m ->> 'trace_id') then '.trace_id: must be a UUID'
            when not m ?| '{parent_id,idempotency_key,priority,shard,max_attempts,delay_ms,deadline_ms,ordering_key}' then null
            when not cogo.is_uuid(m ->> 'parent_id') then '.parent_id: must be a UUID'
            when coalesce(jsonb_typeof(m -> 'idempotency_key'), 'null') not in ('string', 'null')
                or length(m ->> 'idempotency_key') not between 1 and 255
                then '.idempotency_key: must be a string of 1 to 255 characters'
            when not (m ->> 'priority' ~ '^-?[0-9]+$' and length(ltrim(m ->> 'priority', '-')) <= 3)
                or (m ->> 'priority')::int not between -100 and 100
                then '.priority: must be a whole number from -100 to 100'
            when not cogo.is_number(m ->> 'shard', 5)
                then '.shard: must be a whole number from 0 to 99999'
            when not cogo.is_number(m ->> 'max_attempts', 4) or (m ->> 'max_attempts')::int not between 1 and 1000
                then '.max_attempts: must be a whole number from 1 to 1000'
            when not cogo.is_number(m ->> 'delay_ms', 11) or (m ->> 'delay_ms')::bigint > 31536000000
                then '.delay_ms: must be a whole number from 0 to 31536000000 (a year)'
            when not cogo.is_number(m ->> 'deadline_ms', 11) or (m ->> 'deadline_ms')::bigint not between 1 and 31536000000
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
    );
end
$$;

-- As in 202611210009_enqueue.sql, with traces that grow with time where a message brings none (random ones touch a page of the
-- index each), and without putting objects together that messages without keys have not.
create or replace function cogo_unscoped.bus_enqueue(messages jsonb)
    returns table (id uuid, trace_id uuid, duplicate boolean, status text)
    language plpgsql volatile
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
            array_agg(coalesce((m ->> 'trace_id')::uuid, cogo.uuid_v7(moment)) order by ord)
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

-- As in 202611210021_short_way.sql, by cheaper patterns, and comparing bytes.
create or replace function cogo.are_results(items jsonb) returns boolean
    language plpgsql immutable parallel safe
    as $$
begin
    return (
        select coalesce(bool_and(case when jsonb_typeof(c) = 'object'
                and c ->> 'op' = 'complete'
                and cogo.is_uuid(c ->> 'id')
                and cogo.is_number(c ->> 'claim_no', 18)
                and not c ?| '{retry_in_ms,park}'
                and coalesce(jsonb_typeof(c -> 'meta'), 'object') in ('object', 'null')
            then true else false end), false)
            and count(distinct lower(c ->> 'id') collate "C") = count(*)
        from jsonb_array_elements(items) c);
end
$$;

-- As in 202611210010_claim.sql, and large claims go on where the last one began.
--
-- Until vacuum comes by, the claim index begins with entries of messages that were claimed long ago. To pass over 100,000 of
-- them takes 1 ms, and 50 ms while a transaction somewhere holds vacuum back, since each has to be looked up in the table. So a
-- session remembers the rank from which its last large claim took, and the next one of the same topics begins there. What
-- came in below (of a higher priority, requeued, committed late) is found by each 32nd, by the first after a second, and by every
-- claim that would else give fewer than asked, after the others; small claims always begin at the beginning. What is remembered
-- is a hint and no more.
create or replace function cogo_unscoped.bus_claim(
        worker text, topics text[], max integer default 1, lease_ms integer default 30000, tenant text default 'default')
    returns setof public.agent_messages
    language plpgsql volatile
        -- Times are remembered as text, whatever way the session writes them.
        set enable_seqscan = off set datestyle = 'ISO, YMD'
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    lease constant interval := make_interval(secs => lease_ms / 1000.0);
    large constant boolean := max >= 64;
    key text;
    hint text[];
    beginning timestamptz := '-infinity';
    first_id uuid := '00000000-0000-0000-0000-000000000000';
    began timestamptz := moment;
    nth integer := 0;
    missing integer := max;
    found_now integer;
begin
    if coalesce(length(worker), 0) not between 1 and 255 then
        raise exception 'worker: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if coalesce(cardinality(topics), 0) not between 1 and 1000 then
        raise exception 'topics: must name 1 to 1000 topics' using errcode = 'CG400';
    end if;
    if coalesce(max, 0) not between 0 and 10000 then
        raise exception 'max: must be from 0 to 10000' using errcode = 'CG400';
    end if;
    if coalesce(lease_ms, 0) not between 100 and 86400000 then
        raise exception 'lease_ms: must be from 100 to 86400000 (a day)' using errcode = 'CG400';
    end if;
    if bus_claim.tenant = '*' then
        return query select * from cogo.claim_fairly(worker, topics, max, lease);
        return;
    end if;
    if large then
        key := hashtextextended(bus_claim.tenant || ' ' || array_to_string(topics, ' '), 0)::text;
        hint := string_to_array(current_setting('cogo.claimed_from', true), '|');
        if hint[1] = key and hint[2]::integer < 32 and hint[5]::timestamptz > moment - interval '1 second' then
            nth := hint[2]::integer;
            beginning := hint[3]::timestamptz;
            first_id := hint[4]::uuid;
            began := hint[5]::timestamptz;
        end if;
    end if;
    loop
        return query
            with topic as materialized (
                select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
                from unnest(topics) as t
            ), picked as materialized (
                -- Materialized: a plan that ran this twice would claim more than `max`.
                select m.id, m.rank_at, m.place
                from topic
                cross join lateral (
                    select a.id, a.rank_at, a.ctid as place
                    from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null
                        and a.role = topic.role and a.service = topic.service and a.tenant = bus_claim.tenant
                        and (a.rank_at, a.id) >= (beginning, first_id)
                        and (a.deadline_at is null or a.deadline_at > moment)
                    order by a.rank_at, a.id
                    limit missing
                    for update skip locked
                ) m
                order by m.rank_at, m.id
                limit missing
            ), claimed as (
                update public.agent_messages a
                set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                    claimed_by = worker, claimed_at = moment, lease_until = moment + lease
                -- By their places: joined by id, the plan for any limit expects a tenth of what waits, and reads all of the
                -- primary key. One that was claimed and released again since the statement began is locked here and not
                -- found by its new place. Whoever the release wakes meets the lock, so it may wait for the next poll.
                where a.ctid = any (array(select p.place from picked p))
                returning a.*
            ), remembered as materialized (
                select case when large then set_config('cogo.claimed_from',
                    concat_ws('|', key, nth + 1, p.rank_at, p.id, began), false) end
                from picked p order by p.rank_at, p.id limit 1
            )
            select c.* from remembered cross join claimed c order by c.rank_at, c.id;
        get diagnostics found_now = row_count;
        missing := missing - found_now;
        exit when missing <= 0 or beginning = '-infinity';
        beginning := '-infinity';
        nth := 0;
        began := moment;
    end loop;
end
$$;

do $$
declare
    note text;
begin
    for note in select cogo.grant_rights() loop
        raise warning '%', note;
    end loop;
end
$$;
