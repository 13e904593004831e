-- Circuit breakers, shared: each transition is made once, in here, and is an event.
--
-- Workers watch their own calls and propose to open; whoever is first opens for all. A row is locked by its
-- key, after everything else, and no call takes two. Times that leave are what is left, in milliseconds: no
-- worker compares its clock with ours.

-- A breaker, as workers and people see it. open_for_ms is how long until a probe may be asked for: until open_ms
-- is over or, half-open, until the prober's time is; null where it is closed, or an operator's to say.
create type public.circuit_state as (
    tenant text, key text, state text, forced boolean, version bigint, open_for_ms bigint, prober text,
    reason text, worker_id text, evidence jsonb, opened_at timestamptz, updated_at timestamptz
);

create function cogo.circuit_state(c public.circuits) returns public.circuit_state
    language sql stable
    as $$
        select row(c.tenant, c.key, c.state, c.forced, c.version,
            case when u.until is not null then
                greatest(ceil(extract(epoch from u.until - cogo.now()) * 1000), 0)::bigint end,
            c.prober, c.reason, c.worker_id, c.evidence, c.opened_at, c.updated_at)::public.circuit_state
        from (select case c.state when 'open' then c.open_until when 'half_open' then c.probe_until end as until) u
    $$;

-- The next version of a breaker: above the last, and above those of a row that was deleted.
create function cogo.next_version(last bigint) returns bigint
    language sql stable
    as $$ select greatest(last + 1, (extract(epoch from cogo.now()) * 1000)::bigint) $$;

create function cogo.log_circuit(what text, c public.circuits, was text, detail jsonb) returns void
    language sql volatile
    as $$
        insert into public.bus_events (event_type, tenant, worker_id, reason, created_at, payload)
        values ('circuit_' || what, c.tenant, c.worker_id, left(c.reason, 200), cogo.now(),
            detail || jsonb_build_object('key', c.key, 'version', c.version, 'from', was))
    $$;

create function cogo.check_circuit(tenant text, key text) returns void
    language plpgsql immutable
    as $$
