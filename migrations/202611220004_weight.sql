-- What one claim brings, in bytes. It was bounded by the number of messages alone: of payloads of some megabytes, the first large claim
-- after many light ones brought gigabytes. docs/performance.md has what it costs.

-- About how many bytes a payload is once it is read. What Postgres has compressed counts eight times: text shrinks to a third or a
-- half of itself, what repeats itself to an eightieth, and to unpack it for an answer would cost as much as to read it.
create function cogo.payload_weight(payload jsonb) returns integer
    language sql stable parallel safe
    as $$
        select pg_column_size(payload) * case when pg_column_compression(payload) is null then 1 else 8 end
    $$;

-- Of messages that the caller has locked, by their places: the first ones that together weigh no more than `most`, and one more;
-- so there is always one. The first by rank, and of several tenants' as large a part of each.
create function cogo.within_weight(places tid[], most bigint) returns tid[]
    language plpgsql stable
    as $$
begin
    return (
        select array_agg(place) from (
            select place, sum(weight) over (order by turn, rank_at, id rows unbounded preceding) - weight as before
            from (
                select p.place, m.rank_at, m.id, m.weight,
                    (row_number() over (partition by m.tenant order by m.rank_at, m.id) - 0.5)
                        / count(*) over (partition by m.tenant) as turn
                from unnest(places) as p (place)
                cross join lateral (
                    select a.tenant, a.rank_at, a.id, cogo.payload_weight(a.payload) as weight
                    from public.agent_messages a where a.ctid = p.place limit 1
                ) m
            ) each_message
        ) in_turn
        where before < most);
end
$$;

-- As in 202611220002_cheaper.sql, in two statements: what is picked is locked and weighed by one, and taken by another.
--
-- A claim of 64 or more takes no more than weighs 64 MiB, and one message more. What it has locked and not taken is free again when
-- its transaction ends; a session that looks for work just then passes over that, so whoever is given much and fewer than asked
-- should look again, and have others look. One of fewer messages than that brings at most 63 payloads of 4 MiB.
--
-- Two statements are two snapshots: one that was claimed and released again since the first began is locked at its new place, and
-- the second one sees it there. In one statement it was locked and not taken, and whoever the release woke met the lock.
create or replace function cogo_unscoped.bus_claim(
        worker text, topics text[], max integer default 1, lease_ms integer default 30000, tenant text default 'default')
    returns setof public.agent_messages
    language plpgsql volatile
        -- Times are remembered as text, whatever way the session writes them.
        set enable_seqscan = off set datestyle = 'ISO, YMD'
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    lease constant interval := make_interval(secs => lease_ms / 1000.0);
    large constant boolean := max >= 64;
    key text;
    hint text[];
    remembered text;
    beginning timestamptz := '-infinity';
    first_id uuid := '00000000-0000-0000-0000-000000000000';
    began timestamptz := moment;
    nth integer := 0;
    missing integer := max;
    -- How much more may be taken.
    room bigint := 67108864;
    places tid[];
    weight bigint;
    next_rank timestamptz;
    next_id uuid;
begin
    if coalesce(length(worker), 0) not between 1 and 255 then
        raise exception 'worker: must be 1 to 255 characters' using errcode = 'CG400';
    end if;
    if coalesce(cardinality(topics), 0) not between 1 and 1000 then
        raise exception 'topics: must name 1 to 1000 topics' using errcode = 'CG400';
    end if;
    if coalesce(max, 0) not between 0 and 10000 then
        raise exception 'max: must be from 0 to 10000' using errcode = 'CG400';
    end if;
    if coalesce(lease_ms, 0) not between 100 and 86400000 then
        raise exception 'lease_ms: must be from 100 to 86400000 (a day)' using errcode = 'CG400';
    end if;
    if bus_claim.tenant = '*' then
        return query select * from cogo.claim_fairly(worker, topics, max, lease);
        return;
    end if;
    if large then
        key := hashtextextended(bus_claim.tenant || ' ' || array_to_string(topics, ' '), 0)::text;
        hint := string_to_array(current_setting('cogo.claimed_from', true), '|');
        if hint[1] = key and hint[2]::integer < 32 and hint[5]::timestamptz > moment - interval '1 second' then
            nth := hint[2]::integer;
            beginning := hint[3]::timestamptz;
            first_id := hint[4]::uuid;
            began := hint[5]::timestamptz;
        end if;
    end if;
    loop
        with topic as materialized (
            select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
            from unnest(topics) as t
        ), picked as materialized (
            -- Materialized: a plan that ran this twice would claim more than `max`.
            select m.id, m.rank_at, m.place, m.weight
            from topic
            cross join lateral (
                select a.id, a.rank_at, a.ctid as place, cogo.payload_weight(a.payload) as weight
                from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null
                    and a.role = topic.role and a.service = topic.service and a.tenant = bus_claim.tenant
                    and (a.rank_at, a.id) >= (beginning, first_id)
                    and (a.deadline_at is null or a.deadline_at > moment)
                order by a.rank_at, a.id
                limit missing
                for update skip locked
            ) m
            order by m.rank_at, m.id
            limit missing
        )
        -- In their order, as they come; from where the next large claim begins is a hint and no more.
        select array_agg(p.place), sum(p.weight), (array_agg(p.rank_at))[1], (array_agg(p.id))[1]
            into places, weight, next_rank, next_id
            from picked p;
        if places is not null then
            missing := missing - cardinality(places);
            room := room - weight;
            if large and room < 0 then
                places := cogo.within_weight(places, room + weight);
                missing := 0;
            end if;
            return query
                with claimed as (
                    update public.agent_messages a
                    set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                        claimed_by = worker, claimed_at = moment, lease_until = moment + lease
                    -- By their places: joined by id, the plan for any limit expects a tenth of what waits, and reads all of the
                    -- primary key. They are locked, and so stay where they are.
                    where a.ctid = any (places)
                    returning a.*
                )
                select c.* from claimed c order by c.rank_at, c.id;
            if large then
                remembered := set_config('cogo.claimed_from', concat_ws('|', key, nth + 1, next_rank, next_id, began), false);
            end if;
        end if;
        exit when missing <= 0 or beginning = '-infinity';
        beginning := '-infinity';
        nth := 0;
        began := moment;
    end loop;
