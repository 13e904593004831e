//! Wake-ups: a hint that it is time to look again. They carry nothing.
//!
//! With every wake-up lost, polling alone is correct, only slower; so nothing here is retried hard, and
//! nothing that a wake-up says is believed. Three things wake: this process (a publish or settle of our
//! own), Postgres' NOTIFY from other processes, and the (re)connection of our LISTEN, since what happened
//! meanwhile went unheard.
//!
//! NOTIFY never stands in the transaction that it tells of: it takes one lock for the whole cluster until
//! commit. It is sent afterwards, from one place, at most once in [`COALESCE`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bus::queries;
use crate::error::chain;
use crate::shutdown::Tasks;

/// How long wake-ups for other processes are gathered after one was sent.
const COALESCE: Duration = Duration::from_millis(10);
/// How long to wait before listening again after the connection was lost.
const RECONNECT: Duration = Duration::from_secs(1);

/// What there is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Messages may be waiting.
    Work,
    /// The log may have grown.
    Log,
    /// A circuit breaker may have changed.
    Circuit,
}

const CHANNELS: [(Signal, &str); 3] =
    [(Signal::Work, "cogo_work"), (Signal::Log, "cogo_log"), (Signal::Circuit, "cogo_circuit")];

/// The wake-ups of one process. Cheap to clone; the tasks that it starts end with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct Wake {
    inner: Arc<Inner>,
    closed: CancellationToken,
    _close_with_the_last: Arc<DropGuard>,
}

#[derive(Debug)]
struct Inner {
    work: Line,
    log: Line,
    circuit: Line,
    tell: Notify,
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

impl Wake {
    pub(crate) fn new() -> Self {
        let closed = CancellationToken::new();
        Self {
            inner: Arc::new(Inner {
                work: Line::default(),
                log: Line::default(),
                circuit: Line::default(),
                tell: Notify::new(),
            }),
            _close_with_the_last: Arc::new(closed.clone().drop_guard()),
            closed,
        }
    }

    pub(crate) fn waker(&self, signal: Signal) -> Waker {
        Waker(self.inner.line(signal).here.subscribe())
    }

    /// Wakes this process at once, and the others soon.
    pub(crate) fn wake(&self, signal: Signal) {
        self.inner.wake_here(signal);
        self.inner.line(signal).to_tell.store(true, Ordering::Release);
        self.inner.tell.notify_one();
    }

    /// Tells other processes to look at everything. It costs a round trip, and a needless wake-up when
    /// our task was faster; that it may be half-way is why this does not leave it to that.
    pub(crate) async fn tell_now(&self, pool: &PgPool) {
        let channels = CHANNELS.map(|(_, channel)| channel);
        if let Err(error) = queries::notify(pool, &channels).await {
            tracing::debug!(error = %chain(&error), "Could not wake other processes; they poll");
        }
    }

    /// Starts to tell other processes of our wake-ups.
    pub(crate) fn start_telling(&self, tasks: &Tasks, pool: PgPool) {
        let (inner, closed) = (Arc::clone(&self.inner), self.closed.clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = inner.tell.notified() => {}
                    () = closed.cancelled() => return,
                }
                let mut channels = Vec::new();
                for (signal, channel) in CHANNELS {
                    if inner.line(signal).to_tell.swap(false, Ordering::AcqRel) {
                        channels.push(channel);
                    }
                }
                if let Err(error) = queries::notify(&pool, &channels).await {
                    tracing::debug!(error = %chain(&error), "Could not wake other processes; they poll");
                }
                tokio::time::sleep(COALESCE).await;
            }
        });
    }

    /// Starts to listen for wake-ups of other processes.
    pub(crate) fn start_listening(&self, tasks: &Tasks, pool: PgPool) {
        let (inner, closed) = (Arc::clone(&self.inner), self.closed.clone());
        tasks.spawn(async move {
            let mut complained = false;
            loop {
                let heard = tokio::select! {
                    heard = listen(&pool, &inner) => heard,
                    () = closed.cancelled() => return,
                };
                if matches!(heard, Err(sqlx::Error::PoolClosed)) {
                    return; // its owner is done with the database
                }
                if let Err(error) = heard
                    && !complained
                {
                    // Behind a pooler in transaction mode LISTEN never works; once is enough to say so.
                    tracing::warn!(error = %chain(&error), "LISTEN failed; polling until it works");
                    complained = true;
                }
                tokio::select! {
                    () = tokio::time::sleep(RECONNECT) => {}
                    () = closed.cancelled() => return,
                }
            }
        });
    }
}

impl Inner {
    fn line(&self, signal: Signal) -> &Line {
        match signal {
            Signal::Work => &self.work,
            Signal::Log => &self.log,
            Signal::Circuit => &self.circuit,
        }
    }

    fn wake_all_here(&self) {
        CHANNELS.iter().for_each(|(signal, _)| self.wake_here(*signal));
    }

    fn wake_here(&self, signal: Signal) {
        self.line(signal).here.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Listens until the connection cannot be made again.
async fn listen(pool: &PgPool, inner: &Inner) -> sqlx::Result<Infallible> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(CHANNELS.map(|(_, channel)| channel)).await?;
    // Whatever happened before we listened went unheard.
    inner.wake_all_here();
    loop {
        match listener.try_recv().await? {
            Some(heard) => {
                for (signal, channel) in CHANNELS {
                    if heard.channel() == channel {
                        inner.wake_here(signal);
                    }
                }
            }
            // The connection was lost; the next call makes it again. Look, then and now.
            None => inner.wake_all_here(),
        }
    }
}