begin
    if coalesce(tenant, '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$' then
        raise exception 'tenant: must be 1 to 64 letters, digits, _ or -' using errcode = 'CG400';
    end if;
    if coalesce(length(key), 0) not between 1 and 300 or key ~ '[[:cntrl:]]' then
        raise exception 'key: must be 1 to 300 characters, none of them a control character' using errcode = 'CG400';
    end if;
end
$$;

-- All breakers that have ever opened, of a tenant or, with '*', of all; those that are not closed first, then the
-- last changed, at most 10000. A breaker that is not named is closed.
create function public.bus_circuits(tenant text default 'default')
    returns setof public.circuit_state
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    return query
        select (cogo.circuit_state(c)).*
        from public.circuits c
        where bus_circuits.tenant = '*' or c.tenant = bus_circuits.tenant
        order by c.state = 'closed', c.updated_at desc, c.tenant, c.key
        limit 10000;
end
$$;

-- A worker proposes to open a breaker that is closed. seen_version is the version that its evidence is about: a
-- breaker that was closed since stays closed, for what went wrong before says nothing about now. policy is
-- {open_ms, half_open_max_calls, successes_to_close}; evidence {calls, failure_rate, slow_rate} is kept in the
-- event. Answers with the breaker as it then is. Errors: CG400.
create function public.bus_circuit_open(
        tenant text, key text, worker text, reason text, seen_version bigint, policy jsonb,
        evidence jsonb default '{}')
    returns setof public.circuit_state
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    its public.circuits;
    made boolean;
begin
    perform cogo.check_circuit(tenant, key);
    if coalesce(length(worker), 0) not between 1 and 255 then
        raise exception 'worker: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if jsonb_typeof(policy) is distinct from 'object'
        or coalesce(policy ->> 'open_ms', '') !~ '^[1-9][0-9]{0,8}$'
        or coalesce(policy ->> 'half_open_max_calls', '') !~ '^[1-9][0-9]{0,3}$'
        or coalesce(policy ->> 'successes_to_close', '') !~ '^[1-9][0-9]{0,3}$' then
        raise exception 'policy: open_ms must be from 1 to 999999999, half_open_max_calls and successes_to_close from 1 to 9999'
            using errcode = 'CG400';
    end if;
    if seen_version not between 0 and 999999999999999 then
        raise exception 'seen_version: must be the version of a breaker' using errcode = 'CG400';
    end if;
    if jsonb_typeof(evidence) is distinct from 'object' or octet_length(evidence::text) > 4096 then
        raise exception 'evidence: must be an object of at most 4 KiB' using errcode = 'CG400';
    end if;
    insert into public.circuits (tenant, key, state, version, nudge_at, open_ms, half_open_max_calls,
        successes_to_close, updated_at)
    values (bus_circuit_open.tenant, bus_circuit_open.key, 'closed', 0, moment, (policy ->> 'open_ms')::bigint,
        (policy ->> 'half_open_max_calls')::integer, (policy ->> 'successes_to_close')::integer, moment)
    on conflict do nothing;
    made := found;
    select * into its from public.circuits c
        where c.tenant = bus_circuit_open.tenant and c.key = bus_circuit_open.key for update;
    if its.state = 'closed' and (made or its.version <= coalesce(seen_version, 0)) then
        update public.circuits c
        set state = 'open', forced = false, version = cogo.next_version(greatest(c.version, seen_version)),
            opened_at = moment,
            open_until = moment + make_interval(secs => (policy ->> 'open_ms')::bigint / 1000.0),
            open_ms = (policy ->> 'open_ms')::bigint,
            half_open_max_calls = (policy ->> 'half_open_max_calls')::integer,
            successes_to_close = (policy ->> 'successes_to_close')::integer,
            prober = null, probe_until = null, probes = 0, successes = 0, nudge_at = moment,
            reason = left(bus_circuit_open.reason, 200), worker_id = worker,
            evidence = bus_circuit_open.evidence, updated_at = moment
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
        perform cogo.log_circuit('opened', its, 'closed',
            bus_circuit_open.evidence || jsonb_build_object('open_ms', its.open_ms, 'open_until', its.open_until));
    end if;
    return next cogo.circuit_state(its);
end
$$;

-- A worker asks to test the water: granted to one worker at a time, once the breaker has been open for long
-- enough, and to that worker for at most half_open_max_calls calls at once. A prober that has not reported for
-- lease_ms is taken for lost. Errors: CG400; CG404 where the breaker was never open.
create function public.bus_circuit_probe(
        tenant text, key text, worker text, lease_ms integer default 30000,
        out granted boolean, out circuit public.circuit_state)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    its public.circuits;
    was text;
    why text;
begin
    perform cogo.check_circuit(tenant, key);
    if coalesce(length(worker), 0) not between 1 and 255 then
        raise exception 'worker: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if coalesce(lease_ms, 0) not between 100 and 86400000 then
        raise exception 'lease_ms: must be from 100 to 86400000 (a day)' using errcode = 'CG400';
    end if;
    select * into its from public.circuits c
        where c.tenant = bus_circuit_probe.tenant and c.key = bus_circuit_probe.key for update;
    if not found then
        raise exception 'key: no breaker % has ever opened', key using errcode = 'CG404';
    end if;
    was := its.state;
    why := case
        when was = 'open' and its.open_until <= moment then 'open_ms_over'
        when was = 'half_open' and its.probe_until <= moment then 'prober_lost' end;
    if why is not null then
        update public.circuits c
        set state = 'half_open', version = cogo.next_version(c.version), prober = worker,
            probe_until = moment + make_interval(secs => lease_ms / 1000.0), probes = 1,
            successes = case when was = 'open' then 0 else c.successes end,
            nudge_at = moment + interval '2 seconds',
            reason = why, worker_id = worker, updated_at = moment
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
        perform cogo.log_circuit('half_opened', its, was, '{}');
        granted := true;
    elsif was = 'half_open' and its.prober = worker and its.probes < its.half_open_max_calls then
        update public.circuits c
        set probes = c.probes + 1,
            probe_until = greatest(c.probe_until, moment + make_interval(secs => lease_ms / 1000.0))
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
        granted := true;
    else
        granted := false;
    end if;
    circuit := cogo.circuit_state(its);
end
$$;

-- The prober says how a call went: well, not, or (ok is null) that it was not made. Enough that were well close
-- the breaker, one that was not opens it again. Whoever is not the prober (any more) changes nothing. Answers
-- with the breaker as it then is, and with no row where there is none. Errors: CG400.
create function public.bus_circuit_report(
        tenant text, key text, worker text, ok boolean, reason text default null)
    returns setof public.circuit_state
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    its public.circuits;
begin
    perform cogo.check_circuit(tenant, key);
    select * into its from public.circuits c
        where c.tenant = bus_circuit_report.tenant and c.key = bus_circuit_report.key for update;
    if not found then
        return;
    end if;
    if its.state <> 'half_open' or its.prober is distinct from worker then
        return next cogo.circuit_state(its);
        return;
    end if;
    if ok and its.successes + 1 >= its.successes_to_close then
        update public.circuits c
        set state = 'closed', version = cogo.next_version(c.version), successes = c.successes + 1,
            prober = null, probe_until = null, probes = 0, open_until = null,
            reason = 'probe_succeeded', worker_id = worker, updated_at = moment
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
        perform cogo.log_circuit('closed', its, 'half_open', jsonb_build_object('successes', its.successes,
            'was_open_ms', (extract(epoch from moment - its.opened_at) * 1000)::bigint));
    elsif not ok then
        update public.circuits c
        set state = 'open', version = cogo.next_version(c.version),
            open_until = moment + make_interval(secs => c.open_ms / 1000.0), nudge_at = moment,
            prober = null, probe_until = null, probes = 0, successes = 0,
            reason = 'probe_failed', worker_id = worker, updated_at = moment
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
        perform cogo.log_circuit('opened', its, 'half_open', jsonb_build_object('open_ms', its.open_ms,
            'open_until', its.open_until, 'detail', left(bus_circuit_report.reason, 200)));
    else
        -- One more was well, or one was not made: the next may go at once. Who did not make it may be on its way
        -- out, so that another may soon take over.
        update public.circuits c
        set successes = c.successes + coalesce(ok, false)::integer, probes = greatest(c.probes - 1, 0), nudge_at = moment,
            probe_until = case when ok is null then least(c.probe_until, moment + interval '2 seconds')
                else c.probe_until end
        where c.tenant = its.tenant and c.key = its.key
        returning * into its;
    end if;
    return next cogo.circuit_state(its);
end
$$;

-- An operator opens a breaker (until it is closed again, or for open_ms), closes it, or resets it: closed, and
-- every worker forgets what it has counted. Only open may name a breaker that has never opened. Answers with the
-- breaker as it then is. Errors: CG400; CG404.
create function public.bus_circuit_set(
        tenant text, key text, action text, actor text default null, reason text default null,
        open_ms bigint default null)
    returns setof public.circuit_state
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    its public.circuits;
    was text;
begin
    perform cogo.check_circuit(tenant, key);
    if coalesce(action, '') not in ('open', 'close', 'reset') then
        raise exception 'action: must be open, close or reset' using errcode = 'CG400';
    end if;
    if open_ms is not null and (action <> 'open' or open_ms not between 1 and 999999999) then
        raise exception 'open_ms: goes with open, and must be from 1 to 999999999' using errcode = 'CG400';
    end if;
    if action = 'open' then
        insert into public.circuits (tenant, key, state, version, nudge_at, open_ms, half_open_max_calls,
            successes_to_close, updated_at)
        values (bus_circuit_set.tenant, bus_circuit_set.key, 'closed', 0, moment, 30000, 1, 1, moment)
        on conflict do nothing;
    end if;
    select * into its from public.circuits c
        where c.tenant = bus_circuit_set.tenant and c.key = bus_circuit_set.key for update;
    if not found then
        raise exception 'key: no breaker % has ever opened', key using errcode = 'CG404';
    end if;
    was := its.state;
    if action = 'close' and was = 'closed' then
        return next cogo.circuit_state(its);
        return;
    end if;
    update public.circuits c
    set state = case action when 'open' then 'open' else 'closed' end,
        forced = action = 'open' and bus_circuit_set.open_ms is null,
        version = cogo.next_version(c.version),
        opened_at = case when action = 'open' and was = 'closed' then moment else c.opened_at end,
        open_until = case when action = 'open'
            then moment + make_interval(secs => bus_circuit_set.open_ms / 1000.0) end,
        prober = null, probe_until = null, probes = 0, successes = 0, nudge_at = moment,
        reason = left(coalesce(bus_circuit_set.reason, case action when 'reset' then 'reset' else 'operator' end), 200),
        worker_id = left(actor, 255), evidence = '{}', updated_at = moment
    where c.tenant = its.tenant and c.key = its.key
    returning * into its;
    perform cogo.log_circuit(case action when 'open' then 'opened' else 'closed' end, its, was,
        jsonb_build_object('action', action, 'forced', its.forced)
            || case when open_ms is null then '{}' else jsonb_build_object('open_ms', bus_circuit_set.open_ms) end);
    return next cogo.circuit_state(its);
end
$$;

revoke all on function cogo.circuit_state(public.circuits), cogo.next_version(bigint),
    cogo.log_circuit(text, public.circuits, text, jsonb), cogo.check_circuit(text, text),
    public.bus_circuits(text),
    public.bus_circuit_open(text, text, text, text, bigint, jsonb, jsonb),
    public.bus_circuit_probe(text, text, text, integer),
    public.bus_circuit_report(text, text, text, boolean, text),
    public.bus_circuit_set(text, text, text, text, text, bigint) from public;
grant execute on function
    public.bus_circuits(text),
    public.bus_circuit_open(text, text, text, text, bigint, jsonb, jsonb),
    public.bus_circuit_probe(text, text, text, integer),
    public.bus_circuit_report(text, text, text, boolean, text)
    to cogo_bus;
grant execute on function public.bus_circuit_set(text, text, text, text, text, bigint) to cogo_operator;
