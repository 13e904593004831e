//! Wake-ups: a hint that it is time to look again. They carry nothing.
//!
//! With every wake-up lost, polling alone is correct, only slower; so nothing here is retried hard, and
//! nothing that a wake-up says is believed. Three things wake: this process (a publish or settle of our
//! own), the transport, which hears of other processes, and the transport's (re)connection, since what
//! happened meanwhile went unheard.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bus::take::Take;
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

/// A message that this process has settled, and that may have ended by it.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) id: MessageId,
    /// What it ended with, where that is certain and all that is to be told: it is committed.
    pub(crate) result: Option<&'a Arc<Value>>,
}

/// Hears of endings within this process, at once and on the settler's own time: it must not wait.
pub(crate) trait Hear: std::fmt::Debug + Send + Sync {
    fn ended(&self, ended: &[Ended<'_>]);
}

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
    /// The log has grown, and nobody here waits for what it says.
    grown: Line,
    env: Line,
    tell: Notify,
    /// What this process puts into what it tells others, by which it knows its own.
    own: String,
    /// Another process told of the log since it was last asked.
    from_afar: AtomicBool,
    hearers: Mutex<Vec<Weak<dyn Hear>>>,
    takers: Mutex<Vec<Weak<dyn Take>>>,
}

impl Default for Lines {
    fn default() -> Self {
        let [work, log, circuit, claims, link, due, env] = SIGNALS.map(|_| Line::default());
        Self {
            work,
            log,
            circuit,
            claims,
            link,
            due,
            env,
            grown: Line::default(),
            tell: Notify::new(),
            own: uuid::Uuid::new_v4().simple().to_string(),
            from_afar: AtomicBool::new(false),
            hearers: Mutex::default(),
            takers: Mutex::default(),
        }
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

    /// Says that the log has grown by what all who wait here were told of already. Other processes are woken as ever.
    pub(crate) fn grown(&self) {
        self.lines.grown.here.send_modify(|count| *count = count.wrapping_add(1));
        self.lines.log.to_tell.store(true, Ordering::Release);
        self.lines.tell.notify_one();
    }

    /// Waits for what [`Wake::grown`] says.
    pub(crate) fn when_grown(&self) -> Waker {
        Waker(self.lines.grown.here.subscribe())
    }

    /// Wakes this process alone.
    pub(crate) fn wake_here(&self, signal: Signal) {
        self.lines.wake_here(signal);
    }

    /// Says within this process that messages may have ended. Sooner than the log, which tells of them as well, and of
    /// what other processes settle.
    pub(crate) fn ended(&self, ended: &[Ended<'_>]) {
        if !ended.is_empty() {
            living(&self.lines.hearers).iter().for_each(|hearer| hearer.ended(ended));
        }
    }

    /// Has `hearer` hear of what [`Wake::ended`] says from now on, as long as it lives.
    pub(crate) fn hear(&self, hearer: Weak<dyn Hear>) {
        lock(&self.lines.hearers).push(hearer);
    }

    /// Has `taker` take what this process publishes from now on, as long as it lives.
    pub(crate) fn join(&self, taker: Weak<dyn Take>) {
        lock(&self.lines.takers).push(taker);
    }

    /// Those who take what this process publishes.
    pub(crate) fn takers(&self) -> Vec<Arc<dyn Take>> {
        living(&self.lines.takers)
    }

    /// Whether another process told of the log since this was last asked.
    pub(crate) fn is_from_afar(&self) -> bool {
        self.lines.from_afar.swap(false, Ordering::AcqRel)
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
        self.from_afar.store(true, Ordering::Release);
        SIGNALS.iter().for_each(|signal| self.wake_here(*signal));
    }

    pub(crate) fn wake_here(&self, signal: Signal) {
        self.line(signal).here.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// By what this process knows what it told others itself.
    pub(crate) fn own(&self) -> &str {
        &self.own
    }

    /// Another process told of `signal`.
    pub(crate) fn heard(&self, signal: Signal) {
        if signal == Signal::Log {
            self.from_afar.store(true, Ordering::Release);
        }
        self.wake_here(signal);
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

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens under the lock, so a poisoned one is still whole.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those that are still there; the others are forgotten.
fn living<T: ?Sized>(all: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    let mut all = lock(all);
    all.retain(|one| one.strong_count() > 0);
    all.iter().filter_map(Weak::upgrade).collect()
}
