//! How many statements clients send: through the bus of one process, its groups, and a whole worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cogo::bus::{Bus, Settle};
use cogo::clock::Stopwatch;
use cogo::message::NewMessage;
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output, Prefetch};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::sync::watch;

use super::budget::{Measure, hold};
use super::calls::payload;
use super::server::{Counted, Watched};
use crate::fixtures::{SOON, eventually, request, topic};

const ROUND_TRIPS: &str =
    "a round trip and a commit cost 6 to 20 times what they do for one message of a batch";
const GROUPS: &str =
    "concurrent publishers and settlers share commits; alone, each would wait for its own";
const TURNS: &str = "a worker settles what is done and claims the next in one round trip";
const WAKE_UPS: &str = "at a low rate each message pays for its own wake-up and look; a busy idle worker costs everybody";

/// What makes claims.
const CLAIMING: [&str; 3] = ["bus_step", "bus_claim", "bus_enqueue_and_claim"];
/// Producers at once.
const PRODUCERS: usize = 32;
/// Messages of each of them.
const EACH: usize = 40;
/// Messages that a worker drains.
const DRAINED: usize = 2000;
/// Messages that each wake a worker.
const WOKEN: usize = 10;

fn message() -> NewMessage {
    NewMessage::new(&topic(), "echo", payload())
}

/// A pool of a process of its own.
fn pool(server: &Watched) -> PgPool {
    PgPoolOptions::new().max_connections(10).connect_lazy_with(server.db.connect_options())
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("few"))
}

fn each(calls: i64, messages: usize) -> f64 {
    f64::from(u32::try_from(calls).expect("few")) / count(messages)
}

/// Waits until nothing has been sent for a while: what a call makes others do is part of its cost.
async fn quiet(server: &Watched) -> Counted {
    let (mut last, mut same) = (server.counted().await, 0);
    while same < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = server.counted().await;
        same = if now.calls() == last.calls() { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[tokio::test]
async fn a_batch_is_one_statement() {
    let group = "client.batch";
    let Some(server) = Watched::counting(group).await else { return };
    let bus = Bus::new(pool(&server));
    let mut found = Vec::new();
    for n in [1, 10, 100, 1000] {
        quiet(&server).await;
        let messages: Vec<_> = (0..n).map(|_| message()).collect();
        let mut tell = |op: &str, calls: i64| {
            let what = format!("statements that the bus sends to {op} {n}");
            let calls = each(calls, 1);
            found.push(Measure::new(format!("{group}.{op}_{n}"), what, calls, ROUND_TRIPS));
        };
        server.reset().await;
        bus.publish_all(&messages).await.expect("published");
        tell("enqueue", sent(&server, &["bus_enqueue_many"]).await);
        server.reset().await;
        let claims = bus.claim(&request("w", n)).await.expect("claimed");
        assert_eq!(claims.len(), n);
        tell("claim", sent(&server, &CLAIMING).await);
        let settles: Vec<_> = claims
            .into_iter()
            .map(|claim| Settle::complete(&claim.into_message(), json!(1), json!({})))
            .collect();
        server.reset().await;
        bus.step(&settles, &request("w", 1)).await.expect("settled");
        tell("step", sent(&server, &CLAIMING).await);
    }
    hold(&server, group, &found);
}

/// How many statements called one of these, and that no other did more than tell of it.
async fn sent(server: &Watched, functions: &[&str]) -> i64 {
    let counted = server.counted().await;
    let beside = ["pg_notify", "LISTEN"];
    let known = |name: &String| {
        functions.contains(&name.as_str()) || beside.iter().any(|it| name.starts_with(it))
    };
    assert!(counted.sent.keys().all(known), "{counted:?}");
    counted.calls_of(functions)
}

/// Statements a message, with so many producers at once; `alone` as if there were no groups.
pub(super) async fn producers(server: &Watched, alone: bool) -> Vec<Measure> {
    let bus = Bus::new(pool(server));
    bus.publish(message()).await.expect("published");
    quiet(server).await;
    let publish = async || match alone {
        true => drop(bus.publish_all(&[message()]).await.expect("published")),
        false => drop(bus.publish(message()).await.expect("published")),
    };
    server.reset().await;
    join_all((0..PRODUCERS).map(|_| async {
        for _ in 0..EACH {
            publish().await;
        }
    }))
    .await;
    let calls = sent(server, &["bus_enqueue_many"]).await;
    let steady = each(calls, PRODUCERS * EACH);
    // While the table is locked all the others come to wait; how they are grouped then is no matter of time.
    let mut lock = server.uncounted().await;
    lock.execute("begin; lock table agent_messages in access exclusive mode")
        .await
        .expect("locked");
    server.reset().await;
    let burst = PRODUCERS * 10;
    let published = join_all((0..burst).map(|_| publish()));
    let unlocked = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lock.execute("rollback").await.expect("unlocked");
    };
    tokio::join!(published, unlocked);
    let calls = sent(server, &["bus_enqueue_many"]).await;
    let what = format!("statements per message that {PRODUCERS} producers publish one at a time");
    // Who comes while which group forms is a matter of time; without groups it is 1.
    let steady = Measure::new("client.producers.steady", what, steady, GROUPS).slack(3.0);
    let what = format!("statements per message of {burst} that come while the first is under way");
    let burst = each(calls, burst);
    vec![steady, Measure::new("client.producers.burst", what, burst, GROUPS).slack(2.0)]
}

#[tokio::test]
async fn concurrent_producers_share_statements() {
    let Some(server) = Watched::counting("client.producers").await else { return };
    hold(&server, "client.producers", &producers(&server, false).await);
}

/// A handler that does nothing, and counts.
struct Trivial {
    handled: Arc<AtomicUsize>,
}

impl Handler for Trivial {
    async fn handle(&self, _: Delivery) -> Result<Output, Failure> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(json!(1).into())
    }
}

