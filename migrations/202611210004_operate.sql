-- What operators, hubs and workers do besides: requeue, cancel, drop, read and append to the log, see
-- workers, count, and let the old go.

-- The rows that a batch of ids names, or an error. Errors: CG400.
create function cogo.read_ids(messages jsonb)
    returns table (ord bigint, id uuid, item jsonb)
    language plpgsql immutable parallel safe rows 50
    as $$
#variable_conflict use_column
declare
    problem text;
begin
    if jsonb_typeof(messages) is distinct from 'array' then
        raise exception 'messages: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(messages) > 10000 then
        raise exception 'messages: at most 10000 in one call' using errcode = 'CG413';
    end if;
    select format('messages[%s]%s', ord - 1, what) into problem from (
        select ord, case
            when jsonb_typeof(m) <> 'object' then ': must be an object'
            when coalesce(m ->> 'id', '') !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then '.id: must be a UUID'
            when coalesce(m ->> 'max_attempts', '1') !~ '^[0-9]{1,4}$'
                or (m ->> 'max_attempts')::int not between 1 and 1000
                then '.max_attempts: must be a whole number from 1 to 1000'
            when row_number() over (partition by lower(m ->> 'id') order by ord) > 1
                then '.id: stands twice in the batch'
        end as what
        from jsonb_array_elements(messages) with ordinality as e (m, ord)
    ) checked
    where what is not null order by ord limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = 'CG400';
    end if;
    return query
        select ord, (m ->> 'id')::uuid, m
        from jsonb_array_elements(messages) with ordinality as e (m, ord);
end
$$;

-- Brings messages back from the dead-letter queue (or from cancelled) with all their attempts before
-- them: messages are [{id, max_attempts?}]. A row a message, in order: code is null, 'CG404' or, where
-- the message is not finished that way, 'CG409'. Errors: CG400.
create function public.bus_requeue(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    return query
        with input as materialized (
            select * from cogo.read_ids(messages)
        ), locked as materialized (
            select i.ord, m.id, m.status, m.attempts,
                coalesce((i.item ->> 'max_attempts')::integer, m.max_attempts) as max_attempts
            from input i join public.agent_messages m on m.id = i.id
            order by m.id
            for update of m
        ), changed as (
            update public.agent_messages m
            set status = 'queued', attempts = 0, max_attempts = l.max_attempts,
                claim_no = m.claim_no + 1, run_at = moment, updated_at = moment, done_at = null
            from locked l
            where m.id = l.id and m.status in ('failed', 'cancelled')
            returning m.*, l.ord, l.attempts as attempts_before, l.status as status_before
        ), logged as (
            insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
                shard, attempt, reason, created_at, payload)
            select cogo.event_type(intent, 'requeued'), id, trace_id, tenant, service, role, shard,
                attempts_before, left(bus_requeue.reason, 200), moment,
                jsonb_build_object('run_at', run_at, 'max_attempts', max_attempts,
                    'claim_no', claim_no, 'from', status_before)
            from changed order by ord
        )
        select i.id, case when c.ord is not null then null when l.ord is null then 'CG404' else 'CG409' end
        from input i left join locked l using (ord) left join changed c using (ord)
        order by i.ord;
end
$$;

-- Withdraws messages that are not finished; a worker that holds one learns it at its next extend or
-- settle. messages are [{id}]; answers as bus_requeue. Errors: CG400.
create function public.bus_cancel(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    return query
        with input as materialized (
            select * from cogo.read_ids(messages)
        ), locked as materialized (
            select i.ord, m.id, m.claimed_by
            from input i join public.agent_messages m on m.id = i.id
            order by m.id
            for update of m
        ), changed as (
            update public.agent_messages m
            set status = 'cancelled', claim_no = m.claim_no + 1, updated_at = moment, done_at = moment,
                claimed_by = null, claimed_at = null, lease_until = null
            from locked l
            where m.id = l.id and m.status in ('delayed', 'queued', 'claimed')
            returning m.*, l.ord, l.claimed_by as worker_id
        ), logged as (
            insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
                shard, attempt, worker_id, reason, created_at, payload)
            select cogo.event_type(intent, 'cancelled'), id, trace_id, tenant, service, role, shard,
                attempts, worker_id, left(bus_cancel.reason, 200), moment,
                jsonb_build_object('claim_no', claim_no, 'attempts', attempts)
            from changed order by ord
        )
        select i.id, case when c.ord is not null then null when l.ord is null then 'CG404' else 'CG409' end
        from input i left join locked l using (ord) left join changed c using (ord)
        order by i.ord;
