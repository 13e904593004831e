//! What idle processes have in memory.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::bench::Run;
use crate::bench::child::{Hub, Memory, Process};
use crate::bench::measure::{Better, Case, Record, Unit};

pub(super) const ABOUT: &str = "What an idle `cogo hub` and an idle `cogo worker echo` have in memory: resident, their share \
    of what is shared, and what they have allocated. Linux alone tells";

pub(super) const KB: Unit = Unit("kB", Better::Lower);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    // Beside the first chores and the first signs of life.
    let settle = run.plan.either(Duration::from_secs(1), Duration::from_secs(15));
    for round in 1..=run.plan.rounds {
        run.screen.doing(&format!("memory: idle hub and worker, round {round}"));
        let database = run.place.database().await?;
        let hub = Hub::start(run, &database, 0).await?;
        let worker = Process::worker(run, &database).await?;
        tokio::time::sleep(settle).await;
        put(record, &Case::new("idle hub", json!({"process": "hub"})), hub.process.pid()?)?;
        put(record, &Case::new("idle worker", json!({"process": "worker"})), worker.pid()?)?;
        worker.stop().await?;
        hub.stop().await?;
        run.place.drop_database(database).await?;
    }
    Ok(())
}

pub(super) fn put(record: &Record, case: &Case, pid: u32) -> Result<()> {
    let memory = Memory::of(pid)?;
    record.add(case, "resident", KB, memory.resident);
    record.add(case, "proportional", KB, memory.proportional);
    record.add(case, "anonymous", KB, memory.anonymous);
    Ok(())
}
