-- What admins did is told by hubs alone, which are operators or own the schema: events `admin_*` (the hub's audit log)
-- are refused from workers, which hold cogo_bus, and from keys of every role, also service_role. So are those that tell
-- who set a secret or approved a tool, which bus_env_set, bus_env_unset and bus_pin write themselves. Nothing changes for a
-- hub or worker of the release before, which writes none. Only the beginning of the function is new; the rest is as in
-- 202611210018_operate.sql. `create or replace` keeps its rights.

create or replace function public.bus_append_event(events jsonb) returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its cogo.scope;
    outside text;
begin
    if jsonb_typeof(events) = 'array'
        and exists (select from jsonb_array_elements(events) e where e ->> 'event_type' ~ '^(admin_.*|env_(set|unset)|tool_(un)?pinned)$')
        and (current_setting('role') in ('anon', 'authenticated', 'service_role')
            or not pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name,
                'cogo_operator', 'member')
            and not pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name,
                current_user, 'member'))
    then
        raise exception 'events: admin_*, env_set, env_unset, tool_pinned and tool_unpinned are written by hubs only'
            using errcode = 'CG403', hint = 'They tell what operators did.';
    end if;
    if cogo.restricted() and jsonb_typeof(events) = 'array' then
        its := cogo.own_scope();
        select min(format('events[%s]%s', ord - 1, what)) filter (where nth = 1),
                coalesce(jsonb_agg(case when jsonb_typeof(e) = 'object' then e || said else e end order by ord), '[]')
            into outside, events
            from (
                select x.ord, x.e, w.what,
                    jsonb_build_object('tenant', m.tenant, 'role', m.role, 'service', m.service, 'shard', m.shard,
                        'trace_id', m.trace_id)
                    || case when m.answers then jsonb_build_object('worker_id', null, 'attempt', m.attempts)
                        else jsonb_build_object('worker_id', coalesce(x.e ->> 'worker_id', its.worker)) end as said,
                    case when w.what is not null then row_number() over (order by w.what is null, x.ord) end as nth
                from jsonb_array_elements(events) with ordinality as x (e, ord)
                left join lateral (
                    select a.tenant, a.role, a.service, a.shard, a.trace_id, a.intent, a.attempts,
                        coalesce(x.e ->> 'event_type' = cogo.event_type(a.intent, 'input'), false) as answers
                    from public.agent_messages a
                    where a.id = case when x.e ->> 'message_id'
                        ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                        then (x.e ->> 'message_id')::uuid end
                    limit 1
                ) m on m.tenant = its.tenant
                    and cogo.covers(case when m.answers then its.send else its.topics end, m.role, m.service)
                cross join lateral (select case
                    when jsonb_typeof(x.e) <> 'object' then null
                    when x.e ->> 'tenant' <> its.tenant then format('.tenant: this token is for tenant "%s"', its.tenant)
                    when m.tenant is null then '.message_id: is not a message of this token''s tenant and topics'
                    when m.answers then null
                    when x.e ->> 'event_type' is distinct from cogo.event_type(m.intent, 'progress')
                        then format('.event_type: this token may append %s only', cogo.event_type(m.intent, 'progress'))
                    when its.worker is null then '.worker_id: this token is for no worker'
                    when not cogo.is_own_worker(its, coalesce(x.e ->> 'worker_id', its.worker))
                        then format('.worker_id: this token is for worker "%s"', its.worker)
                end as what) w
            ) checked;
        if outside is not null then
            raise exception '%', outside
                using errcode = 'CG403',
                    hint = 'A token appends the progress of what its worker may claim, and the input of what it may send.';
        end if;
    end if;
    return cogo_unscoped.bus_append_event(events);
end
$$;