/// A worker at work, in what might be a process of its own.
struct Working {
    pool: PgPool,
    handled: Arc<AtomicUsize>,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Working {
    async fn start(server: &Watched, concurrency: usize, prefetch: Prefetch) -> Self {
        let pool = pool(server);
        let handled = Arc::new(AtomicUsize::new(0));
        let options = Options {
            worker_id: "w".to_owned(),
            tenant: "default".to_owned(),
            topics: vec![topic()],
            concurrency,
            prefetch,
            lease: Duration::from_secs(60),
        };
        let handler = Trivial { handled: Arc::clone(&handled) };
        let bus = Bus::new(pool.clone());
        let runner = Runner::new(handler, options, bus, Policies::default());
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (ready, mut is_ready) = watch::channel(false);
        let stop = shutdown.clone();
        tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
        let is_ready = tokio::time::timeout(SOON, is_ready.wait_for(|ready| *ready));
        is_ready.await.expect("ready in time").expect("running");
        Self { pool, handled, shutdown, tasks }
    }

    async fn has_handled(&self, n: usize) {
        let handled = async || (self.handled.load(Ordering::SeqCst) >= n).then_some(());
        eventually("all are handled", handled).await;
    }

    /// Ends it, with all its sessions.
    async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(SOON).await, "the worker stops");
        self.pool.close().await;
    }
}

/// A session in another database, which changes no number of this one.
async fn outside(server: &Watched) -> PgConnection {
    let options = server.db.connect_options().database("postgres");
    options.connect().await.expect("a session")
}

/// How many sessions there are beside the observer's.
async fn others(server: &Watched) -> i64 {
    sqlx::query_scalar(
        "select count(*) - 1 from pg_stat_activity
            where datname = $1 and backend_type = 'client backend'",
    )
    .bind(server.db.name())
    .fetch_one(&mut outside(server).await)
    .await
    .expect("listed")
}

/// Transactions that were committed in the server's database, as seen from outside of it.
async fn commits(server: &Watched) -> i64 {
    sqlx::query_scalar("select xact_commit from pg_stat_database where datname = $1")
        .bind(server.db.name())
        .fetch_one(&mut outside(server).await)
        .await
        .expect("counted")
}

