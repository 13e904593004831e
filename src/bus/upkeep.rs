//! Letting go of what is finished, of messages and of the log.

use std::time::Duration;

use crate::bus::error::Error;
use crate::bus::{Bus, queries};

impl Bus {
    /// Lets finished messages go, at most `max`; how many went.
    ///
    /// # Errors
    /// [`Error::Refused`] where the role may not; [`Error::Database`].
    pub async fn retain(
        &self,
        done_for: Duration,
        failed_for: Option<Duration>,
        max: u32,
    ) -> Result<u32, Error> {
        self.retain_keyed(done_for, done_for, failed_for, max).await
    }

    /// As [`Bus::retain`], but those with an idempotency key stay for `keyed_for`, if that is more than
    /// `done_for`: for so long the same key gives the same message.
    ///
    /// # Errors
    /// As [`Bus::retain`].
    pub async fn retain_keyed(
        &self,
        done_for: Duration,
        keyed_for: Duration,
        failed_for: Option<Duration>,
        max: u32,
    ) -> Result<u32, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let (done_for, keyed_for) = (done_for.as_secs_f64(), keyed_for.as_secs_f64());
        let failed_for = failed_for.map(|keep| keep.as_secs_f64());
        let db = self.core.postgres("letting finished messages go")?.chores();
        let gone = queries::retain(db, done_for, keyed_for, failed_for, max).await;
        let gone = gone.map_err(|error| Error::from_sqlx("bus_retain", error))?;
        Ok(u32::try_from(gone).unwrap_or(0))
    }

    /// Makes the log's coming partitions and drops those older than `keep`; their names and what was done.
    ///
    /// # Errors
    /// [`Error::Refused`] where the role may not; [`Error::Database`].
    pub async fn partition(
        &self,
        ahead_weeks: u32,
        keep: Duration,
    ) -> Result<Vec<(String, String)>, Error> {
        let ahead = i32::try_from(ahead_weeks).unwrap_or(i32::MAX);
        let db = self.core.postgres("the partitions of the log")?.chores();
        let done = queries::partition(db, ahead, keep.as_secs_f64()).await;
        done.map_err(|error| Error::from_sqlx("bus_partition", error))
    }
}
