-- From claim to settle with deadlines, ordering keys, parking and fair shares; what is not restated here is as
-- it was in 202611210003_claim.sql, and so are the rules about locks and plans at its head.

-- A claim for all tenants (see bus_claim). First places are shared out by counting, then as many rows are
-- locked as there are places: claimers that chose among locked rows would keep each other from working. Where
-- others were faster, places are left over, which are shared out once more.
--
-- No more than 250 tenants are looked at in one call, and no more rows of each than there are places. Where there
-- are more tenants, the session's next call begins at one of those that this one ended with.
create function cogo.claim_fairly(worker text, topics text[], max integer, lease interval)
    returns setof public.agent_messages
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    begin_at constant text := coalesce(current_setting('cogo.claim_after', true), '');
    places integer := max;
    got integer;
    roles text[];
    services text[];
    tenants text[];
begin
    for round in 1..2 loop
        with recursive topic as materialized (
            select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
            from unnest(topics) as t
        ), waiting as (
            -- From tenant to tenant through the claim index, not through all that they have waiting; beyond the
            -- last one again from the first.
            select topic.role, topic.service, begin_at as tenant, false as again, 0 as nth
            from topic
            union all
            select w.role, w.service, next.tenant, next.again, w.nth + 1
            from waiting w
            cross join lateral (
                (select a.tenant, w.again as again from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null
                        and a.role = w.role and a.service = w.service and a.tenant > w.tenant
                        and (not w.again or a.tenant <= begin_at)
                    order by a.tenant limit 1)
                union all
                (select a.tenant, true from public.agent_messages a
                    where not w.again and a.status = 'queued' and a.parked_for is null
                        and a.role = w.role and a.service = w.service and a.tenant <= begin_at
                    order by a.tenant limit 1)
                limit 1
            ) next
        )
        select array_agg(role order by n), array_agg(service order by n), array_agg(tenant order by n)
            into roles, services, tenants
            from (
                select role, service, tenant, row_number() over () as n
                from (select * from waiting where nth > 0 limit 250) w
            ) numbered;
        exit when tenants is null;
        if cardinality(tenants) = 250 then
            perform set_config('cogo.claim_after', tenants[126 + floor(random() * 125)::integer], false);
        end if;

        return query
            with scope as materialized (
                select * from unnest(roles, services, tenants) as s (role, service, tenant)
            ), topic as materialized (
                select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
                from unnest(topics) as t
            ), held as materialized (
                select m.tenant, count(*) as claims
                from public.agent_messages m join topic on topic.role = m.role and topic.service = m.service
                where m.status = 'claimed'
                group by m.tenant
            ), share as materialized (
                -- -ln(u) is exponential: divided by the weights, the smallest falls to each tenant as often as
                -- its weight says.
                select tenant, start, weight from (
                    select t.tenant, coalesce(held.claims, 0) - ln(1 - random()) as start,
                        coalesce(l.weight, 1) as weight
                    from (select distinct tenant from scope) t
                    left join held on held.tenant = t.tenant
                    left join lateral (
                        select x.weight from cogo.limits x
                        where x.kind = 'tenant' and x.name in (t.tenant, '*')
                        order by x.name = '*' limit 1
                    ) l on true
                ) each_tenant
                -- As many tenants as there are places can get any; and some more, in case that all that one of
                -- them has waiting is past its deadline.
                order by start / weight limit places + 10
            ), candidate as (
                select scope.role, scope.service, scope.tenant, share.start, share.weight,
                    row_number() over (partition by scope.tenant order by m.rank_at, m.id) as nth
                from scope
                join share on share.tenant = scope.tenant
                cross join lateral (
                    select a.rank_at, a.id from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null and a.role = scope.role
                        and a.service = scope.service and a.tenant = scope.tenant
                        and (a.deadline_at is null or a.deadline_at > moment)
                    order by a.rank_at, a.id
                    limit places
                ) m
            ), place as (
                select c.role, c.service, c.tenant
                from candidate c
                order by (c.start + c.nth - 1) / c.weight
                limit places
            ), quota as materialized (
                select role, service, tenant, count(*) as its_places from place group by 1, 2, 3
            ), picked as materialized (
                select m.id
                from quota q
                cross join lateral (
                    select a.id from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null and a.role = q.role
                        and a.service = q.service and a.tenant = q.tenant
                        and (a.deadline_at is null or a.deadline_at > moment)
                    order by a.rank_at, a.id
                    limit q.its_places
                    for update skip locked
                ) m
            ), claimed as (
                update public.agent_messages a
                set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                    claimed_by = worker, claimed_at = moment, lease_until = moment + lease
                from picked
                where a.id = picked.id
                returning a.*
            )
            select * from claimed order by rank_at, id;
        get diagnostics got = row_count;
        places := places - got;
        exit when places <= 0;
    end loop;
