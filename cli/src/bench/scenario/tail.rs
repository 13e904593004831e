//! Reading the log.

use std::time::Duration;

use anyhow::{Result, ensure};
use cogo::clock::Stopwatch;
use cogo::event::Cursor;
use serde_json::json;
use sqlx::postgres::PgPool;

use crate::bench::Run;
use crate::bench::load::{Messages, SENDER_CONNECTIONS, fill};
use crate::bench::measure::{Better, Case, Record, Unit};

pub(super) const ABOUT: &str =
    "The event log from its beginning to its end, in pages of 100 and 1,000 events, by one reader";

/// How long transactions of others, from before the log was written, are waited for.
const READABLE_WITHIN: Duration = Duration::from_secs(60);
const PAGES: [u32; 2] = [100, 1000];
const EVENTS: Unit = Unit("events/s", Better::Higher);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let count = run.plan.most_messages(run.plan.either(2_000, 100_000));
    let database = run.place.database().await?;
    run.screen.doing(&format!("tail: filling {count} messages"));
    let bus = database.bus(SENDER_CONNECTIONS).await?;
    fill(&bus, &Messages::of(run.plan.payload_bytes), count).await?;
    let owner = database.owner().await?;
    sqlx::query("vacuum (analyze) public.bus_events").execute(&owner).await?;
    until_readable(&owner).await?;
    for round in 1..=run.plan.rounds {
        for page in PAGES {
            let case =
                Case::new(format!("pages of {page}"), json!({"page": page, "events": count}));
            run.screen.doing(&format!("tail: {}, round {round}", case.name()));
            let watch = Stopwatch::start();
            let (mut after, mut read) = (Cursor::START, 0);
            loop {
                let events = bus.read_events(after, page, &json!({})).await?;
                let Some(last) = events.last() else { break };
                after = last.cursor;
                read += events.len() as u64;
            }
            let took = watch.elapsed();
            // Each message has left one event, and nothing else has happened.
            ensure!(read == count, "{read} of {count} events were read");
            record.add(&case, "read", EVENTS, read as f64 / took.as_secs_f64());
        }
    }
    run.place.drop_database(database).await
}

/// Nobody reads beyond the oldest transaction that runs on the whole server, in whichever database.
async fn until_readable(owner: &PgPool) -> Result<()> {
    let watch = Stopwatch::start();
    loop {
        let readable: bool = sqlx::query_scalar(
            "select pg_snapshot_xmin(pg_current_snapshot()) > max(xid) from public.bus_events",
        )
        .fetch_one(owner)
        .await?;
        if readable {
            return Ok(());
        }
        ensure!(
            watch.elapsed() < READABLE_WITHIN,
            "a transaction has been open on this server for {} s, and nobody reads the log beyond it \
             (pg_stat_activity, backend_xid)",
            READABLE_WITHIN.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
