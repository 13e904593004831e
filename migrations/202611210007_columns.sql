-- What resilience needs to know of a message: its deadline, its place in an order, why it is parked, and
-- where it stands among those that wait.
--
-- Building the indexes keeps writers out until they are done: about a second for each million of rows that
-- wait. What is finished is not in them.

alter table public.agent_messages
    -- Where a waiting message stands: when it became due, a minute earlier for each step of priority. So a
    -- higher priority goes first, and yet whatever waits is overtaken only by what came within so many
    -- minutes after it: no priority starves. A row that the release before writes stands where it came.
    add column rank_at timestamptz not null default cogo.now(),
    -- The end of the total deadline, counted from the enqueue and again from a requeue.
    add column deadline_at timestamptz,
    add column deadline_ms bigint,
    -- Messages with one key (of a tenant, role and service) go one at a time, in the order of their numbers.
    add column ordering_no bigint,
    add column ordering_key text,
    -- Why a waiting message is not to be claimed: 'ordering', while an earlier one of its key is under way;
    -- 'circuit:<key>', while that breaker is open. Null: it may be claimed.
    add column parked_for text;

update public.agent_messages set rank_at = run_at - priority * interval '1 minute'
    where status in ('delayed', 'queued', 'claimed');

create sequence cogo.ordering_no_seq;

-- Parked messages are not in the claim index: they cost a claim nothing.
drop index public.agent_messages_claim;
create index agent_messages_claim on public.agent_messages
    (role, service, tenant, rank_at, id) where status = 'queued' and parked_for is null;
create index agent_messages_parked on public.agent_messages
    (tenant, parked_for, rank_at, id) include (role, service)
    where status = 'queued' and parked_for is not null and parked_for <> 'ordering';

-- The message of a key that is under way, from claimable to finished: never two, and the index itself
-- refuses a second one. Those behind it, in their order.
create unique index agent_messages_order_head on public.agent_messages
    (tenant, role, service, ordering_key)
    where ordering_key is not null and status in ('delayed', 'queued', 'claimed')
        and parked_for is distinct from 'ordering';
create index agent_messages_order_behind on public.agent_messages
    (tenant, role, service, ordering_key, ordering_no)
    where status in ('delayed', 'queued') and parked_for = 'ordering';

create index agent_messages_deadline on public.agent_messages
    (deadline_at, id) where status in ('delayed', 'queued') and deadline_at is not null;

-- What counting by tenant needs is included.
drop index public.agent_messages_due;
create index agent_messages_due on public.agent_messages
    (run_at, id) include (role, service, tenant) where status = 'delayed';
drop index public.agent_messages_lease;
create index agent_messages_lease on public.agent_messages
    (lease_until, id) include (role, service, tenant) where status = 'claimed';

-- Messages with an idempotency key may stay longer than others (bus_retain), and must not stand in the way.
drop index public.agent_messages_finished;
create index agent_messages_finished on public.agent_messages
    (done_at, id) where status in ('done', 'cancelled') and idempotency_key is null;
create index agent_messages_finished_keyed on public.agent_messages
    (done_at, id) where status in ('done', 'cancelled') and idempotency_key is not null;

-- Circuit breakers that have ever opened; the others need no row.
create table public.circuits (
    tenant              text        not null,
    key                 text        not null,
    state               text        not null check (state in ('closed', 'open', 'half_open')),
    -- Grows with every transition, also where the row was deleted in between: it begins at epoch milliseconds.
    version             bigint      not null,
    -- An operator opened it; only an operator closes it.
    forced              boolean     not null default false,
    opened_at           timestamptz,
    open_until          timestamptz,
    -- The one worker that may test the water, until when it may, its calls under way, and those that were well.
    prober              text,
    probe_until         timestamptz,
    probes              integer     not null default 0,
    successes           integer     not null default 0,
    -- When bus_reap may let go the next messages as probes.
    nudge_at            timestamptz not null,
    open_ms             bigint      not null,
    half_open_max_calls integer     not null,
    successes_to_close  integer     not null,
    reason              text,
    worker_id           text,
    evidence            jsonb       not null default '{}',
    updated_at          timestamptz not null,
    primary key (tenant, key),
    constraint half_open_is_not_forced check (not (forced and state <> 'open'))
);

comment on table public.circuits is
    'Circuit breakers, as they stand now. Written by the bus_circuit_* functions and bus_reap alone.';

create index circuits_not_closed on public.circuits (state, open_until) where state <> 'closed';

-- How much may wait, and what share of the workers a tenant gets. '*' stands for all that are not named.
create table cogo.limits (
    kind       text    not null check (kind in ('tenant', 'topic')),
    name       text    not null,
    max_queued bigint  check (max_queued > 0),
    weight     real    not null default 1 check (weight between 0.01::real and 1000),
    primary key (kind, name)
);

-- How much waits within a limit: `counted` did at counted_at, and at most `admitted` have come since.
-- Only bus_enqueue (within limits) and bus_reap touch it.
create table cogo.backlog (
    kind       text        not null,
    name       text        not null,
    counted    bigint      not null default 0,
    admitted   bigint      not null default 0,
    counted_at timestamptz not null default '-infinity',
    primary key (kind, name)
) with (fillfactor = 50);

alter table public.circuits enable row level security;
alter table cogo.limits enable row level security;
alter table cogo.backlog enable row level security;
revoke all on public.circuits, cogo.limits, cogo.backlog from public;
grant select on public.circuits to cogo_bus;
create policy bus_reads on public.circuits for select to cogo_bus using (true);