end
$$;

-- Drops messages from the dead-letter queue for good; their events stay. messages are [{id}]; answers
-- as bus_requeue. Errors: CG400.
create function public.bus_drop(messages jsonb, reason text default null)
    returns table (id uuid, code text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    return query
        with input as materialized (
            select * from cogo.read_ids(messages)
        ), locked as materialized (
            select i.ord, m.id
            from input i join public.agent_messages m on m.id = i.id
            order by m.id
            for update of m
        ), changed as (
            delete from public.agent_messages m using locked l
            where m.id = l.id and m.status = 'failed'
            returning m.*, l.ord
        ), logged as (
            insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role,
                shard, attempt, reason, created_at)
            select cogo.event_type(intent, 'dropped'), id, trace_id, tenant, service, role, shard,
                attempts, left(bus_drop.reason, 200), moment
            from changed order by ord
        )
        select i.id, case when c.ord is not null then null when l.ord is null then 'CG404' else 'CG409' end
        from input i left join locked l using (ord) left join changed c using (ord)
        order by i.ord;
end
$$;

-- The next events after a cursor ('<xid>.<seq>', '0.0' for the beginning), at most `max`, oldest first.
-- Only transactions older than every running one are read: an event that commits later than one with a
-- higher seq is not skipped, it is waited for. filter takes tenant, message_id, trace_id, worker_id and
-- types (an array). Errors: CG400 names the field.
create function public.bus_read_events(
        after text default '0.0', max integer default 100, filter jsonb default '{}')
    returns table (cursor text, id uuid, event_type text, message_id uuid, trace_id uuid, tenant text,
        service text, role text, shard integer, attempt integer, worker_id text, reason text,
        payload jsonb, created_at timestamptz)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    after_xid xid8;
    after_seq bigint;
    horizon constant xid8 := pg_snapshot_xmin(pg_current_snapshot());
    unknown constant jsonb := coalesce(filter, '{}') - '{tenant,message_id,trace_id,worker_id,types}'::text[];
    uuid_form constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
    by_message uuid;
    by_trace uuid;
    by_types text[];
begin
    if coalesce(after, '') !~ '^[0-9]{1,18}\.[0-9]{1,18}$' then
        raise exception 'after: must be a cursor of the form <xid>.<seq>' using errcode = 'CG400';
    end if;
    after_xid := split_part(after, '.', 1)::xid8;
    after_seq := split_part(after, '.', 2)::bigint;
    if coalesce(max, 0) not between 1 and 10000 then
        raise exception 'max: must be from 1 to 10000' using errcode = 'CG400';
    end if;
    if jsonb_typeof(filter) is distinct from 'object' then
        raise exception 'filter: must be an object' using errcode = 'CG400';
    end if;
    if unknown <> '{}' then
        raise exception 'filter.%: is not a filter; use tenant, message_id, trace_id, worker_id or types',
            (select k from jsonb_object_keys(unknown) k order by k limit 1) using errcode = 'CG400';
    end if;
    if filter ? 'message_id' and coalesce(filter ->> 'message_id', '') !~* uuid_form then
        raise exception 'filter.message_id: must be a UUID' using errcode = 'CG400';
    end if;
    if filter ? 'trace_id' and coalesce(filter ->> 'trace_id', '') !~* uuid_form then
        raise exception 'filter.trace_id: must be a UUID' using errcode = 'CG400';
    end if;
    if filter ? 'tenant' and jsonb_typeof(filter -> 'tenant') <> 'string' then
        raise exception 'filter.tenant: must be a string' using errcode = 'CG400';
    end if;
    if filter ? 'worker_id' and jsonb_typeof(filter -> 'worker_id') <> 'string' then
        raise exception 'filter.worker_id: must be a string' using errcode = 'CG400';
    end if;
    if filter ? 'types' then
        if jsonb_typeof(filter -> 'types') <> 'array' then
            raise exception 'filter.types: must be an array' using errcode = 'CG400';
        end if;
        by_types := array(select jsonb_array_elements_text(filter -> 'types'));
    end if;
    by_message := (filter ->> 'message_id')::uuid;
    by_trace := (filter ->> 'trace_id')::uuid;

    if by_message is not null or by_trace is not null then
        -- Few rows, by their own index; then in the log's order.
        return query
            select e.xid::text || '.' || e.seq, e.id, e.event_type, e.message_id, e.trace_id, e.tenant,
                e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload, e.created_at
            from public.bus_events e
            where (by_message is null or e.message_id = by_message)
                and (by_trace is null or e.trace_id = by_trace)
                and (e.xid, e.seq) > (after_xid, after_seq) and e.xid < horizon
                and (filter ->> 'tenant' is null or e.tenant = filter ->> 'tenant')
                and (filter ->> 'worker_id' is null or e.worker_id = filter ->> 'worker_id')
                and (by_types is null or e.event_type = any (by_types))
            order by e.xid, e.seq
            limit bus_read_events.max;
    else
        return query
            select e.xid::text || '.' || e.seq, e.id, e.event_type, e.message_id, e.trace_id, e.tenant,
                e.service, e.role, e.shard, e.attempt, e.worker_id, e.reason, e.payload, e.created_at
            from public.bus_events e
            where (e.xid, e.seq) > (after_xid, after_seq) and e.xid < horizon
                and (filter ->> 'tenant' is null or e.tenant = filter ->> 'tenant')
                and (filter ->> 'worker_id' is null or e.worker_id = filter ->> 'worker_id')
                and (by_types is null or e.event_type = any (by_types))
            order by e.xid, e.seq
            limit bus_read_events.max;
    end if;
