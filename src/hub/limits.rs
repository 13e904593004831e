//! The limits of `limits.json`, for the whole bus.

use std::time::Duration;

use crate::bus::{Bus, Error, Limits};
use crate::error::chain;
use crate::live::Live;
use crate::shutdown::{Shutdown, Tasks};

/// How long to wait before limits that could not be set are set again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes `limits` to the database, where they hold for everybody: at the start of a hub that has the file,
/// and when the file changes. A hub without one must not call this, or it would wipe another's.
///
/// # Errors
/// When the bus refuses them, or the database does not answer; those before them still hold.
pub async fn apply_limits(bus: &Bus, limits: &Limits) -> Result<(), Error> {
    if bus.set_limits(limits).await? {
        tracing::info!(
            "Set limits for {} tenants and {} topics",
            limits.tenants.len(),
            limits.topics.len()
        );
    }
    Ok(())
}

/// Writes `limits` whenever they change, until `shutdown` drains. As long as they do not, those that another hub
/// set are left alone.
pub fn follow_limits(bus: Bus, mut limits: Live<Limits>, tasks: &Tasks, shutdown: &Shutdown) {
    let stop = shutdown.draining().clone();
    let follow = async move {
        loop {
            limits.changed().await;
            while let Err(error) = apply_limits(&bus, &limits.get()).await {
                tracing::warn!(error = %chain(&error), "Could not set the limits; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = follow => {}
            () = stop.cancelled() => {}
        }
    });
}
