use std::net::TcpListener;

use cogo::testing::TestDb;

use crate::support::Cogo;

#[test]
fn without_a_database_both_remedies_are_told() {
    let done = Cogo::new().run(&["status"]);
    done.refused(4, &["no database", "cogo up", "DATABASE_URL"]);
}

#[test]
fn a_url_of_another_kind_is_refused_and_not_repeated() {
    for url in ["mysql://me:geheim@host/db", "postgres://me:geheim@host:port/db", "geheim"] {
        let done = Cogo::new().with("DATABASE_URL", url).run(&["status"]);
        done.refused(2, &["--database-url"]);
        assert!(!done.stderr.contains("geheim"), "{done:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_without_the_password() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let url = format!("postgres://me:geheim@127.0.0.1:{port}/db");
    for args in [&["status"][..], &["worker", "echo"], &["migrate"], &["tail"]] {
        let done = Cogo::new().with("DATABASE_URL", &url).run(args);
        done.refused(4, &["database db at 127.0.0.1", "cannot be reached"]);
        assert!(!done.stderr.contains("geheim"), "{done:?}");
    }
}

#[tokio::test]
async fn a_database_or_schema_that_is_missing_is_told_with_the_remedy() {
    let db = TestDb::new().await;
    let other = db.url().replace(db.name(), "no_such_database");
    let cogo = Cogo::new().with("DATABASE_URL", other);
    cogo.run(&["status"]).refused(4, &["no_such_database", "Create the database"]);
    let empty = format!("{}_empty", db.name());
    let sql = |text: String| sqlx::query(sqlx::AssertSqlSafe(text)).execute(db.pool());
    sql(format!("create database {empty} template template0")).await.expect("a database");
    let cogo = Cogo::new().with("DATABASE_URL", db.url().replace(db.name(), &empty));
    cogo.run(&["status"]).refused(4, &["has no COGO schema", "cogo migrate"]);
    cogo.run(&["worker", "echo"]).refused(4, &["cogo migrate"]);

    let first = cogo.json(&["migrate"]);
    assert_eq!(first["from"], serde_json::Value::Null, "{first}");
    let again = cogo.json(&["migrate"]);
    assert_eq!(again["from"], again["to"]);
    cogo.ok(&["status"]);
    sql(format!("drop database {empty} with (force)")).await.expect("dropped");
}

#[tokio::test]
async fn bad_input_is_refused_by_its_field_and_writes_nothing() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let enqueue = |args: &[&str]| cogo.run(&[&["enqueue"], args].concat());
    enqueue(&["echo", "echo"]).refused(2, &["topic"]);
    enqueue(&["echo/a b", "echo"]).refused(2, &["service"]);
    enqueue(&["echo/default", "Echo!"]).refused(2, &["intent"]);
    enqueue(&["echo/default", "echo", "{no"]).refused(2, &["payload: is no JSON"]);
    enqueue(&["echo/default", "echo", "@/nonexistent"]).refused(2, &["/nonexistent"]);
    enqueue(&["echo/default", "echo", "--priority", "101"]).refused(2, &["priority"]);
    enqueue(&["echo/default", "echo", "--delay", "soon"]).refused(2, &["--delay", "500ms"]);
    enqueue(&["echo/default", "echo", "--max-attempts", "0"]).refused(2, &["max_attempts"]);
    enqueue(&["echo/default", "echo", "--weather", "fine"]).refused(2, &["--weather"]);
    assert_eq!(cogo.ok(&["tail", "--json"]).stdout, "");
}

#[tokio::test]
async fn what_does_not_exist_has_an_exit_code_of_its_own() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let missing = "01900000-0000-7000-8000-000000000000";
    cogo.run(&["get", missing]).refused(3, &[missing, "not found"]);
    cogo.run(&["trace", missing]).refused(3, &[missing, "not found"]);
    cogo.run(&["get", "17"]).refused(2, &["17"]);
    cogo.run(&["tail", "--after", "here"]).refused(2, &["<xid>.<seq>"]);
    let nowhere = ["enqueue", "echo/default", "echo", "--config-dir", "/nonexistent"];
    cogo.run(&nowhere).refused(2, &["--config-dir"]);
    cogo.run(&["status", "--log", "=%"]).refused(2, &["--log"]);
    cogo.run(&["worker", "echo", "--concurrency", "0"]).refused(2, &["--concurrency"]);
}

#[tokio::test]
async fn a_server_that_goes_down_while_it_is_looked_at_is_one_that_does_not_answer() {
    let db = TestDb::new().await;
    let away =
        "create or replace function public.bus_schema_version() returns bigint language plpgsql
        as $$ begin raise exception 'shutting down' using errcode = '57P01'; end $$";
    sqlx::raw_sql(away).execute(db.pool()).await.expect("replaced");
    Cogo::on(&db).run(&["worker", "echo"]).refused(4, &["looking at the schema"]);
}
