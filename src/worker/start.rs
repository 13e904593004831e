//! From a claim to a task that handles it, and the places that tasks take.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use metrics::histogram;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::bus::take::Take;
use crate::bus::{Bus, ClaimRequest, Settle};
use crate::clock::Stopwatch;
use crate::live::Live;
use crate::message::{ALL_TENANTS, Message, NewMessage, Topic};
use crate::metrics::CLAIM_LATENCY_MS;
use crate::retry::Policies;
use crate::shutdown::Tasks;
use crate::worker::Handler;
use crate::worker::circuits::Circuits;
use crate::worker::execution::{self, Ended, Execution};
use crate::worker::in_flight::InFlight;
use crate::worker::progress::Reports;
use crate::worker::runner::Options;
use crate::worker::spans::AttemptSpan;

/// A settle that waits to be sent, and since when.
pub(super) struct Ready {
    pub(super) settle: Settle,
    pub(super) since: Stopwatch,
}

/// The places of a runner: each is free, kept for a claim that is being made, or taken by a handler.
#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    free: usize,
    all: usize,
    /// How many are kept by who publishes.
    kept: usize,
    /// Publishers take from them as well.
    shared: bool,
    closed: bool,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let state = State { free: all, all, kept: 0, shared: false, closed: false };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }

    /// Takes at most `most`; how many. Half of them are left where publishers take them too: a look that held all would
    /// have what is published meanwhile looked for, and the next look hold all again.
    pub(super) fn take(&self, most: usize) -> usize {
        let mut state = self.lock();
        let free = if state.shared { state.free.div_ceil(2) } else { state.free };
        let taken = free.min(most);
        state.free -= taken;
        taken
    }

    /// As [`Places::take`], for who publishes; none once it is closed.
    fn keep(&self, most: usize) -> usize {
        let mut state = self.lock();
        let kept = if state.closed { 0 } else { state.free.min(most) };
        state.free -= kept;
        state.kept += kept;
        kept
    }

    /// Of `kept` ones, `used` are taken by handlers from now on, and the others free.
    fn kept(&self, kept: usize, used: usize) {
        let mut state = self.lock();
        state.kept -= kept;
        state.free += kept.saturating_sub(used);
        self.freed.notify_one();
    }

    pub(super) fn give_back(&self, places: usize) {
        self.lock().free += places;
    }

    pub(super) fn free(&self) -> usize {
        self.lock().free
    }

    /// Whether no handler runs, and none is about to.
    pub(super) fn are_all_free(&self) -> bool {
        let state = self.lock();
        state.free == state.all
    }

    /// Whether who publishes keeps some.
    pub(super) fn are_kept(&self) -> bool {
        self.lock().kept > 0
    }

    /// From now on publishers take from them as well.
    pub(super) fn share(&self) {
        self.lock().shared = true;
    }

    /// Nothing is kept for who publishes from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until who publishes has given some back.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts handlers, for claims of the runner's own and for those that publishers of this process made for it.
pub(super) struct Starter<H> {
    pub(super) handler: Arc<H>,
    pub(super) options: Options,
    pub(super) topics: Live<Vec<Topic>>,
    pub(super) bus: Bus,
    pub(super) retry: Live<Policies>,
    pub(super) circuits: Arc<Circuits>,
    pub(super) handlers: Tasks,
    pub(super) hand_in: mpsc::Sender<Option<Ready>>,
    pub(super) in_flight: InFlight,
    pub(super) places: Arc<Places>,
    /// Nothing more is taken.
    pub(super) draining: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl<H> std::fmt::Debug for Starter<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starter")
            .field("worker_id", &self.options.worker_id)
            .finish_non_exhaustive()
    }
}

impl<H: Handler> Starter<H> {
    /// What is claimed with `places`.
    pub(super) fn request(&self, topics: &[Topic], places: usize) -> ClaimRequest {
        ClaimRequest {
            worker: self.options.worker_id.clone(),
            tenant: self.options.tenant.clone(),
            topics: topics.iter().map(Topic::to_string).collect(),
            max: places,
            lease: self.options.lease,
        }
    }

