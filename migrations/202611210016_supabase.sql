-- What a Supabase project needs besides: `cogo migrate --supabase` calls it, elsewhere nobody does.

-- Lets Supabase's Realtime tell of the bus's tables, and lets tokens join private channels by the rule of
-- bus_channel_allowed. Answers with what was missing or what the login was not allowed to do. May be called again at
-- any time, by the owner.
--
-- bus_events stays out of the publication. It is partitioned, and wal2json, by which Realtime reads, tells of a
-- partition's changes under the partition's name and knows nothing of publish_via_partition_root (which would hold
-- for the project's own tables in the publication as well): nobody who subscribes to bus_events would hear of any.
-- Realtime would read each event's row all the same. Workers poll, and circuits tells of what they need of it.
create function cogo.join_supabase() returns setof text
    language plpgsql volatile
    as $$
declare
    wanted text;
    everything boolean;
begin
    select puballtables into everything from pg_publication where pubname = 'supabase_realtime';
    if not found then
        return next 'publication supabase_realtime: missing; is this a Supabase project? Without it, workers find work by polling alone';
    elsif not everything then
        foreach wanted in array '{agent_messages,workers,circuits}'::text[] loop
            continue when exists (select from pg_publication_tables p
                where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = wanted);
            begin
                execute format('alter publication supabase_realtime add table public.%I', wanted);
            exception
                when duplicate_object then null; -- by another call, just now
                when insufficient_privilege then
                    return next format('publication supabase_realtime: this login may not add %s to it; without it, workers find work by polling alone', wanted);
            end;
        end loop;
    end if;

    if to_regclass('realtime.messages') is null or to_regprocedure('realtime.topic()') is null then
        return next 'realtime.messages: missing; private channels cannot be used until Realtime has made it, then run this again';
    elsif not exists (select from pg_policy where polrelid = 'realtime.messages'::regclass and polname = 'cogo_joins') then
        begin
            create policy cogo_joins on realtime.messages for select to authenticated
                using (public.bus_channel_allowed((select realtime.topic()), 'join'));
            create policy cogo_sends on realtime.messages for insert to authenticated
                with check (public.bus_channel_allowed((select realtime.topic()), extension));
        exception when insufficient_privilege or undefined_object or undefined_column then
            return next format('realtime.messages: this login may not make policies for private channels (%s)', sqlerrm);
        end;
    end if;
    -- PostgREST looks at the schema again.
    notify pgrst, 'reload schema';
end
$$;
revoke all on function cogo.join_supabase() from public;

-- What anon may do with the bus, and authenticated with what is not for tokens: nothing, or a mistake to be told.
create function cogo.exposed() returns setof text
    language sql stable
    as $$
        select format('function %s: open to %s', p.oid::regprocedure, r.rolname)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace, pg_roles r
        where r.rolname in ('anon', 'authenticated') and has_function_privilege(r.oid, p.oid, 'execute')
            and (n.nspname = 'public' and p.proname like 'bus\_%' and r.rolname = 'anon'
                or n.nspname in ('cogo', 'cogo_unscoped') and p.proname not in ('token_tenant', 'token_topics'))
        union all
        select format('table %s: %s may %s it', c.oid::regclass, r.rolname, p.privilege)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace, pg_roles r,
            unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as p (privilege)
        where r.rolname in ('anon', 'authenticated') and c.relkind in ('r', 'p', 'v')
            and (n.nspname = 'cogo' or c.oid in (to_regclass('public.agent_messages'), to_regclass('public.bus_events'),
                to_regclass('public.workers'), to_regclass('public.circuits'), to_regclass('public._sqlx_migrations')))
            and has_table_privilege(r.oid, c.oid, p.privilege)
            and not (r.rolname = 'authenticated' and p.privilege = 'select' and n.nspname = 'public'
                and c.relname <> '_sqlx_migrations')
        order by 1
    $$;
revoke all on function cogo.exposed() from public;
