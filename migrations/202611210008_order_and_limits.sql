-- Ordering keys, and limits on what waits: the parts that enqueue, settle and reap share.
--
-- Lock order, completed (the rest is in 202611210003_claim.sql): first rows of cogo.backlog, sorted; then
-- ordering keys (advisory, sorted); then rows of agent_messages by id; then rows of circuits. Whatever waits for
-- rows of agent_messages by id takes their keys first, for cogo.advance waits for rows that its caller did not
-- name. Whatever skips locked rows needs no keys, and does not wait afterwards.

-- The advisory lock of an ordering key. Two keys that share a number only wait for each other; that there are
-- no more than 4096 of them bounds what a batch takes of the server's one table of locks, which is not large.
create function cogo.order_lock(tenant text, role text, service text, ordering_key text) returns bigint
    language sql immutable parallel safe
    as $$
        -- 'cogo' in the upper half, so that an application's own advisory locks are others.
        select (x'636f676f'::bigint << 32)
            | (hashtextextended(tenant || '/' || role || '/' || service || '/' || ordering_key, 7) & 4095)
    $$;

-- Whether any message with an ordering key is under way; one look into an index that is mostly empty. Ordered
-- by it, because a planner that believes in many such messages would look for the first one in the table; and
-- no `exists`, which forgets the order.
create function cogo.any_ordered() returns boolean
    language sql stable
    as $$
        select (select true from public.agent_messages
            where ordering_key is not null and status in ('delayed', 'queued', 'claimed')
                and parked_for is distinct from 'ordering'
            order by tenant, role, service, ordering_key limit 1) is not null
    $$;

-- Locks the ordering keys of these messages until the transaction ends, and answers with the locks. What comes
-- after may find that an id is another message by now: one whose lock is not among them is not to be touched.
create function cogo.lock_orders(ids uuid[]) returns bigint[]
    language plpgsql volatile
    as $$
declare
    held constant bigint[] := array(
        select distinct cogo.order_lock(m.tenant, m.role, m.service, m.ordering_key)
        from unnest(ids) as i (id)
        cross join lateral (
            select a.tenant, a.role, a.service, a.ordering_key from public.agent_messages a
            where a.id = i.id limit 1
        ) m
        where m.ordering_key is not null
        order by 1);
begin
    perform pg_advisory_xact_lock(n) from unnest(held) n;
    return held;
end
$$;

-- Lets the next message of each of these messages' keys go, where none is under way. The caller holds the
-- keys' locks, so nobody else decides at the same time.
create function cogo.advance(ids uuid[]) returns void
    language sql volatile
    as $$
    with key as materialized (
        select distinct m.tenant, m.role, m.service, m.ordering_key
        from unnest(ids) as i (id)
        cross join lateral (
            select a.tenant, a.role, a.service, a.ordering_key from public.agent_messages a
            where a.id = i.id limit 1
        ) m
        where m.ordering_key is not null
    ), next as materialized (
        select n.id
        from key
        cross join lateral (
            select a.id from public.agent_messages a
            where a.status in ('delayed', 'queued') and a.parked_for = 'ordering'
                and a.tenant = key.tenant and a.role = key.role and a.service = key.service
                and a.ordering_key = key.ordering_key
            order by a.tenant, a.role, a.service, a.ordering_key, a.ordering_no
            limit 1
        ) n
        where (
            select true from public.agent_messages a
            where a.ordering_key is not null and a.status in ('delayed', 'queued', 'claimed')
                and a.parked_for is distinct from 'ordering'
                and a.tenant = key.tenant and a.role = key.role and a.service = key.service
                and a.ordering_key = key.ordering_key
            order by a.tenant, a.role, a.service, a.ordering_key limit 1
        ) is null
    ), locked as materialized (
        select m.id
        from (select id from next order by id) n
        cross join lateral (
            select a.id from public.agent_messages a where a.id = n.id limit 1 for update
        ) m
    )
    update public.agent_messages m set parked_for = null from locked where m.id = locked.id
    $$;

