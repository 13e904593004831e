-- RemoteEnv: secrets and settings that toolsets refer to by name, kept here for a tenant and sealed by whoever sets them.
--
-- The database never sees a value: the client encrypts it (AES-256-GCM, src/remote_env/seal.rs) with a key of its own
-- environment, COGO_ENV_KEY, bound to tenant, name, version and key. So a ciphertext that is put in another row, or under
-- another version, cannot be read. What could be put back is a whole row of before, with its version; a reader that has
-- seen a later one refuses it, and the log has the versions that were set.
--
-- Versions are a tenant's revision, which grows with each change and never goes back, also when a name goes: no version of
-- a name comes twice, and one number tells a reader that nothing has changed. Since the version is sealed in, whoever
-- sets values reads the revision first, and is refused (CG409) if somebody else was faster.
--
-- Both tables are in the schema cogo, where neither /rest/v1 nor PostgREST looks: they are read by functions. A tenant of
-- `*` is that of workers for all tenants.
--
-- Lock order: the row of cogo.env_revisions, rows of cogo.remote_env by name. With them no other row is locked.

create table cogo.env_revisions (
    tenant   text   primary key,
    revision bigint not null
);
comment on table cogo.env_revisions is 'How often the RemoteEnv of a tenant was changed. Written by bus_env_set and bus_env_unset.';

create table cogo.remote_env (
    tenant     text        not null,
    name       text        not null check (name ~ '^[A-Z][A-Z0-9_]{0,127}$'),
    -- The tenant's revision with which it was set.
    version    bigint      not null check (version > 0),
    -- A nonce of 12 bytes, the encrypted value, a tag of 16 bytes.
    ciphertext bytea       not null check (octet_length(ciphertext) between 28 and 65564),
    -- The first 8 hexadecimal digits of the SHA-256 of the key.
    key_id     text        not null check (key_id ~ '^[0-9a-f]{8}$'),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    updated_by text,
    primary key (tenant, name)
);
comment on table cogo.remote_env is 'Encrypted values by tenant and name. Written by bus_env_set and bus_env_unset.';
-- Encrypted bytes do not compress.
alter table cogo.remote_env alter column ciphertext set storage external;

alter table cogo.env_revisions enable row level security;
alter table cogo.remote_env enable row level security;

-- Why a name may not be set, or null. What a process needs before it can reach the table, or what says how far the table
-- is to be trusted, must not come from it.
create function cogo.env_name_problem(name text) returns text
    language sql immutable parallel safe
    as $$
        select case
            when name is null or name !~ '^[A-Z][A-Z0-9_]{0,127}$'
                then 'must be 1 to 128 capital letters, digits and _, beginning with a letter'
            when name ~ '^COGO_'
                then 'configures COGO itself, and so is read from the environment of its process alone'
            when name in ('DATABASE_URL', 'JWT_SECRET', 'SUPABASE_DB_URL', 'SUPABASE_JWT_SECRET', 'SUPABASE_SERVICE_ROLE_KEY')
                or name ~ '^PG'
                then 'is needed to reach this table or guards it, and so is read from the environment of the process alone'
        end
    $$;

-- Sets values of a tenant, an array of at most 100 of {name, version, ciphertext, key_id}: the ciphertext in base64, the
-- version the same for all and one more than the tenant's revision. Answers with the new revision. Errors: CG400; CG409
-- when somebody else has changed something meanwhile; CG413 for a value over 64 KiB and for too many; CG429 when the
-- tenant would have more than 1000. Each change is an event, env_set, with name, version and key, and never the value.
create function cogo_unscoped.bus_env_set(entries jsonb, tenant text, who text, why text) returns bigint
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    most constant integer := 1000;
    moment constant timestamptz := cogo.now();
    whose constant text := bus_env_set.tenant;
    problem text;
    state text;
    later bigint;
