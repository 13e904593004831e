//! Old artifacts, and the files of old attempts, go.

use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Store, Swept, files};
use crate::error::chain;
use crate::shutdown::{Shutdown, Tasks};

/// How often old artifacts are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);
/// How many attempts go in one turn, and how long the disk rests before the next.
const SWEEP_MAX: usize = 1000;
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// Starts to let go of artifacts of the store, and of attempts below `dir`, that are older than `keep`: at once and then
/// again and again, until `shutdown` drains. Whoever has a folder of attempts does it, be it a hub or a worker.
pub fn sweep(
    artifacts: Option<Store>,
    dir: PathBuf,
    keep: Duration,
    tasks: &Tasks,
    shutdown: &Shutdown,
) {
    let stop = shutdown.draining();
    if let Some(artifacts) = artifacts {
        tasks.spawn(again(stop.clone(), move || sweep_store(artifacts.clone(), keep)));
    }
    tasks.spawn(again(stop.clone(), move || sweep_attempts(dir.clone(), keep)));
}

/// Runs `work` now and every period. Stopping drops it at whatever `await` it is: what went until then is gone, and
/// the rest goes another time.
async fn again<F: Future<Output = ()>>(stop: CancellationToken, work: impl Fn() -> F) {
    let run = async {
        loop {
            work().await;
            // Between three quarters of the period and all of it, so that workers do not move in step.
            let pause = SWEEP_PERIOD.mul_f64(rand::rng().random_range(0.75..1.0));
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = run => {}
        () = stop.cancelled() => {}
    }
}

/// One pass over the store, in turns with pauses between them.
async fn sweep_store(artifacts: Store, keep: Duration) {
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
async fn sweep_attempts(dir: PathBuf, keep: Duration) {
    let mut gone = 0;
    loop {
        let root = dir.clone();
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
