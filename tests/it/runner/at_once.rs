//! What is published beside a worker is claimed in the same transaction, and told to who waits as it is committed.

use std::time::Duration;

use cogo::bus::{Bus, Feed, Update};
use cogo::message::{NewMessage, Status, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::{Delivery, Failure, Handler, Output};
use futures_util::future::join_all;
use serde_json::json;

use super::{LEASE, Running, finished};
use crate::fixtures::{SOON, echo, publish, replay_differences};

/// Says when its message was enqueued and claimed.
struct Times;

impl Handler for Times {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let message = &delivery.message;
        if let Some(report) = message.payload.get("report") {
            delivery.progress(report.clone());
        }
        Ok(json!({"enqueued": message.created_at, "claimed": message.claimed_at}).into())
    }
}

#[tokio::test]
async fn what_is_published_beside_a_worker_with_room_is_claimed_by_the_same_statement() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // On connections of its own, as the roles of one process have them.
    let beside = bus.beside(db.pool().clone());
    let running = Running::start_with(Times, &beside, json!({}), LEASE, 4).await;
    // The worker may be looking for itself, as it does at first.
    crate::fixtures::eventually("one is claimed as it is enqueued", async || {
        let id = bus.publish(echo(json!({}))).await.expect("published").id;
        let message = finished(&bus, id).await;
        assert_eq!((message.status, message.attempts), (Status::Done, 1));
        let result = message.result.expect("a result");
        (result["enqueued"] == result["claimed"]).then_some(())
    })
    .await;
    // By another process it is claimed when it is looked for.
    let other = Bus::new(db.pool().clone());
    let id = other.publish(echo(json!({}))).await.expect("published").id;
    let result = finished(&bus, id).await.result.expect("a result");
    assert_ne!(result["enqueued"], result["claimed"]);
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_of_another_topic_or_not_due_or_known_is_left_where_it_was() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 4).await;
    let elsewhere = Topic::new("echo", "elsewhere").expect("a topic");
    let elsewhere = NewMessage::new(&elsewhere, "echo", json!({}));
    let later = echo(json!({})).with_delay(Duration::from_secs(3600));
    let foreign = NewMessage { tenant: "another".to_owned(), ..echo(json!({})) };
    for message in [elsewhere, later, foreign] {
        let id = bus.publish(message).await.expect("published").id;
        let message = bus.message(id).await.expect("found");
        assert!(matches!(message.status, Status::Queued | Status::Delayed), "{message:?}");
    }
    let once = echo(json!({})).with_idempotency_key("once");
    let first = bus.publish(once.clone()).await.expect("published");
    let message = finished(&bus, first.id).await;
    let again = NewMessage { id: cogo::message::MessageId::new(), ..once };
    let again = bus.publish(again).await.expect("published");
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert_eq!(bus.message(first.id).await.expect("found"), message, "nothing was changed");
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_drains_while_others_publish_leaves_nothing_claimed() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 8).await;
    let publishing = join_all((0..16).map(|_| async {
        for _ in 0..25 {
            bus.publish(echo(json!({}))).await.expect("published");
        }
    }));
    let draining = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        running.shutdown.drain();
    };
    tokio::join!(publishing, draining);
    running.stop().await;
    let claimed: i64 =
        sqlx::query_scalar("select count(*) from agent_messages where status = 'claimed'")
            .fetch_one(db.pool())
            .await
            .expect("counted");
    assert_eq!(claimed, 0, "they would wait for the end of their leases");
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 8).await;
    crate::fixtures::eventually("all is done", async || {
        bus.stats().await.expect("stats").is_empty().then_some(())
    })
    .await;
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_already_goes_first_and_is_not_passed_over() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 100).await;
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 4).await;
    let ids = join_all(
        (0..50).map(|_| async { bus.publish(echo(json!({}))).await.expect("published").id }),
    )
    .await;
    for id in ids {
        assert_eq!(finished(&bus, id).await.status, Status::Done);
    }
    crate::fixtures::eventually("all is done", async || {
        bus.stats().await.expect("stats").is_empty().then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn who_wants_a_result_alone_has_it_as_it_is_committed_and_after_all_reports() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 4).await;
    for report in [None, Some(json!({"progress": 1}))] {
        let payload = report.clone().map_or(json!({}), |report| json!({"report": report}));
        let message = echo(payload);
        let mut watch = feed.expect(message.id).results();
        let id = bus.publish(message).await.expect("published").id;
        let mut reports = Vec::new();
        let result = loop {
            match watch.next(SOON).await.expect("an update") {
                Update::Progress(more) => reports.extend(more),
                Update::Done(result) if report.is_none() => break (*result).clone(),
                // Whether all was told is to be looked up.
                Update::Finished(message) if report.is_some() => {
                    break message.result.expect("a result");
                }
                update => panic!("{update:?}"),
            }
        };
        assert_eq!(reports, report.into_iter().collect::<Vec<_>>());
        let message = bus.message(id).await.expect("found");
        assert_eq!((message.status, message.result), (Status::Done, Some(result)));
    }
    running.stop().await;
    shutdown.drain();
    drop(feed);
    assert!(tasks.join(SOON).await, "the feed ends");
}

#[tokio::test]
async fn a_message_that_was_held_before_is_looked_at_though_nothing_was_reported_this_time() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let message = echo(json!({}));
    let mut watch = feed.expect(message.id).results();
    let id = bus.publish(message).await.expect("published").id;
    // Who held it may have reported, and has given its attempt back.
    let claim =
        bus.claim(&crate::fixtures::request("another", 1)).await.expect("claimed").remove(0);
    claim.release(Duration::ZERO, "worker_shutdown").await.expect("released");
    let running = Running::start_with(Times, &bus, json!({}), LEASE, 4).await;
    match watch.next(SOON).await.expect("an update") {
        Update::Finished(message) => assert_eq!((message.id, message.attempts), (id, 1)),
        update => panic!("{update:?}"),
    }
    running.stop().await;
    shutdown.drain();
    drop(feed);
    assert!(tasks.join(SOON).await, "the feed ends");
}
