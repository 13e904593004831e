//! Wake-ups: a hint that it is time to look again. They carry nothing.
//!
//! With every wake-up lost, polling alone is correct, only slower; so nothing here is retried hard, and
//! nothing that a wake-up says is believed. Three things wake: this process (a publish or settle of our
//! own), the transport, which hears of other processes, and the transport's (re)connection, since what
//! happened meanwhile went unheard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::message::MessageId;

/// What there is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Messages may be waiting.
    Work,
    /// The log may have grown.
    Log,
    /// A circuit breaker may have changed.
    Circuit,
    /// Claims may have been taken away: whoever holds some should see whether they are still in force.
    Claims,
    /// The connection that brings wake-ups was made, made again or lost.
    Link,
    /// Something was put off: it will be due sooner, perhaps, than was foreseen. Told within this process alone.
    Due,
    /// A RemoteEnv may have changed.
    Env,
}

/// How many batches of endings wait for who is slow to hear them; what is lost by that, the log tells.
const ENDINGS_KEPT: usize = 256;

const SIGNALS: [Signal; 7] = [
    Signal::Work,
    Signal::Log,
    Signal::Circuit,
    Signal::Claims,
    Signal::Link,
    Signal::Due,
    Signal::Env,
];

/// The wake-ups of one process. Cheap to clone; the tasks that it starts end with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct Wake {
    lines: Arc<Lines>,
    closed: CancellationToken,
    _close_with_the_last: Arc<DropGuard>,
}

/// What the tasks that wake need; apart from [`Wake`], or they would keep themselves alive.
#[derive(Debug)]
pub(crate) struct Lines {
    work: Line,
    log: Line,
    circuit: Line,
    claims: Line,
    link: Line,
    due: Line,
    env: Line,
    tell: Notify,
    ended: broadcast::Sender<Arc<[MessageId]>>,
}

impl Default for Lines {
    fn default() -> Self {
        let ended = broadcast::Sender::new(ENDINGS_KEPT);
        let [work, log, circuit, claims, link, due, env] = SIGNALS.map(|_| Line::default());
        Self { work, log, circuit, claims, link, due, env, tell: Notify::new(), ended }
    }
}

/// One kind of wake-up.
#[derive(Debug, Default)]
struct Line {
    here: watch::Sender<u64>,
    /// Other processes have yet to be told.
    to_tell: AtomicBool,
}

/// Waits for one kind of wake-up. Armed from its creation: what happens before [`Waker::woken`] is
/// called is not missed.
#[derive(Debug, Clone)]
pub struct Waker(watch::Receiver<u64>);

impl Waker {
    /// Waits for a wake-up since the last call, or since the waker was made.
    pub async fn woken(&mut self) {
        if self.0.changed().await.is_err() {
            // The bus is gone; its other ends will say so. Never busy-loop on it.
            std::future::pending::<()>().await;
        }
    }
}

impl Waker {
    /// Whether there was a wake-up since the last call, without waiting for one.
    pub(crate) fn rang(&mut self) -> bool {
        let rang = self.0.has_changed().unwrap_or(false);
        if rang {
            self.0.mark_unchanged();
        }
        rang
    }
}

impl Wake {
    pub(crate) fn new() -> Self {
        let closed = CancellationToken::new();
        Self {
            lines: Arc::default(),
            _close_with_the_last: Arc::new(closed.clone().drop_guard()),
            closed,
        }
    }

    pub(crate) fn waker(&self, signal: Signal) -> Waker {
        Waker(self.lines.line(signal).here.subscribe())
    }

    /// Wakes this process at once, and the others soon.
    pub(crate) fn wake(&self, signal: Signal) {
        self.lines.wake_here(signal);
        self.lines.line(signal).to_tell.store(true, Ordering::Release);
        self.lines.tell.notify_one();
    }

    /// Wakes this process alone.
    pub(crate) fn wake_here(&self, signal: Signal) {
        self.lines.wake_here(signal);
    }

    /// Says within this process that messages may have ended: look at them. Sooner than the log, which tells of them
    /// as well, and of what other processes settle.
    pub(crate) fn ended(&self, messages: Vec<MessageId>) {
        if !messages.is_empty() {
            let _nobody_waits = self.lines.ended.send(messages.into());
        }
    }

    /// Hears of what [`Wake::ended`] says from now on.
    pub(crate) fn endings(&self) -> broadcast::Receiver<Arc<[MessageId]>> {
        self.lines.ended.subscribe()
    }

    pub(crate) fn lines(&self) -> Arc<Lines> {
        Arc::clone(&self.lines)
    }

    /// Cancelled with the last clone.
    pub(crate) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }
}

impl Lines {
    fn line(&self, signal: Signal) -> &Line {
        match signal {
            Signal::Work => &self.work,
            Signal::Log => &self.log,
            Signal::Circuit => &self.circuit,
            Signal::Claims => &self.claims,
            Signal::Link => &self.link,
            Signal::Due => &self.due,
            Signal::Env => &self.env,
        }
    }

    pub(crate) fn wake_all_here(&self) {
        SIGNALS.iter().for_each(|signal| self.wake_here(*signal));
    }

    pub(crate) fn wake_here(&self, signal: Signal) {
        self.line(signal).here.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until other processes have something to be told.
    pub(crate) async fn to_tell(&self) {
        self.tell.notified().await;
    }

    /// Whether other processes have yet to be told of `signal`; from now on they have not.
    pub(crate) fn take_to_tell(&self, signal: Signal) -> bool {
        self.line(signal).to_tell.swap(false, Ordering::AcqRel)
    }
}
