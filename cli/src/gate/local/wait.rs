//! Waiting for what must come, for as long as it may take, and no longer.

use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::Failure;

/// How often to look.
const LOOK: Duration = Duration::from_millis(25);

/// Patience with one thing. Look, and if it is not there yet, [`Patience::again`].
#[derive(Debug)]
pub(super) struct Patience {
    what: String,
    within: Duration,
    since: Stopwatch,
}

impl Patience {
    /// Waits for `what`, a sentence such as "the message is done", for so long.
    pub(super) fn with(what: impl Into<String>, within: Duration) -> Self {
        Self { what: what.into(), within, since: Stopwatch::start() }
    }

    /// Waits until the next look.
    ///
    /// # Errors
    /// When the time is up: what was waited for, and what was seen last.
    pub(super) async fn again(&self, seen: impl AsRef<str> + Send) -> Result<(), Failure> {
        if self.since.elapsed() >= self.within {
            let seconds = self.within.as_secs_f64();
            let text = format!("{}: not within {seconds} s; {}", self.what, seen.as_ref());
            return Err(Failure::new(text));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// How long it has been.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}
