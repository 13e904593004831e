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

/// What the command line says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct LocalOptions {
    /// What to break.
    pub(super) inject: Option<Fault>,
    /// Where the migrations are, in place of those that are built in. It is a directory.
    pub(super) migrations: Option<PathBuf>,
    /// Whether the database and all else stays as it is at the end.
    pub(super) keep: bool,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Local {
    _global: Global,
    _dir: PathBuf,
    _options: LocalOptions,
}

impl Local {
    /// A stage that leaves its files in `dir`, which it makes. Dropped in the middle, it ends what it started.
    pub(super) fn new(global: Global, dir: PathBuf, options: LocalOptions) -> Self {
        Self { _global: global, _dir: dir, _options: options }
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
