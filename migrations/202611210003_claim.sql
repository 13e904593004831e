-- From claim to settle: bus_claim, bus_extend, bus_complete, bus_fail, bus_release, bus_step, bus_reap.
--
-- Lock order. Whatever waits for rows of agent_messages locks them in the order of their ids; whatever
-- picks rows to work on (bus_claim, bus_reap, bus_retain) skips locked ones and so never waits. Events
-- are appended last and lock nothing. So no two calls wait for each other in a circle.
--
-- Plans. A function's plan is kept, and may have been made when the tables were empty. So rows are looked
-- up one by one by their id, in a lateral subquery that `limit` fences off: a join would be free to scan
-- the index of all claims instead, which is best when there are none and terrible when there are many.

-- Takes up to `max` messages that wait on the topics ('role/service'), the highest priority first,
-- then the earliest due, then the oldest, and holds them for `lease_ms`. A claim burns an attempt
-- until it is released. Nothing is appended: a claim that is lost is undone by bus_reap.
-- Errors: CG400.
create function public.bus_claim(
        worker text, topics text[], max integer default 1, lease_ms integer default 30000,
        tenant text default 'default')
    returns setof public.agent_messages
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    lease constant interval := make_interval(secs => lease_ms / 1000.0);
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
    return query
        with topic as materialized (
            select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
            from unnest(topics) as t
        ), picked as materialized (
            -- Materialized: a plan that ran this twice would claim more than `max`.
            select m.id
            from topic
            cross join lateral (
                select a.id, a.priority, a.run_at
                from public.agent_messages a
                where a.status = 'queued' and a.role = topic.role and a.service = topic.service
                    and a.tenant = bus_claim.tenant
                order by a.priority desc, a.run_at, a.id
                limit bus_claim.max
                for update skip locked
            ) m
            order by m.priority desc, m.run_at, m.id
            limit bus_claim.max
        ), claimed as (
            update public.agent_messages a
            set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                claimed_by = worker, claimed_at = moment, lease_until = moment + lease
            from picked
            where a.id = picked.id
            returning a.*
        )
        select * from claimed order by priority desc, run_at, id;
end
$$;

-- Turns a batch of claims into rows. Errors: CG400 names the field.
create function cogo.read_claims(claims jsonb)
    returns table (ord bigint, id uuid, claim_no bigint, item jsonb)
    language plpgsql immutable parallel safe rows 50
    as $$
#variable_conflict use_column
declare
    problem text;
begin
    if jsonb_typeof(claims) is distinct from 'array' then
        raise exception 'claims: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(claims) > 10000 then
        raise exception 'claims: at most 10000 in one call' using errcode = 'CG413';
    end if;
    select format('claims[%s]%s', ord - 1, what) into problem from (
        select ord, case
            when jsonb_typeof(c) <> 'object' then ': must be an object'
            when coalesce(c ->> 'id', '') !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.id: must be a UUID'
            when coalesce(c ->> 'claim_no', '') !~ '^[0-9]{1,18}$'
                then '.claim_no: must be the number of the claim'
            when coalesce(c ->> 'retry_in_ms', '0') !~ '^[0-9]{1,11}$'
                or (c ->> 'retry_in_ms')::bigint > 31536000000
                then '.retry_in_ms: must be a whole number from 0 to 31536000000 (a year)'
            when coalesce(jsonb_typeof(c -> 'meta'), 'object') not in ('object', 'null')
                then '.meta: must be an object'
            when row_number() over (partition by lower(c ->> 'id') order by ord) > 1
                then '.id: stands twice in the batch'
        end as what
        from jsonb_array_elements(claims) with ordinality as e (c, ord)
    ) checked
    where what is not null order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    return query
        select ord, (c ->> 'id')::uuid, (c ->> 'claim_no')::bigint, c
        from jsonb_array_elements(claims) with ordinality as e (c, ord);
end
$$;