end
$$;

-- Takes up to `max` messages that wait on the topics ('role/service') and holds them for `lease_ms`: those
-- of the tenant in the order of their rank, that is by due time, a minute earlier for each step of priority.
-- A claim burns an attempt until it is released. Nothing is appended: a claim that is lost is undone by
-- bus_reap. Errors: CG400.
--
-- The tenant '*' means all, and shares out fairly: each place goes to the tenant that holds the fewest claims
-- on these topics for its weight (cogo.limits), so that nobody's backlog keeps another's work waiting. Between
-- equals chance decides, by weight. At most 250 tenants are looked at in one call, others in the next.
create or replace function public.bus_claim(
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
    if bus_claim.tenant = '*' then
        return query select * from cogo.claim_fairly(worker, topics, max, lease);
        return;
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
                select a.id, a.rank_at
                from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null
                    and a.role = topic.role and a.service = topic.service and a.tenant = bus_claim.tenant
                    and (a.deadline_at is null or a.deadline_at > moment)
                order by a.rank_at, a.id
                limit bus_claim.max
                for update skip locked
            ) m
            order by m.rank_at, m.id
            limit bus_claim.max
        ), claimed as (
            update public.agent_messages a
            set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                claimed_by = worker, claimed_at = moment, lease_until = moment + lease
            from picked
            where a.id = picked.id
            returning a.*
        )
        select * from claimed order by rank_at, id;
end
$$;

-- Turns a batch of claims into rows. Errors: CG400 names the field.
create or replace function cogo.read_claims(claims jsonb)
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
            when jsonb_typeof(c -> 'park') not in ('string', 'null')
                or length(c ->> 'park') not between 1 and 300
                then '.park: must be the key of a circuit breaker'
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

