//! The stage `ping`: each configured toolset gives a sign of life.

use std::time::Duration;

use cogo::gate::{Stage, Steps, Stopped};
use futures_util::future::BoxFuture;

use crate::connect::Global;

/// The stage.
#[derive(Debug)]
pub(super) struct Ping {
    _global: Global,
}

impl Ping {
    pub(super) fn new(global: Global) -> Self {
        Self { _global: global }
    }
}

impl Stage for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn at_most(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn run<'a>(&'a mut self, _steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async { Ok(()) })
    }
}