async fn drain(server: &Watched, concurrency: usize) -> Vec<Measure> {
    let group = format!("client.drain_{concurrency}");
    let filling = Bus::new(pool(server));
    let before = filling.claim(&request("w", 1)).await.expect("answers").len();
    assert_eq!(before, 0);
    for _ in 0..DRAINED / 1000 {
        let batch: Vec<_> = (0..1000).map(|_| message()).collect();
        filling.publish_all(&batch).await.expect("published");
    }
    quiet(server).await;
    filling.pool().expect("a pool").close().await;
    server.flush().await;
    server.reset().await;
    let before = commits(server).await;
    // By itself a worker takes as many as it handles in a tenth of a second, and so fewer on a machine that is slow.
    let worker = Working::start(server, concurrency, Prefetch::AtMost(1000)).await;
    worker.has_handled(DRAINED).await;
    worker.stop().await;
    // What sessions did is counted at the latest when they end, and those that look are in another database.
    let gone = async || (others(server).await == 0).then_some(());
    eventually("all sessions end", gone).await;
    let committed = commits(server).await - before;
    let counted = server.counted().await;
    let turns = counted.calls_of(&CLAIMING);
    let done: i64 =
        server.scalar("select count(*) from agent_messages where status = 'done'").await;
    assert_eq!(done, i64::try_from(DRAINED).expect("few"));
    let of = format!("per message of {DRAINED} that a worker with {concurrency} places drains");
    let beside = counted.calls() - turns;
    // How many turns it takes is a matter of pace: three times as many were seen on a machine that was at work on six other
    // things. With 16 places, a turn for each 16 messages is three times what is allowed.
    vec![
        Measure::new(
            format!("{group}.turns"),
            format!("claiming and settling statements {of}"),
            each(turns, DRAINED),
            TURNS,
        )
        .slack(4.0),
        Measure::new(
            format!("{group}.statements"),
            format!("statements of all kinds {of}"),
            each(counted.calls(), DRAINED),
            TURNS,
        )
        .slack(4.0),
        Measure::new(
            format!("{group}.commits"),
            format!("commits {of}"),
            each(committed, DRAINED),
            TURNS,
        )
        .slack(4.0),
        // It shows itself, reaps, listens and tells, each by the clock.
        Measure::new(
            format!("{group}.beside"),
            format!("statements beside the turns, to start, drain {DRAINED} and end"),
            each(beside, 1),
            TURNS,
        )
        .slack(4.0),
    ]
}

#[tokio::test]
async fn a_worker_drains_in_few_statements() {
    let Some(server) = Watched::counting("client.drain_16").await else { return };
    hold(&server, "client.drain_16", &drain(&server, 16).await);
}

#[tokio::test]
async fn a_wide_worker_drains_in_fewer_statements() {
    let Some(server) = Watched::counting("client.drain_64").await else { return };
    hold(&server, "client.drain_64", &drain(&server, 64).await);
}

/// How often a worker looks by the clock in so much time: each second for messages, and as often for what is due. A machine that
/// is slow is not to make a wake-up dearer by that.
fn looks_in(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).expect("not long")
}

#[tokio::test]
async fn a_wake_up_costs_few_statements() {
    let group = "client.wake";
    let Some(server) = Watched::counting(group).await else { return };
    let worker = Working::start(&server, 4, Prefetch::Auto).await;
    let producer = Bus::new(pool(&server));
    producer.publish(message()).await.expect("published");
    worker.has_handled(1).await;
    let (mut total, mut looks) = (Counted::default(), 0);
    for n in 0..WOKEN {
        quiet(&server).await;
        server.reset().await;
        let began = Stopwatch::start();
        producer.publish(message()).await.expect("published");
        worker.has_handled(n + 2).await;
        total = total.plus(&quiet(&server).await);
        looks += looks_in(began.elapsed());
    }
    let done: Value = json!(total.calls_of(&["bus_enqueue_many"]));
    assert_eq!(done, json!(WOKEN));
    let (claims, told) = (total.calls_of(&CLAIMING) - looks, total.calls_of(&["pg_notify"]));
    let all = total.calls() - 2 * looks;
    let (mut empty, mut looks) = (Counted::default(), 0);
    for _ in 0..WOKEN {
        quiet(&server).await;
        server.reset().await;
        let began = Stopwatch::start();
        producer.wake_others().await;
        empty = empty.plus(&quiet(&server).await);
        looks += looks_in(began.elapsed());
    }
    worker.stop().await;
    let for_nothing = empty.calls() - empty.calls_of(&["pg_notify"]) - 2 * looks;
    let lone = "per message that comes alone to an idle worker of another process";
    hold(
        &server,
        group,
        &[
            Measure::new(
                "client.wake.claims",
                format!("claiming and settling statements {lone}"),
                each(claims, WOKEN),
                WAKE_UPS,
            )
            .slack(1.3),
            Measure::new(
                "client.wake.told",
                format!("notifications {lone}"),
                each(told, WOKEN),
                WAKE_UPS,
            )
            .slack(1.3),
            Measure::new(
                "client.wake.statements",
                format!("statements of all kinds {lone}"),
                each(all, WOKEN),
                WAKE_UPS,
            )
            .slack(1.3),
            Measure::new(
                "client.wake.for_nothing",
                "statements of an idle worker, per wake-up of all kinds for nothing",
                each(for_nothing, WOKEN),
                WAKE_UPS,
            )
            .slack(2.0),
        ],
    );
}
