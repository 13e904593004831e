//! A transaction that somebody holds open: vacuum removes nothing meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use futures_util::future::try_join_all;
use serde_json::json;
use sqlx::postgres::PgPool;

use crate::bench::Run;
use crate::bench::load::{
    Fleet, Messages, SENDER_CONNECTIONS, WORKER_CONNECTIONS, all_done_once, counter, until_drained,
};
use crate::bench::measure::{Better, Case, JOBS, Record, Unit};

pub(super) const ABOUT: &str = "The speed of enqueueing and working off while somebody holds a transaction open (a backup, \
    a forgotten psql) and 100,000 messages pass, from the beginning to the end, beside the same without one";

/// So many stretches, of which the first and the last two are compared.
const STRETCHES: u64 = 20;
/// Messages in one call of a sender, and senders at once.
const BATCH: u64 = 100;
const SENDERS: u64 = 4;
const STUCK: Duration = Duration::from_secs(120);
const RATIO: Unit = Unit("×", Better::Higher);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let count = run.plan.most_messages(run.plan.either(5_000, 100_000));
    let each = count.div_ceil(STRETCHES).max(1);
    for round in 1..=run.plan.rounds {
        let mut ends = Vec::new();
        for held in [false, true] {
            let with = if held { "transaction held open" } else { "no transaction open" };
            let case = Case::new(with, json!({"messages": each * STRETCHES, "held": held}));
            let speeds = pass(run, each, held, |stretch| {
                let done = stretch * each;
                run.screen.doing(&format!("held: {with}, {done} messages so far, round {round}"));
            })
            .await?;
            let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
            // The first stretch pays for connections and plans.
            let beginning = mean(&speeds[1..3]);
            let end = mean(&speeds[speeds.len() - 2..]);
            record.add(&case, "at the beginning", JOBS, beginning);
            record.add(&case, "at the end", JOBS, end);
            record.add(&case, "end to beginning", RATIO, end / beginning);
            if let Some(free) = ends.first() {
                record.add(&case, "end, to that without one", RATIO, end / free);
            }
            ends.push(end);
            let points = speeds.iter().zip(1..).map(|(speed, n)| ((n * each) as f64, *speed));
            record.add_series(&case, "messages", "jobs/s", points.collect());
        }
    }
    Ok(())
}

/// Has messages pass, stretch by stretch; the speed of each.
async fn pass(run: &Run, each: u64, held: bool, told: impl Fn(u64)) -> Result<Vec<f64>> {
    let database = run.place.database().await?;
    let owner = database.owner().await?;
    let sender = database.bus(SENDER_CONNECTIONS).await?;
    let worker = database.bus(WORKER_CONNECTIONS).await?;
    let mut foreign = owner.begin().await?;
    if held {
        sqlx::query("set transaction isolation level repeatable read")
            .execute(&mut *foreign)
            .await?;
        // A snapshot and a transaction id: the one keeps vacuum from old rows, the other readers from the log's end.
        sqlx::query("select pg_current_xact_id()").execute(&mut *foreign).await?;
    }
    let (handled, began) = counter();
    let fleet = Fleet::start(&[worker], run.plan.concurrency, &database.tasks, began);
    let messages = Messages::of(run.plan.payload_bytes);
    let mut speeds = Vec::new();
    for stretch in 0..STRETCHES {
        told(stretch);
        let watch = Stopwatch::start();
        send(&sender, &messages, each).await?;
        until_drained(&owner, &handled, (stretch + 1) * each, STUCK).await?;
        speeds.push(each as f64 / watch.elapsed().as_secs_f64());
    }
    if held {
        still_held(&owner).await?;
    }
    foreign.rollback().await?;
    fleet.stop().await?;
    all_done_once(&owner, each * STRETCHES).await?;
    run.place.drop_database(database).await?;
    Ok(speeds)
}

/// Enqueues while the worker works.
pub(super) async fn send(bus: &Bus, messages: &Messages, count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let sender = || async {
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= count {
                return anyhow::Ok(());
            }
            bus.publish_all(&messages.some(first, BATCH.min(count - first))).await?;
        }
    };
    try_join_all((0..SENDERS).map(|_| sender())).await?;
    Ok(())
}

/// A server may end what stays idle within a transaction; then this would have measured nothing.
async fn still_held(owner: &PgPool) -> Result<()> {
    let held: bool = sqlx::query_scalar(
        "select exists (select from pg_stat_activity where state = 'idle in transaction'
            and backend_xmin is not null and datname = current_database())",
    )
    .fetch_one(owner)
    .await?;
    ensure!(held, "the server ended the transaction (idle_in_transaction_session_timeout?)");
    Ok(())
}
