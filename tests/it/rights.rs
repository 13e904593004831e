//! Only the bus functions write the tables; who may call which is granted by name.

use cogo::testing::TestDb;
use sqlx::{Connection as _, Executor as _, PgConnection};

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