end
$$;

-- The end of the log, as a cursor: reading on from it gives only what happens from now on.
create function public.bus_log_end() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$ select (pg_snapshot_xmin(pg_current_snapshot())::text::numeric - 1)::text || '.999999999999999999' $$;

-- Appends events that are no transition of a message: of workers, breakers, progress. events are
-- [{event_type, trace_id?, message_id?, tenant?, role?, service?, shard?, attempt?, worker_id?,
-- reason?, payload?}]. Answers with the number appended. Errors: CG400 names the field; CG403 for a
-- type that only a transition may write, since the log must fold to the table.
create function public.bus_append_event(events jsonb) returns integer
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    problem text;
    state text;
    appended integer;
    uuid_form constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
begin
    if jsonb_typeof(events) is distinct from 'array' then
        raise exception 'events: must be an array' using errcode = 'CG400';
    end if;
    if jsonb_array_length(events) > 10000 then
        raise exception 'events: at most 10000 in one call' using errcode = 'CG413';
    end if;
    select format('events[%s]%s', ord - 1, what), code into problem, state from (
        select ord, 'CG400' as code, case
            when jsonb_typeof(e) <> 'object' then ': must be an object'
            when coalesce(e ->> 'event_type', '') !~ '^[a-z][a-z0-9_]{0,99}$'
                then '.event_type: must be 1 to 100 of a-z, 0-9 and _'
            when coalesce(e ->> 'trace_id', '00000000-0000-0000-0000-000000000000') !~* uuid_form
                then '.trace_id: must be a UUID'
            when coalesce(e ->> 'message_id', '00000000-0000-0000-0000-000000000000') !~* uuid_form
                then '.message_id: must be a UUID'
            when coalesce(jsonb_typeof(e -> 'payload'), 'object') <> 'object'
                then '.payload: must be an object'
            when pg_column_size(e) > 65536 then ': at most 64 KiB'
            when coalesce(e ->> 'shard', '0') !~ '^[0-9]{1,5}$' then '.shard: must be from 0 to 99999'
            when coalesce(e ->> 'attempt', '0') !~ '^[0-9]{1,5}$' then '.attempt: must be from 0 to 99999'
        end as what
        from jsonb_array_elements(events) with ordinality as x (e, ord)
        union all
        select ord, 'CG403', format('.event_type: %s is written by transitions only', e ->> 'event_type')
        from jsonb_array_elements(events) with ordinality as x (e, ord)
        where e ->> 'event_type' ~ '(^|_)(scheduled|succeeded|failed|requeued|released|dead_lettered|cancelled|lease_expired|dropped|purged)$'
    ) checked
    where what is not null order by ord, code limit 1;
    if problem is not null then
        raise exception '%', problem using errcode = state;
    end if;
    insert into public.bus_events (event_type, trace_id, message_id, tenant, service, role, shard, attempt,
        worker_id, reason, created_at, payload)
    select e ->> 'event_type', coalesce((e ->> 'trace_id')::uuid, gen_random_uuid()),
        (e ->> 'message_id')::uuid, coalesce(e ->> 'tenant', 'default'), coalesce(e ->> 'service', ''),
        coalesce(e ->> 'role', ''), coalesce((e ->> 'shard')::integer, 0),
        coalesce((e ->> 'attempt')::integer, 0), left(e ->> 'worker_id', 255), left(e ->> 'reason', 200),
        cogo.now(), coalesce(e -> 'payload', '{}')
    from jsonb_array_elements(events) with ordinality as x (e, ord)
    order by ord;
    get diagnostics appended = row_count;
    return appended;