-- How many messages of a tenant or topic wait, due or not, parked or not. One branch an index. A tenant's are
-- counted topic by topic, since the claim index begins with that; all that is delayed is looked through.
create function cogo.count_waiting(kind text, name text) returns bigint
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    of_tenant constant text := case kind when 'tenant' then name end;
    of_role constant text := case kind when 'topic' then split_part(name, '/', 1) end;
    of_service constant text := case kind when 'topic' then split_part(name, '/', 2) end;
begin
    if of_tenant is not null then
        return (
                with recursive topic as (
                    (select a.role, a.service from public.agent_messages a
                        where a.status = 'queued' and a.parked_for is null
                        order by a.role, a.service limit 1)
                    union all
                    select next.role, next.service
                    from topic t
                    cross join lateral (
                        select a.role, a.service from public.agent_messages a
                        where a.status = 'queued' and a.parked_for is null
                            and (a.role, a.service) > (t.role, t.service)
                        order by a.role, a.service limit 1
                    ) next
                )
                select coalesce(sum(its.messages), 0)::bigint
                from topic t
                cross join lateral (
                    select count(*) as messages from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null
                        and a.role = t.role and a.service = t.service and a.tenant = of_tenant
                ) its
            )
            + (select count(*) from public.agent_messages
                where status = 'delayed' and tenant = of_tenant)
            + (select count(*) from public.agent_messages
                where status = 'queued' and parked_for = 'ordering' and tenant = of_tenant)
            + (select count(*) from public.agent_messages
                where status = 'queued' and parked_for is not null and parked_for <> 'ordering'
                    and tenant = of_tenant);
    end if;
    return (select count(*) from public.agent_messages
            where status = 'queued' and parked_for is null and role = of_role and service = of_service)
        + (select count(*) from public.agent_messages
            where status = 'delayed' and role = of_role and service = of_service)
        + (select count(*) from public.agent_messages
            where status = 'queued' and parked_for = 'ordering' and role = of_role and service = of_service)
        + (select count(*) from public.agent_messages
            where status = 'queued' and parked_for is not null and parked_for <> 'ordering'
                and role = of_role and service = of_service);
end
$$;

-- For how long a count is believed by which a limit is reached: a second, and longer where counting is work.
create function cogo.count_holds(counted bigint) returns interval
    language sql immutable parallel safe
    as $$ select make_interval(secs => greatest(1, counted / 50000.0)) $$;

-- Admits a batch, or refuses it with CG429 where more would wait than a limit allows. What is remembered is an
-- upper bound of what was enqueued and waits, and is counted anew before anything is refused for it. Only
-- where it was counted as full a moment ago is that believed, so that a flood of refused calls does not count the
-- queue again and again (bus_reap keeps that count fresh, since a refused call leaves nothing behind).
--
-- What was admitted once is never refused: a message that is tried again, released or requeued waits again
-- without asking, and so more may wait than was let in; nothing new is admitted by a count that knows of it.
create function cogo.admit(messages jsonb) returns void
    language plpgsql volatile
    as $$
declare
    moment constant timestamptz := cogo.now();
    scope record;
    known cogo.backlog;
    allowed bigint;
    fresh integer;