    /// Has a task handle `message`, which was claimed by a call that began at `began`; its place is taken already.
    pub(super) fn start(&self, message: Arc<Message>, began: Stopwatch) {
        if let Some(claimed_at) = message.claimed_at {
            // Both times are the database's.
            let waited = (claimed_at - message.run_at).num_milliseconds().max(0);
            #[allow(clippy::cast_precision_loss)] // milliseconds
            histogram!(CLAIM_LATENCY_MS, "role" => message.role.clone()).record(waited as f64);
        }
        let (claim, claimed) = ((message.id, message.claim_no), Stopwatch::start());
        let lost = self.in_flight.add(claim, began);
        let (handler, retry, bus) =
            (Arc::clone(&self.handler), self.retry.clone(), self.bus.clone());
        let (worker_id, stop) = (self.options.worker_id.clone(), self.stop.clone());
        let (hand_in, in_flight) = (self.hand_in.clone(), self.in_flight.clone());
        let circuits = Arc::clone(&self.circuits);
        // On shutdown the task ends by the execution's own `stop`; an error is a settle like any other.
        self.handlers.spawn(async move {
            let delivered = Arc::clone(&message);
            let execution = async move {
                let policy = retry.get().resolve(&handler.policy_key(&message));
                Execution {
                    handler,
                    message,
                    policy,
                    bus,
                    circuits,
                    span: AttemptSpan::default(),
                    worker_id,
                    reports: Reports::default(),
                    claimed,
                    lost,
                    stop,
                }
                .run()
                .await
            };
            // Whatever panics, the place is given back: the runner counts what is handed in.
            let Ended { settle, called } =
                AssertUnwindSafe(execution).catch_unwind().await.unwrap_or_else(|panic| {
                    let settle = Some(execution::panicked(&delivered, &*panic));
                    Ended { settle, called: None }
                });
            if settle.is_some() {
                in_flight.handled(claim)
            } else {
                in_flight.remove(claim)
            }
            let ready = settle.map(|settle| Ready { settle, since: Stopwatch::start() });
            drop(hand_in.send(ready).await); // the runner outlives its handlers, but for a crash
            // After the settle: what a breaker learns must not hold up a result.
            if let Some((passage, outcome)) = called {
                passage.ended(outcome).await;
            }
        });
    }
}

impl<H: Handler> Take for Starter<H> {
    fn reserve(&self, messages: &[NewMessage]) -> Option<ClaimRequest> {
        if self.draining.is_cancelled() {
            return None;
        }
        let topics = self.topics.get();
        let is_ours = |message: &NewMessage| {
            (self.options.tenant == ALL_TENANTS || self.options.tenant == message.tenant)
                && message.delay.is_zero()
                && topics
                    .iter()
                    .any(|topic| topic.role() == message.role && topic.service() == message.service)
        };
        if !messages.iter().all(is_ours) {
            return None;
        }
        match self.places.keep(messages.len()) {
            0 => None,
            kept => Some(self.request(&topics, kept)),
        }
    }

    fn take(&self, messages: Vec<Box<Message>>, began: Stopwatch, reserved: usize) {
        let used = messages.len();
        for message in messages {
            self.start(Arc::new(*message), began);
        }
        self.places.kept(reserved, used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_kept_or_taken_and_none_is_kept_once_closed() {
        let places = Places::new(3);
        assert_eq!(places.keep(2), 2);
        assert_eq!((places.free(), places.are_kept()), (1, true));
        assert_eq!(places.take(5), 1);
        assert_eq!(places.keep(1), 0, "all are gone");
        places.kept(2, 1);
        assert_eq!((places.free(), places.are_kept()), (1, false));
        places.close();
        assert_eq!(places.keep(1), 0);
        places.give_back(2);
        assert!(places.are_all_free());
        places.share();
        assert_eq!(places.take(5), 2, "one is left for who publishes");
        assert_eq!((places.take(5), places.take(5)), (1, 0));
    }
}