end
$$;

-- A worker says that it is there: {id, tenant?, role, host?, version?, topics?, info?}. Appends
-- agent_online when it was not. Answers whether it was new. Errors: CG400.
create function public.bus_worker_seen(worker jsonb) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    was text;
    who constant text := worker ->> 'id';
    whose constant text := coalesce(worker ->> 'tenant', 'default');
begin
    if coalesce(length(who), 0) not between 1 and 255 then
        raise exception 'worker.id: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if coalesce(worker ->> 'role', '') !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$' then
        raise exception 'worker.role: must be 1 to 64 letters, digits, _ or -' using errcode = 'CG400';
    end if;
    if coalesce(jsonb_typeof(worker -> 'topics'), 'array') <> 'array' or pg_column_size(worker) > 65536 then
        raise exception 'worker: topics must be an array, and the whole at most 64 KiB'
            using errcode = 'CG400';
    end if;
    select status into was from public.workers where tenant = whose and id = who for update;
    insert into public.workers as w (id, tenant, role, host, version, topics, info, status, started_at,
        last_seen_at)
    values (who, whose, worker ->> 'role', left(coalesce(worker ->> 'host', ''), 255),
        left(coalesce(worker ->> 'version', ''), 64),
        array(select jsonb_array_elements_text(coalesce(worker -> 'topics', '[]'))),
        coalesce(worker -> 'info', '{}'), 'online', moment, moment)
    on conflict (tenant, id) do update
    set role = excluded.role, host = excluded.host, version = excluded.version,
        topics = excluded.topics, info = excluded.info, status = 'online',
        started_at = case when w.status = 'online' then w.started_at else moment end,
        last_seen_at = moment;
    if was is distinct from 'online' then
        insert into public.bus_events (event_type, tenant, role, worker_id, created_at, payload)
        values ('agent_online', whose, worker ->> 'role', who, moment, worker - 'id' - 'tenant' - 'role');
    end if;
    return was is distinct from 'online';
end
$$;

-- A worker says that it goes. Appends agent_offline; answers whether it was there.
create function public.bus_worker_gone(worker text, reason text default null, tenant text default 'default')
    returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    its_role text;
begin
    update public.workers w set status = 'offline', last_seen_at = cogo.now()
        where w.tenant = bus_worker_gone.tenant and w.id = worker and w.status = 'online'
        returning w.role into its_role;
    if not found then
        return false;
    end if;
    insert into public.bus_events (event_type, tenant, role, worker_id, reason, created_at)
        values ('agent_offline', tenant, its_role, worker, left(bus_worker_gone.reason, 200), cogo.now());
    return true;
end
$$;

-- How much waits: a row for each role, service and status that has messages, finished ones but for the
-- dead-letter queue left out (the log has them, and there may be millions). oldest_ms is how long the
-- oldest has been due (queued), held (claimed) or dead (failed), or how long until it is due (delayed).
create function public.bus_stats()
    returns table (role text, service text, status text, messages bigint, oldest_ms bigint)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
begin
    -- One branch a status, so that each reads its own partial index.
    return query
        select role, service, 'queued', count(*),
            (extract(epoch from moment - min(run_at)) * 1000)::bigint
            from public.agent_messages where status = 'queued' group by 1, 2
        union all
        select role, service, 'delayed', count(*),
            (extract(epoch from min(run_at) - moment) * 1000)::bigint
            from public.agent_messages where status = 'delayed' group by 1, 2
        union all
        select role, service, 'claimed', count(*),
            (extract(epoch from moment - min(claimed_at)) * 1000)::bigint
            from public.agent_messages where status = 'claimed' group by 1, 2
        union all
        select role, service, 'failed', count(*),
            (extract(epoch from moment - min(done_at)) * 1000)::bigint
            from public.agent_messages where status = 'failed' group by 1, 2;
end
$$;