begin
    if jsonb_typeof(entries) is distinct from 'array' then
        raise exception 'entries: must be an array' using errcode = 'CG400';
    end if;
    if whose !~ '^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$' then
        raise exception 'tenant: must be 1 to 64 letters, digits, _ or -, or *' using errcode = 'CG400';
    end if;
    if jsonb_array_length(entries) > 100 then
        raise exception 'entries: at most 100 in one call' using errcode = 'CG413';
    end if;
    select format('entries[%s]%s', ord - 1, what), code into problem, state from (
        select ord, case when checked.what is null then 'CG413' else 'CG400' end as code, case
            when checked.what is not null then checked.what
            when octet_length(decode(e ->> 'ciphertext', 'base64')) > 65564 then '.ciphertext: a value is at most 64 KiB'
        end as what
        from jsonb_array_elements(entries) with ordinality as x (e, ord)
        cross join lateral (select case
            when jsonb_typeof(e) <> 'object' then ': must be an object'
            when cogo.env_name_problem(e ->> 'name') is not null
                then format('.name: %s%s', coalesce(quote_ident(left(e ->> 'name', 130)) || ' ', ''),
                    cogo.env_name_problem(e ->> 'name'))
            when jsonb_typeof(e -> 'version') is distinct from 'number' or e ->> 'version' !~ '^[0-9]{1,18}$'
                then '.version: must be a whole number'
            when coalesce(e ->> 'key_id', '') !~ '^[0-9a-f]{8}$' then '.key_id: must be 8 hexadecimal digits'
            when jsonb_typeof(e -> 'ciphertext') is distinct from 'string'
                or e ->> 'ciphertext' !~ '^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
                or length(e ->> 'ciphertext') < 40
                then '.ciphertext: must be a nonce of 12 bytes, the encrypted value and a tag of 16 bytes, in base64'
        end as what) checked
    ) judged
    where what is not null order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = state;
    end if;
    select format('entries[%s].name: %s stands twice', max(ord) - 1, e ->> 'name') into problem
        from jsonb_array_elements(entries) with ordinality as x (e, ord)
        group by e ->> 'name' having count(*) > 1 order by max(ord) limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;

    insert into cogo.env_revisions as r (tenant, revision) values (whose, 0) on conflict do nothing;
    select r.revision + 1 into later from cogo.env_revisions r where r.tenant = whose for update;
    if entries = '[]' then
        return later - 1;
    end if;
    select format('entries[%s].version: is %s, and the next version of tenant "%s" is %s', ord - 1, e ->> 'version', whose,
            later) into problem
        from jsonb_array_elements(entries) with ordinality as x (e, ord)
        where (e ->> 'version')::bigint <> later order by ord limit 1;
    if problem is not null then
        raise exception '%', problem
            using errcode = 'CG409', hint = 'Read the revision with bus_env_names, seal the values with the next one, and set them again.';
    end if;
    update cogo.env_revisions r set revision = later where r.tenant = whose;
    insert into cogo.remote_env as v (tenant, name, version, ciphertext, key_id, created_at, updated_at, updated_by)
        select whose, e ->> 'name', later, decode(e ->> 'ciphertext', 'base64'), e ->> 'key_id', moment, moment,
            left(who, 255)
        from jsonb_array_elements(entries) e
        order by e ->> 'name'
        on conflict on constraint remote_env_pkey do update
            set version = excluded.version, ciphertext = excluded.ciphertext, key_id = excluded.key_id,
                updated_at = excluded.updated_at, updated_by = excluded.updated_by;
    if (select count(*) > most from cogo.remote_env v where v.tenant = whose) then
        raise exception 'entries: tenant "%" would have more than it may have, %', whose, most
            using errcode = 'CG429', hint = 'Unset what is not used any more.';
    end if;
    insert into public.bus_events (event_type, tenant, reason, created_at, payload)
        select 'env_set', whose, left(who, 200), moment, jsonb_strip_nulls(jsonb_build_object('name', e ->> 'name',
            'version', later, 'key_id', e ->> 'key_id', 'why', left(why, 200)))
        from jsonb_array_elements(entries) e order by e ->> 'name';
    return later;
end
$$;

-- Takes values of a tenant away, by at most 1000 names; how many were there. Each is an event, env_unset. Errors: CG413.
create function cogo_unscoped.bus_env_unset(names text[], tenant text, who text) returns integer
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    whose constant text := bus_env_unset.tenant;
    later bigint;
    gone integer;
begin
    if cardinality(names) > 1000 then
        raise exception 'names: at most 1000 in one call' using errcode = 'CG413';
    end if;
    select r.revision + 1 into later from cogo.env_revisions r where r.tenant = whose for update;
    if not found then
        return 0;
    end if;
    with old as materialized (
        select v.name from cogo.remote_env v where v.tenant = whose and v.name = any (names) order by v.name for update
    ), removed as (
        delete from cogo.remote_env v using old o where v.tenant = whose and v.name = o.name returning v.name, v.version
    ), logged as (
        insert into public.bus_events (event_type, tenant, reason, created_at, payload)
        select 'env_unset', whose, left(who, 200), moment, jsonb_build_object('name', r.name, 'version', later, 'was', r.version)
        from removed r order by r.name
    )
    select count(*) into gone from removed;
    if gone > 0 then
        update cogo.env_revisions r set revision = later where r.tenant = whose;
    end if;
    return gone;
end
$$;

