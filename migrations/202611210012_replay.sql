-- Replay: is the table what the log says, restore it where it is not, and do a finished trace's work again.
--
-- All of it goes from id to id through the index bus_events_message, a bounded range a call, so that neither
-- side ever holds more than a range. What is large (payload, result, error) is taken only from the one event
-- that it is read from: a message that failed a thousand times does not bring a thousand errors into memory.

-- Retention names the purged in arrays, which no index finds. They are read once a run (bus_replay_purged).
create index bus_events_purged on public.bus_events (seq) where event_type = 'messages_purged';

-- agent_messages as the log alone tells it, for ids from first to last, and only for those whose *_scheduled
-- event the log still holds. Waiting, due and claimed are one status here, 'waiting': time promotes a delayed
-- message and a claim in flight is undone by time, so neither is an event; a dropped one is 'gone'. Nor are
-- rank_at and parked_for here, which time and other messages change. `since` is the event that began it: a
-- purge after that (cogo.purged_messages) makes it gone as well, which is the caller's to look at.
--
-- A message's events are numbered in the order of its row's locks, so seq orders them.
create function cogo.replayed(first uuid, last uuid)
    returns table (id uuid, trace_id uuid, parent_id uuid, claim_no bigint, run_at timestamptz,
        created_at timestamptz, updated_at timestamptz, done_at timestamptz, shard integer, attempts integer,
        max_attempts integer, priority smallint, status text, tenant text, role text, service text, intent text,
        idempotency_key text, deadline_ms bigint, deadline_at timestamptz, ordering_key text, ordering_no bigint,
        payload jsonb, result jsonb, error jsonb, since bigint)
    language sql stable
    as $$
    with history as (
        -- An intent may end in a word of ours (job.retry, and its job_retry_scheduled), so the type alone does
        -- not tell a message's beginning from its retries; only the beginning carries the intent.
        select message_id, trace_id, tenant, role, service, shard, seq, created_at, attempt, payload,
            case when event_type like '%\_scheduled' and payload ? 'intent' then 'scheduled'
                when event_type like '%\_scheduled' then 'retry_scheduled'
                else substring(event_type from
                    '_(succeeded|failed|requeued|released|restored|dead_lettered|cancelled|lease_expired|dropped)$')
            end as kind
        from public.bus_events
        where message_id between replayed.first and replayed.last
        offset 0 -- or the kind would be found out anew for each filter below
    ), marked as (
        -- Which event each field is read from: the last that tells it. Only events in which the name is ours:
        -- meta, which stands in the events of a settle, may use it as well.
        select *,
            max(seq) filter (where kind = 'scheduled') over life as since,
            max(seq) over life as latest,
            max(seq) filter (where kind not in ('scheduled', 'dropped')) over life as numbered,
            max(seq) filter (where kind in ('scheduled', 'requeued')) over life as begun,
            max(seq) filter (where kind = 'scheduled' or kind = 'requeued' and payload ? 'payload') over life as loaded,
            max(seq) filter (where kind in ('scheduled', 'retry_scheduled', 'requeued', 'released', 'restored',
                'lease_expired')) over life as timed,
            max(seq) filter (where kind in ('failed', 'lease_expired')
                or kind = 'dead_lettered' and payload ? 'error') over life as failed,
            max(seq) filter (where kind = 'succeeded') over life as succeeded
        from history where kind is not null
        window life as (partition by message_id)
    ), folded as (
        -- The last life of each id alone: it may come back after its message was dropped or purged.
        select message_id as id, max(since) as since,
            (array_agg(trace_id) filter (where seq = since))[1] as trace_id,
            (array_agg(tenant) filter (where seq = since))[1] as tenant,
            (array_agg(role) filter (where seq = since))[1] as role,
            (array_agg(service) filter (where seq = since))[1] as service,
            (array_agg(shard) filter (where seq = since))[1] as shard,
            (array_agg(created_at) filter (where seq = since))[1] as created_at,
            (array_agg(payload - 'payload') filter (where seq = since))[1] as scheduled,
            (array_agg(created_at) filter (where seq = latest))[1] as updated_at,
            (array_agg(kind) filter (where seq = latest))[1] as kind,
            (array_agg(attempt) filter (where seq = latest))[1] as attempt,
            (array_agg((payload ->> 'claim_no')::bigint) filter (where seq = numbered))[1] as claim_no,
            (array_agg((payload ->> 'max_attempts')::integer) filter (where seq = begun))[1] as max_attempts,
            (array_agg(created_at) filter (where seq = begun))[1] as begun_at,
            (array_agg((payload ->> 'run_at')::timestamptz) filter (where seq = timed))[1] as run_at,
            (array_agg(payload -> 'payload') filter (where seq = loaded))[1] as payload,
            (array_agg(payload -> 'error') filter (where seq = failed))[1] as error,
            (array_agg(payload -> 'result') filter (where seq = succeeded))[1] as result
        from marked
        where seq >= since
        group by message_id
    )
    select id, trace_id, (scheduled ->> 'parent_id')::uuid,
        coalesce(claim_no, cogo.first_claim_no(created_at)), run_at, created_at, updated_at,
        case when kind in ('succeeded', 'dead_lettered', 'cancelled') then updated_at end,
        shard,
        case when kind in ('scheduled', 'requeued') then 0 when kind = 'released' then attempt - 1 else attempt end,
        max_attempts, (scheduled ->> 'priority')::smallint,
        case kind when 'succeeded' then 'done' when 'dead_lettered' then 'failed' when 'cancelled' then 'cancelled'
            when 'dropped' then 'gone' else 'waiting' end,
        tenant, role, service, scheduled ->> 'intent', scheduled ->> 'idempotency_key',
        (scheduled ->> 'deadline_ms')::bigint,
        begun_at + make_interval(secs => (scheduled ->> 'deadline_ms')::bigint / 1000.0),
        scheduled ->> 'ordering_key', (scheduled ->> 'ordering_no')::bigint,
        payload, case when kind = 'succeeded' then result end, case when kind <> 'succeeded' then error end, since
    from folded
    $$;

