//! The limits of `limits.json`, for the whole bus.

use crate::bus::{Bus, Error, Limits};

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
