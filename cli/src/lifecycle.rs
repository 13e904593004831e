//! From start to stop, for commands that run until they are told to end.

use std::future::Future;
use std::io;
use std::time::Duration;

use anyhow::Result;
use cogo::live::{Live, Setter};
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
    #[cfg(unix)]
    hangup: Option<Hangup>,
    #[cfg(windows)]
    ctrl_c: tokio::signal::windows::CtrlC,
    hung_up: (Setter<()>, Live<()>),
}

/// SIGHUP. It means two things: to a server that configuration is to be read again, and to all that a terminal
/// has on its hands that the terminal is gone. Who closes a terminal expects what runs in it to end.
#[cfg(unix)]
struct Hangup {
    signal: tokio::signal::unix::Signal,
    had_terminal: bool,
}

#[cfg(unix)]
impl Hangup {
    /// Waits for a SIGHUP; whether it came because the terminal is gone. Cancel-safe.
    async fn terminal_gone(hangup: &mut Option<Self>) -> bool {
        match hangup {
            Some(hangup) => {
                hangup.signal.recv().await;
                hangup.had_terminal && !has_terminal()
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether this process has a terminal that could hang up.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: None,
            hung_up: Live::new(()),
        })
    }

    #[cfg(windows)]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ctrl_c: tokio::signal::windows::ctrl_c()?, hung_up: Live::new(()) })
    }

    /// For what serves until it is told to end: SIGHUP is heard as well.
    pub(crate) fn serving() -> io::Result<Self> {
        #[cfg_attr(not(unix), allow(unused_mut))]
        let mut signals = Self::new()?;
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let signal = signal(SignalKind::hangup())?;
            signals.hangup = Some(Hangup { signal, had_terminal: has_terminal() });
        }
        Ok(signals)
    }

    /// Told of each SIGHUP that asks for configuration to be read again.
    pub(crate) fn hung_up(&self) -> Live<()> {
        self.hung_up.1.clone()
    }

    /// Waits for a signal to end. Cancel-safe. Also passes on what [`Signals::hung_up`] is told.
    pub(crate) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                gone = Hangup::terminal_gone(&mut self.hangup) => {
                    if gone {
                        return "SIGHUP";
                    }
                    self.hung_up.0.set(());
                }
            }
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