-- What the fold is compared with: the table in the fold's columns.
create view cogo.stored_messages as
    select id, trace_id, parent_id,
        case status when 'claimed' then claim_no - 1 else claim_no end as claim_no,
        run_at, created_at, updated_at, done_at, shard,
        case status when 'claimed' then attempts - 1 else attempts end as attempts,
        max_attempts, priority,
        case when status in ('delayed', 'queued', 'claimed') then 'waiting' else status end as status,
        tenant, role, service, intent, idempotency_key, deadline_ms, deadline_at, ordering_key, ordering_no,
        payload, result, error
    from public.agent_messages;

-- Which ids retention has purged, and in which event it last did.
create view cogo.purged_messages as
    select gone::uuid as id, max(p.seq) as seq
    from public.bus_events p, jsonb_array_elements_text(p.payload -> 'ids') as gone
    where p.event_type = 'messages_purged'
    group by 1;

-- As before, now from the one fold, with the new columns at the end.
create or replace view cogo.replayed_messages as
    select r.id, trace_id, parent_id, claim_no, run_at, created_at, updated_at, done_at, shard, attempts,
        max_attempts, priority, status, tenant, role, service, intent, idempotency_key, payload, result, error,
        deadline_ms, deadline_at, ordering_key, ordering_no
    from cogo.replayed('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff') r
    left join cogo.purged_messages p on p.id = r.id
    where status <> 'gone' and p.seq > r.since is not true;

-- Since when the log is complete: whole weeks leave it from the old end. A message from before that may have
-- lost its *_scheduled event, and is then not judged.
create function cogo.log_begins() returns timestamptz
    language sql stable
    as $$
        select min(to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp at time zone 'utc')
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.bus_events'::regclass and c.relname ~ '^bus_events_[0-9]{8}$'
    $$;

