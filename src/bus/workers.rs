//! Who works, and how much there is to do.

use serde_json::Value;

use crate::bus::error::Error;
#[cfg(feature = "hub")]
use crate::bus::queries::pending::{self, Pending};
use crate::bus::queries::workers::{Depth, WorkerRow};
use crate::bus::{Bus, Signal};

impl Bus {
    /// Says that a worker is there; an object as `bus_worker_seen` takes it. Whether it was new.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn worker_seen(&self, worker: &Value) -> Result<bool, Error> {
        let new = self.transport().worker_seen(worker).await?;
        if new {
            self.wake(Signal::Log);
        }
        Ok(new)
    }

    /// Says that a worker goes. Whether it was there.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn worker_gone(
        &self,
        worker: &str,
        reason: &str,
        tenant: &str,
    ) -> Result<bool, Error> {
        let was = self.transport().worker_gone(worker, reason, tenant).await?;
        self.wake(Signal::Log);
        Ok(was)
    }

    /// The workers, those online first, the last seen first, at most `max`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn workers(&self, max: u32) -> Result<Vec<WorkerRow>, Error> {
        self.transport().workers(i64::from(max)).await
    }

    /// How many workers of each role are online.
    ///
    /// # Errors
    /// [`Error::Database`].
    #[cfg(feature = "hub")]
    pub(crate) async fn online(&self) -> Result<Vec<(String, i64)>, Error> {
        let postgres = self.core.postgres("counting the workers")?;
        let rows = pending::online(postgres.db()).await;
        rows.map_err(|error| Error::from_sqlx("online", error))
    }

    /// How much waits, is held or is dead, by role, service and status.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stats(&self) -> Result<Vec<Depth>, Error> {
        self.transport().stats().await
    }

    /// How much waits for a worker and for nothing else, by role and service; of `tenant`, or of all for `*`.
    ///
    /// # Errors
    /// [`Error::Database`].
    #[cfg(feature = "hub")]
    pub async fn pending(&self, tenant: &str) -> Result<Vec<Pending>, Error> {
        let postgres = self.core.postgres("counting what waits for a worker")?;
        let rows = pending::pending(postgres.db(), tenant).await;
        rows.map_err(|error| Error::from_sqlx("pending", error))
    }
}
