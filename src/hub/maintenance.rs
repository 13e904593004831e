//! What the database needs done for it from time to time: partitions to come, and the old to go.
//!
//! Every hub does it; the SQL functions see to it that two at once do no harm.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt as _;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::artifact::{Store, Swept, files};
use crate::bus::{Bus, Error, Signal};
use crate::error::chain;
use crate::hub::options::Retention;
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

/// How often old artifacts are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);
/// How many attempts go in one turn, and how long the disk rests before the next.
const SWEEP_MAX: usize = 1000;
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

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

/// Starts to let go of old artifacts of the store and of old attempts below `dir`, at once and then again and again,
/// until `shutdown` drains. Whoever has a folder of attempts does it, be it a hub or a worker.
pub fn sweep_artifacts(
    artifacts: Option<Store>,
    dir: PathBuf,
    retention: &Retention,
    tasks: &Tasks,
    shutdown: &Shutdown,
) {
    let (keep, stop) = (retention.artifacts_for(), shutdown.draining().clone());
    if let Some(artifacts) = artifacts {
        tasks.spawn(again(SWEEP_PERIOD, stop.clone(), move || {
            let artifacts = artifacts.clone();
            async move {
                sweep_store(&artifacts, keep).await;
                Ok(())
            }
        }));
    }
    tasks.spawn(again(SWEEP_PERIOD, stop, move || {
        let dir = dir.clone();
        async move {
            sweep_attempts(&dir, keep).await;
            Ok(())
        }
    }));
}

/// One pass over the store, in turns with pauses between them.
async fn sweep_store(artifacts: &Store, keep: Duration) {
    let mut all = Swept::default();
    loop {
        match artifacts.sweep(keep).await {
            Ok(swept) => {
                all.artifacts += swept.artifacts;
                all.bytes += swept.bytes;
                if !swept.more {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "Cannot let old artifacts go");
                break;
            }
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    let Swept { artifacts, bytes, .. } = all;
    if artifacts > 0 {
        tracing::info!("Retention let {artifacts} artifacts go, {bytes} bytes in all");
    }
}

/// The same over the files of attempts.
async fn sweep_attempts(dir: &Path, keep: Duration) {
    let mut gone = 0;
    loop {
        let root = dir.to_owned();
        let swept = spawn_blocking(move || files::sweep(&root, keep, SWEEP_MAX)).await;
        match swept.map_err(std::io::Error::other).and_then(|swept| swept) {
            Ok(swept) => {
                gone += swept.attempts;
                if !swept.more {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "Cannot let the files of old attempts go");
                break;
            }
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    if gone > 0 {
        tracing::info!("Retention let the files of {gone} attempts go");
    }
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
