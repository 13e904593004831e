-- The catalogue: what the workers of a tenant offer, how each tool is defined, and which definitions are approved.
--
-- A worker says what it offers in `workers.info`, by hashes alone: {"toolsets": {"<toolset>": {"tools": {"<tool>":
-- "<hash>"}}}}. Definitions are uploaded once a tenant (bus_define) and are named by the SHA-256 of their text, so
-- nobody can put another one in the place of one that was approved. A worker offers only what it may claim: what it
-- says of a toolset that is not among its topics counts for nothing, and its topics are what its token allows.
--
-- Both tables are in the schema cogo, where neither /rest/v1 nor PostgREST looks: they are read by functions.
--
-- Lock order: the advisory lock of a tenant's definitions, rows of cogo.definitions by hash, rows of cogo.pins by
-- toolset and tool. With them no other row of the bus is locked but by bus_retain, which takes them last and skips those
-- that are.

create table cogo.definitions (
    tenant          text        not null,
    -- The SHA-256 of `definition` in UTF-8, in hexadecimal.
    hash            text        not null check (hash ~ '^[0-9a-f]{64}$'),
    -- A JSON object in the text that was hashed. No jsonb: that would give another text.
    definition      text        not null check (octet_length(definition) <= 65536),
    created_at      timestamptz not null,
    -- To the hour: when a worker last said that it offers it, or it was last found offered or approved.
    last_offered_at timestamptz not null,
    primary key (tenant, hash)
);
comment on table cogo.definitions is 'Tools as their servers define them, by hash. Written by bus_define and bus_pin.';
create index definitions_offered on cogo.definitions (last_offered_at);

create table cogo.pins (
    tenant    text        not null,
    toolset   text        not null,
    tool      text        not null,
    -- What is approved; null once that was revoked, so that nothing is.
    hash      text,
    pinned_at timestamptz not null,
    pinned_by text,
    primary key (tenant, toolset, tool),
    foreign key (tenant, hash) references cogo.definitions (tenant, hash)
);
comment on table cogo.pins is 'Which definition of a tool is approved. Written by bus_pin.';
create index pins_definition on cogo.pins (tenant, hash) where hash is not null;

-- When a worker went or was found lost. Indexed, unlike last_seen_at, which every sign of life changes.
alter table public.workers add column gone_at timestamptz;
create index workers_gone on public.workers (tenant, gone_at) where status = 'offline';

-- As in 202611210015_presence.sql, and notes gone_at.
create or replace function cogo_unscoped.bus_worker_gone(worker text, reason text default null, tenant text default 'default')
    returns boolean
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    its_role text;
begin
    update public.workers w set status = 'offline', last_seen_at = cogo.now(), gone_at = cogo.now(), in_flight = 0
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

-- As in 202611210015_presence.sql, and notes gone_at.
create or replace function cogo.reap_workers(max integer) returns integer
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
        update public.workers w set status = 'offline', in_flight = 0, gone_at = moment
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

-- What a worker with this info, these topics and this role offers. What has no such form offers nothing.
create function cogo.offered(info jsonb, topics text[], role text) returns table (toolset text, tool text, hash text)
    language sql immutable parallel safe
    as $$
        select t.key, o.key, o.value
        from jsonb_each(case when jsonb_typeof(info -> 'toolsets') = 'object' then info -> 'toolsets' else '{}' end) t
        cross join lateral jsonb_each_text(
            case when jsonb_typeof(t.value -> 'tools') = 'object' then t.value -> 'tools' else '{}' end) o
        where role || '/' || t.key = any (topics) and o.value ~ '^[0-9a-f]{64}$'
    $$;

-- Whether a text is that of a definition: a JSON object. What is in it, such as \u0000, is not looked at.
create function cogo.is_definition(definition text) returns boolean
    language plpgsql immutable parallel safe
    as $$
begin
    return json_typeof(definition::json) = 'object';
exception when others then
    return false;
end
$$;

-- Takes definitions of tools, an array of {hash, definition?} of at most 1000 and 4 MiB, each definition a text of
-- at most 64 KiB, whose SHA-256 the hash must be. Answers with the hashes that are not known and came without their
-- definition: send these again with it. A tenant has at most 4096; when there are more, those that nobody has approved
-- and nobody has offered for an hour make room. Errors: CG400, CG413, CG429.
create function cogo_unscoped.bus_define(definitions jsonb, tenant text) returns setof text
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    most constant integer := 4096;
    moment constant timestamptz := cogo.now();
    whose constant text := bus_define.tenant;
    problem text;
    state text;
    over integer;
