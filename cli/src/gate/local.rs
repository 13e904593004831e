//! The stage `local`: a whole bus of real processes, on a fresh database.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use cogo::gate::{Stage, Steps, Stopped};
use futures_util::future::BoxFuture;

use crate::connect::Global;

/// What `--inject` breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// A migration that the database refuses
    BrokenMigration,
    /// A breaker whose tool is well again, and that stays open all the same
    BreakerNeverCloses,
    /// A message that was acknowledged goes without an event
    LostMessage,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Local {
    _global: Global,
    _dir: PathBuf,
    _inject: Option<Fault>,
}

impl Local {
    pub(super) fn new(global: Global, dir: PathBuf, inject: Option<Fault>) -> Self {
        Self { _global: global, _dir: dir, _inject: inject }
    }
}

impl Stage for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn at_most(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn run<'a>(&'a mut self, _steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async { Ok(()) })
    }
}
