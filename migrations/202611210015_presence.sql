-- Presence: workers announce for how long they may be silent, and are offline once they were silent for longer.

alter table public.workers
    -- How long after last_seen_at the worker is taken for lost.
    add column lease_ms integer not null default 30000,
    add column in_flight integer not null default 0,
    -- When the log was last told of this worker.
    add column announced_at timestamptz not null default '-infinity';

-- A heartbeat changes none of what is indexed, and finds room in its page: it touches no index.
alter table public.workers set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200);
create index workers_online on public.workers (tenant, id) where status = 'online';

-- A worker says that it is there: {id, tenant?, role, host?, version?, topics?, info?, lease_ms?, in_flight?}. When it
-- has not said so again for lease_ms (30 s where it names none, and from a second to an hour), it is taken for lost.
-- What a worker that is online leaves out stays as it was.
--
-- Appends agent_online when it was not, and agent_heartbeat when what it says of itself has changed (but for
-- in_flight) and else every five minutes. Answers whether it was new. Errors: CG400.
create or replace function cogo_unscoped.bus_worker_seen(worker jsonb) returns boolean
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    who constant text := worker ->> 'id';
    whose constant text := coalesce(worker ->> 'tenant', 'default');
    was public.workers;
    its public.workers;
    told text;
begin
    if coalesce(length(who), 0) not between 1 and 255 then
        raise exception 'worker.id: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if coalesce(worker ->> 'role', '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$' then
        raise exception 'worker.role: must be 1 to 64 letters, digits, _ or -' using errcode = 'CG400';
    end if;
    if coalesce(jsonb_typeof(worker -> 'topics'), 'array') <> 'array' or pg_column_size(worker) > 65536 then
        raise exception 'worker: topics must be an array, and the whole at most 64 KiB'
            using errcode = 'CG400';
    end if;
    if coalesce(worker ->> 'lease_ms', '1') !~ '^[0-9]{1,9}$' then
        raise exception 'worker.lease_ms: must be a whole number of milliseconds' using errcode = 'CG400';
    end if;
    if coalesce(worker ->> 'in_flight', '0') !~ '^[0-9]{1,9}$' then
        raise exception 'worker.in_flight: must be a whole number' using errcode = 'CG400';
    end if;

    insert into public.workers (id, tenant, role, status, started_at, last_seen_at)
        select who, whose, '', 'offline', moment, moment
        where not exists (select from public.workers where tenant = whose and id = who)
        on conflict do nothing;
    select * into was from public.workers where tenant = whose and id = who for update;
    if not found then
        -- Removed at this moment, after a month of silence.
        raise exception 'worker: was just removed; say it again' using errcode = '40001';
    end if;

    its := was;
    if was.status = 'offline' then
        its.status := 'online';
        its.started_at := moment;
        its.host := ''; its.version := ''; its.topics := '{}'; its.info := '{}'; its.lease_ms := 30000; its.in_flight := 0;
    end if;
    its.role := worker ->> 'role';
    its.host := coalesce(left(worker ->> 'host', 255), its.host);
    its.version := coalesce(left(worker ->> 'version', 64), its.version);
    its.topics := case when jsonb_typeof(worker -> 'topics') = 'array'
        then array(select jsonb_array_elements_text(worker -> 'topics')) else its.topics end;
    its.info := coalesce(nullif(worker -> 'info', 'null'), its.info);
    its.lease_ms := least(greatest(coalesce((worker ->> 'lease_ms')::integer, its.lease_ms), 1000), 3600000);
    its.in_flight := coalesce((worker ->> 'in_flight')::integer, its.in_flight);
    told := case
        when was.status = 'offline' then 'agent_online'
        when (its.role, its.host, its.version, its.topics, its.info, its.lease_ms)
            is distinct from (was.role, was.host, was.version, was.topics, was.info, was.lease_ms)
            or was.announced_at <= moment - interval '5 minutes' then 'agent_heartbeat'
    end;

    update public.workers w
        set role = its.role, host = its.host, version = its.version, topics = its.topics, info = its.info,
            status = its.status, started_at = its.started_at, last_seen_at = moment, lease_ms = its.lease_ms,
            in_flight = its.in_flight, announced_at = case when told is null then w.announced_at else moment end
        where w.tenant = whose and w.id = who;
    if told is not null then
        insert into public.bus_events (event_type, tenant, role, worker_id, created_at, payload)
        values (told, whose, its.role, who, moment, jsonb_build_object('host', its.host, 'version', its.version,
            'topics', its.topics, 'info', its.info, 'lease_ms', its.lease_ms, 'in_flight', its.in_flight));
    end if;
    if told = 'agent_online' then
        -- Ids are mostly new ones at each start: those that were last seen a month ago make room.
        with old as materialized (
            select w.tenant, w.id from public.workers w
            where w.status = 'offline' and w.last_seen_at < moment - interval '30 days'
            order by w.last_seen_at limit 10
            for update skip locked
        )
        delete from public.workers w using old o where w.tenant = o.tenant and w.id = o.id;
    end if;
    return was.status = 'offline';
end
$$;

-- Ends the probes of these workers, so that another may probe at once. A breaker that somebody works on right now is
-- left out: its probe ends by its own lease. Whoever probes for all tenants is shown as of the tenant '*'.
create function cogo.end_probes(tenants text[], ids text[]) returns void
    language plpgsql volatile
    as $$
declare
    moment constant timestamptz := cogo.now();