-- The verdict on each message from first to last that the table has or the log says it should have:
--   same      table and log agree;
--   differs   they do not;
--   missing   the log has it, the table has not;
--   extra     the table has it, and the log says that it was dropped or purged;
--   unknown   the table has it, and the log, complete since before it was made, does not know it;
--   unjudged  its *_scheduled event left the log with its partition.
-- purged and purged_seqs are cogo.purged_messages, at least those from first to last.
create function cogo.judge(first uuid, last uuid, purged uuid[], purged_seqs bigint[])
    returns table (id uuid, verdict text)
    language sql stable
    as $$
    select coalesce(s.id, r.id),
        case when s.id is null then 'missing'
            when r.id is null and s.created_at >= cogo.log_begins() then 'unknown'
            when r.id is null then 'unjudged'
            when r.gone then 'extra'
            when row(s.trace_id, s.parent_id, s.claim_no, s.run_at, s.created_at, s.updated_at, s.done_at, s.shard,
                    s.attempts, s.max_attempts, s.priority, s.status, s.tenant, s.role, s.service, s.intent,
                    s.idempotency_key, s.deadline_ms, s.deadline_at, s.ordering_key, s.ordering_no, s.payload,
                    s.result, s.error)
                is distinct from row(r.trace_id, r.parent_id, r.claim_no, r.run_at, r.created_at, r.updated_at,
                    r.done_at, r.shard, r.attempts, r.max_attempts, r.priority, r.status, r.tenant, r.role,
                    r.service, r.intent, r.idempotency_key, r.deadline_ms, r.deadline_at, r.ordering_key,
                    r.ordering_no, r.payload, r.result, r.error)
                then 'differs'
            else 'same'
        end
    from (
        select * from cogo.stored_messages where id between judge.first and judge.last
    ) s
    full join (
        select f.*, f.status = 'gone' or p.seq > f.since is true as gone
        from cogo.replayed(judge.first, judge.last) f
        left join unnest(judge.purged, judge.purged_seqs) as p (id, seq) on p.id = f.id
    ) r on r.id = s.id
    where s.id is not null or not r.gone
    $$;

-- The fields of one message in which table and log differ.
create function cogo.differing_fields(message uuid)
    returns table (field text, in_table text, in_log text)
    language sql stable
    as $$
    select s.key, s.value #>> '{}', r.value #>> '{}'
    from (
        select key, value
        from cogo.stored_messages m, jsonb_each(to_jsonb(m)) where m.id = differing_fields.message
    ) s
    join (
        select key, value
        from cogo.replayed(differing_fields.message, differing_fields.message) f, jsonb_each(to_jsonb(f))
    ) r on r.key = s.key
    where s.value is distinct from r.value
    order by 1
    $$;

-- Where table and log disagree, one row a message: the first field that differs and what each says. Empty
-- is the proof. In one statement, for tests and for looking at it by hand; bus_replay_check takes ranges.
create or replace function cogo.replay_diff()
    returns table (id uuid, field text, in_table text, in_log text)
    language sql stable
    as $$
    select j.id, coalesce(f.field, case j.verdict when 'missing' then 'missing in table' else 'missing in log' end),
        f.in_table, f.in_log
    from (select array_agg(id order by id) as ids, array_agg(seq order by id) as seqs from cogo.purged_messages) p
    cross join lateral cogo.judge('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
        p.ids, p.seqs) j
    left join lateral (
        select * from cogo.differing_fields(j.id) where j.verdict = 'differs' limit 1
    ) f on true
    where j.verdict not in ('same', 'unjudged')
    order by 1
    $$;

-- Where a range of about `size` events and rows ends that begins at first. Not beyond what the caller knows of
-- the purged; the highest id of all where nothing more comes.
create function cogo.replay_range_end(first uuid, purged uuid[], all_purged boolean, size integer) returns uuid
    language plpgsql stable
    as $$
begin
    if coalesce(size, 0) not between 1 and 100000 then
        raise exception 'size: must be from 1 to 100000' using errcode = 'CG400';
    end if;
    if not coalesce(all_purged, false) and coalesce(cardinality(purged), 0) = 0 then
        raise exception 'purged: must name some unless all are named' using errcode = 'CG400';
    end if;
    return coalesce(
        least(
            (select e.message_id from public.bus_events e where e.message_id >= first
                order by e.message_id offset size - 1 limit 1),
            (select m.id from public.agent_messages m where m.id >= first order by m.id offset size - 1 limit 1),
            case when not coalesce(all_purged, false) then purged[cardinality(purged)] end),
        'ffffffff-ffff-ffff-ffff-ffffffffffff');