-- Lets finished messages go, at most `max` a call: done and cancelled ones that have been so for longer
-- than `done_for`, and dead letters for longer than `failed_for` (null: never). One messages_purged
-- event names them. Answers with their number; call again while it equals `max`.
create function public.bus_retain(
        done_for interval default '24 hours', failed_for interval default null, max integer default 1000)
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
    if done_for < interval '0' or failed_for < interval '0' then
        raise exception 'done_for, failed_for: must not be negative' using errcode = 'CG400';
    end if;
    with old_done as materialized (
        select id from public.agent_messages
        where status in ('done', 'cancelled') and done_at < moment - done_for
        order by done_at, id limit max
        for update skip locked
    ), old_failed as materialized (
        select id from public.agent_messages
        where status = 'failed' and done_at < moment - failed_for
        order by done_at, id limit max
        for update skip locked
    ), old as (
        select id from old_done union all select id from old_failed limit max
    ), purged as (
        delete from public.agent_messages m using old where m.id = old.id returning m.id, m.tenant
    ), logged as (
        insert into public.bus_events (event_type, tenant, created_at, payload)
        select 'messages_purged', tenant, moment, jsonb_build_object('ids', jsonb_agg(id))
        from purged group by tenant
    )
    select count(*) into gone from purged;
    return gone;
end
$$;

-- Makes the log's partitions, a week each beginning on Monday (UTC): the current one and `ahead` coming
-- ones, and drops those whose every event is older than `keep` (null: none). Rows that fell into the
-- rest because their week had no partition are moved. Answers with what was made and dropped.
--
-- Locks, parent before partition, as every query takes them: to drop, access exclusive on bus_events; to
-- attach, share update exclusive on bus_events and access exclusive on the rest, which is empty but after a
-- long absence. Each is held for a moment. Whoever waits for such a lock holds up all who come later, so it
-- is not waited for longer than two seconds: behind a backup the call fails (55P03), to be made again later.
-- One call at a time.
create function public.bus_partition(ahead integer default 4, keep interval default '35 days')
    returns table (partition text, what text)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
    -- The bounds are written into statements: in a form that reads back as what it was.
    set datestyle = 'ISO' set timezone = 'UTC'
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    this_week constant timestamp := date_trunc('week', moment at time zone 'utc');
    week timestamp;
    lower_end timestamptz;
    upper_end timestamptz;
    old text[];
begin
    if coalesce(ahead, -1) not between 0 and 520 then
        raise exception 'ahead: must be from 0 to 520 weeks' using errcode = 'CG400';
    end if;
    if keep < interval '1 day' then
        raise exception 'keep: must be at least a day' using errcode = 'CG400';
    end if;
    perform pg_advisory_xact_lock(hashtext('cogo.bus_partition'));
    old := array(
        select c.relname::text
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.bus_events'::regclass and c.relname ~ '^bus_events_[0-9]{8}$'
            and (to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp + interval '1 week')
                at time zone 'utc' < moment - keep
        order by 1);
    if old <> '{}' then
        lock table public.bus_events in access exclusive mode;
    end if;

    -- The weeks to come, and those of rows that found no partition.
    for week in
        select w from generate_series(this_week, this_week + make_interval(weeks => ahead), '1 week') w
        union
        select date_trunc('week', created_at at time zone 'utc') from cogo.bus_events_rest
        order by 1
    loop
        partition := 'bus_events_' || to_char(week, 'YYYYMMDD');
        continue when to_regclass('cogo.' || partition) is not null;
        lower_end := week at time zone 'utc';
        upper_end := (week + interval '1 week') at time zone 'utc';
        execute format('create table cogo.%I (like public.bus_events including defaults)', partition);
        execute format('alter table cogo.%I enable row level security', partition);
        -- Nobody may add to the rest between the move and the attach.
        lock table cogo.bus_events_rest in access exclusive mode;
        execute format(
            'with moved as (delete from cogo.bus_events_rest where created_at >= %L and created_at < %L
                returning *) insert into cogo.%I select * from moved', lower_end, upper_end, partition);
        execute format('alter table public.bus_events attach partition cogo.%I for values from (%L) to (%L)',
            partition, lower_end, upper_end);
        what := 'made';
        return next;
    end loop;

    foreach partition in array old loop
        execute format('drop table cogo.%I', partition);
        what := 'dropped';
        return next;
    end loop;
end
$$;

select public.bus_partition();
