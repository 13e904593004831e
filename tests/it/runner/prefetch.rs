//! What waits within a worker: how much, that nothing of it is lost or begun too late, and who gets it else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::bus::Bus;
use cogo::message::{MessageId, NewMessage, Status};
use cogo::retry::Policies;
use cogo::testing::TestDb;
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output, Prefetch};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::{LEASE, Running, until};
use crate::fixtures::{echo, eventually, replay_differences, topic};

/// Notes what it is given; what is told to wait takes a permit first.
#[derive(Clone)]
struct Gated {
    gate: Arc<Semaphore>,
    begun: Arc<Mutex<Vec<MessageId>>>,
}

impl Gated {
    fn new(permits: usize) -> Self {
        Self { gate: Arc::new(Semaphore::new(permits)), begun: Arc::default() }
    }

    fn begun(&self) -> Vec<MessageId> {
        self.begun.lock().expect("whole").clone()
    }
}

impl Handler for Gated {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.begun.lock().expect("whole").push(delivery.message.id);
        if delivery.message.payload.get("wait").is_some() {
            self.gate.acquire().await.expect("open").forget();
        }
        Ok(json!({}).into())
    }
}

fn options(worker: &str, concurrency: usize, prefetch: Prefetch) -> Options {
    Options {
        worker_id: worker.to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic()],
        concurrency,
        prefetch,
        lease: LEASE,
    }
}

async fn start(bus: &Bus, handler: &Gated, options: Options) -> Running {
    Running::start_as(handler.clone(), options, bus, Policies::default()).await
}

/// Publishes them in one batch, which no worker of this process takes.
async fn send(bus: &Bus, quick: usize, waiting: usize) -> Vec<MessageId> {
    let quick = (0..quick).map(|_| echo(json!({})));
    let batch: Vec<NewMessage> =
        quick.chain((0..waiting).map(|_| echo(json!({"wait": true})))).collect();
    let sent = bus.publish_all(&batch).await.expect("published");
    sent.into_iter().map(|receipt| receipt.id).collect()
}

async fn count(db: &TestDb, condition: &'static str) -> i64 {
    let sql = format!("select count(*) from agent_messages where {condition}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db.pool()).await.expect("counted")
}

#[tokio::test]
async fn a_worker_claims_as_many_as_it_may_have_waiting_and_no_more() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let sent = send(&bus, 0, 20).await;
    let handler = Gated::new(0);
    let running = start(&bus, &handler, options("w1", 2, Prefetch::AtMost(4))).await;
    for done in 0..20 {
        let held = (20 - done).min(6);
        eventually("places and queue are full, or all is claimed", async || {
            let claimed = count(&db, "status = 'claimed'").await;
            // Half of the queue is enough to go on with.
            assert!(claimed <= held, "{claimed} of {held} after {done}");
            (claimed >= (held - 2).max(1)).then_some(())
        })
        .await;
        handler.gate.add_permits(1);
        eventually("one is done", async || {
            (count(&db, "status = 'done'").await > done).then_some(())
        })
        .await;
    }
    running.stop().await;
    assert_eq!(handler.begun(), sent, "each once, in its order");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_whose_handlers_take_long_hoards_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    send(&bus, 0, 40).await;
    let (slow, fast) = (Gated::new(0), Gated::new(1000));
    let one = start(&bus, &slow, options("slow", 2, Prefetch::Auto)).await;
    eventually("its places are taken", async || (slow.begun().len() == 2).then_some(())).await;
    let other = start(&bus, &fast, options("fast", 2, Prefetch::Auto)).await;
    eventually("the other does the rest", async || {
        assert!(count(&db, "claimed_by = 'slow' and status = 'claimed'").await <= 2);
        (count(&db, "status = 'done'").await == 38).then_some(())
    })
    .await;
    slow.gate.add_permits(2);
    one.stop().await;
    other.stop().await;
    assert_eq!((slow.begun().len(), fast.begun().len()), (2, 38));
}

