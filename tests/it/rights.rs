//! Only the bus functions write the tables; who may call which is granted by name.

use cogo::testing::TestDb;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::migrations::{emptied, migrate};

async fn as_role(db: &TestDb, role: &str) -> PgConnection {
    let mut connection =
        PgConnection::connect_with(&db.connect_options()).await.expect("connected");
    connection
        .execute(sqlx::AssertSqlSafe(format!("set role {role}")))
        .await
        .expect("the role is there");
    connection
}

async fn refused(connection: &mut PgConnection, sql: &'static str) {
    let error = connection.execute(sql).await.expect_err(sql);
    let state = error.as_database_error().and_then(|error| error.code().map(|c| c.into_owned()));
    assert_eq!(state.as_deref(), Some("42501"), "{sql}: {error}");
}

const MESSAGE: &str =
    "select bus_enqueue('[{\"role\":\"r\",\"service\":\"s\",\"intent\":\"i\",\"payload\":1}]')";

#[tokio::test]
async fn a_worker_calls_the_functions_and_writes_no_table() {
    let db = TestDb::new().await;
    let mut worker = as_role(&db, "cogo_bus").await;
    for allowed in [
        MESSAGE,
        "select bus_claim('w', '{r/s}')",
        "select bus_enqueue_and_claim('[]', 'w', '{r/s}')",
        "select bus_enqueue_many('{}', '{}', '{}', '[]')",
        "select bus_reap()",
        "select bus_read_events()",
        "select bus_stats()",
        "select bus_schema_version()",
        "select bus_circuits()",
        "select bus_circuit_open('default', 'k', 'w', 'x', 0,
            '{\"open_ms\": 1, \"half_open_max_calls\": 1, \"successes_to_close\": 1}')",
        "select bus_circuit_probe('default', 'k', 'w')",
        "select bus_circuit_report('default', 'k', 'w', true)",
        "select bus_limits()",
        "select bus_parked()",
        "select bus_define('[]')",
        "select bus_definitions('{}')",
        "select bus_offers()",
        "select bus_pins()",
        "select bus_env_names()",
        "select bus_env_read('{}')",
        "select * from agent_messages",
        "select * from bus_events",
        "select * from workers",
        "select * from circuits",
    ] {
        worker.execute(allowed).await.expect(allowed);
    }
    for denied in [
        "insert into agent_messages (id) values (gen_random_uuid())",
        "update agent_messages set status = 'done', done_at = now()",
        "delete from agent_messages",
        "insert into bus_events (event_type, tenant) values ('x', 'default')",
        "update bus_events set reason = 'x'",
        "delete from bus_events",
        "truncate bus_events",
        "delete from cogo.bus_events_rest",
        "update workers set status = 'offline'",
        "select bus_requeue('[]')",
        "select bus_cancel('[]')",
        "select bus_drop('[]')",
        "select bus_retain()",
        "select bus_partition()",
        "select bus_circuit_set('default', 'k', 'open')",
        "select bus_set_limits('{}')",
        "update circuits set state = 'closed'",
        "delete from circuits",
        "select bus_pin('[]')",
        "select bus_env_set('[]')",
        "select bus_env_unset('{}')",
        "select * from cogo.remote_env",
        "delete from cogo.env_revisions",
        "select cogo_unscoped.bus_env_read('{}', 'default')",
        "select * from cogo.definitions",
        "insert into cogo.pins values ('default', 't', 't', null, now())",
        "select * from cogo.limits",
        "delete from cogo.backlog",
        "select cogo.settle('[]')",
        "select cogo.settle_each('[]')",
        "select cogo.replay_diff()",
        "select bus_replay_purged()",
        "select bus_replay_check(gen_random_uuid(), '{}', '{}', true)",
        "select bus_replay_lock()",
        "select bus_replay_rebuild(gen_random_uuid(), '{}', '{}', true)",
        "select bus_replay_trace(gen_random_uuid(), gen_random_uuid())",
    ] {
        refused(&mut worker, denied).await;
    }
}

