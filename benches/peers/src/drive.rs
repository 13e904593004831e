//! One piece of work, in a process of its own. The drivers in `drivers/` have the same arguments and print the same line.

mod apalis;
mod cogo;
mod floor;
mod graphile;
mod pgmq;

pub(crate) use pgmq::SQL_FILE as PGMQ_SQL;

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::cogo::clock::Stopwatch;
use ::cogo::shutdown::Tasks;
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::JoinHandle;

use crate::measure::{monotonic_ns, ms_since};

/// What a driver is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Makes the tables and the queue, untimed.
    Setup,
    /// Enqueues `messages` in batches of `batch`, one batch after the other, after one batch that is not timed.
    Enqueue,
    /// Enqueues `messages` one at a time, by `connections` producers at once, after one message of each that is not timed.
    Single,
    /// Handles the `messages` that wait, in the participant's own worker, until the database has seen the last ack.
    Drain,
    /// The same without a worker: `connections` loops that claim `batch` and settle them.
    Claims,
    /// A worker that handles `messages` as they come, and says how long each took from its `at`.
    Listen,
    /// Sends `messages` to it, `rate` in a second.
    Send,
}

/// The arguments of a driver.
#[derive(Args, Clone, Debug)]
pub(crate) struct Job {
    /// The participant's database.
    #[arg(long)]
    pub(crate) url: String,
    /// What to do.
    #[arg(long)]
    pub(crate) work: Work,
    /// How many messages.
    #[arg(long, default_value_t = 0)]
    pub(crate) messages: u64,
    /// How many in one call.
    #[arg(long, default_value_t = 1000)]
    pub(crate) batch: u64,
    /// How many producers, or loops, at once.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: u64,
    /// How many messages a second.
    #[arg(long, default_value_t = 10)]
    pub(crate) rate: u64,
    /// Which of several ways, where a participant has several.
    #[arg(long)]
    pub(crate) variant: Option<String>,
}

/// What came of it: the line that a driver prints.
#[derive(Serialize, Debug)]
pub(crate) struct Done {
    work: String,
    /// How many messages were timed.
    count: u64,
    /// How many there should be in the database, those that were not timed included.
    written: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latencies_ms: Vec<f64>,
}

impl Done {
    fn nothing() -> Self {
        Self::timed(0, Duration::ZERO)
    }

    fn timed(count: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self { work: String::new(), count, written: count, seconds, latencies_ms: Vec::new() }
    }

    fn with_latencies(self, latencies_ms: Vec<f64>) -> Self {
        Self { latencies_ms, ..self }
    }
}

/// Does `job` for the participant of that name, and prints what came of it.
pub(crate) async fn run(participant: &str, job: &Job) -> Result<()> {
    let done = match participant {
        "cogo" => cogo::drive(job).await,
        "graphile-rs" => graphile::drive(job).await,
        "apalis" => apalis::drive(job).await,
        "pgmq" => pgmq::drive(job).await,
        "floor" => floor::drive(job).await,
        other => bail!("no participant \"{other}\" is driven from Rust"),
    };
    let done = done.with_context(|| format!("{participant} could not {:?}", job.work))?;
    let work = job.work.to_possible_value().expect("no work is hidden").get_name().to_owned();
    println!("{}", serde_json::to_string(&Done { work, ..done })?);
    Ok(())
}

impl Job {
    /// A pool of exactly so many connections, all made: to connect is not what is measured.
    async fn pool(&self, connections: u64) -> Result<PgPool> {
        let most = u32::try_from(connections)?;
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .min_connections(most)
            // A round trip before each use would be measured with it.
            .test_before_acquire(false)
            .connect_with(PgConnectOptions::from_str(&self.url)?)
            .await?;
        let mut held = Vec::new();
        for _ in 0..most {
            held.push(pool.acquire().await?);
        }
        drop(held);
        Ok(pool)
    }

    /// The variant, which must be given.
    fn variant(&self) -> Result<&str> {
        self.variant.as_deref().context("--variant is missing")
    }