-- Settles a batch: each item is a claim {id, claim_no} with op 'complete' {result}, 'fail' {error,
-- retry_in_ms?, reason?} or 'release' {retry_in_ms?, reason?, park?}; meta is kept in the event alone.
-- park names a circuit breaker: as long as that is not closed, the message is not to be claimed (bus_reap).
-- A retry that would be due after the message's deadline is none: it goes to the dead-letter queue.
-- Errors: CG400 names the field; CG413 an item over 16 MiB. The outcome of each is
--   settled   it is done;
--   repeated  this same settle was done before (its answer was lost): nothing was changed;
--   stale     the claim is not the one in force (SQLSTATE CG409 in the client): nothing was changed.
create or replace function cogo.settle(items jsonb)
    returns table (ord bigint, outcome text)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    settled bigint[];
    ended uuid[];
    orders bigint[] := '{}';
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
    if cogo.any_ordered() then
        orders := cogo.lock_orders((select array_agg(r.id) from cogo.read_claims(items) r));
    end if;
    with input as materialized (
        select r.ord, r.id, r.claim_no, r.item ->> 'op' as op,
            coalesce(r.item -> 'result', 'null') as result,
            coalesce(r.item -> 'error', '{}') as error,
            (r.item ->> 'retry_in_ms')::bigint as retry_in_ms,
            left(r.item ->> 'reason', 200) as reason,
            case r.item ->> 'op' when 'release' then r.item ->> 'park' end as park,
            coalesce(nullif(r.item -> 'meta', 'null'), '{}') as meta
        from cogo.read_claims(items) r
    ), locked as materialized (
        select i.*, m.attempts,
            i.op = 'fail' and i.retry_in_ms is not null and m.attempts < m.max_attempts as attempts_left,
            i.op = 'fail' and i.retry_in_ms is not null and m.attempts < m.max_attempts
                and (m.deadline_at is null
                    or m.deadline_at > moment + make_interval(secs => i.retry_in_ms / 1000.0)) as again,
            moment + make_interval(secs => coalesce(i.retry_in_ms, 0) / 1000.0) as due,
            m.claimed_by, c.state is not null as parks
        from (select * from input order by id) i
        cross join lateral (
            select a.status, a.claim_no, a.attempts, a.max_attempts, a.deadline_at, a.claimed_by, a.tenant
            from public.agent_messages a
            where a.id = i.id
                and (a.ordering_key is null
                    or cogo.order_lock(a.tenant, a.role, a.service, a.ordering_key) = any (orders))
            limit 1 for update
        ) m
        left join lateral (
            select c.state from public.circuits c where c.tenant = m.tenant and c.key = i.park limit 1
        ) c on c.state <> 'closed'
        where m.status = 'claimed' and m.claim_no = i.claim_no
    ), changed as (
        update public.agent_messages m
        set status = case
                when l.op = 'complete' then 'done'
                when l.op = 'fail' and not l.again then 'failed'
                when l.parks then 'queued'
                when l.due > moment then 'delayed'
                else 'queued'
            end,
            attempts = m.attempts - (l.op = 'release')::integer,
            run_at = case when l.again or l.op = 'release' then l.due else m.run_at end,
            -- What was not tried keeps its place.
            rank_at = case when l.again or l.due > moment then l.due - m.priority * interval '1 minute'
                else m.rank_at end,
            parked_for = case when l.parks then 'circuit:' || l.park end,
            result = case when l.op = 'complete' then l.result end,
            error = case l.op when 'fail' then l.error when 'release' then m.error end,
            done_at = case when l.op = 'complete' or l.op = 'fail' and not l.again then moment end,
            updated_at = moment, claimed_by = null, claimed_at = null, lease_until = null
        from locked l
        where m.id = l.id
        returning l.*, m.trace_id, m.tenant, m.service, m.role, m.shard, m.intent, m.max_attempts,
            m.ordering_key is not null and m.done_at is not null as ends_order
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
                    || case when c.parks then jsonb_build_object('circuit', c.park) else '{}' end
                where c.op = 'release'
            union all
            select 1, 'failed', c.error ->> 'class', c.meta
                    || jsonb_build_object('error', c.error, 'class', c.error ->> 'class', 'attempt', c.attempts)
                    || case when c.again then jsonb_build_object('delay_ms', c.retry_in_ms, 'next_at', c.due)
                        else '{}' end
                where c.op = 'fail'
            union all
            select 2, 'retry_scheduled', c.error ->> 'class',
                jsonb_build_object('class', c.error ->> 'class', 'attempt', c.attempts, 'run_at', c.due,
                    'delay_ms', c.retry_in_ms, 'next_attempt', c.attempts + 1, 'max_attempts', c.max_attempts)
                where c.again
            union all
            select 2, 'dead_lettered',
                case when c.retry_in_ms is null then coalesce(c.reason, 'not_retried')
                    when c.attempts_left then 'deadline_exceeded'
                    else 'attempts_exhausted' end,
                jsonb_build_object('class', c.error ->> 'class', 'attempts', c.attempts)
                where c.op = 'fail' and not c.again
        ) step
        order by c.ord, step.nth
    )
    select coalesce(array_agg(ord), '{}'), array_agg(id) filter (where ends_order)
        into settled, ended from changed;
    if ended is not null then
        perform cogo.advance(ended);
    end if;

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