-- Keeps claims alive: the lease ends `lease_ms` from now. A row a claim, in order: code is null, or
-- 'CG409' where the claim is not (or no longer) the one in force. Errors: CG400.
create function public.bus_extend(claims jsonb, lease_ms integer default 30000)
    returns table (id uuid, claim_no bigint, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    until constant timestamptz := cogo.now() + make_interval(secs => lease_ms / 1000.0);
begin
    if coalesce(lease_ms, 0) not between 100 and 86400000 then
        raise exception 'lease_ms: must be from 100 to 86400000 (a day)' using errcode = 'CG400';
    end if;
    return query
        with input as materialized (
            select * from cogo.read_claims(claims)
        ), locked as materialized (
            select i.ord, i.id
            from (select * from input order by id) i
            cross join lateral (
                select a.status, a.claim_no from public.agent_messages a
                where a.id = i.id limit 1 for update
            ) m
            where m.status = 'claimed' and m.claim_no = i.claim_no
        ), extended as (
            update public.agent_messages m set lease_until = greatest(m.lease_until, until)
            from locked l where m.id = l.id
            returning l.ord
        )
        select i.id, i.claim_no, case when e.ord is null then 'CG409' end
        from input i left join extended e using (ord)
        order by i.ord;
end
$$;

-- Settles a batch: each item is a claim {id, claim_no} with op 'complete' {result}, 'fail' {error,
-- retry_in_ms?, reason?} or 'release' {retry_in_ms?, reason?}; meta is kept in the event alone.
-- Errors: CG400 names the field; CG413 an item over 16 MiB. The outcome of each is
--   settled   it is done;
--   repeated  this same settle was done before (its answer was lost): nothing was changed;
--   stale     the claim is not the one in force (SQLSTATE CG409 in the client): nothing was changed.
create function cogo.settle(items jsonb)
    returns table (ord bigint, outcome text)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    settled bigint[];
    problem text;
    asked constant integer := case jsonb_typeof(items) when 'array' then jsonb_array_length(items) end;
begin
    if asked = 0 then
        return;
    end if;
    -- As for a payload (bus_enqueue): what is small to store may be too large for anybody to read.
    if octet_length(items::text) > 16777216 then
        select format('claims[%s]: at most 16 MiB when written out', ord - 1) into problem
            from jsonb_array_elements(items) with ordinality as e (c, ord)
            where octet_length(c::text) > 16777216
            order by ord limit 1;
        if problem is not null then
            raise exception '%', problem using errcode = 'CG413';
        end if;
    end if;
    with input as materialized (
        select r.ord, r.id, r.claim_no, r.item ->> 'op' as op,
            coalesce(r.item -> 'result', 'null') as result,
            coalesce(r.item -> 'error', '{}') as error,
            (r.item ->> 'retry_in_ms')::bigint as retry_in_ms,
            left(r.item ->> 'reason', 200) as reason,
            coalesce(nullif(r.item -> 'meta', 'null'), '{}') as meta
        from cogo.read_claims(items) r
    ), locked as materialized (
        select i.*, m.attempts,
            i.op = 'fail' and i.retry_in_ms is not null and m.attempts < m.max_attempts as again,
            moment + make_interval(secs => coalesce(i.retry_in_ms, 0) / 1000.0) as due,
            m.claimed_by
        from (select * from input order by id) i
        cross join lateral (
            select a.status, a.claim_no, a.attempts, a.max_attempts, a.claimed_by
            from public.agent_messages a
            where a.id = i.id limit 1 for update
        ) m
        where m.status = 'claimed' and m.claim_no = i.claim_no
    ), changed as (
        update public.agent_messages m
        set status = case
                when l.op = 'complete' then 'done'
                when l.op = 'fail' and not l.again then 'failed'
                when l.due > moment then 'delayed'
                else 'queued'
            end,
            attempts = m.attempts - (l.op = 'release')::integer,
            run_at = case when l.again or l.op = 'release' then l.due else m.run_at end,
            result = case when l.op = 'complete' then l.result end,
            error = case l.op when 'fail' then l.error when 'release' then m.error end,
            done_at = case when l.op = 'complete' or l.op = 'fail' and not l.again then moment end,
            updated_at = moment, claimed_by = null, claimed_at = null, lease_until = null
        from locked l
        where m.id = l.id
        returning l.*, m.trace_id, m.tenant, m.service, m.role, m.shard, m.intent, m.max_attempts
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            attempt, worker_id, reason, created_at, payload)
        select cogo.event_type(c.intent, step.what), c.id, c.trace_id, c.tenant, c.service, c.role,
            c.shard, c.attempts, c.claimed_by, step.reason, moment,
            step.payload || jsonb_build_object('claim_no', c.claim_no)
        from changed c
        cross join lateral (
            select 1 as nth, 'succeeded' as what, c.reason as reason,
                c.meta || jsonb_build_object('result', c.result) as payload
                where c.op = 'complete'
            union all
            select 1, 'released', c.reason, c.meta || jsonb_build_object('run_at', c.due)
                where c.op = 'release'
            union all
            select 1, 'failed', c.error ->> 'class', c.meta || jsonb_build_object('error', c.error)
                where c.op = 'fail'
            union all
            select 2, 'retry_scheduled', c.error ->> 'class',
                jsonb_build_object('run_at', c.due, 'delay_ms', c.retry_in_ms,
                    'next_attempt', c.attempts + 1, 'max_attempts', c.max_attempts)
                where c.again
            union all
            select 2, 'dead_lettered',
                case when c.retry_in_ms is null then coalesce(c.reason, 'not_retried')
                    else 'attempts_exhausted' end,
                jsonb_build_object('class', c.error ->> 'class', 'attempts', c.attempts)
                where c.op = 'fail' and not c.again
        ) step
        order by c.ord, step.nth
    )
    select coalesce(array_agg(ord), '{}') into settled from changed;

    if cardinality(settled) = asked then
        return query select o, 'settled' from unnest(settled) as o;
        return;
    end if;
    -- What was refused: done before by this very claim, or no longer ours. Whoever takes a claim away
    -- also raises claim_no, so an equal one means that this claim was settled; how, the log says. The status
    -- alone would not: a failure that is tried again and a release leave the same one.
    return query
        select r.ord, case
                when r.ord = any (settled) then 'settled'
                when m.status <> 'claimed' and m.claim_no = r.claim_no and exists (
                    select from public.bus_events e
                    where e.message_id = r.id
                        and e.event_type = cogo.event_type(m.intent, case r.item ->> 'op'
                            when 'complete' then 'succeeded' when 'fail' then 'failed' else 'released' end)
                        and e.payload -> 'claim_no' = to_jsonb(r.claim_no))
                    then 'repeated'
                else 'stale'
            end
        from cogo.read_claims(items) r left join public.agent_messages m on m.id = r.id;
