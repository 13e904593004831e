//! What scenarios have in common: messages, and workers that handle them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::bus::Bus;
use cogo::live::Live;
use cogo::message::{NewMessage, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections of one worker: its claims and settles, its leases, its other calls, and what listens.
pub(super) const WORKER_CONNECTIONS: u32 = 4;
/// Connections of a sender, as `cogo` has them unless told otherwise.
pub(super) const SENDER_CONNECTIONS: u32 = 10;
/// How many messages a fill sends at once.
const FILL: u64 = 1000;
/// How long all workers may take to be there, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all messages ask for.
pub(super) const INTENT: &str = "bench.work";

/// Where the messages go.
pub(super) fn topic() -> Topic {
    Topic::new("bench", "work").expect("both are names")
}

/// Makes messages with a payload that is about as wide as was asked for.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    topic: Topic,
    filling: String,
}

impl Messages {
    pub(super) fn of(payload_bytes: usize) -> Self {
        // `{"n":123456,"filling":""}`
        Self { topic: topic(), filling: "x".repeat(payload_bytes.saturating_sub(26)) }
    }

    /// The one with this number.
    pub(super) fn one(&self, n: u64) -> NewMessage {
        let payload = json!({"n": n, "filling": self.filling});
        NewMessage::new(&self.topic, INTENT, payload)
    }

    pub(super) fn some(&self, first: u64, count: u64) -> Vec<NewMessage> {
        (first..first + count).map(|n| self.one(n)).collect()
    }
}

/// The number of a message.
pub(super) fn number(payload: &Value) -> Option<usize> {
    usize::try_from(payload["n"].as_u64()?).ok()
}

/// Enqueues messages with the numbers below `count`, in batches, from four senders.
pub(super) async fn fill(bus: &Bus, messages: &Messages, count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let sender = || async {
        loop {
            let first = next.fetch_add(FILL, Ordering::Relaxed);
            if first >= count {
                return anyhow::Ok(());
            }
            bus.publish_all(&messages.some(first, FILL.min(count - first))).await?;
        }
    };
    try_join_all([sender(), sender(), sender(), sender()]).await?;
    Ok(())
}

/// Runs `work` as a task that is ended when this future is dropped.
pub(super) fn spawn<T: Send + 'static>(
    tasks: &Tasks,
    work: impl Future<Output = T> + Send + 'static,
) -> Spawned<T> {
    Spawned(tasks.spawn(work))
}

/// A task that does not outlive who waits for it.
#[derive(Debug)]
pub(super) struct Spawned<T>(JoinHandle<T>);

impl<T> Spawned<T> {
    pub(super) async fn ended(mut self) -> Result<T> {
        (&mut self.0).await.context("a task broke down")
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handler that does nothing but to tell that it began.
pub(super) struct Trivial<F>(pub(super) F);

impl<F: Fn(&Value) + Send + Sync + 'static> Handler for Trivial<F> {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        (self.0)(&delivery.message.payload);
        Ok(json!({"ok": true}).into())
    }
}

/// Workers of this process.
#[derive(Debug)]
pub(super) struct Fleet {
    shutdown: Shutdown,
    running: Vec<Spawned<Result<(), cogo::bus::Error>>>,
    ready: Vec<watch::Receiver<bool>>,
}

impl Fleet {
    /// Starts a worker on each bus. Each calls `began` with the payload of what it begins to handle.
    pub(super) fn start<F>(buses: &[Bus], concurrency: usize, tasks: &Tasks, began: F) -> Self
    where
        F: Fn(&Value) + Clone + Send + Sync + 'static,
    {
        let shutdown = Shutdown::new();
        let mut fleet = Self { shutdown, running: Vec::new(), ready: Vec::new() };
        for (at, bus) in buses.iter().enumerate() {
            let options = Options {
                worker_id: format!("bench-{at}"),
                tenant: cogo::message::DEFAULT_TENANT.to_owned(),
                topics: vec![topic()],
                concurrency,
                prefetch: cogo::worker::Prefetch::Auto,
                lease: Duration::from_secs(30),
            };
            let (tell, ready) = watch::channel(false);
            let runner = Runner::new(Trivial(began.clone()), options, bus.clone(), Live::default());
            let shutdown = fleet.shutdown.clone();
            let running = async move { runner.run(&shutdown, &tell).await };
            fleet.running.push(spawn(tasks, running));
            fleet.ready.push(ready);
        }
        fleet
    }

    /// Waits until each has been answered by the bus.
    pub(super) async fn ready(&mut self) -> Result<()> {
        for ready in &mut self.ready {
            let waiting = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready));
            ensure!(
                waiting.await.is_ok_and(|ready| ready.is_ok()),
                "a worker did not become ready"
            );
        }
        Ok(())
    }

    /// Has them end in order.
    pub(super) async fn stop(self) -> Result<()> {
        self.shutdown.drain();
        for running in self.running {
            let ended = tokio::time::timeout(PATIENCE, running.ended()).await;
            ended.context("a worker did not end")???;
        }
        Ok(())
    }
}

/// Waits until nothing waits and nothing is held. `at_most` without any progress is a failure.
pub(super) async fn until_drained(
    owner: &PgPool,
    handled: &AtomicU64,
    count: u64,
    at_most: Duration,
) -> Result<()> {
    let mut last = (0, cogo::clock::Stopwatch::start());
    loop {
        let begun = handled.load(Ordering::Relaxed);
        if begun > last.0 {
            last = (begun, cogo::clock::Stopwatch::start());
        }
        // Only once all have begun: looking costs, too.
        if begun >= count && nothing_left(owner).await? {
            return Ok(());
        }
        ensure!(
            last.1.elapsed() < at_most,
            "nothing has happened for {} s: {begun} of {count} messages were begun",
            at_most.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn nothing_left(owner: &PgPool) -> Result<bool> {
    // Two looks, each at the beginning of an index.
    let left: bool = sqlx::query_scalar(
        "select exists (select from public.agent_messages where status = 'claimed')
            or exists (select from public.agent_messages where status = 'queued')",
    )
    .fetch_one(owner)
    .await?;
    Ok(!left)
}

/// Fails unless each of `count` messages was finished exactly once, by the log, and none is left in the table.
pub(super) async fn all_done_once(owner: &PgPool, count: u64) -> Result<()> {
    let (ends, messages, others): (i64, i64, i64) = sqlx::query_as(
        "select count(*) filter (where event_type = 'bench_work_succeeded'),
            count(distinct message_id) filter (where event_type = 'bench_work_succeeded'),
            count(*) filter (where event_type ~ '^bench_work_' and event_type not in
                ('bench_work_succeeded', 'bench_work_scheduled'))
        from public.bus_events",
    )
    .fetch_one(owner)
    .await?;
    let undone: i64 =
        sqlx::query_scalar("select count(*) from public.agent_messages where status <> 'done'")
            .fetch_one(owner)
            .await?;
    let count = i64::try_from(count)?;
    ensure!(
        ends == count && messages == count && others == 0 && undone == 0,
        "of {count} messages the log has {ends} ends of {messages} messages, and {others} events of other kinds; {undone} are \
         not done. These figures count for nothing"
    );
    Ok(())
}

/// Tells a `Trivial` handler what to count.
pub(super) fn counter() -> (Arc<AtomicU64>, impl Fn(&Value) + Clone + Send + Sync + 'static) {
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    (handled, move |_: &Value| {
        count.fetch_add(1, Ordering::Relaxed);
    })
}
