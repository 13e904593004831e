//! What becomes of a call that nobody waits for any more.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::db::Options;
use cogo::message::Status;
use cogo::testing::TestDb;
use serde_json::json;

use crate::fixtures::{SOON, echo, request};

/// How many sessions wait for a lock.
async fn waiting(db: &TestDb) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'",
    )
    .fetch_one(db.pool())
    .await
    .expect("read")
}

async fn until_waiting(db: &TestDb, sessions: i64) {
    let look = async {
        while waiting(db).await != sessions {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, look).await.expect("soon");
}

#[tokio::test]
#[cfg(target_os = "linux")] // where Postgres sees that a client has gone
async fn a_claim_that_was_given_up_while_it_waited_for_a_lock_claims_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(Options::new(db.connect_options()).pool());
    let id = bus.publish(echo(json!(1))).await.expect("published").id;
    let mut rebuild = db.pool().begin().await.expect("begun");
    sqlx::query("lock table agent_messages in exclusive mode")
        .execute(&mut *rebuild)
        .await
        .expect("locked");
    let wanted = request("w", 1);
    tokio::select! {
        _ = bus.claim(&wanted) => panic!("the table is locked"),
        () = until_waiting(&db, 1) => {}
    }
    until_waiting(&db, 0).await;
    rebuild.rollback().await.expect("let go");
    let message = bus.message(id).await.expect("found");
    assert_eq!((message.status, message.attempts), (Status::Queued, 0));
}
