//! What the database needs done for it from time to time: partitions to come, and the old to go.
//!
//! Every hub does it; the SQL functions see to it that two at once do no harm.

use std::time::Duration;

use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Error, Signal};
use crate::error::chain;
use crate::options::Retention;
use crate::shutdown::{Shutdown, Tasks};

/// How often partitions are looked at. They are made weeks ahead, so many failures do no harm.
const PARTITION_PERIOD: Duration = Duration::from_secs(3600);
/// How many weeks of them are there in advance: a hub may be away for that long.
const PARTITIONS_AHEAD: u32 = 4;
/// How soon what failed is tried again; doubled up to its period. Dropping a partition takes locks that
/// may deadlock with whoever writes to the log, and then Postgres picks a victim.
const RETRY: Duration = Duration::from_secs(1);
/// How often finished messages are let go.
const RETAIN_PERIOD: Duration = Duration::from_secs(60);
/// How many in one transaction: a few milliseconds of locks.
const RETAIN_MAX: u32 = 1000;

/// How long to wait at most, and at least, before what has become due is looked for again. Workers that are far
/// away need not do it; those beside the database do it as well, and nothing happens twice.
const REAP_PERIOD: Duration = Duration::from_secs(1);
const REAP_PERIOD_MIN: Duration = Duration::from_millis(20);
/// How many messages are promoted or taken back in one transaction.
const REAP_MAX: u32 = 1000;

/// Starts to look after the database, at once and then again and again, until `shutdown` drains.
pub fn start(bus: Bus, retention: Retention, tasks: &Tasks, shutdown: &Shutdown) {
    let stop = shutdown.draining().clone();
    tasks.spawn(reap(bus.clone(), stop.clone()));
    let (partition_bus, log_for) = (bus.clone(), retention.log_for());
    tasks.spawn(again(PARTITION_PERIOD, stop.clone(), move || {
        let bus = partition_bus.clone();
        async move { partition(&bus, log_for).await }
    }));
    tasks.spawn(again(RETAIN_PERIOD, stop, move || {
        let (bus, retention) = (bus.clone(), retention.clone());
        async move { retain(&bus, &retention).await.map(drop) }
    }));
}

/// Promotes what becomes due, and takes back what was lost, until it is stopped.
async fn reap(bus: Bus, stop: CancellationToken) {
    // A breaker that closes lets go what is parked, and one that opens is to be looked at when it is over.
    let mut woken = bus.waker(Signal::Circuit);
    loop {
        let pause = match bus.reap(REAP_MAX).await {
            Ok(reaped) => reaped
                .next_due_ms
                .and_then(|ms| u64::try_from(ms).ok())
                .map_or(REAP_PERIOD, Duration::from_millis)
                .clamp(REAP_PERIOD_MIN, REAP_PERIOD),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "Could not reap; trying again");
                REAP_PERIOD
            }
        };
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = woken.woken() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Runs `work` now and every `period`. Stopping drops it at whatever `await` it is: each call is one
/// transaction, which then happens or does not.
async fn again<W, F>(period: Duration, stop: CancellationToken, work: W)
where
    W: Fn() -> F,
    F: Future<Output = Result<(), Error>>,
{
    let run = async {
        let mut retry = RETRY;
        loop {
            let pause = match work().await {
                Ok(()) => {
                    retry = RETRY;
                    period
                }
                Err(error) => {
                    let pause = retry.min(period);
                    retry = pause * 2;
                    tracing::warn!(
                        error = %chain(&error),
                        "Maintenance failed; trying again within {} s", pause.as_secs()
                    );
                    pause
                }
            };
            tokio::time::sleep(jittered(pause)).await;
        }
    };
    tokio::select! {
        () = run => {}
        () = stop.cancelled() => {}
    }
}

/// Makes the log's coming partitions and drops those older than `keep`.
///
/// # Errors
/// When the database does not answer, or the role may not.
pub async fn partition(bus: &Bus, keep: Duration) -> Result<(), Error> {
    for (partition, what) in bus.partition(PARTITIONS_AHEAD, keep).await? {
        tracing::info!("Partition {partition} was {what}");
    }
    Ok(())
}

/// Lets go of every message that has been finished for long enough; how many there were.
///
/// # Errors
/// When the database does not answer, or the role may not; what went before that is gone.
pub async fn retain(bus: &Bus, retention: &Retention) -> Result<u64, Error> {
    let mut gone = 0;
    loop {
        let (done_for, keyed_for) = (retention.done_for(), retention.keyed_for());
        let failed_for = retention.failed_for();
        let batch = bus.retain_keyed(done_for, keyed_for, failed_for, RETAIN_MAX).await?;
        gone += u64::from(batch);
        if batch < RETAIN_MAX {
            break;
        }
    }
    if gone > 0 {
        tracing::info!("Retention let {gone} finished messages go; their events stay");
    }
    Ok(gone)
}

/// Between three quarters of the period and all of it, so that hubs do not move in step.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.75..1.0))
}
