-- Who may call which function and read which table, as rows instead of lists within cogo.grant_rights: a later migration
-- that adds a function adds its row and calls cogo.grant_rights(). Nobody's rights change by this one.
--
-- Both tables are the owner's alone. cogo.table_rights holds text that becomes a policy; whoever could write it could as
-- well write the policy.

create table cogo.function_rights (
    -- With its schema and without arguments: one decision for all functions of a name.
    name      text    primary key check (name ~ '^(public\.bus_[a-z_]+|cogo\.[a-z_]+)$'),
    -- Whoever has a token, within its scope; the function looks at it. The role authenticated.
    tokens    boolean not null default false,
    -- What workers and senders need. The role cogo_bus; operators and hubs are its members.
    workers   boolean not null default false,
    -- What hubs and people need besides. The role cogo_operator.
    operators boolean not null default false
);
comment on table cogo.function_rights is 'Who may call which function; given by cogo.grant_rights(). What is not here is nobody''s.';

create table cogo.table_rights (
    name   text primary key check (name ~ '^public\.[a-z_]+$'),
    -- Which rows whoever has a token may read, as the condition of a policy; null: nobody reads it but the owner.
    tokens text
);
comment on table cogo.table_rights is 'Who may read which table of the schema public; given by cogo.grant_rights().';

alter table cogo.function_rights enable row level security;
alter table cogo.table_rights enable row level security;

insert into cogo.function_rights (name, tokens, workers, operators) values
    ('public.bus_append_event',      true,  true,  false),
    ('public.bus_cancel',            true,  false, true),
    ('public.bus_channel_allowed',   true,  true,  false),
    ('public.bus_circuit_open',      true,  true,  false),
    ('public.bus_circuit_probe',     true,  true,  false),
    ('public.bus_circuit_report',    true,  true,  false),
    ('public.bus_circuit_set',       false, false, true),
    ('public.bus_circuits',          true,  true,  false),
    ('public.bus_claim',             true,  true,  false),
    ('public.bus_complete',          true,  true,  false),
    ('public.bus_define',            true,  true,  false),
    ('public.bus_definitions',       true,  true,  false),
    ('public.bus_drop',              false, false, true),
    ('public.bus_enqueue',           true,  true,  false),
    ('public.bus_enqueue_and_claim', false, true,  false),
    ('public.bus_env_names',         true,  true,  false),
    ('public.bus_env_read',          true,  true,  false),
    ('public.bus_env_set',           false, false, true),
    ('public.bus_env_unset',         false, false, true),
    ('public.bus_extend',            true,  true,  false),
    ('public.bus_fail',              true,  true,  false),
    ('public.bus_limits',            false, true,  false),
    ('public.bus_log_end',           true,  true,  false),
    ('public.bus_now',               false, true,  false),
    ('public.bus_offers',            true,  true,  false),
    ('public.bus_parked',            false, true,  false),
    ('public.bus_partition',         false, false, true),
    ('public.bus_pin',               false, false, true),
    ('public.bus_pins',              true,  true,  false),
    ('public.bus_read_events',       true,  true,  false),
    ('public.bus_reap',              true,  true,  false),
    ('public.bus_release',           true,  true,  false),
    ('public.bus_replay_check',      false, false, true),
    ('public.bus_replay_lock',       false, false, true),
    ('public.bus_replay_purged',     false, false, true),
    ('public.bus_replay_rebuild',    false, false, true),
    ('public.bus_replay_trace',      false, false, true),
    ('public.bus_requeue',           true,  false, true),
    ('public.bus_retain',            false, false, true),
    ('public.bus_schema_version',    true,  true,  false),
    ('public.bus_set_limits',        false, false, true),
    ('public.bus_stats',             false, true,  false),
    ('public.bus_step',              true,  true,  false),
    ('public.bus_worker_gone',       true,  true,  false),
    ('public.bus_worker_seen',       true,  true,  false),
    -- What the policies compare with.
    ('cogo.token_tenant',            true,  false, false),
    ('cogo.token_topics',            true,  false, false);

