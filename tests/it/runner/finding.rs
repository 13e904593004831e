//! How work is found: by those that are told of it, and by those that are not.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::message::{NewMessage, Status};
use cogo::testing::TestDb;
use serde_json::json;

use super::{LEASE, Running, finished, until};
use crate::fixtures::{SOON, echo, eventually, publish};

#[tokio::test]
async fn polling_alone_finds_work_that_nobody_told_of() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 1).await;
    let message = echo(json!({}));
    // Straight to the function: no client, so no wake-up.
    sqlx::query("select * from bus_enqueue($1)")
        .bind(json!([message]))
        .fetch_all(db.pool())
        .await
        .expect("written");
    assert_eq!(finished(&bus, message.id).await.status, Status::Done);
    running.stop().await;
}

#[tokio::test]
async fn a_publish_of_another_process_wakes_the_worker() {
    let db = TestDb::new().await;
    let (here, there) = (Bus::new(db.pool().clone()), Bus::new(db.pool().clone()));
    let mut woken = here.waker(cogo::bus::Signal::Work);
    // The first wake-up is LISTEN itself, once it is in place.
    tokio::time::timeout(SOON, woken.woken()).await.expect("listening in time");
    there.publish(echo(json!({}))).await.expect("published");
    tokio::time::timeout(SOON, woken.woken()).await.expect("woken in time");
}

/// For so many [`SOON`] would not be enough, were a place filled by the look of every second alone.
const TOO_MANY_FOR_LOOKS: usize = 50;

#[tokio::test]
async fn places_that_become_free_are_filled_though_nobody_tells_of_what_waits() {
    let db = TestDb::new().await;
    let (bus, other) = (Bus::new(db.pool().clone()), Bus::new(db.pool().clone()));
    let (places, many) = (2, 2 * TOO_MANY_FOR_LOOKS);
    publish(&other, many).await;
    let running = Running::start(&bus, json!({}), LEASE, places).await;
    eventually("all are done", async || {
        let query = "select count(*) from agent_messages where status = 'done'";
        let done: i64 = sqlx::query_scalar(query).fetch_one(db.pool()).await.expect("counted");
        (usize::try_from(done) == Ok(many)).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_told_of_is_found_though_handlers_keep_ending() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), Duration::from_secs(30), 31).await;
    let waiting: Vec<_> = (0..30).map(|_| echo(json!({"do": "pass"}))).collect();
    bus.publish_all(&waiting).await.expect("published");
    for message in &waiting {
        until(&bus, message.id, |message| message.status == Status::Claimed).await;
    }
    let message = echo(json!({}));
    sqlx::query("select * from bus_enqueue($1)")
        .bind(json!([message]))
        .fetch_all(db.pool())
        .await
        .expect("written");
    let mut ended = 0;
    while bus.message(message.id).await.expect("found").status != Status::Done {
        // Else it is found after the last of them alone.
        assert!(ended < 30, "it waits for handlers that are none of its business");
        running.script.gate.add_permits(1);
        ended += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    running.script.gate.add_permits(30);
    running.stop().await;
}

#[tokio::test]
async fn the_next_message_of_a_key_is_claimed_as_soon_as_the_one_before_it_is_settled() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    let messages: Vec<_> = (0..TOO_MANY_FOR_LOOKS)
        .map(|n| NewMessage { ordering_key: Some("k".to_owned()), ..echo(json!({"n": n})) })
        .collect();
    bus.publish_all(&messages).await.expect("published");
    finished(&bus, messages[TOO_MANY_FOR_LOOKS - 1].id).await;
    running.stop().await;
}