end
$$;

-- As in 202611210010_claim.sql, weighed as above.
create or replace function cogo.claim_fairly(worker text, topics text[], max integer, lease interval)
    returns setof public.agent_messages
    language plpgsql volatile
        -- As 202611210019_plans.sql has it.
        set plan_cache_mode = auto
    as $$
#variable_conflict use_column
declare
    moment constant timestamptz := cogo.now();
    begin_at constant text := coalesce(current_setting('cogo.claim_after', true), '');
    missing integer := max;
    room bigint := 67108864;
    places tid[];
    weight bigint;
    roles text[];
    services text[];
    tenants text[];
begin
    for round in 1..2 loop
        with recursive topic as materialized (
            select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
            from unnest(topics) as t
        ), waiting as (
            -- From tenant to tenant through the claim index, not through all that they have waiting; beyond the
            -- last one again from the first.
            select topic.role, topic.service, begin_at as tenant, false as again, 0 as nth
            from topic
            union all
            select w.role, w.service, next.tenant, next.again, w.nth + 1
            from waiting w
            cross join lateral (
                (select a.tenant, w.again as again from public.agent_messages a
                    where a.status = 'queued' and a.parked_for is null
                        and a.role = w.role and a.service = w.service and a.tenant > w.tenant
                        and (not w.again or a.tenant <= begin_at)
                    order by a.tenant limit 1)
                union all
                (select a.tenant, true from public.agent_messages a
                    where not w.again and a.status = 'queued' and a.parked_for is null
                        and a.role = w.role and a.service = w.service and a.tenant <= begin_at
                    order by a.tenant limit 1)
                limit 1
            ) next
        )
        select array_agg(role order by n), array_agg(service order by n), array_agg(tenant order by n)
            into roles, services, tenants
            from (
                select role, service, tenant, row_number() over () as n
                from (select * from waiting where nth > 0 limit 250) w
            ) numbered;
        exit when tenants is null;
        if cardinality(tenants) = 250 then
            perform set_config('cogo.claim_after', tenants[126 + floor(random() * 125)::integer], false);
        end if;

        with scope as materialized (
            select * from unnest(roles, services, tenants) as s (role, service, tenant)
        ), topic as materialized (
            select distinct split_part(t, '/', 1) as role, split_part(t, '/', 2) as service
            from unnest(topics) as t
        ), held as materialized (
            select m.tenant, count(*) as claims
            from public.agent_messages m join topic on topic.role = m.role and topic.service = m.service
            where m.status = 'claimed'
            group by m.tenant
        ), share as materialized (
            -- -ln(u) is exponential: divided by the weights, the smallest falls to each tenant as often as
            -- its weight says.
            select tenant, start, weight from (
                select t.tenant, coalesce(held.claims, 0) - ln(1 - random()) as start,
                    coalesce(l.weight, 1) as weight
                from (select distinct tenant from scope) t
                left join held on held.tenant = t.tenant
                left join lateral (
                    select x.weight from cogo.limits x
                    where x.kind = 'tenant' and x.name in (t.tenant, '*')
                    order by x.name = '*' limit 1
                ) l on true
            ) each_tenant
            -- As many tenants as there are places can get any; and some more, in case that all that one of
            -- them has waiting is past its deadline.
            order by start / weight limit missing + 10
        ), candidate as (
            select scope.role, scope.service, scope.tenant, share.start, share.weight,
                row_number() over (partition by scope.tenant order by m.rank_at, m.id) as nth
            from scope
            join share on share.tenant = scope.tenant
            cross join lateral (
                select a.rank_at, a.id from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null and a.role = scope.role
                    and a.service = scope.service and a.tenant = scope.tenant
                    and (a.deadline_at is null or a.deadline_at > moment)
                order by a.rank_at, a.id
                limit missing
            ) m
        ), place as (
            select c.role, c.service, c.tenant
            from candidate c
            order by (c.start + c.nth - 1) / c.weight
            limit missing
        ), quota as materialized (
            select role, service, tenant, count(*) as its_places from place group by 1, 2, 3
        ), picked as materialized (
            select m.place, m.weight
            from quota q
            cross join lateral (
                select a.ctid as place, cogo.payload_weight(a.payload) as weight from public.agent_messages a
                where a.status = 'queued' and a.parked_for is null and a.role = q.role
                    and a.service = q.service and a.tenant = q.tenant
                    and (a.deadline_at is null or a.deadline_at > moment)
                order by a.rank_at, a.id
                limit q.its_places
                for update skip locked
            ) m
        )
        select array_agg(p.place), sum(p.weight) into places, weight from picked p;
        if places is not null then
            missing := missing - cardinality(places);
            room := room - weight;
            if max >= 64 and room < 0 then
                places := cogo.within_weight(places, room + weight);
                missing := 0;
            end if;
            return query
                with claimed as (
                    update public.agent_messages a
                    set status = 'claimed', attempts = a.attempts + 1, claim_no = a.claim_no + 1,
                        claimed_by = worker, claimed_at = moment, lease_until = moment + lease
                    where a.ctid = any (places)
                    returning a.*
                )
                select c.* from claimed c order by c.rank_at, c.id;
        end if;
        exit when missing <= 0;
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