    /// Times batches: `send` is given the numbers of a batch. One batch goes before the clock starts.
    async fn batches(
        &self,
        mut send: impl AsyncFnMut(std::ops::Range<u64>) -> Result<()>,
    ) -> Result<Done> {
        send(0..self.batch).await?;
        let end = self.batch + self.messages;
        let (mut from, start) = (self.batch, Stopwatch::start());
        while from < end {
            let to = end.min(from + self.batch);
            send(from..to).await?;
            from = to;
        }
        Ok(Done { written: end, ..Done::timed(self.messages, start.elapsed()) })
    }

    /// Times `connections` producers that call `send` one message at a time, after one message of each.
    async fn singles<F>(&self, send: impl Fn(u64) -> F + Clone + Send + 'static) -> Result<Done>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let producers = self.connections;
        produce(producers, producers, send.clone()).await?;
        let start = Stopwatch::start();
        produce(producers, self.messages, send).await?;
        let written = self.messages + producers;
        Ok(Done { written, ..Done::timed(self.messages, start.elapsed()) })
    }

    /// Times loops that call `turn` until all messages are settled: it claims and settles some, and says how many.
    async fn loops<F>(
        &self,
        turn: impl Fn(u64, Arc<AtomicU64>) -> F + Clone + Send + 'static,
    ) -> Result<Done>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let settled = Arc::new(AtomicU64::new(0));
        let start = Stopwatch::start();
        let tasks: Vec<_> = (0..self.connections)
            .map(|n| Tasks::new().spawn(turn(n, Arc::clone(&settled))))
            .collect();
        for task in tasks {
            task.await??;
        }
        let took = start.elapsed();
        let settled = settled.load(Ordering::SeqCst);
        ensure!(settled == self.messages, "settled {settled} messages and not {}", self.messages);
        Ok(Done::timed(settled, took))
    }

    /// Calls `send` with each payload, `rate` times a second; a slow call makes none of the others late to say when
    /// it was begun.
    async fn paced(&self, mut send: impl AsyncFnMut(Value) -> Result<()>) -> Result<Done> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(self.rate)?);
        let start = Stopwatch::start();
        for n in 0..self.messages {
            ticks.tick().await;
            send(json!({"n": n, "at": monotonic_ns()})).await?;
        }
        Ok(Done::timed(self.messages, start.elapsed()))
    }
}

async fn produce<F>(
    producers: u64,
    messages: u64,
    send: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (next, send) = (Arc::clone(&next), send.clone());
            Tasks::new().spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= messages {
                        return anyhow::Ok(());
                    }
                    send(n).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// What each message carries: its number and some hundred bytes of text.
fn payload(n: u64) -> Value {
    json!({"n": n, "text": TEXT})
}

const TEXT: &str = "the quick brown fox jumps over the lazy dog and then goes home to sleep until the sun is up again, ok";

/// Counts what a handler was given, and how old it was.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    latencies_ms: std::sync::Mutex<Vec<f64>>,
    changed: tokio::sync::Notify,
}

impl Tally {
    /// To be called as the first thing by a handler.
    fn handled(&self, payload: &Value) {
        if let Some(at) = payload["at"].as_i64() {
            self.latencies_ms.lock().expect("no handler panics").push(ms_since(at));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Waits until so many were handled.
    async fn reaches(&self, count: u64) {
        while self.count.load(Ordering::SeqCst) < count {
            self.changed.notified().await;
        }
    }

    /// Waits as well, but not for a worker that has stopped by itself.
    async fn reached_by<T: std::fmt::Debug>(
        &self,
        count: u64,
        worker: &mut JoinHandle<T>,
    ) -> Result<()> {
        tokio::select! {
            () = self.reaches(count) => Ok(()),
            ended = worker => bail!("the worker stopped by itself: {ended:?}"),
        }
    }

    fn latencies(&self) -> Vec<f64> {
        self.latencies_ms.lock().expect("no handler panics").clone()
    }
}

/// Waits until `any_left`, a query for a boolean, says no: every ack is in the database.
async fn all_acked(pool: &PgPool, any_left: &'static str) -> Result<()> {
    while sqlx::query_scalar::<_, bool>(any_left).fetch_one(pool).await? {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Tells whoever started a [`Work::Listen`] that messages may come now.
fn ready() {
    println!("{}", json!({"ready": true}));
}
