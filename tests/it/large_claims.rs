//! Large claims go on where the last one of their session began; nothing is missed for that, and no claim reads more because
//! more waits.

use std::time::Duration;

use cogo::testing::TestDb;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::fixtures::{enqueue, raw};

/// From so many on a claim is large.
const LARGE: i32 = 64;
/// Each of so many begins at the beginning.
const FULL_EVERY: usize = 32;

async fn send(db: &TestDb, names: impl IntoIterator<Item = String>, fields: Value) {
    let batch: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let mut message = raw(&fields);
            message["payload"] = json!(name);
            message
        })
        .collect();
    for part in batch.chunks(1000) {
        enqueue(db, part).await;
    }
}

fn names(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("m{n}"))
}

async fn claim(session: &mut PgConnection, topic: &str, tenant: &str, max: i32) -> Vec<String> {
    sqlx::query_scalar("select payload #>> '{}' from bus_claim('w', array[$1], $2, 30000, $3)")
        .bind(topic)
        .bind(max)
        .bind(tenant)
        .fetch_all(session)
        .await
        .expect("claimed")
}

#[tokio::test]
async fn what_comes_in_below_the_last_large_claim_is_found() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let mut session = db.pool().acquire().await.expect("a session");
    send(&db, names(0, 5000), json!({})).await;
    assert_eq!(claim(&mut session, "echo/default", "default", LARGE).await.len(), 64);
    send(&db, ["urgent".to_owned()], json!({"priority": 9})).await;

    // A small claim is exact.
    let mut other = db.pool().acquire().await.expect("another session");
    assert_eq!(claim(&mut session, "echo/default", "default", 1).await, ["urgent"]);
    send(&db, ["urgent".to_owned()], json!({"priority": 9})).await;
    // So is a session's first large one.
    let first = claim(&mut other, "echo/default", "default", LARGE).await;
    assert_eq!(first[0], "urgent");
    // Others find it after a while.
    send(&db, ["urgent".to_owned()], json!({"priority": 9})).await;
    let mut after = 0;
    loop {
        let claimed = claim(&mut session, "echo/default", "default", LARGE).await;
        assert_eq!(claimed.len(), 64);
        after += 1;
        if claimed[0] == "urgent" {
            break;
        }
        assert!(after < FULL_EVERY, "not found by {after} claims");
    }
    assert!(after > 1, "the hint was not used at all: this test tells nothing");

    // Or after a second, by a session whose last claim took none from so far below.
    claim(&mut session, "echo/default", "default", LARGE).await;
    send(&db, ["urgent".to_owned()], json!({"priority": 9})).await;
    let passed_over = claim(&mut session, "echo/default", "default", LARGE).await;
    assert!(!passed_over.contains(&"urgent".to_owned()));
    db.advance(Duration::from_secs(1)).await;
    let claimed = claim(&mut session, "echo/default", "default", LARGE).await;
    assert_eq!(claimed[0], "urgent");
}

#[tokio::test]
async fn what_a_session_remembers_does_not_depend_on_how_it_writes_times() {
    let db = TestDb::new().await;
    let mut session = db.pool().acquire().await.expect("a session");
    send(&db, names(0, 1000), json!({})).await;
    for style in ["German", "SQL, DMY", "Postgres, MDY"] {
        let set = format!("set datestyle = '{style}'; set timezone = 'Asia/Seoul'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *session).await.expect("set");
        assert_eq!(claim(&mut session, "echo/default", "default", LARGE).await.len(), 64);
    }
}

#[tokio::test]
async fn a_large_claim_that_would_give_fewer_than_asked_looks_at_all_that_waits() {
    let db = TestDb::new().await;
    // What a session remembers is good for a second.
    db.freeze_time().await;
    let mut session = db.pool().acquire().await.expect("a session");
    send(&db, names(0, 100), json!({})).await;
    assert_eq!(claim(&mut session, "echo/default", "default", LARGE).await.len(), 64);
    send(&db, ["urgent".to_owned(), "urgent too".to_owned()], json!({"priority": 9})).await;
    let rest = claim(&mut session, "echo/default", "default", LARGE).await;
    assert_eq!(rest.len(), 38, "36 that were left, and the two: {rest:?}");
    assert!(rest.iter().any(|name| name == "urgent too"));
}

#[tokio::test]
async fn a_hint_is_for_its_topics_and_its_tenant_alone() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let mut session = db.pool().acquire().await.expect("a session");
    // A batch has one rank: the first of each is sent alone.
    for fields in [json!({"service": "other"}), json!({"tenant": "other"}), json!({})] {
        send(&db, ["first".to_owned()], fields.clone()).await;
        db.advance(Duration::from_millis(1)).await;
        send(&db, names(0, 200), fields).await;
    }
    let first = |claimed: Vec<String>| claimed.into_iter().next().expect("some");
    assert_eq!(first(claim(&mut session, "echo/default", "default", LARGE).await), "first");
    assert_eq!(first(claim(&mut session, "echo/other", "default", LARGE).await), "first");
    assert_eq!(first(claim(&mut session, "echo/default", "other", LARGE).await), "first");
    let rest = claim(&mut session, "echo/default", "default", 200).await;
    assert_eq!(rest.len(), 201 - 64);
}

/// Blocks that a claim of 100 touches, by the plan that a session keeps, once its plans are kept.
async fn blocks(db: &TestDb) -> i64 {
    let mut session = db.pool().acquire().await.expect("a session");
    let mut last = 0;
    for _ in 0..8 {
        let plan: Value = sqlx::query_scalar(
            "explain (analyze, buffers, format json)
                select * from bus_claim('w', '{echo/default}', 100, 30000, 'default')",
        )
        .fetch_one(&mut *session)
        .await
        .expect("explained");
        let root = &plan[0]["Plan"];
        last = ["Shared Hit Blocks", "Shared Read Blocks"]
            .iter()
            .map(|key| root[key].as_i64().expect("a number"))
            .sum();
    }
    last
}

#[tokio::test]
async fn a_claim_reads_no_more_because_more_waits() {
    let db = TestDb::new().await;
    send(&db, names(0, 2000), json!({})).await;
    sqlx::query("analyze agent_messages").execute(db.pool()).await.expect("analyzed");
    let few = blocks(&db).await;
    send(&db, names(0, 40_000), json!({})).await;
    // With what the table is known to hold, a plan for any limit expects thousands.
    sqlx::query("analyze agent_messages").execute(db.pool()).await.expect("analyzed");
    let many = blocks(&db).await;
    assert!(many < few * 3 / 2, "{many} blocks where 40,000 wait, {few} where 1,000 did");
}
