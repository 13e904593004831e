//! Connections that a bus keeps at hand: one for calls that come one after the other, and the pool's all the same.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::db::Options;
use cogo::testing::TestDb;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixtures::{SOON, echo};

/// Which processes of the server have asked for figures.
async fn askers(db: &TestDb) -> Vec<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity where datname = current_database() and query like '%from bus\\_stats()%'
            and pid <> pg_backend_pid() order by pid",
    )
    .fetch_all(db.pool())
    .await
    .expect("read")
}

/// How many connections of a new pool are asked by calls that come one after the other.
async fn asked_in_a_row() -> usize {
    let db = TestDb::new().await;
    let pool = Options::new(db.connect_options()).pool();
    // More than one that could be used in turn.
    let open = join_all((0..4).map(|_| pool.acquire())).await;
    drop(open);
    let bus = Bus::new(pool.clone());
    // Another bus over the same pool has the same ones at hand.
    let other = Bus::new(pool);
    for _ in 0..10 {
        bus.stats().await.expect("answered");
        other.stats().await.expect("answered");
    }
    askers(&db).await.len()
}

#[tokio::test]
async fn calls_one_after_the_other_go_over_one_connection() {
    // What was idle for a second goes back to the pool, and a busy machine may take that long between two calls. Were they to
    // go over the pool's in turn, none of these would find one.
    let mut asked = asked_in_a_row().await;
    for _ in 0..2 {
        if asked > 1 {
            asked = asked_in_a_row().await;
        }
    }
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn what_is_at_hand_does_not_hold_up_a_pool_that_is_closed() {
    let db = TestDb::new().await;
    let pool = Options::new(db.connect_options()).pool();
    let bus = Bus::new(pool.clone());
    bus.publish(echo(json!(1))).await.expect("published");
    tokio::time::timeout(SOON, pool.close()).await.expect("closed while a bus is over it");
    assert!(bus.publish(echo(json!(2))).await.is_err());
}

#[tokio::test]
async fn everybody_else_gets_a_connection_of_the_pool() {
    let db = TestDb::new().await;
    let pool = Options::new(db.connect_options()).pool();
    let bus = Bus::new(pool.clone());
    join_all((0..50).map(|n| bus.publish(echo(json!(n))))).await;
    // One listens; all others but those at hand are taken, and these go back before long.
    let most = pool.options().get_max_connections() - 1;
    let all =
        join_all((0..most).map(|_| tokio::time::timeout(Duration::from_secs(20), pool.acquire())))
            .await;
    for taken in all {
        taken.expect("in time").expect("a connection");
    }
}