insert into cogo.table_rights (name, tokens) values
    ('public.agent_messages', 'tenant = (select cogo.token_tenant())'
        ' and array[''*'', role || ''/*'', role || ''/'' || service] && (select cogo.token_topics())'),
    ('public.bus_events', 'tenant = (select cogo.token_tenant())'
        ' and case when message_id is null then event_type like ''agent\_%'' or event_type like ''circuit\_%'''
        ' else array[''*'', role || ''/*'', role || ''/'' || service] && (select cogo.token_topics()) end'),
    ('public.workers', 'tenant = (select cogo.token_tenant())'),
    ('public.circuits', 'tenant = (select cogo.token_tenant())'),
    ('public._sqlx_migrations', null);

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
    wanted text;
    grantee text;
    its record;
begin
    -- A copy of the schema without its rows would take everything from everybody.
    if not exists (select from cogo.function_rights) or not exists (select from cogo.table_rights) then
        raise exception 'cogo.function_rights, cogo.table_rights: are empty, and so no rights can be given'
            using hint = 'Copy their rows along with the schema.';
    end if;
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
        select p.oid::regprocedure as f, coalesce(r.tokens, false) as tokens, coalesce(r.workers, false) as workers,
            coalesce(r.operators, false) as operators
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        left join cogo.function_rights r on r.name = n.nspname || '.' || p.proname
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
            continue when to_regrole(grantee) is null or not case grantee
                when 'cogo_bus' then its.workers
                when 'cogo_operator' then its.operators
                when 'service_role' then its.workers or its.operators
                else its.tokens end;
            execute format('grant execute on function %s to %I', its.f, grantee);
        end loop;
    end loop;

    for its in
        select c.oid::regclass as t, r.tokens, c.relrowsecurity or c.relkind = 'v' as guarded
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        left join cogo.table_rights r on r.name = n.nspname || '.' || c.relname
        where c.relkind in ('r', 'p', 'v') and (n.nspname = 'cogo' or r.name is not null)
            and pg_has_role(c.relowner, 'member')
    loop
        if not its.guarded then
            execute format('alter table %s enable row level security', its.t);
        end if;
        foreach grantee in array '{anon,authenticated,service_role}'::text[] loop
            continue when to_regrole(grantee) is null;
            execute format('revoke all on table %s from %I', its.t, grantee);
            continue when its.tokens is null or grantee = 'anon';
            execute format('grant select on table %s to %I', its.t, grantee);
            continue when exists (select from pg_policy p where p.polrelid = its.t and p.polname = grantee || '_reads');
            execute format('create policy %I on %s for select to %I using (%s)', grantee || '_reads', its.t, grantee,
                case when grantee = 'service_role' then 'true' else its.tokens end);
        end loop;
    end loop;
end
$$;

-- What anon may do with the bus, and authenticated with what is not for tokens: nothing, or a mistake to be told.
create or replace function cogo.exposed() returns setof text
    language sql stable
    as $$
        select format('function %s: open to %s', p.oid::regprocedure, r.rolname)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        left join cogo.function_rights f on f.name = n.nspname || '.' || p.proname, pg_roles r
        where r.rolname in ('anon', 'authenticated') and has_function_privilege(r.oid, p.oid, 'execute')
            and (n.nspname in ('cogo', 'cogo_unscoped') or n.nspname = 'public' and p.proname like 'bus\_%')
            and not (coalesce(f.tokens, false) and r.rolname = 'authenticated')
        union all
        select format('table %s: %s may %s it', c.oid::regclass, r.rolname, p.privilege)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        left join cogo.table_rights t on t.name = n.nspname || '.' || c.relname, pg_roles r,
            unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as p (privilege)
        where r.rolname in ('anon', 'authenticated') and c.relkind in ('r', 'p', 'v')
            and (n.nspname = 'cogo' or t.name is not null)
            and has_table_privilege(r.oid, c.oid, p.privilege)
            and not (r.rolname = 'authenticated' and p.privilege = 'select' and t.tokens is not null)
        order by 1
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