#[tokio::test]
async fn an_operator_may_besides_requeue_and_let_go() {
    let db = TestDb::new().await;
    let mut operator = as_role(&db, "cogo_operator").await;
    for allowed in [
        MESSAGE,
        "select bus_requeue('[]')",
        "select bus_cancel('[]')",
        "select bus_drop('[]')",
        "select bus_retain()",
        "select bus_partition()",
        "select bus_replay_purged()",
        "select bus_replay_check(gen_random_uuid(), '{}', '{}', true)",
        "select bus_replay_lock()",
        "select bus_replay_rebuild(gen_random_uuid(), '{}', '{}', true)",
        "select bus_circuit_set('default', 'k', 'open')",
        "select bus_set_limits('{}')",
        "select bus_pin('[]')",
        "select bus_env_set('[]')",
        "select bus_env_unset('{}')",
        "select bus_env_names()",
        "select bus_env_read('{}')",
    ] {
        operator.execute(allowed).await.expect(allowed);
    }
    refused(&mut operator, "delete from bus_events").await;
    refused(&mut operator, "select * from cogo.remote_env").await;
    refused(&mut operator, "update agent_messages set priority = 1").await;
}

#[tokio::test]
async fn nobody_else_may_anything() {
    let db = TestDb::new().await;
    // A predefined role of Postgres without rights of its own on tables.
    let mut stranger = as_role(&db, "pg_monitor").await;
    for denied in [
        MESSAGE,
        "select bus_claim('w', '{r/s}')",
        "select bus_enqueue_and_claim('[]', 'w', '{r/s}')",
        "select bus_enqueue_many('{}', '{}', '{}', '[]')",
        "select bus_read_events()",
        "select bus_schema_version()",
        "select * from agent_messages",
        "select * from bus_events",
        "select * from workers",
        "select bus_circuits()",
        "select bus_limits()",
        "select bus_env_names()",
        "select bus_env_read('{}')",
        "select * from circuits",
        "select cogo.now()",
        "select * from _sqlx_migrations",
    ] {
        refused(&mut stranger, denied).await;
    }
}

#[tokio::test]
async fn every_function_of_the_bus_is_revoked_from_public_and_pins_its_search_path() {
    let db = TestDb::new().await;
    let open: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where (n.nspname in ('cogo', 'cogo_unscoped') or n.nspname = 'public' and p.proname like 'bus\\_%')
                and (has_function_privilege('pg_monitor', p.oid, 'execute')
                    or p.prosecdef and not coalesce(
                        'search_path=pg_catalog, pg_temp' = any (p.proconfig), false))",
    )
    .fetch_all(db.pool())
    .await
    .expect("read");
    assert_eq!(open, Vec::<String>::new());
}

/// The migration that made rows of the lists of rights.
const ROWS: i64 = 202_611_220_001;

