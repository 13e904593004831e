-- The proof: folding bus_events gives agent_messages.

-- agent_messages as the log alone tells it, for every message whose *_scheduled event the log still
-- holds and that was neither dropped nor purged. Waiting, due and claimed are one status here,
-- 'waiting': time promotes a delayed message and a claim in flight is undone by time, so neither is an
-- event. A message's events are numbered in the order of its row's locks, so seq orders them.
create view cogo.replayed_messages as
with history as (
    -- An intent may end in a word of ours (job.retry, and its job_retry_scheduled), so the type alone does
    -- not tell a message's beginning from its retries; only the beginning carries the intent.
    select message_id, trace_id, tenant, role, service, shard, seq, created_at, attempt, payload,
        case when event_type like '%\_scheduled' and payload ? 'intent' then 'scheduled'
            when event_type like '%\_scheduled' then 'retry_scheduled'
            else substring(event_type from '_(succeeded|failed|requeued|released|dead_lettered|cancelled|lease_expired|dropped)$')
        end as kind
    from public.bus_events
    where message_id is not null
    union all
    select gone::uuid, null, null, null, null, null, p.seq, null, null, '{}', 'purged'
    from public.bus_events p, jsonb_array_elements_text(p.payload -> 'ids') as gone
    where p.event_type = 'messages_purged'
), transition as (
    -- The last life of each id: it may come back after its message was dropped or purged.
    select * from (
        select *, max(seq) filter (where kind = 'scheduled') over (partition by message_id) as since
        from history where kind is not null
    ) lives
    where seq >= since
), folded as (
    select message_id as id,
        (array_agg(trace_id order by seq))[1] as trace_id,
        (array_agg(tenant order by seq))[1] as tenant,
        (array_agg(role order by seq))[1] as role,
        (array_agg(service order by seq))[1] as service,
        (array_agg(shard order by seq))[1] as shard,
        (array_agg(created_at order by seq))[1] as created_at,
        (array_agg(created_at order by seq desc))[1] as updated_at,
        (array_agg(kind order by seq desc))[1] as kind,
        (array_agg(attempt order by seq desc))[1] as attempt,
        (array_agg(payload order by seq))[1] as scheduled,
        -- What follows is read only from events in which the name is ours: meta may use it as well.
        (array_agg((payload ->> 'claim_no')::bigint order by seq desc)
            filter (where kind not in ('scheduled', 'dropped', 'purged')))[1] as claim_no,
        (array_agg((payload ->> 'max_attempts')::integer order by seq desc)
            filter (where kind in ('scheduled', 'requeued')))[1] as max_attempts,
        (array_agg((payload ->> 'run_at')::timestamptz order by seq desc) filter (where kind in
            ('scheduled', 'retry_scheduled', 'requeued', 'released', 'lease_expired')))[1] as run_at,
        (array_agg(payload -> 'error' order by seq desc)
            filter (where kind in ('failed', 'lease_expired')))[1] as error,
        (array_agg(payload -> 'result' order by seq desc) filter (where kind = 'succeeded'))[1] as result
    from transition
    group by message_id
)
select id, trace_id, (scheduled ->> 'parent_id')::uuid as parent_id,
    coalesce(claim_no, cogo.first_claim_no(created_at)) as claim_no, run_at, created_at, updated_at,
    case when kind in ('succeeded', 'dead_lettered', 'cancelled') then updated_at end as done_at,
    shard,
    case kind when 'requeued' then 0 when 'scheduled' then 0 when 'released' then attempt - 1 else attempt end
        as attempts,
    max_attempts, (scheduled ->> 'priority')::smallint as priority,
    case kind when 'succeeded' then 'done' when 'dead_lettered' then 'failed' when 'cancelled' then 'cancelled'
        else 'waiting' end as status,
    tenant, role, service, scheduled ->> 'intent' as intent, scheduled ->> 'idempotency_key' as idempotency_key,
    scheduled -> 'payload' as payload,
    case when kind = 'succeeded' then result end as result,
    case when kind <> 'succeeded' then error end as error
from folded
where kind not in ('dropped', 'purged');

-- Where table and log disagree, one row a message: the first field that differs and what each says.
-- Empty is the proof. Messages whose *_scheduled event was dropped with its partition are not judged.
create function cogo.replay_diff()
    returns table (id uuid, field text, in_table text, in_log text)
    language sql stable
    as $$
    with stored as (
        select id, trace_id, parent_id,
            case status when 'claimed' then claim_no - 1 else claim_no end as claim_no,
            run_at, created_at, updated_at, done_at, shard,
            case status when 'claimed' then attempts - 1 else attempts end as attempts,
            max_attempts, priority,
            case when status in ('delayed', 'queued', 'claimed') then 'waiting' else status end as status,
            tenant, role, service, intent, idempotency_key, payload, result, error
        from public.agent_messages
    ), compared as (
        select coalesce(s.id, r.id) as id, to_jsonb(s) as s, to_jsonb(r) as r
        from stored s full join cogo.replayed_messages r on r.id = s.id
        where s is distinct from r
            and (s.id is null or r.id is not null or exists (
                select from public.bus_events e where e.message_id = s.id
                    and e.event_type like '%\_scheduled' and e.payload ? 'intent'))
    )
    select distinct on (c.id) c.id,
        case when c.s is null then 'missing in table' when c.r is null then 'missing in log' else f.key end,
        c.s ->> f.key, c.r ->> f.key
    from compared c
    cross join lateral jsonb_object_keys(coalesce(c.s, c.r)) as f (key)
    where c.s is null or c.r is null or c.s -> f.key is distinct from c.r -> f.key
    order by c.id, f.key
    $$;

revoke all on cogo.replayed_messages from public;
revoke all on function cogo.replay_diff() from public;
