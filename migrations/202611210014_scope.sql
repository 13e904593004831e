-- Whom a token may act for: tenant, worker, topics. The bus functions hold it, whoever calls them and from where;
-- the hub and PostgREST only say whose token it is, by `set local role` and `request.jwt.claims`.
--
-- A caller is *restricted* unless its role is a member of cogo_bus (or of the functions' owner). A restricted one
-- has the scope that its claims give it, and nothing without them:
--
--   {"tenant": "acme", "worker": "laptop-1", "topics": ["mcp-gateway/figma"], "send": ["mcp-gateway/*"]}
--
-- `topics` it may claim, extend, settle and read; `send` it may enqueue and read; a topic is role/service, role/* or
-- *. `worker` is the worker that it may be: that one, or that one, a dot and anything. What is beyond is refused
-- with CG403, which names the argument, and changes nothing. Claims of a wrong form give no scope at all.
--
-- Whoever may run SQL of their own as `authenticated` can claim to be anybody: that role is for a gateway that checks
-- tokens, and for nobody's login.
--
-- How it is done: a function with a long body has moved to the schema cogo_unscoped, under its name, and public has
-- one of the same signature that looks at the scope first. Nobody but the owner may call those that moved. Not to the
-- schema cogo, where Postgres would look first for a login that is called cogo.

create schema cogo_unscoped;

create type cogo.scope as (tenant text, worker text, topics text[], send text[], problem text);

-- Whether the caller is bound to the scope of a token. Inside a function that runs with its owner's rights,
-- current_user is the owner; who called is the role that was set or else the login.
create function cogo.restricted() returns boolean
    language sql stable
    as $$
        select not (
            pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, 'cogo_bus', 'member')
            or pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, current_user, 'member'))
    $$;

-- A claim that lists topics, as an array; null where it is none.
create function cogo.topic_patterns(claim jsonb) returns text[]
    language sql immutable parallel safe
    as $$
        select case
            when coalesce(jsonb_typeof(claim), 'null') = 'null' then '{}'
            when jsonb_typeof(claim) <> 'array' or jsonb_array_length(claim) > 1000 then null
            else (
                select case when coalesce(bool_and(jsonb_typeof(p) = 'string' and p #>> '{}'
                        ~ '^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,63}/(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,63}))$'), true)
                    then coalesce(array_agg(p #>> '{}'), '{}') end
                from jsonb_array_elements(claim) p)
        end
    $$;

-- What the caller's claims allow. Claims that are missing or of a wrong form allow nothing, and `problem` says why.
create function cogo.read_scope() returns cogo.scope
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
    end;
    if its.problem is not null then
        its := row(null, null, '{}', '{}', its.problem)::cogo.scope;
    end if;
    return its;
end
$$;

-- What the caller's claims allow. Errors: CG403 where that is nothing.
create function cogo.own_scope() returns cogo.scope
    language plpgsql stable
    as $$
declare
    its constant cogo.scope := cogo.read_scope();
begin
    if its.problem is not null then
        raise exception '%', its.problem
            using errcode = 'CG403', hint = 'Mint a token with `cogo token mint`, and send it as the bearer.';
    end if;
    return its;
end
$$;

create function cogo.covers(patterns text[], role text, service text) returns boolean
    language sql immutable parallel safe
    as $$ select array['*', role || '/*', role || '/' || service] && patterns $$;

create function cogo.is_own_worker(its cogo.scope, worker text) returns boolean
    language sql immutable parallel safe
    as $$ select coalesce(worker = its.worker or starts_with(worker, its.worker || '.'), false) $$;

-- The tenant that is meant: the token's own where none is named. Errors: CG403 where it is another.
create function cogo.own_tenant(its cogo.scope, tenant text, field text default 'tenant') returns text
    language plpgsql immutable
    as $$
begin
    if tenant <> its.tenant then
        raise exception '%: this token is for tenant "%"', field, its.tenant
            using errcode = 'CG403', hint = 'Leave it out, or use a token for that tenant.';
    end if;
    return its.tenant;
end
$$;

create function cogo.check_worker(its cogo.scope, worker text, field text default 'worker') returns void
    language plpgsql immutable
    as $$
begin
    if its.worker is null then
        raise exception '%: this token is for no worker', field
            using errcode = 'CG403', hint = 'Mint one with the claim "worker".';
    end if;
    if not cogo.is_own_worker(its, worker) then
        raise exception '%: this token is for worker "%", and for those named "%.…"', field, its.worker, its.worker
            using errcode = 'CG403', hint = 'Use that id, or a token for the other one.';
    end if;
end
$$;

create function cogo.check_topics(its cogo.scope, topics text[], field text default 'topics') returns void
    language plpgsql immutable
    as $$
declare
    outside text;
begin
    select format('%s[%s]: this token may not claim %s', field, ord - 1, coalesce(quote_ident(left(t, 130)), 'null')) into outside
        from unnest(topics) with ordinality as x (t, ord)
        where not coalesce(cogo.covers(its.topics, split_part(t, '/', 1), split_part(t, '/', 2)), false)
        order by ord limit 1;
    if outside is not null then
        raise exception '%', outside
            using errcode = 'CG403', detail = format('It may claim %s.', cogo.told(its.topics)),
                hint = 'Ask for these, or use a token with the other topic in its claim "topics".';
    end if;
end
$$;

-- Topics as a refusal names them.
create function cogo.told(patterns text[]) returns text
    language sql immutable parallel safe
    as $$
        select case when cardinality(patterns) = 0 then 'nothing'
            else array_to_string(patterns[1:20], ', ')
                || case when cardinality(patterns) > 20 then format(' and %s more', cardinality(patterns) - 20) else '' end
        end
    $$;

-- A batch of messages with the token's tenant in each that names none. Errors: CG403.
create function cogo.own_messages(its cogo.scope, messages jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    outside text;
    answer jsonb;
begin
    if jsonb_typeof(messages) is distinct from 'array' then
        return messages;
    end if;
    select format('messages[%s]%s', ord - 1, what) into outside from (
        select ord, case
            when m ->> 'tenant' <> its.tenant then format('.tenant: this token is for tenant "%s"', its.tenant)
            when not cogo.covers(its.send, m ->> 'role', m ->> 'service')
                then format(': this token may not send to %s/%s', left(m ->> 'role', 64), left(m ->> 'service', 64))
        end as what
        from jsonb_array_elements(messages) with ordinality as e (m, ord)
        where jsonb_typeof(m) = 'object'
    ) checked
    where what is not null order by ord limit 1;
    if outside is not null then
        raise exception '%', outside
            using errcode = 'CG403', detail = format('It may send to %s.', cogo.told(its.send)),
                hint = 'Use a token with the topic in its claim "send".';
    end if;
    select jsonb_agg(case when jsonb_typeof(m) = 'object' then m || jsonb_build_object('tenant', its.tenant) else m end
            order by ord)
        into answer
        from jsonb_array_elements(messages) with ordinality as e (m, ord);
    return coalesce(answer, '[]');
end
$$;

-- A batch of claims that its caller may settle or extend. Errors: CG403 for a message outside of its tenant and
-- topics, and for a claim in force that another worker holds.
--
-- A claim that was never given could be given to somebody else before it is looked at again, under a lock: so its
-- number is replaced by one that no claim has, and it is refused as one that is not in force. One that was given
-- is never given again (claim_no only grows), so what is found here stays true.
create function cogo.own_claims(its cogo.scope, claims jsonb) returns jsonb
    language plpgsql stable
    as $$
declare
    outside text;
    answer jsonb;
begin
    select min(format('claims[%s]: message %s %s', ord - 1, id, what)) filter (where nth = 1),
            jsonb_agg(case when never_given then item || '{"claim_no": 0}' else item end order by ord)
        into outside, answer
        from (
            select r.ord, r.id, r.item, m.id is null or r.claim_no > m.claim_no as never_given, w.what,
                case when w.what is not null then row_number() over (order by w.what is null, r.ord) end as nth
            from cogo.read_claims(claims) r
            left join lateral (
                select a.id, a.tenant, a.role, a.service, a.status, a.claim_no, a.claimed_by
                from public.agent_messages a where a.id = r.id limit 1
            ) m on true
            cross join lateral (select case
                when m.id is null then null
                when m.tenant <> its.tenant or not cogo.covers(its.topics, m.role, m.service)
                    then 'is not of this token''s tenant and topics'
                when m.status = 'claimed' and m.claim_no = r.claim_no and not cogo.is_own_worker(its, m.claimed_by)
                    then 'is held by another worker than this token''s'
            end as what) w
        ) checked;
    if outside is not null then
        raise exception '%', outside
            using errcode = 'CG403',
                detail = format('It is for worker %s of tenant "%s", and may claim %s.',
                    coalesce('"' || its.worker || '"', 'none'), its.tenant, cogo.told(its.topics)),
                hint = 'Settle what this worker has claimed, with the token that it was claimed with.';
    end if;
    return coalesce(answer, '[]');
end
$$;

-- Moved: what follows stands before them.
alter function public.bus_enqueue(jsonb) set schema cogo_unscoped;
alter function public.bus_claim(text, text[], integer, integer, text) set schema cogo_unscoped;
alter function public.bus_extend(jsonb, integer) set schema cogo_unscoped;
alter function public.bus_cancel(jsonb, text) set schema cogo_unscoped;
alter function public.bus_reap(integer) set schema cogo_unscoped;
alter function public.bus_append_event(jsonb) set schema cogo_unscoped;
alter function public.bus_worker_seen(jsonb) set schema cogo_unscoped;
alter function public.bus_worker_gone(text, text, text) set schema cogo_unscoped;
alter function public.bus_circuit_open(text, text, text, text, bigint, jsonb, jsonb) set schema cogo_unscoped;
alter function public.bus_circuit_probe(text, text, text, integer) set schema cogo_unscoped;
alter function public.bus_circuit_report(text, text, text, boolean, text) set schema cogo_unscoped;

-- They run with the rights and the search path of those that call them.
do $$
declare
    f regprocedure;
begin
    for f in
        select p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'cogo_unscoped'
    loop
        execute format('alter function %s security invoker reset all', f);
    end loop;
end
$$;

-- As cogo_unscoped.bus_enqueue (202611210009_enqueue.sql), within the caller's tenant and `send`. A known id or key answers
-- with its message, so one that this token may not read is refused. Errors: also CG403.
create function public.bus_enqueue(messages jsonb)
    returns table (id uuid, trace_id uuid, duplicate boolean, status text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its cogo.scope;
begin
    if not cogo.restricted() then
        return query select * from cogo_unscoped.bus_enqueue(messages);
        return;
    end if;
    its := cogo.own_scope();
    messages := cogo.own_messages(its, messages);
    return query select * from cogo_unscoped.bus_enqueue(messages);
    if exists (
        select from jsonb_array_elements(messages) m
        cross join lateral (
            (select a.role, a.service from public.agent_messages a where a.id = (m ->> 'id')::uuid limit 1)
            union all
            (select a.role, a.service from public.agent_messages a
                where a.tenant = its.tenant and a.idempotency_key = m ->> 'idempotency_key' limit 1)
        ) known
        where not cogo.covers(its.topics || its.send, known.role, known.service)
    ) then
        raise exception 'messages: an id or idempotency_key belongs to a message that this token may not read'
            using errcode = 'CG403', hint = 'Use another one.';
    end if;
end
$$;

-- As cogo_unscoped.bus_claim (202611210010_claim.sql), as the caller's worker, within its tenant and `topics`. A tenant that is
-- null is the token's own, and for others 'default'. Errors: also CG403.
create function public.bus_claim(
        worker text, topics text[], max integer default 1, lease_ms integer default 30000,
        tenant text default null)
    returns setof public.agent_messages
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker), cogo.check_topics(its, topics);
    end if;
    return query select * from cogo_unscoped.bus_claim(worker, topics, max, lease_ms, coalesce(tenant, 'default'));
end
$$;

-- As cogo_unscoped.bus_extend (202611210010_claim.sql), for what the caller's worker holds. Errors: also CG403.
create function public.bus_extend(claims jsonb, lease_ms integer default 30000)
    returns table (id uuid, claim_no bigint, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    if not cogo.restricted() then
        return query select * from cogo_unscoped.bus_extend(claims, lease_ms);
        return;
    end if;
    return query
        select r.id, r.claim_no, e.code
        from cogo_unscoped.bus_extend(cogo.own_claims(cogo.own_scope(), claims), lease_ms)
            with ordinality as e (id, claim_no, code, ord)
        join cogo.read_claims(claims) r on r.ord = e.ord
        order by r.ord;
end
$$;

-- What a settle answers for one claim: code is null, or 'CG409' for a stale claim; repeated says that
-- the same settle had been done before. Errors: CG403 where it is not the caller's to settle.
create or replace function cogo.settle_answer(claims jsonb, op text)
    returns table (id uuid, claim_no bigint, code text, repeated boolean)
    language sql volatile
    as $$
        select r.id, r.claim_no, case s.outcome when 'stale' then 'CG409' end, s.outcome = 'repeated'
        from cogo.settle(cogo.with_op(
            case when cogo.restricted() then cogo.own_claims(cogo.own_scope(), claims) else claims end, op)) s
        join cogo.read_claims(claims) r using (ord)
        order by s.ord
    $$;

-- Settles a batch and claims the next in one round trip. settles are as for bus_complete, bus_fail and
-- bus_release, each with its op: 'complete', 'fail' or 'release'. First come the outcomes, with the
-- settle's place (from 1) in ord, then the claimed messages, with ord null. Errors: CG400; CG403 as bus_claim and
-- bus_complete.
create or replace function public.bus_step(
        settles jsonb, worker text, topics text[], max integer default 1,
        lease_ms integer default 30000, tenant text default null)
    returns table (ord bigint, outcome text, message public.agent_messages)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
    its cogo.scope;
begin
    if jsonb_typeof(settles) is distinct from 'array' then
        raise exception 'settles: must be an array' using errcode = 'CG400';
    end if;
    select format('settles[%s].op: must be complete, fail or release', ord - 1) into problem
        from jsonb_array_elements(settles) with ordinality as e (s, ord)
        where coalesce(s ->> 'op', '') not in ('complete', 'fail', 'release')
        order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker), cogo.check_topics(its, topics);
        settles := cogo.own_claims(its, settles);
    end if;
    return query select s.ord, s.outcome, null::public.agent_messages from cogo.settle(settles) s order by 1;
    if max > 0 then
        return query select null::bigint, null::text, m
            from cogo_unscoped.bus_claim(worker, topics, max, lease_ms, coalesce(tenant, 'default')) m;
    end if;
end
$$;

-- As cogo_unscoped.bus_cancel (202611210013_operate.sql), within the caller's tenant, `topics` and `send`. Errors: also CG403.
create function public.bus_cancel(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its cogo.scope;
    outside text;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        select format('messages[%s]: message %s is not of this token''s tenant and topics', r.ord - 1, r.id)
            into outside
            from cogo.read_ids(messages) r
            cross join lateral (
                select a.tenant, a.role, a.service from public.agent_messages a where a.id = r.id limit 1
            ) m
            where m.tenant <> its.tenant or not cogo.covers(its.topics || its.send, m.role, m.service)
            order by r.ord limit 1;
        if outside is not null then
            raise exception '%', outside
                using errcode = 'CG403', hint = 'Use a token with its topic in the claim "topics" or "send".';
        end if;
    end if;
    return query select * from cogo_unscoped.bus_cancel(messages, reason);
end
$$;

-- As cogo_unscoped.bus_reap (202611210010_claim.sql). It works for all tenants and tells of none, so anybody may call it; a
-- restricted caller has at most 100 messages of each kind looked after at once.
create function public.bus_reap(max integer default 100)
    returns table (promoted integer, expired integer, dead integer, next_due_ms bigint)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if cogo.restricted() then
        perform cogo.own_scope();
        max := least(max, 100);
    end if;
    return query select * from cogo_unscoped.bus_reap(max);
end
$$;

-- As cogo_unscoped.bus_append_event (202611210013_operate.sql). A restricted caller may append the progress of a message of its
-- tenant and `topics` and nothing else; what the event says of the message is then taken from the message. Errors:
-- also CG403.
create function public.bus_append_event(events jsonb) returns integer
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
                select x.ord, x.e, w.what, jsonb_build_object('tenant', m.tenant, 'role', m.role, 'service', m.service,
                        'shard', m.shard, 'trace_id', m.trace_id, 'worker_id', coalesce(x.e ->> 'worker_id', its.worker)) as said,
                    case when w.what is not null then row_number() over (order by w.what is null, x.ord) end as nth
                from jsonb_array_elements(events) with ordinality as x (e, ord)
                left join lateral (
                    select a.tenant, a.role, a.service, a.shard, a.trace_id, a.intent from public.agent_messages a
                    where a.id = case when x.e ->> 'message_id'
                        ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                        then (x.e ->> 'message_id')::uuid end
                    limit 1
                ) m on m.tenant = its.tenant and cogo.covers(its.topics, m.role, m.service)
                cross join lateral (select case
                    when jsonb_typeof(x.e) <> 'object' then null
                    when x.e ->> 'tenant' <> its.tenant then format('.tenant: this token is for tenant "%s"', its.tenant)
                    when m.tenant is null then '.message_id: is not a message of this token''s tenant and topics'
                    when x.e ->> 'event_type' is distinct from cogo.event_type(m.intent, 'progress')
                        then format('.event_type: this token may append %s only', cogo.event_type(m.intent, 'progress'))
                    when its.worker is null then '.worker_id: this token is for no worker'
                    when not cogo.is_own_worker(its, coalesce(x.e ->> 'worker_id', its.worker))
                        then format('.worker_id: this token is for worker "%s"', its.worker)
                end as what) w
            ) checked;
        if outside is not null then
            raise exception '%', outside
                using errcode = 'CG403', hint = 'A token appends the progress of what its worker may claim.';
        end if;
    end if;
    return cogo_unscoped.bus_append_event(events);
end
$$;

-- As cogo_unscoped.bus_worker_seen, for the caller's worker, within its tenant and `topics`. Errors: also CG403.
create function public.bus_worker_seen(worker jsonb) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        perform cogo.check_worker(its, worker ->> 'id', 'worker.id');
        if jsonb_typeof(worker -> 'topics') = 'array' then
            perform cogo.check_topics(its, array(select jsonb_array_elements_text(worker -> 'topics')), 'worker.topics');
        end if;
        worker := worker || jsonb_build_object('tenant', cogo.own_tenant(its, worker ->> 'tenant', 'worker.tenant'));
    end if;
    return cogo_unscoped.bus_worker_seen(worker);
end
$$;

-- As cogo_unscoped.bus_worker_gone, for the caller's worker. A tenant that is null is the token's own, and for others
-- 'default'. Errors: CG403.
create function public.bus_worker_gone(worker text, reason text default null, tenant text default null)
    returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker);
    end if;
    return cogo_unscoped.bus_worker_gone(worker, reason, coalesce(tenant, 'default'));
end
$$;

-- All breakers that have ever opened, of a tenant (null: the token's own, and for others 'default') or, with '*', of
-- all; those that are not closed first, then the last changed, at most 10000. A breaker that is not named is closed.
-- Errors: CG403.
create or replace function public.bus_circuits(tenant text default null)
    returns setof public.circuit_state
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if cogo.restricted() then
        tenant := cogo.own_tenant(cogo.own_scope(), tenant);
    end if;
    tenant := coalesce(tenant, 'default');
    return query
        select (cogo.circuit_state(c)).*
        from public.circuits c
        where bus_circuits.tenant = '*' or c.tenant = bus_circuits.tenant
        order by c.state = 'closed', c.updated_at desc, c.tenant, c.key
        limit 10000;
end
$$;

-- As those of 202611210011_circuits.sql, as the caller's worker, within its tenant. Errors: also CG403.
create function public.bus_circuit_open(
        tenant text, key text, worker text, reason text, seen_version bigint, policy jsonb,
        evidence jsonb default '{}')
    returns setof public.circuit_state
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker);
    end if;
    return query select * from cogo_unscoped.bus_circuit_open(tenant, key, worker, reason, seen_version, policy, evidence);
end
$$;

create function public.bus_circuit_probe(
        tenant text, key text, worker text, lease_ms integer default 30000,
        out granted boolean, out circuit public.circuit_state)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
    answer record;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker);
    end if;
    select * into answer from cogo_unscoped.bus_circuit_probe(tenant, key, worker, lease_ms);
    granted := answer.granted;
    circuit := answer.circuit;
end
$$;

create function public.bus_circuit_report(
        tenant text, key text, worker text, ok boolean, reason text default null)
    returns setof public.circuit_state
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
begin
    if cogo.restricted() then
        its := cogo.own_scope();
        tenant := cogo.own_tenant(its, tenant);
        perform cogo.check_worker(its, worker);
    end if;
    return query select * from cogo_unscoped.bus_circuit_report(tenant, key, worker, ok, reason);
end
$$;

-- Whether the caller may `join` a private channel, or send a `broadcast` or its `presence` to it: a token to those of
-- its tenant, 'acme:…'; and to join those where the hub wakes the workers of its topics, which only the hub sends
-- to, 'cogo:work:acme:<role>:<service>'. No other channel that begins with 'cogo:' is anybody's.
create function public.bus_channel_allowed(topic text, action text) returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its cogo.scope;
    parts constant text[] := string_to_array(topic, ':');
begin
    if coalesce(action, '') not in ('join', 'broadcast', 'presence') or topic is null then
        return false;
    end if;
    if not cogo.restricted() then
        return true;
    end if;
    its := cogo.read_scope();
    if its.problem is not null then
        return false;
    end if;
    if parts[1] = 'cogo' then
        return action = 'join' and cardinality(parts) = 5 and parts[2] = 'work' and parts[3] = its.tenant
            and cogo.covers(its.topics || its.send, parts[4], parts[5]);
    end if;
    return cardinality(parts) > 1 and parts[1] = its.tenant;
end
$$;

-- The log as the caller may see it: with the caller's own rights, so that the policies below decide. For cogo_bus
-- and the owner there is nothing to decide.
alter function public.bus_read_events(text, integer, jsonb) security invoker;

-- What the policies compare with. They run with their owner's rights, since a reader may not look into the schema
-- cogo; each is asked once a query, because it stands in a subselect of its own.
create function cogo.token_tenant() returns text
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$ begin return (cogo.read_scope()).tenant; end $$;

create function cogo.token_topics() returns text[]
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    its constant cogo.scope := cogo.read_scope();
begin
    return its.topics || its.send;
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
create function cogo.grant_rights() returns setof text
    language plpgsql volatile
    as $$
declare
    -- One decision for each function of the bus; one that is in no list is nobody's.
    for_tokens constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_cancel,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed}';
    for_workers constant text[] := '{bus_enqueue,bus_claim,bus_step,bus_extend,bus_complete,bus_fail,bus_release,bus_reap,bus_read_events,bus_log_end,bus_append_event,bus_worker_seen,bus_worker_gone,bus_circuits,bus_circuit_open,bus_circuit_probe,bus_circuit_report,bus_schema_version,bus_channel_allowed,bus_stats,bus_limits,bus_parked}';
    for_operators constant text[] := '{bus_requeue,bus_cancel,bus_drop,bus_retain,bus_partition,bus_circuit_set,bus_set_limits,bus_replay_purged,bus_replay_check,bus_replay_lock,bus_replay_rebuild,bus_replay_trace}';
    for_policies constant text[] := '{token_tenant,token_topics}';
    allowed text[];
    wanted text;
    grantee text;
    its record;
begin
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
        select c.oid::regclass as t, c.relname::text as name, n.nspname = 'public' and c.relname <> '_sqlx_migrations' as open
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where (n.nspname = 'cogo' and c.relkind in ('r', 'p')
                or c.oid in (to_regclass('public.agent_messages'), to_regclass('public.bus_events'),
                    to_regclass('public.workers'), to_regclass('public.circuits'), to_regclass('public._sqlx_migrations')))
            and pg_has_role(c.relowner, 'member')
    loop
        execute format('alter table %s enable row level security', its.t);
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
