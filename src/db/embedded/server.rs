//! The server's process: one thread starts it, waits for it and reaps it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::error::Error;
use super::lock::Lock;
use super::log::Log;
use super::parent_death;
use super::signal::{self, Halt};

/// What is known of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    /// It was told to go.
    Halting,
    /// It is gone; with how it ended, when nobody had told it to.
    Gone(Option<String>),
}

/// A server process of ours. Dropping it begins a fast shutdown.
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    /// Whether the pid was given back to the system. Held while a signal is sent, so that it never
    /// reaches another process.
    reaped: Arc<Mutex<bool>>,
    state: watch::Sender<State>,
    log: Log,
}

impl Server {
    /// Starts `command`, a server. `lock` is held until it has ended.
    pub(crate) async fn spawn(mut command: Command, log: Log, lock: Lock) -> Result<Self, Error> {
        let program = PathBuf::from(command.get_program());
        parent_death::stop_with_thread(&mut command);
        let reaped = Arc::new(Mutex::new(false));
        let state = watch::Sender::new(State::Running);
        let (started, pid) = oneshot::channel();
        // The system ties a child's fate to the thread that starts it, so this one lives as long as
        // the child; a thread of the runtime's pool would not.
        std::thread::Builder::new()
            .name("cogo-postgres".to_owned())
            .spawn({
                let (reaped, state) = (Arc::clone(&reaped), state.clone());
                move || {
                    let child = match command.spawn() {
                        Ok(child) => child,
                        Err(error) => {
                            drop(lock);
                            let _ = started.send(Err(error));
                            return;
                        }
                    };
                    // Nobody may be waiting any more; then the drop of `Server` never comes.
                    if started.send(Ok(child.id())).is_err() {
                        let _ = halt(child.id(), &Mutex::new(false), Halt::Fast);
                    }
                    let status = wait(child, &reaped);
                    // Before anybody hears of it, so that who does can start anew.
                    drop(lock);
                    state.send_modify(|state| {
                        let told = *state == State::Halting;
                        *state = State::Gone((!told).then_some(status));
                    });
                }
            })
            .map_err(Error::io("start a thread for", &program))?;
        let pid = pid
            .await
            .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
            .map_err(Error::io("run", &program))?;
        Ok(Self { pid, reaped, state, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells the server to go. It has gone when [`Server::gone_within`] says so.
    pub(crate) fn halt(&self, how: Halt) {
        self.state.send_if_modified(|state| {
            let running = *state == State::Running;
            if running {
                *state = State::Halting;
            }
            running
        });
        if let Err(error) = halt(self.pid, &self.reaped, how) {
            tracing::warn!(error = %error, "Cannot signal the Postgres server with pid {}", self.pid);
        }
    }

    /// Whether the server has ended, at the latest after `deadline`.
    pub(crate) async fn gone_within(&self, deadline: Duration) -> bool {
        let mut state = self.state.subscribe();
        let gone = state.wait_for(|state| matches!(state, State::Gone(_)));
        tokio::time::timeout(deadline, gone).await.is_ok()
    }

    /// Resolves when the server ends without having been told to.
    pub(crate) fn exited(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut state = self.state.subscribe();
        let log = self.log.clone();
        async move {
            let mut status = None;
            let died = state.wait_for(|state| match state {
                State::Gone(Some(how)) => {
                    status = Some(how.clone());
                    true
                }
                _ => false,
            });
            drop(died.await);
            match status {
                Some(status) => {
                    Error::Exited { status, tail: log.tail(), log: log.path().to_owned() }
                }
                // Every sender is gone, so the end was one that we had asked for.
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(*self.state.borrow(), State::Gone(_)) {
            self.halt(Halt::Fast);
        }
    }
}

/// Waits until the child has ended; says how.
fn wait(mut child: Child, reaped: &Mutex<bool>) -> String {
    #[cfg(unix)]
    if let Ok(pid) = signal::checked(child.id()) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        // Leaves a zombie, so the pid stays taken until we hold the lock.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
    }
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    *reaped = true;
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn halt(pid: u32, reaped: &Mutex<bool>, how: Halt) -> io::Result<()> {
    let reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    if *reaped { Ok(()) } else { signal::send(pid, how) }
}
