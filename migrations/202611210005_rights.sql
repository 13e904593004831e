-- Who may do what. Deny by default: nobody but the owner writes the tables, and the functions, which
-- run with the owner's rights, are granted by name.
--
-- cogo_bus       what workers and senders need: enqueue, claim, settle, read, append.
-- cogo_operator  besides, what hubs and people need: requeue, cancel, drop, retention, partitions.
--
-- Both are group roles: `grant cogo_bus to some_login`. Roles belong to the cluster and not to the
-- database, so they may be there already.

do $$
declare
    wanted text;
begin
    foreach wanted in array '{cogo_bus,cogo_operator}'::text[] loop
        begin
            execute format('create role %I nologin', wanted);
        exception when duplicate_object or unique_violation then
            null; -- made by another database of this cluster, perhaps at this moment
        end;
    end loop;
    begin
        grant cogo_bus to cogo_operator;
    exception when unique_violation or internal_error then
        null; -- likewise
    end;
end
$$;

alter table public.agent_messages enable row level security;
alter table public.bus_events enable row level security;
alter table public.workers enable row level security;
alter table cogo.bus_events_rest enable row level security;

revoke all on public.agent_messages, public.bus_events, public.workers from public;
revoke all on schema cogo from public;
grant select on public.agent_messages, public.bus_events, public.workers to cogo_bus;

create policy bus_reads on public.agent_messages for select to cogo_bus using (true);
create policy bus_reads on public.bus_events for select to cogo_bus using (true);
create policy bus_reads on public.workers for select to cogo_bus using (true);

-- The newest migration that has been applied, for clients that may not read the migrator's table; null
-- where the schema was loaded by other means.
create function public.bus_schema_version() returns bigint
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if to_regclass('public._sqlx_migrations') is null then
        return null;
    end if;
    return (select max(version) from public._sqlx_migrations where success);
end
$$;

-- Functions are executable by everybody unless it is taken away.
do $$
declare
    f regprocedure;
begin
    for f in
        select p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'cogo' or n.nspname = 'public' and p.proname like 'bus\_%'
    loop
        execute format('revoke all on function %s from public', f);
    end loop;
end
$$;

grant execute on function
    public.bus_enqueue(jsonb),
    public.bus_claim(text, text[], integer, integer, text),
    public.bus_extend(jsonb, integer),
    public.bus_complete(jsonb),
    public.bus_fail(jsonb),
    public.bus_release(jsonb),
    public.bus_step(jsonb, text, text[], integer, integer, text),
    public.bus_reap(integer),
    public.bus_read_events(text, integer, jsonb),
    public.bus_log_end(),
    public.bus_append_event(jsonb),
    public.bus_worker_seen(jsonb),
    public.bus_worker_gone(text, text, text),
    public.bus_stats(),
    public.bus_schema_version()
    to cogo_bus;

grant execute on function
    public.bus_requeue(jsonb, text),
    public.bus_cancel(jsonb, text),
    public.bus_drop(jsonb, text),
    public.bus_retain(interval, interval, integer),
    public.bus_partition(integer, interval)
    to cogo_operator;

-- The migrator's own table must not be readable through PostgREST on Supabase.
do $$
begin
    if to_regclass('public._sqlx_migrations') is not null then
        alter table public._sqlx_migrations enable row level security;
        revoke all on public._sqlx_migrations from public;
    end if;
end
$$;