-- The names of a tenant, as {"tenant", "revision", "names": [{name, version, key_id, created_at, updated_at, updated_by}]}.
-- Where the revision is still `after`, the names are null.
create function cogo_unscoped.bus_env_names(tenant text, after bigint) returns jsonb
    language sql stable
    as $$
        select jsonb_build_object('tenant', bus_env_names.tenant, 'revision', now.revision, 'names', case
            when now.revision is distinct from bus_env_names.after then coalesce((
                select jsonb_agg(jsonb_build_object('name', v.name, 'version', v.version, 'key_id', v.key_id,
                    'created_at', v.created_at, 'updated_at', v.updated_at, 'updated_by', v.updated_by) order by v.name)
                from cogo.remote_env v where v.tenant = bus_env_names.tenant), '[]') end)
        from (select coalesce((select r.revision from cogo.env_revisions r where r.tenant = bus_env_names.tenant), 0)
            as revision) now
    $$;

-- The encrypted values of at most 100 names; those that are not there are left out. Errors: CG413.
create function cogo_unscoped.bus_env_read(names text[], tenant text)
    returns table (name text, version bigint, ciphertext text, key_id text)
    language plpgsql stable
    as $$
#variable_conflict use_column
begin
    if cardinality(names) > 100 then
        raise exception 'names: at most 100 in one call' using errcode = 'CG413';
    end if;
    return query
        select v.name, v.version, translate(encode(v.ciphertext, 'base64'), E'\n', ''), v.key_id
        from cogo.remote_env v
        where v.tenant = bus_env_read.tenant and v.name = any (names) order by v.name;
end
$$;

-- The tenant whose values the caller may read: the one that is named, and where the caller is bound, its token's own. A
-- token may that is for a worker with something to claim: who only sends has no use for them. Errors: CG403.
create function cogo.env_tenant(tenant text) returns text
    language plpgsql stable
    as $$
declare
    its cogo.scope;
begin
    if not cogo.restricted() then
        return coalesce(tenant, 'default');
    end if;
    its := cogo.own_scope();
    tenant := cogo.own_tenant(its, tenant);
    if its.worker is null or cardinality(its.topics) = 0 then
        raise exception 'tenant: this token is for no worker, and RemoteEnv is read by workers alone'
            using errcode = 'CG403', hint = 'Mint one with the claims "worker" and "topics".';
    end if;
    return tenant;
end
$$;

-- As cogo_unscoped.bus_env_set; a tenant that is null is 'default'. For operators alone. Errors: also CG403.
create function public.bus_env_set(entries jsonb, tenant text default null, who text default null, why text default null)
    returns bigint
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if cogo.restricted() then
        raise exception 'tenant: RemoteEnv is set by operators, and by no token' using errcode = 'CG403';
    end if;
    return cogo_unscoped.bus_env_set(entries, coalesce(tenant, 'default'), who, why);
end
$$;

-- As cogo_unscoped.bus_env_unset; a tenant that is null is 'default'. For operators alone. Errors: also CG403.
create function public.bus_env_unset(names text[], tenant text default null, who text default null) returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if cogo.restricted() then
        raise exception 'tenant: RemoteEnv is set by operators, and by no token' using errcode = 'CG403';
    end if;
    return cogo_unscoped.bus_env_unset(names, coalesce(tenant, 'default'), who);
end
$$;

-- As cogo_unscoped.bus_env_names; a tenant that is null is the token's own, and for others 'default'. Errors: CG403.
create function public.bus_env_names(tenant text default null, after bigint default null) returns jsonb
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    return cogo_unscoped.bus_env_names(cogo.env_tenant(tenant), after);
end
$$;

-- As cogo_unscoped.bus_env_read; a tenant that is null is the token's own, and for others 'default'. Errors: also CG403.
create function public.bus_env_read(names text[], tenant text default null)
    returns table (name text, version bigint, ciphertext text, key_id text)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    return query select * from cogo_unscoped.bus_env_read(names, cogo.env_tenant(tenant));
end
$$;

-- As in 202611210018_operate.sql, and bus_env_names, bus_env_read, bus_env_set and bus_env_unset.
create or replace function cogo.grant_rights() returns setof text
    language plpgsql volatile
    as $$
declare
    -- One decision for each function of the bus; one that is in no list is nobody's.
    for_tokens constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_cancel,bus_requeue,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_define,bus_definitions,bus_offers,bus_pins,bus_env_names,bus_env_read}';
    for_workers constant text[] := '{bus_now,bus_enqueue,bus_enqueue_and_claim,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_stats,bus_limits,bus_parked,bus_define,bus_definitions,bus_offers,bus_pins,bus_env_names,bus_env_read}';
    for_operators constant text[] := '{bus_requeue,bus_cancel,bus_drop,bus_retain,bus_partition,bus_circuit_set,bus_set_limits,bus_replay_purged,bus_replay_check,bus_replay_lock,bus_replay_rebuild,bus_replay_trace,bus_pin,bus_env_set,bus_env_unset}';
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
