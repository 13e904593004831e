//! The test support itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use cogo::testing::TestDb;
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::support::{Other, say, until};

#[tokio::test]
async fn every_test_has_a_migrated_database_of_its_own() -> Result<()> {
    let (one, two) = (TestDb::new().await, TestDb::new().await);
    assert_ne!(one.name(), two.name());
    sqlx::query("create table mine (id int)").execute(one.pool()).await?;
    let (migrated, mine): (bool, bool) = sqlx::query_as(
        "select to_regclass('_sqlx_migrations') is not null, to_regclass('mine') is not null",
    )
    .fetch_one(two.pool())
    .await?;
    assert!(migrated && !mine, "migrated: {migrated}, the other's table: {mine}");
    Ok(())
}

#[tokio::test]
async fn the_url_leads_to_the_same_database() -> Result<()> {
    let db = TestDb::new().await;
    let options: PgConnectOptions = db.url().parse()?;
    let pool = PgPool::connect_with(options).await?;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&pool).await?;
    assert_eq!(name, db.name());
    pool.close().await;
    Ok(())
}

#[tokio::test]
async fn a_dropped_database_is_gone_even_with_connections_to_it() -> Result<()> {
    let (kept, dropped) = (TestDb::new().await, TestDb::new().await);
    let name = dropped.name().to_owned();
    let _open = dropped.pool().acquire().await?;
    drop(dropped);
    let left: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(kept.pool())
            .await?;
    assert!(!left);
    Ok(())
}

async fn now(db: &TestDb) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select cogo.now()").fetch_one(db.pool()).await?)
}

#[tokio::test]
async fn frozen_time_stands_until_it_is_put_forward() -> Result<()> {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let before = now(&db).await?;
    assert_eq!(now(&db).await?, before);
    db.advance(Duration::from_millis(90_500)).await;
    assert_eq!(now(&db).await?, before + Duration::from_millis(90_500));
    db.freeze_time().await;
    assert_eq!(now(&db).await?, before + Duration::from_millis(90_500));
    Ok(())
}

#[tokio::test]
async fn running_time_that_is_put_forward_runs_on_for_every_role() -> Result<()> {
    let db = TestDb::new().await;
    db.advance(Duration::from_hours(1)).await;
    let mut connection = db.pool().acquire().await?;
    // A role that may call the functions of the bus, and nothing of the clock.
    sqlx::raw_sql("set role cogo_bus").execute(&mut *connection).await?;
    sqlx::query("select bus_enqueue($1)")
        .bind(serde_json::json!([crate::fixtures::echo(serde_json::json!(1))]))
        .execute(&mut *connection)
        .await?;
    let ahead: bool = sqlx::query_scalar(
        "select created_at > statement_timestamp() + interval '59 minutes' from agent_messages",
    )
    .fetch_one(&mut *connection)
    .await?;
    assert!(ahead);
    Ok(())
}

#[tokio::test]
#[ignore = "the other process of the test below"]
async fn a_run_that_is_killed() -> Result<()> {
    if std::env::var_os("COGO_TEST_KILLED_RUN").is_none() {
        return Ok(());
    }
    let db = TestDb::new().await;
    let options = db.connect_options();
    say("SOCKETS", options.get_socket().context("no socket")?.display())?;
    std::future::pending().await
}

#[cfg(unix)]
#[tokio::test]
async fn a_run_that_is_killed_leaves_no_server_and_no_files() -> Result<()> {
    if std::env::var_os("COGO_TEST_DATABASE_URL").is_some() {
        return Ok(()); // then there is no server of ours
    }
    let mut run = Other::run("testing::a_run_that_is_killed", &[("COGO_TEST_KILLED_RUN", "1")])?;
    let sockets = run.says("SOCKETS")?;
    let dir = Path::new(&sockets).ancestors().nth(2).context("no directory of the run")?;
    let name = dir.file_name().context("no name")?.to_string_lossy();
    assert!(name.starts_with("cogo-test-"), "{name}");
    let pid_file =
        std::fs::read_to_string(Path::new(&sockets).with_file_name("data/postmaster.pid"))?;
    let pid = pid_file.lines().next().context("no pid")?.to_owned();

    run.kill()?;

    until("the directory of the run is gone", || !dir.exists()).await?;
    let state = std::process::Command::new("ps").args(["-o", "stat=", "-p", &pid]).output()?;
    let state = String::from_utf8(state.stdout)?;
    assert!(state.is_empty() || state.starts_with('Z'), "the server is left: {state}");
    Ok(())
}
