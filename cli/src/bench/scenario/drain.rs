//! Working off what waits.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::bench::Run;
use crate::bench::load::{
    Fleet, Messages, SENDER_CONNECTIONS, WORKER_CONNECTIONS, all_done_once, counter, fill,
    until_drained,
};
use crate::bench::measure::{Case, JOBS, Record};

pub(super) const ABOUT: &str = "Trivial messages that wait, worked off by 1, 4 and 16 workers of the real kind (claims, \
    leases, settles), each with a bus and a pool of its own; then the log is asked whether each was done exactly once";

/// How long nothing may happen before it is a failure.
const STUCK: Duration = Duration::from_secs(60);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let counts = match run.plan.messages.as_slice() {
        [] => vec![run.plan.either(500, 20_000)],
        asked => asked.to_vec(),
    };
    for round in 1..=run.plan.rounds {
        for &count in &counts {
            for &workers in &run.plan.workers {
                let one = if workers == 1 { "worker" } else { "workers" };
                let case = Case::new(
                    format!("{count} messages, {workers} {one}"),
                    json!({"messages": count, "workers": workers, "concurrency": run.plan.concurrency}),
                );
                run.screen.doing(&format!("drain: {}, round {round}", case.name()));
                let took = drain(run, count, workers).await;
                let took = took.with_context(|| case.name().to_owned())?;
                record.add(&case, "drained", JOBS, count as f64 / took.as_secs_f64());
            }
        }
    }
    Ok(())
}

/// From when the workers, which are connected by then, are told to start until the last settle is committed.
async fn drain(run: &Run, count: u64, workers: usize) -> Result<Duration> {
    let database = run.place.database().await?;
    let owner = database.owner().await?;
    let sender = database.bus(SENDER_CONNECTIONS).await?;
    fill(&sender, &Messages::of(run.plan.payload_bytes), count).await?;
    // As on a bus that has been up for a while: the planner knows that there are rows.
    sqlx::query("analyze public.agent_messages").execute(&owner).await?;
    let buses = (0..workers).map(|_| database.bus(WORKER_CONNECTIONS));
    let buses = try_join_all(buses).await?;
    let (handled, began) = counter();
    let watch = Stopwatch::start();
    let fleet = Fleet::start(&buses, run.plan.concurrency, &database.tasks, began);
    until_drained(&owner, &handled, count, STUCK).await?;
    let took = watch.elapsed();
    fleet.stop().await?;
    all_done_once(&owner, count).await?;
    run.place.drop_database(database).await?;
    Ok(took)
}