begin
    if jsonb_typeof(definitions) is distinct from 'array' then
        raise exception 'definitions: must be an array' using errcode = 'CG400';
    end if;
    if whose !~ '^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$' then
        raise exception 'tenant: must be 1 to 64 letters, digits, _ or -, or *' using errcode = 'CG400';
    end if;
    if jsonb_array_length(definitions) > 1000 or octet_length(definitions::text) > 4194304 then
        raise exception 'definitions: at most 1000 and 4 MiB in one call' using errcode = 'CG413';
    end if;
    select format('definitions[%s]%s', ord - 1, what), code into problem, state from (
        select ord, 'CG400' as code, case
            when jsonb_typeof(d) <> 'object' then ': must be an object'
            when coalesce(d ->> 'hash', '') !~ '^[0-9a-f]{64}$' then '.hash: must be a SHA-256 in hexadecimal'
            when coalesce(jsonb_typeof(d -> 'definition'), 'null') not in ('null', 'string')
                then '.definition: must be the text that was hashed'
            when octet_length(d ->> 'definition') > 65536 then null
            when encode(sha256(convert_to(d ->> 'definition', 'UTF8')), 'hex') <> d ->> 'hash'
                then '.hash: is not the SHA-256 of the definition'
            when d ->> 'definition' is not null and not cogo.is_definition(d ->> 'definition')
                then '.definition: must be a JSON object'
        end as what
        from jsonb_array_elements(definitions) with ordinality as x (d, ord)
        union all
        select ord, 'CG413', '.definition: at most 64 KiB'
        from jsonb_array_elements(definitions) with ordinality as x (d, ord)
        where octet_length(d ->> 'definition') > 65536
    ) checked
    where what is not null order by ord, code limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = state;
    end if;

    if exists (
        select from jsonb_array_elements(definitions) d
        where d ->> 'definition' is not null and not exists (
            select from cogo.definitions k where k.tenant = whose and k.hash = d ->> 'hash')
    ) then
        perform pg_advisory_xact_lock(hashtext('cogo.definitions'), hashtext(whose));
        insert into cogo.definitions (tenant, hash, definition, created_at, last_offered_at)
            select distinct on (d ->> 'hash') whose, d ->> 'hash', d ->> 'definition', moment, moment
            from jsonb_array_elements(definitions) d
            where d ->> 'definition' is not null
            order by d ->> 'hash'
            on conflict do nothing;
        select count(*) - most into over from cogo.definitions k where k.tenant = whose;
        if over > 0 then
            with offered as materialized (
                -- A worker says what it offers with each sign of life, but tells the definitions only now and then.
                select distinct o.hash from public.workers w
                cross join lateral cogo.offered(w.info, w.topics, w.role) o
                where w.tenant = whose and (w.status = 'online' or w.gone_at > moment - interval '1 hour')
            ), old as materialized (
                select k.hash from cogo.definitions k
                where k.tenant = whose and k.last_offered_at < moment - interval '1 hour'
                    and not exists (select from cogo.pins p where p.tenant = whose and p.hash = k.hash)
                    and k.hash not in (select o.hash from offered o)
                order by k.last_offered_at, k.hash limit over
                for update skip locked
            ), gone as (
                delete from cogo.definitions k using old o where k.tenant = whose and k.hash = o.hash returning 1
            )
            select over - count(*) into over from gone;
        end if;
        if over > 0 then
            raise exception 'definitions: tenant "%" has as many as it may have, %', whose, most
                using errcode = 'CG429', hint = 'Offer fewer tools, or wait an hour: what is offered no more then makes room.';
        end if;
    end if;
    with stale as materialized (
        select k.hash from cogo.definitions k
        where k.tenant = whose and k.last_offered_at < moment - interval '1 hour'
            and k.hash in (select d ->> 'hash' from jsonb_array_elements(definitions) d)
        order by k.hash
        for update skip locked
    )
    update cogo.definitions k set last_offered_at = moment from stale s where k.tenant = whose and k.hash = s.hash;

    return query
        select distinct d ->> 'hash' from jsonb_array_elements(definitions) d
        where not exists (select from cogo.definitions k where k.tenant = whose and k.hash = d ->> 'hash')
        order by 1;
