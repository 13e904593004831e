//! From a claim to a handler: the tasks that take one message after the other, and what they hand in.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::bus::json::weight;
use crate::bus::take::Take;
use crate::bus::{Bus, ClaimRequest, Settle};
use crate::clock::Stopwatch;
use crate::live::Live;
use crate::message::{ALL_TENANTS, Message, NewMessage, Topic};
use crate::retry::Rule;
use crate::shutdown::Tasks;
use crate::worker::Handler;
use crate::worker::circuits::Circuits;
use crate::worker::execution::{self, Ended, Execution};
use crate::worker::in_flight::InFlight;
use crate::worker::meters::Meters;
use crate::worker::places::{Places, Put, Weigh};
use crate::worker::resolved::Resolved;
use crate::worker::runner::Options;

/// Settles that wait to be sent, and since when each does.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) settles: Vec<Settle>,
    pub(super) since: Vec<Stopwatch>,
}

impl Gathered {
    pub(super) fn push(&mut self, settle: Settle, since: Stopwatch) {
        self.settles.push(settle);
        self.since.push(since);
    }

    pub(super) fn len(&self) -> usize {
        self.settles.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.settles.is_empty()
    }

    /// Puts all of `other` behind these.
    pub(super) fn append(&mut self, mut other: Self) {
        self.settles.append(&mut other.settles);
        self.since.append(&mut other.since);
    }

    /// Takes the first ones out, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Self {
        if self.len() <= most {
            return std::mem::take(self);
        }
        let rest =
            Self { settles: self.settles.split_off(most), since: self.since.split_off(most) };
        std::mem::replace(self, rest)
    }

    /// Keeps those that `is_kept` says.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Settle) -> bool) {
        let all = std::mem::take(self);
        for (settle, since) in all.settles.into_iter().zip(all.since) {
            if is_kept(&settle) {
                self.push(settle, since);
            }
        }
    }
}

/// Where handlers' tasks put what is to be settled.
#[derive(Debug)]
pub(super) struct Done {
    gathered: Mutex<Gathered>,
    /// When there are so many, the runner wants to know; else it hears of the first one alone.
    enough: AtomicUsize,
}

impl Done {
    pub(super) fn new() -> Self {
        Self { gathered: Mutex::default(), enough: AtomicUsize::new(1) }
    }

    /// Whether the runner is to be told.
    fn push(&self, settle: Settle) -> bool {
        let since = Stopwatch::start();
        let mut gathered = self.lock();
        gathered.push(settle, since);
        let count = gathered.len();
        count == 1 || count == self.enough.load(Ordering::Relaxed)
    }

    /// All that was put here; from now on, `enough` more are to be told of.
    pub(super) fn take(&self, enough: usize) -> Gathered {
        let mut gathered = self.lock();
        self.enough.store(enough, Ordering::Relaxed);
        std::mem::take(&mut *gathered)
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts handlers, for claims of the runner's own and for those that publishers of this process made for it.
pub(super) struct Starter<H> {
    pub(super) handler: Arc<H>,
    pub(super) options: Options,
    pub(super) topics: Live<Vec<Topic>>,
    pub(super) bus: Bus,
    pub(super) retry: Resolved<Rule>,
    pub(super) circuits: Arc<Circuits>,
    pub(super) handlers: Tasks,
    pub(super) done: Done,
    pub(super) in_flight: InFlight,
    pub(super) places: Places<Box<Message>>,
    pub(super) meters: Meters,
    /// Nothing more is taken.
    pub(super) draining: CancellationToken,
    /// Handlers are let go: the worker is to stop, or its loop has ended.
    pub(super) stop: CancellationToken,
    /// For tasks, which outlive the call that starts them.
    pub(super) own: std::sync::Weak<Self>,
}

impl<H> std::fmt::Debug for Starter<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starter")
            .field("worker_id", &self.options.worker_id)
            .finish_non_exhaustive()
    }
}

impl<H: Handler> Starter<H> {
    /// What is claimed for `places`.
    pub(super) fn request(&self, topics: &[Topic], places: usize) -> ClaimRequest {
        ClaimRequest {
            worker: self.options.worker_id.clone(),
            tenant: self.options.tenant.clone(),
            topics: topics.iter().map(Topic::to_string).collect(),
            max: places,
            lease: self.options.lease,
        }
    }

    /// Holds what was claimed by a call that began at `began`: before any of it can be begun.
    pub(super) fn hold(&self, messages: &[Box<Message>], began: Stopwatch) {
        if !messages.is_empty() {
            let claims = messages.iter().map(|message| (message.id, message.claim_no));
            self.in_flight.hold(claims, began);
        }
    }

    /// In which order what was claimed is begun: as it came, but where there are several tenants, each gets its share of
    /// any stretch, and not the one whose messages are older all of the beginning.
    #[allow(clippy::vec_box)] // as they come out of the rows
    pub(super) fn in_turn(&self, messages: Vec<Box<Message>>) -> Vec<Box<Message>> {
        match self.options.tenant == ALL_TENANTS {
            true => spread(messages, |message| message.tenant.clone()),
            false => messages,
        }
    }

    /// Starts the tasks for what was put in. What was not taken in goes back as it was.
    pub(super) fn start(&self, put: Put<Box<Message>>) {
        for _ in 0..put.tasks {
            let Some(own) = self.own.upgrade() else { return };
            // On shutdown the task ends by the execution's own `stop`; an error is a settle like any other.
            self.handlers.spawn(own.work());
        }
        self.put_back(&put.left, "worker_shutdown");
    }