-- Keeps claims alive: the lease ends `lease_ms` from now. A row a claim, in order: code is null, or
-- 'CG409' where the claim is not (or no longer) the one in force. Errors: CG400.
create or replace function public.bus_extend(claims jsonb, lease_ms integer default 30000)
    returns table (id uuid, claim_no bigint, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    until constant timestamptz := cogo.now() + make_interval(secs => lease_ms / 1000.0);
    orders bigint[] := '{}';
begin
    if coalesce(lease_ms, 0) not between 100 and 86400000 then
        raise exception 'lease_ms: must be from 100 to 86400000 (a day)' using errcode = 'CG400';
    end if;
    if cogo.any_ordered() then
        orders := cogo.lock_orders((select array_agg(r.id) from cogo.read_claims(claims) r));
    end if;
    return query
        with input as materialized (
            select * from cogo.read_claims(claims)
        ), locked as materialized (
            select i.ord, i.id
            from (select * from input order by id) i
            cross join lateral (
                select a.status, a.claim_no from public.agent_messages a
                where a.id = i.id
                    and (a.ordering_key is null
                        or cogo.order_lock(a.tenant, a.role, a.service, a.ordering_key) = any (orders))
                limit 1 for update
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

-- Promotes delayed messages that are due; how many.
create function cogo.reap_due(max integer) returns integer
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    promoted integer;
begin
    with due as materialized (
        select id from public.agent_messages
        where status = 'delayed' and run_at <= cogo.now()
        order by run_at, id limit max
        for update skip locked
    )
    update public.agent_messages m set status = 'queued' from due where m.id = due.id;
    get diagnostics promoted = row_count;
    return promoted;
end
$$;

-- Takes back claims whose lease has run out, and ends waiting messages whose deadline has passed. The former
-- burn their attempt, since the message may be what killed its worker; without one left, or past the
-- deadline, they go to the dead-letter queue.
create function cogo.reap_lost(max integer, out expired integer, out dead integer)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    late integer;
    ended uuid[];
    also_ended uuid[];
    -- Waited for, before any row is held: a key that others lock all the time would else never be had.
    orders constant bigint[] := cogo.lock_orders(array(
        select id from (
            (select id, ordering_key from public.agent_messages
                where status = 'claimed' and lease_until < moment
                order by lease_until, id limit max)
            union all
            (select id, ordering_key from public.agent_messages
                where status in ('delayed', 'queued') and deadline_at is not null and deadline_at <= moment
                order by deadline_at, id limit max)
        ) m
        where ordering_key is not null));
begin
    with lost as materialized (
        select id, claim_no, claimed_by,
            attempts < max_attempts and (deadline_at is null or deadline_at > moment) as again,
            attempts < max_attempts as attempts_left,
            jsonb_build_object('class', 'lease_expired', 'message',
                format('worker %s held attempt %s and its lease ran out', claimed_by, attempts)) as error
        from public.agent_messages
        where status = 'claimed' and lease_until < moment
            and (ordering_key is null
                or cogo.order_lock(tenant, role, service, ordering_key) = any (orders))
        order by lease_until, id limit max
        for update skip locked
    ), changed as (
        update public.agent_messages m
        set status = case when lost.again then 'queued' else 'failed' end,
            claim_no = m.claim_no + 1,
            run_at = case when lost.again then moment else m.run_at end,
            rank_at = case when lost.again then moment - m.priority * interval '1 minute' else m.rank_at end,
            done_at = case when lost.again then null else moment end,
            error = lost.error, updated_at = moment,
            claimed_by = null, claimed_at = null, lease_until = null
        from lost
        where m.id = lost.id
        returning m.*, lost.claimed_by as worker_id, lost.attempts_left
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
            select 2, 'dead_lettered',
                case when c.attempts_left then 'deadline_exceeded' else 'attempts_exhausted' end,
                jsonb_build_object('class', 'lease_expired', 'attempts', c.attempts)
                where c.status = 'failed'
        ) step
        order by c.id, step.nth
    )
    select count(*), count(*) filter (where status = 'failed'),
            array_agg(id) filter (where status = 'failed' and ordering_key is not null)
        into expired, dead, ended from changed;

    with late_ones as materialized (
        select id from public.agent_messages
        where status in ('delayed', 'queued') and deadline_at is not null and deadline_at <= moment
            and (ordering_key is null
                or cogo.order_lock(tenant, role, service, ordering_key) = any (orders))
        order by deadline_at, id limit max
        for update skip locked
    ), changed as (
        update public.agent_messages m
        set status = 'failed', done_at = moment, updated_at = moment, parked_for = null,
            error = jsonb_build_object('class', 'deadline_exceeded', 'message',
                    format('not done within its deadline of %s ms', m.deadline_ms))
                || case when m.error is null then '{}' else jsonb_build_object('last', m.error - 'last') end
        from late_ones where m.id = late_ones.id
        returning m.*
    ), logged as (
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard,
            attempt, reason, created_at, payload)
        select cogo.event_type(intent, 'dead_lettered'), id, trace_id, tenant, service, role, shard,
            attempts, 'deadline_exceeded', moment,
            jsonb_build_object('class', 'deadline_exceeded', 'attempts', attempts, 'error', error,
                'claim_no', claim_no)
        from changed order by id
    )
    select count(*), array_agg(id) filter (where ordering_key is not null) into late, also_ended from changed;
    dead := dead + late;
    ended := coalesce(ended, '{}') || coalesce(also_ended, '{}');
    if ended <> '{}' then
        perform cogo.advance(ended);
    end if;
end
$$;

-- Lets parked messages go: all whose breaker has closed, and where one has been open for long enough, as many
-- as may test the water, again and again until a worker has asked to. How many.
create function cogo.reap_parked(max integer) returns integer
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    gone integer;
    probes integer;
begin
    -- From breaker to breaker through the index of what is parked: mostly there is none.
    with recursive parked as (
        (select a.tenant, a.parked_for from public.agent_messages a
            where a.status = 'queued' and a.parked_for is not null and a.parked_for <> 'ordering'
            order by a.tenant, a.parked_for limit 1)
        union all
        select next.tenant, next.parked_for
        from parked p
        cross join lateral (
            select a.tenant, a.parked_for from public.agent_messages a
            where a.status = 'queued' and a.parked_for is not null and a.parked_for <> 'ordering'
                and (a.tenant, a.parked_for) > (p.tenant, p.parked_for)
            order by a.tenant, a.parked_for limit 1
        ) next
    ), freed as materialized (
        select m.id
        from parked p
        cross join lateral (
            select a.id from public.agent_messages a
            where a.status = 'queued' and a.parked_for is not null and a.parked_for <> 'ordering'
                and a.tenant = p.tenant and a.parked_for = p.parked_for
            order by a.rank_at, a.id limit max
            for update skip locked
        ) m
        where not exists (
            select from public.circuits c
            where c.tenant = p.tenant and c.key = substr(p.parked_for, length('circuit:') + 1)
                and c.state <> 'closed')
        limit max
    )
    update public.agent_messages m set parked_for = null from freed where m.id = freed.id;
    get diagnostics gone = row_count;

    with ripe as materialized (
        select tenant, key, half_open_max_calls - case state when 'half_open' then probes_left.used else 0 end as places
        from public.circuits c
        cross join lateral (
            select case when c.probe_until <= moment then 0 else c.probes end as used
        ) probes_left
        where c.state <> 'closed' and c.nudge_at <= moment
            and (c.state = 'open' and c.open_until <= moment
                or c.state = 'half_open' and probes_left.used < c.half_open_max_calls)
        order by c.tenant, c.key limit max
        for update of c skip locked
    ), nudged as (
        update public.circuits c set nudge_at = moment + interval '2 seconds'
        from ripe r where c.tenant = r.tenant and c.key = r.key
        returning c.tenant, c.key, r.places
    ), freed as materialized (
        select m.id
        from nudged n
        cross join lateral (
            select a.id from public.agent_messages a
            where a.status = 'queued' and a.parked_for is not null and a.parked_for <> 'ordering'
                and a.tenant = n.tenant and a.parked_for = 'circuit:' || n.key
            order by a.rank_at, a.id limit n.places
            for update skip locked
        ) m
    )
    update public.agent_messages m set parked_for = null from freed where m.id = freed.id;
    get diagnostics probes = row_count;
    return gone + probes;
end
$$;

-- Looks after what time and breakers change, at most `max` messages of each kind: promotes delayed messages
-- that are due, lets parked ones go whose breaker allows it, takes back claims whose lease has run out, and
-- ends what is past its deadline. next_due_ms is when there will be something to do again, null if nothing is
-- foreseen. Anybody may call it, as often as they like. Errors: CG400.
create or replace function public.bus_reap(max integer default 100)
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
    -- First what may wait for a row that another call holds; all that comes after skips such rows.
    select r.expired, r.dead into expired, dead from cogo.reap_lost(max) r;
    promoted := cogo.reap_due(max) + cogo.reap_parked(max);
    perform cogo.recount_backlog();

    select (extract(epoch from least(
            (select run_at from public.agent_messages where status = 'delayed' order by run_at, id limit 1),
            (select lease_until from public.agent_messages where status = 'claimed'
                order by lease_until, id limit 1),
            (select deadline_at from public.agent_messages
                where status in ('delayed', 'queued') and deadline_at is not null
                order by deadline_at, id limit 1),
            (select min(greatest(open_until, nudge_at)) from public.circuits
                where state = 'open' and open_until is not null)) - moment) * 1000)::bigint
        into next_due_ms;
    next_due_ms := greatest(next_due_ms, 0);
    return next;
end
$$;

revoke all on function cogo.claim_fairly(text, text[], integer, interval), cogo.reap_due(integer),
    cogo.reap_lost(integer), cogo.reap_parked(integer) from public;
