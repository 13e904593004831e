//! From start to stop, for commands that run until they are told to end.

use std::future::Future;
use std::io;
use std::time::Duration;

use anyhow::Result;
use cogo::shutdown::Shutdown;

use crate::exit::Exit;
use crate::output::note;

/// How long a component may take to end after it was cut off, before we end without it.
const CUT_OFF: Duration = Duration::from_secs(15);

/// SIGINT and SIGTERM (Ctrl-C on Windows), heard from its creation on. Handlers of our own also make the
/// program stoppable as process 1 of a container, to which the kernel gives no default ones.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    ctrl_c: tokio::signal::windows::CtrlC,
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    #[cfg(windows)]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ctrl_c: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(windows)]
        {
            self.ctrl_c.recv().await;
            "Ctrl-C"
        }
    }
}

/// Runs `work` until it ends or a signal comes; then drains it, for at most `drain`, and cuts it off. A
/// second signal ends the process at once. `work` must end once `shutdown` is cancelled.
pub(crate) async fn supervise(
    signals: &mut Signals,
    shutdown: &Shutdown,
    drain: Duration,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::pin!(work);
    let signal = tokio::select! {
        ended = &mut work => return ended,
        signal = signals.next() => signal,
    };
    note(&format!(
        "{signal}: finishing what is in hand, for at most {} s. Again to exit at once.",
        drain.as_secs_f64().ceil()
    ));
    shutdown.drain();
    tokio::select! {
        ended = &mut work => return ended,
        _ = signals.next() => exit_at_once(),
        () = tokio::time::sleep(drain) => {
            tracing::warn!("The drain's deadline has passed; what is left is put back");
            shutdown.cancel();
        }
    }
    tokio::select! {
        ended = &mut work => ended,
        _ = signals.next() => exit_at_once(),
        () = tokio::time::sleep(CUT_OFF) => {
            anyhow::bail!("some part did not end within {} s of being cut off", CUT_OFF.as_secs())
        }
    }
}

/// Ends the process without any clean-up: claims come back when their leases run out, and a Postgres of
/// ours stops with us and recovers at the next start.
pub(crate) fn exit_at_once() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}