end
$$;

-- Adds the verb to each claim of a batch.
create function cogo.with_op(claims jsonb, op text) returns jsonb
    language sql immutable parallel safe
    as $$
        select case when jsonb_typeof(claims) = 'array' then (
            select coalesce(jsonb_agg(
                case when jsonb_typeof(c) = 'object' then c || jsonb_build_object('op', op) else c end
                order by ord), '[]')
            from jsonb_array_elements(claims) with ordinality as e (c, ord)
        ) else claims end
    $$;

-- What a settle answers for one claim: code is null, or 'CG409' for a stale claim; repeated says that
-- the same settle had been done before.
create function cogo.settle_answer(claims jsonb, op text)
    returns table (id uuid, claim_no bigint, code text, repeated boolean)
    language sql volatile
    as $$
        select r.id, r.claim_no, case s.outcome when 'stale' then 'CG409' end, s.outcome = 'repeated'
        from cogo.settle(cogo.with_op(claims, op)) s
        join cogo.read_claims(claims) r using (ord)
        order by s.ord
    $$;

-- Finishes claimed messages: claims are [{id, claim_no, result?, meta?}]. A row a claim, in order.
-- Errors: CG400; a stale claim has code CG409 in its row and is not touched.
create function public.bus_complete(claims jsonb)
    returns table (id uuid, claim_no bigint, code text, repeated boolean)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ begin return query select * from cogo.settle_answer(claims, 'complete'); end $$;

-- Says that the work failed: claims are [{id, claim_no, error, retry_in_ms?, reason?, meta?}]. With
-- retry_in_ms the message is tried again after that time as long as it has attempts left; else it goes
-- to the dead-letter queue. A delay and not a time, because workers' clocks are not to be trusted.
-- Answers and errors as bus_complete.
create function public.bus_fail(claims jsonb)
    returns table (id uuid, claim_no bigint, code text, repeated boolean)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ begin return query select * from cogo.settle_answer(claims, 'fail'); end $$;