#[tokio::test]
async fn what_waits_in_a_worker_that_gets_stuck_goes_to_another_with_its_attempt() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // It is fast at first, and so has much waiting when it gets to those that take long.
    let sent = send(&bus, 600, 60).await;
    let (stuck, fast) = (Gated::new(0), Gated::new(1000));
    let one = start(&bus, &stuck, options("stuck", 4, Prefetch::Auto)).await;
    // Not after so many: what waited for long while the machine did something else comes again behind these.
    let in_its_places = || stuck.begun().iter().filter(|id| sent[600..].contains(id)).count();
    eventually("all places are stuck", async || (in_its_places() == 4).then_some(())).await;
    let other = start(&bus, &fast, options("fast", 4, Prefetch::Auto)).await;
    eventually("the other does the rest", async || {
        (count(&db, "status = 'done'").await == 656).then_some(())
    })
    .await;
    assert_eq!(count(&db, "status = 'done' and attempts <> 1").await, 0);
    stuck.gate.add_permits(4);
    one.stop().await;
    other.stop().await;
    assert_eq!(in_its_places(), 4, "and it began no other");
    assert_eq!(stuck.begun().len() + fast.begun().len(), 660, "each was begun once");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_lost_while_it_waits_is_not_begun() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let sent = send(&bus, 0, 4).await;
    let handler = Gated::new(0);
    let running = start(&bus, &handler, options("w1", 1, Prefetch::AtMost(9))).await;
    let last = until(&bus, sent[3], |message| message.status == Status::Claimed).await;
    let mut lease = last.lease_until;
    // A cancel has the worker ask for all that it holds. When it asks for the second, the answer to the first is
    // understood.
    for id in &sent[1..3] {
        bus.cancel(&[*id], None).await.expect("cancelled");
        lease = until(&bus, sent[3], |message| message.lease_until > lease).await.lease_until;
    }
    handler.gate.add_permits(4);
    until(&bus, sent[3], |message| message.status == Status::Done).await;
    assert!(!handler.begun().contains(&sent[1]), "its claim was gone");
    assert_eq!(bus.message(sent[1]).await.expect("found").status, Status::Cancelled);
    running.stop().await;
}

#[tokio::test]
async fn a_drain_gives_back_what_waits_at_once_and_with_its_attempt() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let sent = send(&bus, 0, 30).await;
    let handler = Gated::new(0);
    let running = start(&bus, &handler, options("w1", 1, Prefetch::AtMost(100))).await;
    until(&bus, sent[29], |message| message.status == Status::Claimed).await;
    eventually("the first is begun", async || (!handler.begun().is_empty()).then_some(())).await;
    running.shutdown.drain();
    // While the handler still runs.
    eventually("the others are free again", async || {
        (count(&db, "status = 'queued' and attempts = 0").await == 29).then_some(())
    })
    .await;
    let at_once: i64 = sqlx::query_scalar(
        "select count(distinct xid) from bus_events where event_type = 'echo_released'",
    )
    .fetch_one(db.pool())
    .await
    .expect("counted");
    // What it was being given when the drain began comes after the rest.
    assert!(at_once <= 2, "in {at_once} batches");
    handler.gate.add_permits(1);
    running.stop().await;
    assert_eq!(handler.begun(), &sent[..1]);
    assert_eq!(bus.message(sent[0]).await.expect("found").status, Status::Done);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_process_that_dies_with_a_full_queue_loses_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let sent = send(&bus, 0, 40).await;
    let url = db.url().to_owned();
    // A runtime of its own, with its own connections, which ends without a word.
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let dying = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(async move {
            let connect = url.parse().expect("a URL");
            let bus = Bus::new(cogo::db::Options::new(connect).pool());
            let lease = Duration::from_secs(5);
            let options = Options { lease, ..options("dying", 2, Prefetch::AtMost(100)) };
            let runner = Runner::new(Gated::new(0), options, bus, Policies::default());
            let shutdown = cogo::shutdown::Shutdown::new();
            runner.run(&shutdown, &watch::channel(false).0).await.expect("runs");
        });
        told.recv().expect("told");
        runtime.shutdown_background();
    });
    eventually("all is in its hands", async || {
        (count(&db, "status = 'claimed' and claimed_by = 'dying'").await == 40).then_some(())
    })
    .await;
    tell.send(()).expect("it listens");
    dying.join().expect("it ends");
    let handler = Gated::new(1000);
    let running = start(&bus, &handler, options("w2", 4, Prefetch::Auto)).await;
    for id in sent {
        until(&bus, id, |message| message.status == Status::Done && message.attempts >= 2).await;
    }
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}
