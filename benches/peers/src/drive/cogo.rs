//! COGO itself, through the library: what a Rust program has that links it.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use cogo::bus::{Bus, ClaimRequest, Settle};
use cogo::clock::Stopwatch;
use cogo::db;
use cogo::message::{NewMessage, Topic};
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::watch;

use super::{Done, Job, Tally, Work, all_acked, payload, ready};

/// How many messages the worker handles at once.
const CONCURRENCY: usize = 500;
const LEASE: Duration = Duration::from_secs(30);
const ANY_LEFT: &str =
    "select exists (select from agent_messages where status in ('queued', 'claimed', 'delayed'))";

pub(super) async fn drive(job: &Job) -> Result<Done> {
    let pool = db::Options::new(PgConnectOptions::from_str(&job.url)?).pool();
    if job.work == Work::Setup {
        db::MIGRATOR.run(&pool).await?;
        return Ok(Done::nothing());
    }
    let bus = Bus::new(pool.clone());
    match job.work {
        Work::Setup => unreachable!("done above"),
        Work::Enqueue => {
            job.batches(async |numbers| {
                let messages: Vec<_> = numbers.map(|n| message(payload(n))).collect();
                bus.publish_all(&messages).await?;
                Ok(())
            })
            .await
        }
        Work::Single => {
            job.singles(move |n| {
                let bus = bus.clone();
                async move {
                    bus.publish(message(payload(n))).await?;
                    Ok(())
                }
            })
            .await
        }
        Work::Claims => {
            let max = usize::try_from(job.batch)?;
            let messages = job.messages;
            job.loops(move |n, settled| claims(bus.clone(), request(n, max), messages, settled))
                .await
        }
        Work::Drain | Work::Listen => work(job, bus, &pool).await,
        Work::Send => {
            let done = job
                .paced(async |payload| {
                    bus.publish(message(payload)).await?;
                    Ok(())
                })
                .await;
            bus.wake_others().await;
            done
        }
    }
}

fn topic() -> Topic {
    Topic::new("bench", "peers").expect("both are good names")
}

fn message(payload: Value) -> NewMessage {
    NewMessage::new(&topic(), "bench.count", payload)
}

/// A worker with a handler that counts, as any role has one.
async fn work(job: &Job, bus: Bus, pool: &PgPool) -> Result<Done> {
    let tally = Arc::new(Tally::default());
    let options = Options {
        worker_id: "peers".to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic()],
        concurrency: CONCURRENCY,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: LEASE,
    };
    let runner = Runner::new(Count(Arc::clone(&tally)), options, bus, Policies::default());
    let shutdown = Shutdown::new();
    let (is_ready, mut becomes_ready) = watch::channel(false);
    let start = Stopwatch::start();
    let mut running = Tasks::new().spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(&shutdown, &is_ready).await }
    });
    if job.work == Work::Listen {
        becomes_ready.wait_for(|ready| *ready).await?;
        ready();
    }
    tally.reached_by(job.messages, &mut running).await?;
    all_acked(pool, ANY_LEFT).await?;
    let took = start.elapsed();
    shutdown.drain();
    running.await??;
    Ok(Done::timed(tally.count.load(Ordering::SeqCst), took).with_latencies(tally.latencies()))
}

#[derive(Debug)]
struct Count(Arc<Tally>);

impl Handler for Count {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.0.handled(&delivery.message.payload);
        Ok(Value::Null.into())
    }
}

fn request(n: u64, max: usize) -> ClaimRequest {
    ClaimRequest {
        worker: format!("peers-{n}"),
        tenant: "default".to_owned(),
        topics: vec!["bench/peers".to_owned()],
        max,
        lease: LEASE,
    }
}

/// Settles what it has and claims the next ones in one call, until all are settled.
async fn claims(
    bus: Bus,
    request: ClaimRequest,
    messages: u64,
    settled: Arc<AtomicU64>,
) -> Result<()> {
    let mut settles = Vec::new();
    loop {
        let step = bus.step(&settles, &request).await?;
        settled.fetch_add(settles.len() as u64, Ordering::SeqCst);
        settles = step
            .claims
            .iter()
            .map(|claim| Settle::complete(claim.message(), Value::Null, json!({})))
            .collect();
        if settles.is_empty() {
            if settled.load(Ordering::SeqCst) >= messages {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
