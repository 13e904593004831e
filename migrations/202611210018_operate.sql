-- What tokens may operate on: a claim `operate`, and events that answer a running call.
--
--   {"tenant": "acme", "send": ["mcp-gateway/*"], "operate": true}
--
-- With it a token may bring back messages of its tenant, `topics` and `send` (bus_requeue). Withdrawing messages
-- needs no more than `topics` or `send`, as before: whoever may send a message may take it back.

alter type cogo.scope add attribute operate boolean;

-- As in 202611210014_scope.sql, and reads `operate`.
create or replace function cogo.read_scope() returns cogo.scope
    language plpgsql stable
    as $$
declare
    its cogo.scope;
    claims jsonb;
begin
    begin
        claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    exception when others then
        claims := '[]';
    end;
    its.tenant := claims ->> 'tenant';
    its.worker := claims ->> 'worker';
    its.topics := cogo.topic_patterns(claims -> 'topics');
    its.send := cogo.topic_patterns(claims -> 'send');
    its.operate := coalesce(claims -> 'operate' = 'true', false);
    its.problem := case
        when claims is null then 'token: there is none, and this role may do nothing without'
        when jsonb_typeof(claims) <> 'object' then 'token: its claims are not a JSON object'
        when jsonb_typeof(claims -> 'tenant') is distinct from 'string'
            or its.tenant !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'
            then 'tenant: this token names none; its claim "tenant" must be 1 to 64 letters, digits, _ or -'
        when coalesce(jsonb_typeof(claims -> 'worker'), 'null') not in ('string', 'null')
            or length(its.worker) not between 1 and 255
            then 'worker: this token''s claim "worker" must be a string of 1 to 255 characters'
        when its.topics is null
            then 'topics: this token''s claim "topics" must be at most 1000 of role/service, role/* or *'
        when its.send is null
            then 'send: this token''s claim "send" must be at most 1000 of role/service, role/* or *'
        when coalesce(jsonb_typeof(claims -> 'operate'), 'null') not in ('boolean', 'null')
            then 'operate: this token''s claim "operate" must be true or false'
    end;
    if its.problem is not null then
        its := row(null, null, '{}', '{}', its.problem, false)::cogo.scope;
    end if;
    return its;
end
$$;

alter function public.bus_requeue(jsonb, text) set schema cogo_unscoped;
alter function cogo_unscoped.bus_requeue(jsonb, text) security invoker reset all;

-- As cogo_unscoped.bus_requeue (202611210013_operate.sql), within the caller's tenant, `topics` and `send`, for a token with
-- the claim `operate`. A message beyond these is answered as one that is not there, CG404. Another payload is a new
-- message in all but name, so it takes `send`. Errors: also CG403.
create function public.bus_requeue(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its cogo.scope;
    outside text;
    own jsonb;
begin
    if not cogo.restricted() then
        return query select * from cogo_unscoped.bus_requeue(messages, reason);
        return;
    end if;
    its := cogo.own_scope();
    if not its.operate then
        raise exception 'operate: this token may not bring messages back'
            using errcode = 'CG403', hint = 'Use a token with the claim "operate": `cogo token mint --operate`.';
    end if;
    -- What is found here stays true: no call changes a message's tenant or topic.
    select min(format('messages[%s].%s: this token may not send to %s/%s', r.ord - 1,
                case when r.item ? 'payload' then 'payload' else 'params' end, m.role, m.service))
                filter (where not cogo.covers(its.send, m.role, m.service) and (r.item ? 'payload' or r.item ? 'params')),
            coalesce(jsonb_agg(r.item order by r.ord), '[]')
        into outside, own
        from cogo.read_ids(messages) r
        cross join lateral (
            select a.role, a.service from public.agent_messages a where a.id = r.id and a.tenant = its.tenant limit 1
        ) m
        where cogo.covers(its.topics || its.send, m.role, m.service);
    if outside is not null then
        raise exception '%', outside
            using errcode = 'CG403', detail = format('It may send to %s.', cogo.told(its.send)),
                hint = 'Requeue it as it is, or use a token with the topic in its claim "send".';
    end if;
    return query
        with done as materialized (select d.id, d.code from cogo_unscoped.bus_requeue(own, reason) d)
        select r.id, case when d.id is null then 'CG404' else d.code end
        from cogo.read_ids(messages) r left join done d on d.id = r.id
        order by r.ord;
end
$$;

-- As cogo_unscoped.bus_append_event (202611210013_operate.sql). A restricted caller may append two kinds of event, and
-- nothing else: `<intent>_progress` of a message of its tenant and `topics`, as its worker; and `<intent>_input` of one
-- of its tenant and `send`, which is how a sender answers what a running call asks. What the event says of the message
-- is then taken from the message. Errors: also CG403.
create or replace function public.bus_append_event(events jsonb) returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its cogo.scope;
    outside text;
begin
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

-- As in 202611210017_catalogue.sql, and bus_requeue is for tokens as well.
create or replace function cogo.grant_rights() returns setof text
    language plpgsql volatile
    as $$
declare
    -- One decision for each function of the bus; one that is in no list is nobody's.
    for_tokens constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_cancel,bus_requeue,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_define,bus_definitions,bus_offers,bus_pins}';
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
