-- The tables: what is so (agent_messages), what happened (bus_events), who works (workers).
--
-- Only the bus_* functions write them; 202611210005_rights.sql takes that right from everybody else.
-- Nothing here needs an extension.

create schema cogo;

-- The bus's only reader of time. Stable, so that a comparison with it can use an index, and the time
-- of the statement, so that all that one call does carries one time. Tests replace it.
create function cogo.now() returns timestamptz
    language sql stable parallel safe
    as 'select statement_timestamp()';

-- A UUID of version 7 (RFC 9562, section 5.7) for callers that bring no id. Version 4 gives the
-- random bits; the first 48 become milliseconds, and 0100 becomes 0111 in the version's four.
create function cogo.uuid_v7(at timestamptz) returns uuid
    language sql volatile parallel safe
    as $$
        select encode(
            set_bit(set_bit(
                overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from at) * 1000)::bigint) from 3)
                    from 1 for 6),
                52, 1), 53, 1),
            'hex')::uuid
    $$;

-- Current state: the queue. The wide columns come last, so that reading the narrow ones stops early.
create table public.agent_messages (
    id              uuid        not null primary key,
    trace_id        uuid        not null,
    parent_id       uuid,
    claim_no        bigint      not null default 0,
    run_at          timestamptz not null,
    claimed_at      timestamptz,
    lease_until     timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    done_at         timestamptz,
    shard           integer     not null default 0,
    attempts        integer     not null default 0,
    max_attempts    integer     not null,
    priority        smallint    not null default 0,
    status          text        not null
        check (status in ('delayed', 'queued', 'claimed', 'done', 'failed', 'cancelled')),
    tenant          text        not null,
    role            text        not null,
    service         text        not null,
    intent          text        not null,
    idempotency_key text,
    claimed_by      text,
    payload         jsonb       not null,
    result          jsonb,
    error           jsonb,
    constraint a_claim_has_a_lease
        check ((status = 'claimed') = (lease_until is not null)),
    constraint finished_has_a_time
        check ((status in ('done', 'failed', 'cancelled')) = (done_at is not null))
) with (
    -- Every row is updated about twice and then deleted: leave room, vacuum by count and not by share.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_limit = 1000
);

comment on table public.agent_messages is
    'Work, as it stands now. Written by the bus_* functions alone.';

-- Each index holds one status only: a message is in one of them at a time, and those that wait, are
-- delayed or are finished cost a claim nothing. What is included lets bus_stats count without the table.
create index agent_messages_claim on public.agent_messages
    (role, service, tenant, priority desc, run_at, id) where status = 'queued';
create index agent_messages_due on public.agent_messages
    (run_at, id) include (role, service) where status = 'delayed';
create index agent_messages_lease on public.agent_messages
    (lease_until, id) where status = 'claimed';
create index agent_messages_finished on public.agent_messages
    (done_at, id) where status in ('done', 'cancelled');
create index agent_messages_dead on public.agent_messages
    (done_at, id) include (role, service) where status = 'failed';
create unique index agent_messages_idempotency on public.agent_messages
    (tenant, idempotency_key) where idempotency_key is not null;

-- What happened. Never updated; deleted only by dropping whole partitions.
--
-- seq becomes visible out of order, so readers go by (xid, seq), below the oldest running
-- transaction (bus_read_events); that is also the primary key's order. created_at is in the key
-- because it partitions.
create sequence cogo.bus_events_seq;

create table public.bus_events (
    seq        bigint      not null default nextval('cogo.bus_events_seq'),
    xid        xid8        not null default pg_current_xact_id(),
    created_at timestamptz not null default cogo.now(),
    id         uuid        not null default gen_random_uuid(),
    message_id uuid,
    trace_id   uuid        not null default gen_random_uuid(),
    shard      integer     not null default 0,
    attempt    integer     not null default 0,
    event_type text        not null,
    tenant     text        not null,
    service    text        not null default '',
    role       text        not null default '',
    worker_id  text,
    reason     text,
    payload    jsonb       not null default '{}',
    primary key (xid, seq, created_at)
) partition by range (created_at);

comment on table public.bus_events is
    'All that ever happened to a message, a worker or a breaker. Append-only.';

create index bus_events_message on public.bus_events (message_id, seq) where message_id is not null;
create index bus_events_trace on public.bus_events (trace_id, seq);

-- Takes what no other partition does, so that an append never fails for want of one: say, because no
-- hub made the coming ones for weeks. bus_partition() moves its rows where they belong.
create table cogo.bus_events_rest partition of public.bus_events default;

-- Who works, or has worked lately.
create table public.workers (
    id           text        not null,
    tenant       text        not null,
    role         text        not null,
    host         text        not null default '',
    version      text        not null default '',
    topics       text[]      not null default '{}',
    info         jsonb       not null default '{}',
    status       text        not null check (status in ('online', 'offline')),
    started_at   timestamptz not null,
    last_seen_at timestamptz not null,
    primary key (tenant, id)
);

comment on table public.workers is
    'Workers and when they were last seen. Written by bus_worker_seen and bus_worker_gone.';