end
$$;

-- As cogo_unscoped.bus_define. A tenant that is null is the token's own, and for others 'default'; workers for all
-- tenants define for '*'. A token may when it may claim anything of mcp-gateway. Errors: also CG403.
create function public.bus_define(definitions jsonb, tenant text default null) returns setof text
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        if definitions <> '[]'
            and not exists (select from unnest(its.topics) t where t = '*' or split_part(t, '/', 1) = 'mcp-gateway') then
            raise exception 'definitions: this token may claim nothing of mcp-gateway, and so define nothing'
                using errcode = 'CG403', detail = format('It may claim %s.', cogo.told(its.topics)),
                    hint = 'Use a token with mcp-gateway/<toolset> in its claim "topics".';
        end if;
    end if;
    return query select * from cogo_unscoped.bus_define(definitions, coalesce(tenant, 'default'));
end
$$;

-- The definitions of these hashes that a tenant (null: the token's own, and for others 'default') knows, at most 1000;
-- those of workers for all tenants are among them. Errors: CG403, CG413.
create function public.bus_definitions(hashes text[], tenant text default null)
    returns table (hash text, definition text, created_at timestamptz)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    whose text := bus_definitions.tenant;
begin
    if cardinality(hashes) > 1000 then
        raise exception 'hashes: at most 1000 in one call' using errcode = 'CG413';
    end if;
    if cogo.restricted() then
        whose := cogo.own_tenant(cogo.own_scope(), whose);
    end if;
    whose := coalesce(whose, 'default');
    return query
        select distinct on (k.hash) k.hash, k.definition, k.created_at
        from cogo.definitions k
        where k.tenant in (whose, '*') and k.hash = any (hashes)
        order by k.hash, k.created_at;
end
$$;

-- What the workers of a tenant (null: the token's own, and for others 'default'), and those for all tenants, offer that
-- are online or were seen in the last grace_ms: by how many that are online, and by how many that are away. `workers`
-- names a few of them, `newest` is when the last of them came online, and leaves_in_ms how long the first of those that
-- are away still counts. At most 10000 rows. Errors: CG400, CG403.
create function public.bus_offers(grace_ms bigint default 60000, tenant text default null)
    returns table (toolset text, tool text, hash text, online integer, away integer, workers text[],
        newest timestamptz, leaves_in_ms bigint)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    whose text := bus_offers.tenant;
    oldest timestamptz;
begin
    if coalesce(grace_ms, -1) not between 0 and 86400000 then
        raise exception 'grace_ms: must be from 0 to 86400000' using errcode = 'CG400';
    end if;
    if cogo.restricted() then
        whose := cogo.own_tenant(cogo.own_scope(), whose);
    end if;
    whose := coalesce(whose, 'default');
    oldest := moment - grace_ms * interval '1 ms';
    return query
        select o.toolset, o.tool, o.hash, (count(*) filter (where w.here))::integer,
            (count(*) filter (where not w.here))::integer,
            (array_agg(w.id order by w.here desc, w.id))[1:5], max(w.started_at), min(w.leaves_in_ms)
        from (
            select w.id, w.role, w.topics, w.info, w.started_at, true as here, null::bigint as leaves_in_ms
            from public.workers w where w.tenant in (whose, '*') and w.status = 'online'
            union all
            select w.id, w.role, w.topics, w.info, w.started_at, false,
                (extract(epoch from w.last_seen_at - oldest) * 1000)::bigint
            from public.workers w
            where w.tenant in (whose, '*') and w.status = 'offline' and w.gone_at > oldest and w.last_seen_at > oldest
        ) w
        cross join lateral cogo.offered(w.info, w.topics, w.role) o
        group by o.toolset, o.tool, o.hash
        order by 1, 2, 3 limit 10000;
end
$$;

-- What is approved of a tenant's tools (null: the token's own, and for others 'default'); a hash that is null was
-- revoked. Errors: CG403.
create function public.bus_pins(tenant text default null)
    returns table (toolset text, tool text, hash text, pinned_at timestamptz, pinned_by text)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    whose text := bus_pins.tenant;
begin
    if cogo.restricted() then
        whose := cogo.own_tenant(cogo.own_scope(), whose);
    end if;
    whose := coalesce(whose, 'default');
    return query
        select p.toolset, p.tool, p.hash, p.pinned_at, p.pinned_by from cogo.pins p
        where p.tenant = whose order by 1, 2;
end
$$;

-- Approves definitions, an array of {toolset, tool, hash} of at most 1000: each in place of what was approved of that
-- tool before, or, where `first`, only if nothing ever was. A hash that is null revokes: then nothing of that tool is
-- approved. Appends tool_pinned or tool_unpinned for each that has changed; answers how many have. At most 4096
-- tools a tenant. Errors: CG400, CG404 for a definition that the tenant does not know, CG429.
create function public.bus_pin(pins jsonb, who text default null, first boolean default false, tenant text default 'default')
    returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    most constant integer := 4096;
    moment constant timestamptz := cogo.now();
    whose constant text := coalesce(bus_pin.tenant, 'default');
    problem text;
    state text;
    changed integer;
begin
    if jsonb_typeof(pins) is distinct from 'array' then
        raise exception 'pins: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(pins) > 1000 then
        raise exception 'pins: at most 1000 in one call' using errcode = 'CG413';
    end if;
    if whose !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$' then
        raise exception 'tenant: must be 1 to 64 letters, digits, _ or -' using errcode = 'CG400';
    end if;
    perform pg_advisory_xact_lock(hashtext('cogo.definitions'), hashtext(whose));
    select format('pins[%s]%s', ord - 1, what), code into problem, state from (
        select ord, 'CG400' as code, case
            when jsonb_typeof(p) <> 'object' then ': must be an object'
            when coalesce(p ->> 'toolset', '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
                then '.toolset: must be 1 to 64 letters, digits, _ or -'
            when coalesce(length(p ->> 'tool'), 0) not between 1 and 255 then '.tool: must be 1 to 255 characters'
            when not p ? 'hash' or p ->> 'hash' is null and first then '.hash: is required'
            when coalesce(p ->> 'hash', repeat('0', 64)) !~ '^[0-9a-f]{64}$'
                then '.hash: must be a SHA-256 in hexadecimal, or null'
        end as what
        from jsonb_array_elements(pins) with ordinality as x (p, ord)
        union all
        select ord, 'CG404', '.hash: there is no such definition'
        from jsonb_array_elements(pins) with ordinality as x (p, ord)
        where p ->> 'hash' is not null and not exists (
            select from cogo.definitions k where k.tenant in (whose, '*') and k.hash = p ->> 'hash')
    ) checked
    where what is not null order by ord, code limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = state;
    end if;

    -- What a worker for all tenants defined stays for as long as this tenant approves it.
    insert into cogo.definitions (tenant, hash, definition, created_at, last_offered_at)
        select distinct on (k.hash) whose, k.hash, k.definition, k.created_at, moment
        from jsonb_array_elements(pins) p
        join cogo.definitions k on k.tenant = '*' and k.hash = p ->> 'hash'
        order by k.hash
        on conflict do nothing;
    with wanted as materialized (
        select distinct on (toolset, tool) p ->> 'toolset' as toolset, p ->> 'tool' as tool, p ->> 'hash' as hash
        from jsonb_array_elements(pins) with ordinality as x (p, ord)
        order by toolset, tool, ord desc
    ), before as materialized (
        select w.toolset, w.tool, w.hash, p.hash as was
        from wanted w left join cogo.pins p on p.tenant = whose and p.toolset = w.toolset and p.tool = w.tool
        where p.tool is null or not first and p.hash is distinct from w.hash
    ), written as (
        insert into cogo.pins as p (tenant, toolset, tool, hash, pinned_at, pinned_by)
        select whose, b.toolset, b.tool, b.hash, moment, left(who, 255) from before b order by b.toolset, b.tool
        on conflict on constraint pins_pkey do update
            set hash = excluded.hash, pinned_at = excluded.pinned_at, pinned_by = excluded.pinned_by
        returning 1
    ), logged as (
        insert into public.bus_events (event_type, tenant, role, service, reason, created_at, payload)
        select case when b.hash is null then 'tool_unpinned' else 'tool_pinned' end, whose, 'mcp-gateway', b.toolset,
            left(who, 200), moment, jsonb_build_object('tool', b.tool, 'hash', b.hash, 'was', b.was)
        from before b order by b.toolset, b.tool
    )
    select count(*) into changed from written;
    if changed > 0 and (select count(*) > most from cogo.pins p where p.tenant = whose) then
        raise exception 'pins: tenant "%" has as many as it may have, %', whose, most using errcode = 'CG429';
    end if;
    return changed;
end
$$;

-- Lets definitions go that nobody has offered for 30 days, at most `max`, but for those that are approved. What is
-- still offered says so here, and not with each sign of life.
create function cogo.retain_definitions(max integer) returns void
    language plpgsql volatile
    as $$
declare
    moment constant timestamptz := cogo.now();
begin
    if not exists (select from cogo.definitions k where k.last_offered_at < moment - interval '30 days') then
        return;
    end if;
    with old as materialized (
        select k.tenant, k.hash from cogo.definitions k
        where k.last_offered_at < moment - interval '30 days'
        order by k.last_offered_at, k.tenant, k.hash limit max
        for update skip locked
    ), offered as materialized (
        select distinct o.hash from public.workers w
        cross join lateral cogo.offered(w.info, w.topics, w.role) o
        where w.status = 'online'
    ), judged as materialized (
        select o.tenant, o.hash, o.hash in (select f.hash from offered f)
            or exists (select from cogo.pins p where p.tenant = o.tenant and p.hash = o.hash) as stays
        from old o
    ), stayed as (
        update cogo.definitions k set last_offered_at = moment
        from judged j where j.stays and k.tenant = j.tenant and k.hash = j.hash
    )
    delete from cogo.definitions k using judged j where not j.stays and k.tenant = j.tenant and k.hash = j.hash;
end
$$;

-- As in 202611210013_operate.sql; definitions that nobody has offered for a month go as well.
create or replace function public.bus_retain(
        done_for interval default '24 hours', failed_for interval default null, max integer default 1000,
        keyed_for interval default null)
    returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    gone integer;
begin
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;
    if done_for < interval '0' or failed_for < interval '0' or keyed_for < interval '0' then
        raise exception 'done_for, failed_for, keyed_for: must not be negative' using errcode = 'CG400';
    end if;
    with old_done as materialized (
        select id from public.agent_messages
        where status in ('done', 'cancelled') and idempotency_key is null and done_at < moment - done_for
        order by done_at, id limit max
        for update skip locked
    ), old_keyed as materialized (
        select id from public.agent_messages
        where status in ('done', 'cancelled') and idempotency_key is not null
            and done_at < moment - greatest(done_for, keyed_for)
        order by done_at, id limit max
        for update skip locked
    ), old_failed as materialized (
        select id from public.agent_messages
        where status = 'failed' and done_at < moment - failed_for
        order by done_at, id limit max
        for update skip locked
    ), old as (
        select id from old_done union all select id from old_keyed union all select id from old_failed limit max
    ), purged as (
        delete from public.agent_messages m using old where m.id = old.id returning m.id, m.tenant
    ), logged as (
        insert into public.bus_events (event_type, tenant, created_at, payload)
        select 'messages_purged', tenant, moment, jsonb_build_object('ids', jsonb_agg(id))
        from purged group by tenant
    )
    select count(*) into gone from purged;

    with old as materialized (
        select c.tenant, c.key from public.circuits c
        where c.state = 'closed' and c.updated_at < moment - interval '1 day'
        order by c.tenant, c.key limit max
        for update skip locked
    )
    delete from public.circuits c using old o where c.tenant = o.tenant and c.key = o.key;
    perform cogo.retain_definitions(max);
    return gone;
end
$$;

-- Makes the roles, and gives each what it may: everything by name, and taken from everybody else first, since on
-- Supabase whatever is made in the schema public is anon's and authenticated's by default. Answers with what the login
-- was not allowed to do. May be called again at any time, by the owner.
--
-- anon           may nothing.
-- authenticated  what a token's scope allows.
-- service_role   everything, as cogo_operator.
-- cogo_hub       the same, and may act as any of the three: `grant cogo_hub to the_hubs_login`.
--
-- service_role is granted by name besides, for on Supabase it does not inherit.
create or replace function cogo.grant_rights() returns setof text
    language plpgsql volatile
    as $$
declare
    -- One decision for each function of the bus; one that is in no list is nobody's.
    for_tokens constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_cancel,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_define,bus_definitions,bus_offers,bus_pins}';
    for_workers constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_stats,bus_limits,bus_parked,bus_define,bus_definitions,bus_offers,bus_pins}';
    for_operators constant text[] := '{bus_requeue,bus_cancel,bus_drop,bus_retain,bus_partition,bus_circuit_set,bus_set_limits,bus_replay_purged,bus_replay_check,bus_replay_lock,bus_replay_rebuild,bus_replay_trace,bus_pin}';
    for_policies constant text[] := '{token_tenant,token_topics}';
    allowed text[];
    wanted text;
    grantee text;
    its record;