begin
    for scope in
        select s.kind, s.name, s.n
        from (
            select 'tenant' as kind, coalesce(m ->> 'tenant', 'default') as name, count(*) as n
                from jsonb_array_elements(messages) m group by 2
            union all
            select 'topic', (m ->> 'role') || '/' || (m ->> 'service'), count(*)
                from jsonb_array_elements(messages) m group by 2
        ) s
        cross join lateral (
            select x.max_queued from cogo.limits x
            where x.kind = s.kind and x.name in (s.name, '*')
            order by x.name = '*' limit 1
        ) l
        where l.max_queued is not null
        order by s.kind, s.name
    loop
        loop
            -- Again where bus_set_limits removed the row while this waited for it.
            insert into cogo.backlog (kind, name) values (scope.kind, scope.name) on conflict do nothing;
            select * into known from cogo.backlog b
                where b.kind = scope.kind and b.name = scope.name for update;
            exit when found;
        end loop;
        -- The limit as it is now that the row is ours.
        allowed := (
            select x.max_queued from cogo.limits x
            where x.kind = scope.kind and x.name in (scope.name, '*')
            order by x.name = '*' limit 1);
        continue when allowed is null;
        if known.counted + known.admitted + scope.n > allowed or known.counted_at = '-infinity' then
            if not (known.counted + scope.n > allowed
                and known.counted_at > moment - cogo.count_holds(known.counted)) then
                known.counted := cogo.count_waiting(scope.kind, scope.name);
                known.admitted := 0;
                known.counted_at := moment;
            end if;
            if known.counted + known.admitted + scope.n > allowed then
                -- What is known already, or twice in the batch, is not enqueued again, and may always ask for
                -- its answer.
                select count(distinct coalesce(
                        'key ' || coalesce(m ->> 'tenant', 'default') || '/' || (m ->> 'idempotency_key'),
                        'id ' || lower(m ->> 'id'), ord::text)) into fresh
                from jsonb_array_elements(messages) with ordinality as e (m, ord)
                where case scope.kind when 'tenant' then coalesce(m ->> 'tenant', 'default')
                        else (m ->> 'role') || '/' || (m ->> 'service') end = scope.name
                    and not exists (select from public.agent_messages a where a.id = (m ->> 'id')::uuid)
                    and not exists (select from public.agent_messages a
                        where a.tenant = coalesce(m ->> 'tenant', 'default')
                            and a.idempotency_key = m ->> 'idempotency_key');
                if fresh > 0 and known.counted + known.admitted + fresh > allowed then
                    raise exception '% %: % messages wait, and at most % may', scope.kind, scope.name,
                        known.counted + known.admitted, allowed
                        using errcode = 'CG429', detail = 'retry_after_ms=1000',
                            hint = 'Send again later, or raise max_queued.';
                end if;
                scope.n := fresh;
            end if;
        end if;
        update cogo.backlog b
            set counted = known.counted, admitted = known.admitted + scope.n, counted_at = known.counted_at
            where b.kind = scope.kind and b.name = scope.name;
    end loop;
end
$$;

-- Counts anew what is near its limit, where nobody did lately; at most ten counts a call.
create function cogo.recount_backlog() returns void
    language plpgsql volatile
    as $$
declare
    moment constant timestamptz := cogo.now();
    stale record;
begin
    for stale in
        select b.kind, b.name
        from cogo.backlog b
        cross join lateral (
            select x.max_queued from cogo.limits x
            where x.kind = b.kind and x.name in (b.name, '*')
            order by x.name = '*' limit 1
        ) l
        where b.counted_at < moment - cogo.count_holds(b.counted)
            and b.counted + b.admitted >= l.max_queued * 0.9
        order by b.counted_at
        limit 10
    loop
        -- A statement of its own: only a count that begins under the row's lock sees all that was admitted.
        perform from cogo.backlog b where b.kind = stale.kind and b.name = stale.name for update skip locked;
        continue when not found;
        update cogo.backlog b
            set counted = cogo.count_waiting(b.kind, b.name), admitted = 0, counted_at = moment
            where b.kind = stale.kind and b.name = stale.name;
    end loop;
end
$$;

-- Sets all limits at once: {tenants: {name: {max_queued?, weight?}}, topics: {'role/service': {max_queued?}}},
-- where the name '*' stands for all that are not named. Answers whether anything changed. Errors: CG400
-- names the field.
create function public.bus_set_limits(limits jsonb) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
    changed boolean;