begin
    with probed as materialized (
        select c.tenant, c.key
        from public.circuits c
        where c.state = 'half_open' and c.probe_until > moment
            and exists (select from unnest(tenants, ids) as w (tenant, id)
                where w.id = c.prober and w.tenant in (c.tenant, '*'))
        order by c.tenant, c.key
        for update skip locked
    )
    update public.circuits c set probe_until = moment, nudge_at = moment
        from probed p where c.tenant = p.tenant and c.key = p.key;
end
$$;

-- A worker says that it goes. Appends agent_offline; answers whether it was there.
--
-- Locks: the worker's row, then those of its breakers, which it does not wait for.
create or replace function cogo_unscoped.bus_worker_gone(worker text, reason text default null, tenant text default 'default')
    returns boolean
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    its_role text;
begin
    update public.workers w set status = 'offline', last_seen_at = cogo.now(), in_flight = 0
        where w.tenant = bus_worker_gone.tenant and w.id = worker and w.status = 'online'
        returning w.role into its_role;
    if not found then
        return false;
    end if;
    insert into public.bus_events (event_type, tenant, role, worker_id, reason, created_at)
        values ('agent_offline', bus_worker_gone.tenant, its_role, worker, left(bus_worker_gone.reason, 200), cogo.now());
    perform cogo.end_probes(array[bus_worker_gone.tenant], array[worker]);
    return true;
end
$$;

-- Marks workers as offline that have not been seen for their lease, at most `max`, and ends their probes. What they
-- have claimed comes back by the leases of those claims. How many there were.
create function cogo.reap_workers(max integer) returns integer
    language plpgsql volatile
    as $$
declare
    moment constant timestamptz := cogo.now();
    tenants text[];
    ids text[];
begin
    with lost as materialized (
        select w.tenant, w.id, w.role, w.last_seen_at, w.lease_ms, w.in_flight
        from public.workers w
        where w.status = 'online' and w.last_seen_at + w.lease_ms * interval '1 ms' < moment
        order by w.tenant, w.id limit max
        for update skip locked
    ), changed as (
        update public.workers w set status = 'offline', in_flight = 0
        from lost l where w.tenant = l.tenant and w.id = l.id
    ), logged as (
        insert into public.bus_events (event_type, tenant, role, worker_id, reason, created_at, payload)
        select 'agent_offline', tenant, role, id, 'lost', moment,
            jsonb_build_object('last_seen_at', last_seen_at, 'lease_ms', lease_ms, 'in_flight', in_flight)
        from lost order by tenant, id
    )
    select array_agg(l.tenant), array_agg(l.id) into tenants, ids from lost l;
    if ids is null then
        return 0;
    end if;
    perform cogo.end_probes(tenants, ids);
    return cardinality(ids);
end
$$;

-- When time will have changed something of messages or breakers, in milliseconds from now; null if nothing is
-- foreseen. (`greatest` passes over nulls: so bus_reap said 0 before this, and idle workers hurried.)
create function cogo.next_due_ms() returns bigint
    -- Its plan is kept, unlike that of a function in SQL.
    language plpgsql stable
    as $$
begin
    return (
        select case when due is not null then greatest((extract(epoch from due - cogo.now()) * 1000)::bigint, 0) end
        from (select least(
            (select run_at from public.agent_messages where status = 'delayed' order by run_at, id limit 1),
            (select lease_until from public.agent_messages where status = 'claimed'
                order by lease_until, id limit 1),
            (select deadline_at from public.agent_messages
                where status in ('delayed', 'queued') and deadline_at is not null
                order by deadline_at, id limit 1),
            (select min(greatest(open_until, nudge_at)) from public.circuits
                where state = 'open' and open_until is not null)) as due) foreseen);
end
$$;

-- Looks after what time and breakers change, at most `max` messages of each kind: promotes delayed messages
-- that are due, lets parked ones go whose breaker allows it, takes back claims whose lease has run out, ends
-- what is past its deadline, and marks workers as offline that are silent. next_due_ms is when there will be something
-- to do again for messages, null if nothing is foreseen. Errors: CG400; CG403 for a caller without a scope.
--
-- Anybody may call it, as often as they like: it works for all tenants and tells of none. One call works at a time,
-- the others find nothing done and learn when to look again, a tenth of a second from now at the earliest. The lock
-- by which they know is another one each second, so that a call which never ends does not end all reaping.
--
-- Locks: as at the head of 202611210008_order_and_limits.sql; then rows of workers, then of circuits, both skipped
-- where they are locked.
create or replace function public.bus_reap(max integer default 100)
    returns table (promoted integer, expired integer, dead integer, next_due_ms bigint)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;
    if cogo.restricted() then
        perform cogo.own_scope();
        max := 100;
    end if;
    -- 'reap' in the upper half, the second in the lower.
    if not pg_try_advisory_xact_lock(
        (x'72656170'::bigint << 32) | (extract(epoch from cogo.now())::bigint & 4294967295)) then
        next_due_ms := cogo.next_due_ms();
        return query select 0, 0, 0, case when next_due_ms is not null then greatest(next_due_ms, 100) end;
        return;
    end if;
    -- First what may wait for a row that another call holds; all that comes after skips such rows.
    select r.expired, r.dead into expired, dead from cogo.reap_lost(max) r;
    promoted := cogo.reap_due(max) + cogo.reap_parked(max);
    perform cogo.recount_backlog(), cogo.reap_workers(max);
    next_due_ms := cogo.next_due_ms();
    return next;
end
$$;
drop function cogo_unscoped.bus_reap(integer);

do $$
declare
    note text;
begin
    for note in select cogo.grant_rights() loop
        raise warning '%', note;
    end loop;
end
$$;