begin
    -- Two at once would change the same rows of the catalog, which Postgres does not wait for.
    perform pg_advisory_xact_lock(hashtext('cogo.grant_rights'));
    foreach wanted in array '{anon,authenticated,service_role,cogo_hub}'::text[] loop
        continue when to_regrole(wanted) is not null;
        begin
            execute format('create role %I nologin', wanted);
        exception
            when duplicate_object or unique_violation then null; -- made by another database of this cluster, just now
            when insufficient_privilege then
                return next format('role %s: missing, and this login may not create it', wanted);
        end;
    end loop;
    for wanted, grantee in values ('cogo_operator', 'service_role'), ('cogo_operator', 'cogo_hub'),
        ('anon', 'cogo_hub'), ('authenticated', 'cogo_hub'), ('service_role', 'cogo_hub')
    loop
        continue when to_regrole(wanted) is null or to_regrole(grantee) is null
            or pg_has_role(grantee::name, wanted::name, 'member');
        begin
            execute format('grant %I to %I', wanted, grantee);
        exception
            when unique_violation or internal_error then null; -- likewise
            when insufficient_privilege then
                return next format('role %s: this login may not make it a member of %s', grantee, wanted);
        end;
    end loop;

    for its in
        select p.oid::regprocedure as f, p.proname::text as name, n.nspname = 'public' as open
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where (n.nspname in ('cogo', 'cogo_unscoped') or n.nspname = 'public' and p.proname like 'bus\_%')
            and pg_has_role(p.proowner, 'member')
    loop
        execute format('revoke all on function %s from public, cogo_bus, cogo_operator', its.f);
        foreach grantee in array '{anon,authenticated,service_role}'::text[] loop
            if to_regrole(grantee) is not null then
                execute format('revoke all on function %s from %I', its.f, grantee);
            end if;
        end loop;
        foreach grantee in array '{cogo_bus,cogo_operator,service_role,authenticated}'::text[] loop
            continue when to_regrole(grantee) is null;
            allowed := case
                when not its.open then case grantee when 'authenticated' then for_policies else '{}' end
                when grantee = 'cogo_bus' then for_workers
                when grantee = 'cogo_operator' then for_operators
                when grantee = 'service_role' then for_workers || for_operators
                else for_tokens end;
            if its.name = any (allowed) then
                execute format('grant execute on function %s to %I', its.f, grantee);
            end if;
        end loop;
    end loop;

    for its in
        select c.oid::regclass as t, c.relname::text as name, n.nspname = 'public' and c.relname <> '_sqlx_migrations' as open,
            c.relrowsecurity as guarded
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where (n.nspname = 'cogo' and c.relkind in ('r', 'p')
                or c.oid in (to_regclass('public.agent_messages'), to_regclass('public.bus_events'),
                    to_regclass('public.workers'), to_regclass('public.circuits'), to_regclass('public._sqlx_migrations')))
            and pg_has_role(c.relowner, 'member')
    loop
        if not its.guarded then
            execute format('alter table %s enable row level security', its.t);
        end if;
        foreach grantee in array '{anon,authenticated,service_role}'::text[] loop
            continue when to_regrole(grantee) is null;
            execute format('revoke all on table %s from %I', its.t, grantee);
            continue when not its.open or grantee = 'anon';
            execute format('grant select on table %s to %I', its.t, grantee);
            continue when exists (select from pg_policy p where p.polrelid = its.t and p.polname = grantee || '_reads');
            execute format('create policy %I on %s for select to %I using (%s)', grantee || '_reads', its.t, grantee,
                case when grantee = 'service_role' then 'true' else 'tenant = (select cogo.token_tenant())'
                    || case its.name
                        when 'agent_messages' then ' and array[''*'', role || ''/*'', role || ''/'' || service]
                            && (select cogo.token_topics())'
                        when 'bus_events' then ' and case when message_id is null
                            then event_type like ''agent\_%'' or event_type like ''circuit\_%''
                            else array[''*'', role || ''/*'', role || ''/'' || service]
                                && (select cogo.token_topics()) end'
                        else '' end
                end);
        end loop;
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