end
$$;

-- All that retention has purged, in the order of ids; to be read with a cursor.
create function public.bus_replay_purged() returns table (id uuid, seq bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$ select id, seq from cogo.purged_messages order by id $$;

-- Compares table and log for a range that begins at `first` and holds about `size` events. purged and
-- purged_seqs are the next of bus_replay_purged() from first on, and all_purged says whether that is all. `last`
-- is where the range ended; the next begins after it. The rest are counts by verdict (cogo.judge), and `shown`
-- of what is wrong: [{id, verdict, fields: [{field, in_table, in_log}]}], values cut to 200 characters.
--
-- Called for all ranges within one repeatable-read transaction it is exact while work goes on. It writes
-- nothing, and needs no transaction id, so that readers of the log do not wait for it. Errors: CG400.
create function public.bus_replay_check(
        first uuid, purged uuid[], purged_seqs bigint[], all_purged boolean, size integer default 5000,
        show integer default 20)
    returns table (last uuid, events bigint, same bigint, unjudged bigint, missing bigint, extra bigint,
        unknown bigint, differing bigint, shown jsonb)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    -- A range is read by its index and folded message by message, whatever the planner knows of the tables.
    set enable_seqscan = off set enable_hashagg = off set jit = off
    as $$
#variable_conflict use_column
begin
    last := cogo.replay_range_end(bus_replay_check.first, bus_replay_check.purged, bus_replay_check.all_purged,
        bus_replay_check.size);
    select count(*) into events from public.bus_events e
        where e.message_id between bus_replay_check.first and bus_replay_check.last;
    with judged as materialized (
        select j.id, j.verdict
        from cogo.judge(bus_replay_check.first, bus_replay_check.last, bus_replay_check.purged,
            bus_replay_check.purged_seqs) j
    ), wrong as (
        select id, verdict from judged where verdict not in ('same', 'unjudged')
        order by id limit greatest(bus_replay_check.show, 0)
    ), listed as (
        select w.id, w.verdict, coalesce(f.fields, '[]') as fields
        from wrong w
        left join lateral (
            select jsonb_agg(jsonb_build_object('field', d.field, 'in_table', left(d.in_table, 200),
                'in_log', left(d.in_log, 200)) order by d.field) as fields
            from cogo.differing_fields(w.id) d where w.verdict = 'differs'
        ) f on true
    )
    select count(*) filter (where verdict = 'same'), count(*) filter (where verdict = 'unjudged'),
            count(*) filter (where verdict = 'missing'), count(*) filter (where verdict = 'extra'),
            count(*) filter (where verdict = 'unknown'), count(*) filter (where verdict = 'differs'),
            (select coalesce(jsonb_agg(to_jsonb(l) order by l.id), '[]') from listed l)
        into same, unjudged, missing, extra, unknown, differing, shown
        from judged;
    return next;
end
$$;

-- Begins a rebuild: keeps writers of agent_messages out until the transaction ends; readers go on.
--
-- What limits remember of the backlog is forgotten, since it grows. That comes first, in the order that an
-- enqueue takes the same locks in (202611210008_order_and_limits.sql).
create function public.bus_replay_lock() returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s'
    as $$
begin
    perform from cogo.backlog order by kind, name for update;
    delete from cogo.backlog;
    lock table public.agent_messages in exclusive mode;
end
$$;

-- Restores a range of the table from the log; arguments as bus_replay_check, after bus_replay_lock() in the
-- same transaction. Rows that differ are written anew, missing ones inserted, those that the log says are gone
-- deleted. What the log cannot judge or does not know is left alone. Answers with counts. Errors: CG400; CG409
-- where a row that the log does not judge holds the idempotency key of one to be restored.
--
-- The fence. A claim raises claim_no by one and appends nothing, so the log does not know of a claim that is in
-- somebody's hands; but there is at most one since the last event, since whatever ends a claim is an event. A
-- waiting message is therefore written anew with claim_no one above what the log says, and waits: the lost
-- claim has just this number, but settles only a message that is claimed; and whoever claims it next gets a
-- number above. Where the damaged row had a higher number still, it may have been claimed under that: then not
-- below it. As the next fold must know that, it is an event, *_restored. Finished messages need none: what
-- finishes a message ends its claim.
create function public.bus_replay_rebuild(
        first uuid, purged uuid[], purged_seqs bigint[], all_purged boolean, size integer default 5000)
    returns table (last uuid, events bigint, same bigint, unjudged bigint, inserted bigint, removed bigint,
        unknown bigint, replaced bigint)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set enable_seqscan = off set enable_hashagg = off set jit = off
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    missing uuid[];
    differing uuid[];
    gone uuid[];
    holder uuid;
    held text;
begin
    -- Held already, or two calls could follow each other with a writer in between.
    lock table public.agent_messages in exclusive mode;
    last := cogo.replay_range_end(bus_replay_rebuild.first, bus_replay_rebuild.purged,
        bus_replay_rebuild.all_purged, bus_replay_rebuild.size);
    select count(*) into events from public.bus_events e
        where e.message_id between bus_replay_rebuild.first and bus_replay_rebuild.last;
    select count(*) filter (where verdict = 'same'), count(*) filter (where verdict = 'unjudged'),
            count(*) filter (where verdict = 'unknown'),
            coalesce(array_agg(j.id) filter (where verdict = 'missing'), '{}'),
            coalesce(array_agg(j.id) filter (where verdict = 'extra'), '{}'),
            coalesce(array_agg(j.id) filter (where verdict = 'differs'), '{}')
        into same, unjudged, unknown, missing, gone, differing
        from cogo.judge(bus_replay_rebuild.first, bus_replay_rebuild.last, bus_replay_rebuild.purged,
            bus_replay_rebuild.purged_seqs) j;
    inserted := cardinality(missing);
    removed := cardinality(gone);
    replaced := cardinality(differing);

    if removed > 0 then
        delete from public.agent_messages m where m.id = any (gone);
    end if;
    if inserted + replaced > 0 then
        -- A damaged row, here or further on, may hold the key of one that is restored now; it will get its own.
        update public.agent_messages m set idempotency_key = null
        from cogo.replayed(bus_replay_rebuild.first, bus_replay_rebuild.last) r
        where r.id = any (missing || differing) and m.tenant = r.tenant and m.idempotency_key = r.idempotency_key
            and m.id <> r.id
            and exists (select from public.bus_events e where e.message_id = m.id
                and e.event_type like '%\_scheduled' and e.payload ? 'intent');
        select m.id, m.idempotency_key into holder, held
        from cogo.replayed(bus_replay_rebuild.first, bus_replay_rebuild.last) r
        join public.agent_messages m
            on m.tenant = r.tenant and m.idempotency_key = r.idempotency_key and m.id <> r.id
        where r.id = any (missing || differing)
        limit 1;
        if found then
            raise exception 'message %: the log does not judge it, and it holds the idempotency key % of a lost one',
                holder, held using errcode = 'CG409';
        end if;

        with wanted as (
            select r.*, r.status = 'waiting' as waits, m.claim_no as damaged_no
            from cogo.replayed(bus_replay_rebuild.first, bus_replay_rebuild.last) r
            left join public.agent_messages m on m.id = r.id
            where r.id = any (missing || differing)
        ), put as (
            insert into public.agent_messages as m (id, trace_id, parent_id, claim_no, run_at, rank_at, created_at,
                updated_at, done_at, shard, attempts, max_attempts, priority, status, tenant, role, service, intent,
                idempotency_key, deadline_ms, deadline_at, ordering_key, ordering_no, parked_for, payload, result,
                error)
            select id, trace_id, parent_id,
                case when waits then greatest(claim_no + 1,
                    -- No claim has a number of more digits than read_claims takes.
                    case when damaged_no < 999999999999999999 then damaged_no end) else claim_no end,
                run_at, run_at - priority * interval '1 minute', created_at,
                case when waits then moment else updated_at end, done_at, shard, attempts, max_attempts, priority,
                case when not waits then status when run_at > moment then 'delayed' else 'queued' end,
                tenant, role, service, intent, idempotency_key, deadline_ms, deadline_at, ordering_key, ordering_no,
                -- Of each key one may be under way; which, the end of the rebuild decides.
                case when waits and ordering_key is not null then 'ordering' end,
                payload, result, error
            from wanted
            on conflict (id) do update
            set trace_id = excluded.trace_id, parent_id = excluded.parent_id, claim_no = excluded.claim_no,
                run_at = excluded.run_at, rank_at = excluded.rank_at, created_at = excluded.created_at,
                updated_at = excluded.updated_at, done_at = excluded.done_at, shard = excluded.shard,
                attempts = excluded.attempts, max_attempts = excluded.max_attempts, priority = excluded.priority,
                status = excluded.status, tenant = excluded.tenant, role = excluded.role,
                service = excluded.service, intent = excluded.intent, idempotency_key = excluded.idempotency_key,
                deadline_ms = excluded.deadline_ms, deadline_at = excluded.deadline_at,
                ordering_key = excluded.ordering_key, ordering_no = excluded.ordering_no,
                parked_for = excluded.parked_for, payload = excluded.payload, result = excluded.result,
                error = excluded.error, claimed_by = null, claimed_at = null, lease_until = null
            returning m.*
        )
        insert into public.bus_events (event_type, message_id, trace_id, tenant, service, role, shard, attempt,
            created_at, payload)
        select cogo.event_type(intent, 'restored'), id, trace_id, tenant, service, role, shard, attempts, moment,
            jsonb_build_object('claim_no', claim_no, 'run_at', run_at)
        from put where status in ('delayed', 'queued') order by id;
    end if;

    if last = 'ffffffff-ffff-ffff-ffff-ffffffffffff' then
        -- Of each ordering key the first that waits goes, unless one is in a worker's hands. First the ones that
        -- went ahead of what was lost step back: of a key never two may be under way.
        update public.agent_messages m set parked_for = 'ordering'
        where m.ordering_key is not null and m.status in ('delayed', 'queued')
            and m.parked_for is distinct from 'ordering'
            and exists (select from public.agent_messages a
                where a.status in ('delayed', 'queued') and a.parked_for = 'ordering' and a.tenant = m.tenant
                    and a.role = m.role and a.service = m.service and a.ordering_key = m.ordering_key
                    and a.ordering_no < m.ordering_no);
        update public.agent_messages m set parked_for = null
        where m.status in ('delayed', 'queued') and m.parked_for = 'ordering'
            and not exists (select from public.agent_messages a
                where a.status in ('delayed', 'queued') and a.parked_for = 'ordering' and a.tenant = m.tenant
                    and a.role = m.role and a.service = m.service and a.ordering_key = m.ordering_key
                    and a.ordering_no < m.ordering_no)
            and not exists (select from public.agent_messages a
                where a.ordering_key is not null and a.status in ('delayed', 'queued', 'claimed')
                    and a.parked_for is distinct from 'ordering' and a.tenant = m.tenant and a.role = m.role
                    and a.service = m.service and a.ordering_key = m.ordering_key);
    end if;
    return next;
end
$$;

-- Does a finished trace's work again, under the new trace id: enqueues its roots, the messages whose parent is
-- not in the trace, or, with `everything`, each of them. They are read from the log, so it works after retention
-- has removed their rows; parent_id names the message that each repeats. Idempotency keys are not repeated, or
-- nothing would happen. All or nothing; answers in the order of the first enqueues.
-- Errors: CG404 where the log holds no beginning of a message of the trace; CG409 where some are not finished;
-- and those of bus_enqueue.
create function public.bus_replay_trace(trace uuid, new_trace uuid, everything boolean default false)
    returns table (id uuid, replays uuid)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    problem text;
    old_ids uuid[];
    new_ids uuid[];
    seqs bigint[];
    batches bigint[];
    batch jsonb;
begin
    select string_agg(m.id::text, ', ' order by m.id) filter (where nth <= 5)
            || case when count(*) > 5 then format(' and %s more', count(*) - 5) else '' end
        into problem
        from (
            select m.id, row_number() over (order by m.id) as nth
            from (select distinct message_id from public.bus_events where trace_id = trace) e
            join public.agent_messages m on m.id = e.message_id
            where m.trace_id = trace and m.status in ('delayed', 'queued', 'claimed')
        ) m;
    if problem is not null then
        raise exception 'trace %: not finished: %', trace, problem using errcode = 'CG409';
    end if;

    -- Batches of about 16 MiB, because a document of jsonb has its limit, and so has bus_enqueue.
    select array_agg(message_id order by seq), array_agg(cogo.uuid_v7(moment) order by seq),
            array_agg(seq order by seq), array_agg(bytes / 16777216 order by seq)
        into old_ids, new_ids, seqs, batches
        from (
            select message_id, seq,
                sum(4096 + octet_length((payload -> 'payload')::text)) over (order by seq)::bigint as bytes
            from (
                select distinct on (message_id) message_id, seq, payload
                from public.bus_events
                where trace_id = trace and message_id is not null
                    and event_type like '%\_scheduled' and payload ? 'intent'
                order by message_id, seq desc
            ) begun
            where coalesce(everything, false)
                or begun.payload ->> 'parent_id' is null
                or (begun.payload ->> 'parent_id')::uuid = begun.message_id
                or not exists (select from public.bus_events e
                    where e.trace_id = trace and e.message_id = (begun.payload ->> 'parent_id')::uuid)
        ) chosen;
    if old_ids is null then
        raise exception 'trace %: not found; the log holds no beginning of a message of it', trace
            using errcode = 'CG404';
    end if;

    for batch in
        select jsonb_agg(jsonb_build_object('id', c.new_id, 'tenant', e.tenant, 'role', e.role, 'service', e.service,
                'shard', e.shard, 'intent', e.payload -> 'intent', 'payload', e.payload -> 'payload',
                'trace_id', new_trace, 'parent_id', c.old_id, 'priority', e.payload -> 'priority',
                'max_attempts', e.payload -> 'max_attempts')
                || case when e.payload ? 'ordering_key'
                    then jsonb_build_object('ordering_key', e.payload -> 'ordering_key') else '{}' end
                || case when e.payload ? 'deadline_ms'
                    then jsonb_build_object('deadline_ms', e.payload -> 'deadline_ms') else '{}' end
            order by c.seq)
        from unnest(old_ids, new_ids, seqs, batches) as c (old_id, new_id, seq, batch)
        join public.bus_events e on e.message_id = c.old_id and e.seq = c.seq
        group by c.batch order by c.batch
    loop
        perform public.bus_enqueue(batch);
    end loop;
    return query select * from unnest(new_ids, old_ids);
end
$$;

revoke all on cogo.stored_messages, cogo.purged_messages from public;
revoke all on function
    cogo.replayed(uuid, uuid), cogo.log_begins(), cogo.judge(uuid, uuid, uuid[], bigint[]),
    cogo.differing_fields(uuid), cogo.replay_range_end(uuid, uuid[], boolean, integer),
    public.bus_replay_purged(),
    public.bus_replay_check(uuid, uuid[], bigint[], boolean, integer, integer),
    public.bus_replay_lock(),
    public.bus_replay_rebuild(uuid, uuid[], bigint[], boolean, integer),
    public.bus_replay_trace(uuid, uuid, boolean) from public;
grant execute on function
    public.bus_replay_purged(),
    public.bus_replay_check(uuid, uuid[], bigint[], boolean, integer, integer),
    public.bus_replay_lock(),
    public.bus_replay_rebuild(uuid, uuid[], bigint[], boolean, integer),
    public.bus_replay_trace(uuid, uuid, boolean)
    to cogo_operator;
