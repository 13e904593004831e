//! From the first signal to the last task: stop, drain, cut off.
//!
//! [`Tasks`] is the only spawner. A [`Shutdown`] says in two steps that it is over: `draining` (take
//! nothing new, finish what is in hand) and `cancelled` (the drain's deadline has passed: let go).

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The two steps of stopping, shared by every component of a process.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    cancelled: CancellationToken,
}

impl Shutdown {
    /// A process that has not been asked to stop.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to stop: nothing new is taken.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Ends the drain: what is still in hand is let go.
    pub fn cancel(&self) {
        self.draining.cancel();
        self.cancelled.cancel();
    }

    /// Cancelled when the process begins to stop.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when the drain is over.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Waits for SIGINT or SIGTERM (Ctrl-C on Windows).
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub async fn signal() -> std::io::Result<&'static str> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            Ok(tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            })
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await.map(|()| "Ctrl-C")
    }
}

/// A group of tasks that is waited for as one.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` as a task of the group. It must end by itself once the [`Shutdown`] that it
    /// was given says so; nothing aborts it.
    #[allow(clippy::disallowed_methods)] // the one place that spawns
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(future))
    }

    /// How many tasks are running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until every task has ended, at most for `deadline`; whether all did.
    pub async fn join(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
