-- What the hub's figures and lists need beside reading the tables: the bus's time, and the tenant of dead letters
-- where they are counted.

-- The time that events carry, for readers that ask what happened lately; by their own clock they would ask for
-- another while.
create function public.bus_now() returns timestamptz
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$ select cogo.now() $$;

-- Dead letters are counted by tenant as well, which the index now holds, as those of the other statuses do. A message
-- that does not fail costs nothing more; building it keeps writers out for about a second for each million of dead letters.
drop index public.agent_messages_dead;
create index agent_messages_dead on public.agent_messages
    (done_at, id) include (role, service, tenant) where status = 'failed';

-- As it was, and bus_now is for workers (and so for operators and hubs). What else the function says is left as it is
-- found, whichever migration said it last.
do $$
declare
    was constant text := pg_get_functiondef('cogo.grant_rights()'::regprocedure);
    list constant text := 'for_workers constant text[] := ''{';
    note text;
begin
    if position(list in was) = 0 then
        raise exception 'cogo.grant_rights: has no list for_workers';
    end if;
    execute replace(was, list, list || 'bus_now,');
    for note in select cogo.grant_rights() loop
        raise warning '%', note;
    end loop;
end
$$;