/// All rights that the catalog tells of, but those on what `ROWS` and later migrations added.
async fn rights(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar(
        "select line from (
            select format('function %s: %s may %s, by %s', p.oid::regprocedure, coalesce(nullif(a.grantee, 0)::regrole::text,
                'everybody'), lower(a.privilege_type), a.grantor::regrole) as line
            from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where n.nspname in ('cogo', 'cogo_unscoped') or n.nspname = 'public' and p.proname like 'bus\\_%'
            union all
            select format('%s %s: %s may %s, by %s', case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass,
                coalesce(nullif(a.grantee, 0)::regrole::text, 'everybody'), lower(a.privilege_type), a.grantor::regrole)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            cross join lateral aclexplode(coalesce(c.relacl,
                acldefault(case c.relkind when 'S' then 's'::\"char\" else 'r' end, c.relowner))) a
            where n.nspname in ('cogo', 'cogo_unscoped', 'public') and c.relkind in ('r', 'p', 'v', 'S')
            union all
            select format('schema %s: %s may %s', n.nspname, coalesce(nullif(a.grantee, 0)::regrole::text, 'everybody'),
                lower(a.privilege_type))
            from pg_namespace n cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
            where n.nspname in ('cogo', 'cogo_unscoped', 'public')
            union all
            select format('table %s: row-level security %s', c.oid::regclass, c.relrowsecurity)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname in ('cogo', 'public') and c.relkind in ('r', 'p')
            union all
            select format('policy %s on %s: %s for %s using (%s) with check (%s)', p.polname, p.polrelid::regclass, p.polcmd,
                (select array_agg(r::regrole::text order by 1) from unnest(p.polroles) r),
                pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
            from pg_policy p
        ) told where line !~ '^table (cogo\\.)?(function|table)_rights' order by 1",
    )
    .fetch_all(db.pool())
    .await
    .expect("read")
}

/// What differs: `-` was, `+` is.
fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

/// A Supabase project's default: what is made in `public` is everybody's.
const OPEN_BY_DEFAULT: &str = "
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
    alter default privileges in schema public grant all on functions to anon, authenticated, service_role";

#[tokio::test]
async fn the_lists_became_rows_and_nobodys_rights_changed() {
    for project in [false, true] {
        let db = emptied().await;
        if project {
            sqlx::raw_sql(OPEN_BY_DEFAULT).execute(db.pool()).await.expect("as a project is");
        }
        migrate(&db, ..ROWS).await;
        let before = rights(&db).await;
        assert!(before.len() > 200, "{before:#?}");
        migrate(&db, ROWS..=ROWS).await;
        assert_eq!(differences(&before, &rights(&db).await), Vec::<String>::new(), "by itself");

        // What the rows say, and not what was there: all is given anew, as `cogo migrate --supabase` does.
        sqlx::raw_sql(
            "do $$ declare p record; begin
                for p in select polname, polrelid::regclass as t from pg_policy where polname ~ '_reads$' and polname <> 'bus_reads'
                loop execute format('drop policy %I on %s', p.polname, p.t); end loop;
            end $$;
            grant all on all tables in schema public, cogo to anon, authenticated, service_role;
            grant all on all functions in schema public, cogo, cogo_unscoped to public, anon, authenticated, cogo_bus;
            revoke all on function public.bus_enqueue(jsonb), cogo.token_tenant() from cogo_bus, authenticated;
            alter table cogo.limits disable row level security",
        )
        .execute(db.pool())
        .await
        .expect("in disorder");
        assert!(differences(&before, &rights(&db).await).len() > 100);
        let done = cogo::db::set_up_supabase(db.pool()).await.expect("set up");
        assert_eq!(done.exposed, Vec::<String>::new());
        assert_eq!(differences(&before, &rights(&db).await), Vec::<String>::new(), "anew");
    }
}

#[tokio::test]
async fn every_function_of_the_bus_has_its_row_and_every_row_its_function() {
    let db = TestDb::new().await;
    let odd: Vec<String> = sqlx::query_scalar(
        "select coalesce(r.name, f.name) from cogo.function_rights r full join (
            select distinct n.nspname || '.' || p.proname as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'cogo' or n.nspname = 'public' and p.proname like 'bus\\_%') f on f.name = r.name
        where f.name is null or r.name is null and f.name like 'public.%' or not (r.tokens or r.workers or r.operators)
        union all
        select name from cogo.table_rights where to_regclass(name) is null",
    )
    .fetch_all(db.pool())
    .await
    .expect("read");
    assert_eq!(odd, Vec::<String>::new());
}

#[tokio::test]
async fn a_row_gives_a_right_and_without_rows_nothing_is_taken() {
    let db = TestDb::new().await;
    sqlx::raw_sql(
        "create function public.bus_new() returns int language sql as 'select 1';
        insert into cogo.function_rights (name, workers) values ('public.bus_new', true);
        create table public.news (tenant text);
        insert into cogo.table_rights values ('public.news', 'tenant = (select cogo.token_tenant())');
        select cogo.grant_rights()",
    )
    .execute(db.pool())
    .await
    .expect("given");
    as_role(&db, "cogo_bus").await.execute("select bus_new()").await.expect("its row says so");
    refused(&mut as_role(&db, "authenticated").await, "select bus_new()").await;
    as_role(&db, "authenticated").await.execute("select * from news").await.expect("likewise");
    refused(&mut as_role(&db, "anon").await, "select * from news").await;

    let before = rights(&db).await;
    let mut owner = db.pool().begin().await.expect("begun");
    owner.execute("delete from cogo.function_rights").await.expect("as in a copy without rows");
    let error = owner.execute("select cogo.grant_rights()").await.expect_err("no rights to give");
    assert!(error.to_string().contains("cogo.function_rights"), "{error}");
    owner.rollback().await.expect("undone");
    assert_eq!(rights(&db).await, before);
}

#[tokio::test]
async fn what_is_open_to_keys_beyond_their_rows_is_told() {
    let db = TestDb::new().await;
    sqlx::raw_sql(
        "grant execute on function public.bus_stats(), cogo.now() to authenticated;
        grant execute on function public.bus_enqueue(jsonb), cogo.token_tenant() to anon;
        grant select on cogo.function_rights to authenticated;
        grant update on public.workers to authenticated; grant select on public._sqlx_migrations to anon",
    )
    .execute(db.pool())
    .await
    .expect("granted");
    let told: Vec<String> =
        sqlx::query_scalar("select cogo.exposed()").fetch_all(db.pool()).await.expect("told");
    assert_eq!(
        told,
        [
            "function bus_enqueue(jsonb): open to anon",
            "function bus_stats(): open to authenticated",
            "function cogo.now(): open to authenticated",
            "function token_tenant(): open to anon",
            "table _sqlx_migrations: anon may select it",
            "table function_rights: authenticated may select it",
            "table workers: authenticated may update it",
        ]
    );
}