-- Puts messages back that were not tried; the attempt is given back: claims are
-- [{id, claim_no, retry_in_ms?, reason?, meta?}]. Answers and errors as bus_complete.
create function public.bus_release(claims jsonb)
    returns table (id uuid, claim_no bigint, code text, repeated boolean)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ begin return query select * from cogo.settle_answer(claims, 'release'); end $$;

-- Settles a batch and claims the next in one round trip. settles are as for bus_complete, bus_fail and
-- bus_release, each with its op: 'complete', 'fail' or 'release'. First come the outcomes, with the
-- settle's place (from 1) in ord, then the claimed messages, with ord null.
create function public.bus_step(
        settles jsonb, worker text, topics text[], max integer default 1,
        lease_ms integer default 30000, tenant text default 'default')
    returns table (ord bigint, outcome text, message public.agent_messages)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
begin
    if jsonb_typeof(settles) is distinct from 'array' then
        raise exception 'settles: must be an array' using errcode = 'CG400';
    end if;
    select format('settles[%s].op: must be complete, fail or release', ord - 1) into problem
        from jsonb_array_elements(settles) with ordinality as e (s, ord)
        where coalesce(s ->> 'op', '') not in ('complete', 'fail', 'release')
        order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    return query select s.ord, s.outcome, null::public.agent_messages from cogo.settle(settles) s order by 1;
    if max > 0 then
        return query select null::bigint, null::text, m
            from public.bus_claim(worker, topics, max, lease_ms, tenant) m;
    end if;
end
$$;

-- Looks after what time alone changes, at most `max` messages of each kind: promotes delayed messages
-- that are due, and takes back claims whose lease has run out. Such a claim burns its attempt, since
-- the message may be what killed its worker; without one left it goes to the dead-letter queue.
-- next_due_ms is when there will be something to do again, null if nothing is foreseen.
-- Anybody may call it, as often as they like. Errors: CG400.
create function public.bus_reap(max integer default 100)
    returns table (promoted integer, expired integer, dead integer, next_due_ms bigint)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;

    with due as materialized (
        select id from public.agent_messages
        where status = 'delayed' and run_at <= moment
        order by run_at, id limit max
        for update skip locked
    )
    update public.agent_messages m set status = 'queued' from due where m.id = due.id;
    get diagnostics promoted = row_count;

    with lost as materialized (
        select id, claim_no, claimed_by,
            jsonb_build_object('class', 'lease_expired', 'message',
                format('worker %s held attempt %s and its lease ran out', claimed_by, attempts)) as error
        from public.agent_messages
        where status = 'claimed' and lease_until < moment
        order by lease_until, id limit max
        for update skip locked
    ), changed as (
        update public.agent_messages m
        set status = case when m.attempts < m.max_attempts then 'queued' else 'failed' end,
            claim_no = m.claim_no + 1,
            run_at = case when m.attempts < m.max_attempts then moment else m.run_at end,
            done_at = case when m.attempts < m.max_attempts then null else moment end,
            error = lost.error, updated_at = moment,
            claimed_by = null, claimed_at = null, lease_until = null
        from lost
        where m.id = lost.id
        returning m.*, lost.claimed_by as worker_id
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            attempt, worker_id, reason, created_at, payload)
        select cogo.event_type(c.intent, step.what), c.id, c.trace_id, c.tenant, c.service, c.role,
            c.shard, c.attempts, c.worker_id, step.reason, moment,
            step.payload || jsonb_build_object('claim_no', c.claim_no)
        from changed c
        cross join lateral (
            select 1 as nth, 'lease_expired' as what, 'lease_expired' as reason,
                jsonb_build_object('error', c.error, 'run_at', c.run_at) as payload
            union all
            select 2, 'dead_lettered', 'attempts_exhausted',
                jsonb_build_object('class', 'lease_expired', 'attempts', c.attempts)
                where c.status = 'failed'
        ) step
        order by c.id, step.nth
    )
    select count(*), count(*) filter (where status = 'failed') into expired, dead from changed;

    select (extract(epoch from least(
            (select run_at from public.agent_messages where status = 'delayed' order by run_at, id limit 1),
            (select lease_until from public.agent_messages where status = 'claimed'
                order by lease_until, id limit 1)) - moment) * 1000)::bigint
        into next_due_ms;
    next_due_ms := greatest(next_due_ms, 0);
    return next;
end
$$;