begin
    if jsonb_typeof(limits) is distinct from 'object' or limits - '{tenants,topics}'::text[] <> '{}' then
        raise exception 'limits: must be an object of tenants and topics' using errcode = 'CG400';
    end if;
    if coalesce(jsonb_typeof(limits -> 'tenants'), 'object') <> 'object'
        or coalesce(jsonb_typeof(limits -> 'topics'), 'object') <> 'object' then
        raise exception 'limits: tenants and topics must be objects' using errcode = 'CG400';
    end if;
    select format('limits.%s.%s%s', section, name, what) into problem from (
        select section, name, case
            when section = 'tenants' and name <> '*' and name !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then ': the name must be 1 to 64 letters, digits, _ or -'
            when section = 'topics' and name <> '*'
                and name !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}/[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then ': the name must be of the form role/service'
            when jsonb_typeof(l) <> 'object' then ': must be an object'
            when l - '{max_queued,weight}'::text[] <> '{}' or section = 'topics' and l ? 'weight'
                then ': takes max_queued, and for tenants weight'
            when coalesce(jsonb_typeof(l -> 'max_queued'), 'null') <> 'null'
                and (jsonb_typeof(l -> 'max_queued') <> 'number' or l ->> 'max_queued' !~ '^[1-9][0-9]{0,14}$')
                then '.max_queued: must be a whole number of at least 1'
            when coalesce(jsonb_typeof(l -> 'weight'), 'null') <> 'null'
                and (jsonb_typeof(l -> 'weight') <> 'number' or (l ->> 'weight')::numeric not between 0.01 and 1000)
                then '.weight: must be a number from 0.01 to 1000'
        end as what
        from (
            select 'tenants' as section, key as name, value as l from jsonb_each(coalesce(limits -> 'tenants', '{}'))
            union all
            select 'topics', key, value from jsonb_each(coalesce(limits -> 'topics', '{}'))
        ) entry
    ) checked
    where what is not null order by section, name limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;

    perform pg_advisory_xact_lock(hashtext('cogo.bus_set_limits'));
    with wanted as materialized (
        select case section when 'tenants' then 'tenant' else 'topic' end as kind, name,
            (l ->> 'max_queued')::bigint as max_queued, coalesce((l ->> 'weight')::real, 1) as weight
        from (
            select 'tenants' as section, key as name, value as l from jsonb_each(coalesce(limits -> 'tenants', '{}'))
            union all
            select 'topics', key, value from jsonb_each(coalesce(limits -> 'topics', '{}'))
        ) entry
    ), gone as (
        delete from cogo.limits l where not exists (select from wanted w where w.kind = l.kind and w.name = l.name)
        returning 1
    ), put as (
        insert into cogo.limits as l (kind, name, max_queued, weight) select * from wanted
        on conflict (kind, name) do update set max_queued = excluded.max_queued, weight = excluded.weight
            where (l.max_queued, l.weight) is distinct from (excluded.max_queued, excluded.weight)
        returning 1
    )
    select exists (select from gone) or exists (select from put) into changed;
    if changed then
        -- What was remembered under the old limits is counted anew. Locked in the order of bus_enqueue; whoever
        -- was admitted under the old ones commits before they change.
        with remembered as materialized (
            select kind, name from cogo.backlog order by kind, name for update
        )
        delete from cogo.backlog b using remembered r where b.kind = r.kind and b.name = r.name;
    end if;
    return changed;
end
$$;

-- The limits, and how much waits within those that have been asked for lately.
create function public.bus_limits()
    returns table (kind text, name text, max_queued bigint, weight real, waiting bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$
        select l.kind, l.name, l.max_queued, l.weight,
            case when l.name <> '*' then cogo.count_waiting(l.kind, l.name) end
        from cogo.limits l order by 1, 2
    $$;

revoke all on function cogo.order_lock(text, text, text, text), cogo.any_ordered(), cogo.lock_orders(uuid[]),
    cogo.advance(uuid[]), cogo.count_waiting(text, text), cogo.count_holds(bigint), cogo.admit(jsonb), cogo.recount_backlog(),
    public.bus_set_limits(jsonb), public.bus_limits() from public;
grant execute on function public.bus_limits() to cogo_bus;
grant execute on function public.bus_set_limits(jsonb) to cogo_operator;
