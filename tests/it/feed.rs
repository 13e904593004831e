//! Those who wait are told: soon, each of its own, and whichever way of telling is lost.

use std::time::Duration;

use cogo::bus::{Bus, Error, Feed, Update};
use cogo::clock::Stopwatch;
use cogo::message::{Message, MessageId, Status};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixtures::{SOON, echo, request};

/// So many calls, one after the other.
const CALLS: i32 = 20;
/// How long twice as many may take in all: were each told by the feed's look of every second alone, they would take twice as
/// long. Not for what the log tells: other tests' transactions hold it up.
const IN_ALL: Duration = Duration::from_secs(20);

struct Feeding {
    feed: Feed,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Feeding {
    fn start(bus: &Bus) -> Self {
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        Self { feed: Feed::start(bus.clone(), &tasks, &shutdown), shutdown, tasks }
    }

    async fn stop(self) {
        self.shutdown.drain();
        drop(self.feed);
        assert!(self.tasks.join(SOON).await, "the feed ends");
    }
}

/// Claims the one message that waits and gives its own payload as its result.
async fn work(bus: &Bus) {
    let claim = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one waits");
    let result = claim.message().payload.clone();
    claim.complete(result).await.expect("settled");
}

#[track_caller]
fn assert_done(message: &Message, result: &Value) {
    assert_eq!((message.status, message.result.as_ref()), (Status::Done, Some(result)));
}

#[tokio::test]
async fn what_this_process_settles_is_told_though_the_log_cannot_be_read_on() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    // Whatever commits from now on is beyond the horizon.
    let mut held = db.pool().begin().await.expect("begun");
    sqlx::query("select pg_current_xact_id()").execute(&mut *held).await.expect("an id");
    let watch = Stopwatch::start();
    for n in 0..2 * CALLS {
        let id = bus.publish(echo(json!(n))).await.expect("published").id;
        let (message, ()) = tokio::join!(feeding.feed.wait(id, SOON), work(&bus));
        assert_done(&message.expect("found"), &json!(n));
    }
    assert!(watch.elapsed() < IN_ALL, "told by looking alone: {:?}", watch.elapsed());
    held.rollback().await.expect("rolled back");
    feeding.stop().await;
}

#[tokio::test]
async fn what_another_process_settles_is_told_by_the_log() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // With wake-ups of its own, as in a process of its own.
    let other = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    for n in 0..CALLS {
        let id = bus.publish(echo(json!(n))).await.expect("published").id;
        let (message, ()) = tokio::join!(feeding.feed.wait(id, SOON), work(&other));
        assert_done(&message.expect("found"), &json!(n));
    }
    feeding.stop().await;
}

#[tokio::test]
async fn who_expects_a_message_hears_of_an_end_that_came_before_it_listened() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let other = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    for n in 0..CALLS {
        let message = echo(json!(n));
        let mut expected = feeding.feed.expect(message.id);
        bus.publish(message).await.expect("published");
        // Before anybody asks; and half of them where only the log tells.
        work(if n % 2 == 0 { &bus } else { &other }).await;
        match expected.next(SOON).await.expect("an update") {
            Update::Finished(message) => assert_done(&message, &json!(n)),
            update => panic!("{update:?}"),
        }
    }
    feeding.stop().await;
}

#[tokio::test]
async fn who_expects_a_message_is_told_of_all_its_progress_before_its_end() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    let message = echo(json!(1));
    let mut expected = feeding.feed.expect(message.id);
    let id = bus.publish(message).await.expect("published").id;
    for done in 1..=3 {
        let event = json!({"event_type": "echo_progress", "message_id": id,
            "payload": {"reports": [{"progress": done}]}});
        bus.append_event(event).await.expect("appended");
    }
    work(&bus).await;
    let mut told = Vec::new();
    loop {
        match expected.next(SOON).await.expect("an update") {
            Update::Progress(reports) => told.extend(reports),
            Update::Finished(message) => break assert_done(&message, &json!(1)),
            update => panic!("{update:?}"),
        }
    }
    assert_eq!(told, [1, 2, 3].map(|done| json!({"progress": done})));
    feeding.stop().await;
}

#[tokio::test]
async fn of_many_who_wait_each_is_told_of_its_own_message() {
    const MESSAGES: usize = 150;
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    let messages: Vec<_> = (0..MESSAGES).map(|n| echo(json!(n))).collect();
    let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
    bus.publish_all(&messages).await.expect("published");
    // Two for each.
    let waiting = ids.iter().chain(&ids).map(|id| feeding.feed.wait(*id, SOON));
    let working = async {
        let claims = bus.claim(&request("w", MESSAGES)).await.expect("claimed");
        join_all(claims.into_iter().map(|claim| {
            let result = claim.message().payload.clone();
            async move { claim.complete(result).await.expect("settled") }
        }))
        .await
    };
    let (told, settled) = tokio::join!(join_all(waiting), working);
    assert_eq!(settled.len(), MESSAGES);
    for (n, message) in told.into_iter().enumerate() {
        assert_done(&message.expect("found"), &json!(n % MESSAGES));
    }
    feeding.stop().await;
}

#[tokio::test]
async fn who_waits_for_nothing_is_told_so() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let feeding = Feeding::start(&bus);
    let id = MessageId::new();
    let refused = feeding.feed.wait(id, SOON).await.expect_err("there is none");
    assert!(matches!(refused, Error::NoMessage(of) if of == id), "{refused}");
    feeding.stop().await;
}
