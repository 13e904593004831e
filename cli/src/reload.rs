//! Policies that are read again while the process runs: on SIGHUP, and when a file has changed.

use anyhow::Result;
use cogo::breaker;
use cogo::config::{Reload, Source};
use cogo::live::Live;
use cogo::retry;
use cogo::shutdown::{Shutdown, Tasks};

/// The policies as they are at any moment.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    pub(crate) retry: Live<retry::Policies>,
    pub(crate) breaker: Live<breaker::Policies>,
}

impl Policies {
    /// Loads them, and what reads them again once it is started.
    pub(crate) fn load(source: &Source) -> Result<(Self, Reload)> {
        let mut reload = Reload::new(source.clone());
        let policies = Self { retry: reload.watch()?, breaker: reload.watch()? };
        Ok((policies, reload))
    }
}

/// Reads again from here on until the process stops; `hung_up` is told of each SIGHUP.
pub(crate) fn start(reload: Reload, hung_up: Live<()>, tasks: &Tasks, shutdown: &Shutdown) {
    tasks.spawn(reload.run(hung_up, shutdown.draining().clone()));
}