    /// Releases what was not begun.
    pub(super) fn put_back(&self, messages: &[Box<Message>], reason: &str) {
        for message in messages {
            if self.in_flight.handled((message.id, message.claim_no)) {
                self.meters.count("released");
                self.hand_in(Settle::release(message, Duration::ZERO, reason));
            }
        }
    }

    pub(super) fn hand_in(&self, settle: Settle) {
        if self.done.push(settle) {
            self.places.stir();
        }
    }

    /// Handles what waits, one after the other, until nothing does.
    async fn work(self: Arc<Self>) {
        let mut finished = false;
        while let Some((message, came)) = self.places.next(finished) {
            self.handle(Arc::from(message), came).await;
            finished = true;
            // Handlers that never wait would keep all others of this thread from their turn.
            tokio::task::consume_budget().await;
        }
    }

    /// Handles `message`, whose claim was answered when `claimed` started.
    async fn handle(&self, message: Arc<Message>, claimed: Stopwatch) {
        let claim = (message.id, message.claim_no);
        let Some(lost) = self.in_flight.begin(claim) else {
            self.meters.count("lost"); // while it waited here
            return;
        };
        if let Some(claimed_at) = message.claimed_at {
            // Both times are the database's; how long it waited here is ours.
            let here = i64::try_from(claimed.elapsed_ms()).unwrap_or(i64::MAX);
            self.meters.claimed((claimed_at - message.run_at).num_milliseconds() + here);
        }
        let delivered = Arc::clone(&message);
        let execution = async { Execution::new(self, message, claimed, lost).run().await };
        // Whatever panics, the task goes on to the next message.
        let Ended { settle, called } =
            AssertUnwindSafe(execution).catch_unwind().await.unwrap_or_else(|panic| {
                let settle = Some(execution::panicked(&delivered, &*panic));
                Ended { settle, called: None }
            });
        let is_newest = self.in_flight.ended(claim, settle.is_some());
        match settle {
            Some(settle) if is_newest => self.hand_in(settle),
            Some(_) => stale(claim),
            None => {}
        }
        // After the settle: what a breaker learns must not hold up a result, nor the next message.
        if let Some((passage, outcome)) = called
            && let Some(telling) = passage.ended(outcome)
        {
            self.handlers.spawn(telling);
        }
    }
}

/// Spreads the items of each owner evenly over all of them, in their order.
fn spread<T>(items: Vec<T>, owner: impl Fn(&T) -> String) -> Vec<T> {
    let mut counts: HashMap<String, (u32, u32)> = HashMap::new();
    for item in &items {
        counts.entry(owner(item)).or_default().0 += 1;
    }
    if counts.len() < 2 {
        return items;
    }
    let placed = items.into_iter().map(|item| {
        let (count, seen) = counts.entry(owner(&item)).or_default();
        *seen += 1;
        ((f64::from(*seen) - 0.5) / f64::from((*count).max(1)), item)
    });
    let mut placed: Vec<(f64, T)> = placed.collect();
    placed.sort_by(|(a, _), (b, _)| a.total_cmp(b)); // stable: of equals the first that came
    placed.into_iter().map(|(_, item)| item).collect()
}

/// A settle is worth nothing any more.
pub(super) fn stale((id, claim_no): crate::worker::in_flight::ClaimId) {
    tracing::warn!(
        message.id = %id,
        "Message {id} was settled too late: claim {claim_no} is no longer in force"
    );
}

impl Weigh for Box<Message> {
    fn weight(&self) -> usize {
        // What the other fields take is about the same for all, and little.
        size_of::<Message>() + weight(&self.payload)
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
        self.hold(&messages, began);
        let put = self.places.filled(reserved, messages, Stopwatch::start());
        self.start(put);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    fn settle(claim_no: i64) -> Settle {
        Settle::refused(MessageId::new(), claim_no, serde_json::json!({}))
    }

    #[test]
    fn the_runner_hears_of_the_first_and_of_enough() {
        let done = Done::new();
        assert!(done.take(3).is_empty());
        let told: Vec<_> = (0..5).map(|n| done.push(settle(n))).collect();
        assert_eq!(told, [true, false, true, false, false]);
        assert_eq!(done.take(1).len(), 5);
        assert!(done.push(settle(0)) && done.take(1).len() == 1);
    }

    #[test]
    fn each_owner_has_its_share_of_any_stretch() {
        let items: Vec<(char, u32)> =
            (0..6).map(|n| ('a', n)).chain((0..2).map(|n| ('b', n))).collect();
        let order = spread(items, |(owner, _)| owner.to_string());
        let owners: String = order.iter().map(|(owner, _)| owner).collect();
        assert_eq!(owners, "aabaaaba");
        let of_a: Vec<u32> = order.iter().filter(|(o, _)| *o == 'a').map(|(_, n)| *n).collect();
        assert_eq!(of_a, [0, 1, 2, 3, 4, 5], "in its order");
    }

    #[test]
    fn settles_go_in_their_order() {
        let numbers = |gathered: &Gathered| -> Vec<i64> {
            assert_eq!(gathered.settles.len(), gathered.since.len());
            gathered.settles.iter().map(|settle| settle.claim_no).collect()
        };
        let mut all = Gathered::default();
        (1..=5).for_each(|n| all.push(settle(n), Stopwatch::start()));
        let mut first = all.take(2);
        assert_eq!((numbers(&first), numbers(&all)), (vec![1, 2], vec![3, 4, 5]));
        first.append(all);
        first.retain(|settle| settle.claim_no % 2 == 1);
        assert_eq!(numbers(&first), [1, 3, 5]);
        assert_eq!((first.take(9).len(), first.is_empty()), (3, true));
    }
}
