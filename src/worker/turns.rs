//! The loop that runs a worker: wake, claim, settle, in one round trip a turn.
//!
//! Handlers' tasks take what waits in the worker by themselves and put what is to be settled where the loop finds it
//! (`places.rs`, `start.rs`). Each turn sends what has gathered and claims as much as there is room for. While one is
//! under way the next one's settles gather, so batches grow with the load by themselves; when as many have gathered as
//! make half of what is in hand, the next goes beside it, so that neither side waits for the other. For that each asks for
//! half at most: one that asked for all that there is room for would leave the next one nothing to bring, and they would go
//! by turns. A lone settle waits for nobody. No connection is held while handlers run.

mod amounts;
mod answer;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use crate::bus::take::Take;
use crate::bus::{Bus, Error, Settle, Signal, Waker, group};
use crate::clock::Stopwatch;
use crate::live::Live;
use crate::message::Topic;
use crate::shutdown::{Shutdown, Tasks};
use crate::worker::Handler;
use crate::worker::in_flight::{ClaimId, InFlight};
use crate::worker::meters::Meters;
use crate::worker::places::{Asked, Places};
use crate::worker::prefetch::Pace;
use crate::worker::resolved::Resolved;
use crate::worker::runner::Runner;
use crate::worker::start::{Done, Gathered, Starter, stale};
use crate::worker::turns::amounts::{Amounts, SETTLES_MAX};
use crate::worker::turns::answer::{DENIED_FOR, Ended, Turn};

/// How many turns may be under way: one that the database is at work on while we are at work on another's answer.
const TURNS_MAX: usize = 2;
/// Under load, how long settles wait for more while a turn is under way; one that waits for a lock holds up nobody for
/// longer.
const BESIDE: Duration = Duration::from_millis(50);

/// For how long nothing waits here after something came back from a worker that died of something: whatever it was, what waits
/// beside it would burn an attempt each time.
const CAREFUL: Duration = Duration::from_secs(30);

/// The loop, and what it knows.
pub(super) struct Turns<'r, H> {
    bus: &'r Bus,
    shutdown: &'r Shutdown,
    topics: Live<Vec<Topic>>,
    starter: Arc<Starter<H>>,
    taker: Option<Weak<dyn Take>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    settles: Gathered,
    /// Something may wait that is ours to claim.
    look: bool,
    /// How many wake-ups have come.
    heard: u64,
    soon: Duration,
    /// Since it was last looked for work: what is handed in meanwhile must not put the next look off.
    looked: Stopwatch,
    /// Nothing is asked before this is over.
    pause: Option<(Stopwatch, Duration)>,
    backoff: Duration,
    amounts: Amounts,
    /// Since something came that a worker died with.
    careful: Option<Stopwatch>,
    /// Whether the last settles were many.
    many: bool,
    /// Whether the bus has ever answered, and whether it was told that it does not take our key any more.
    answered: bool,
    locked_out: bool,
    /// Failures that nobody foresaw, each told of once.
    odd: HashSet<String>,
    /// Since when the database has denied us what we need, and for how long we bear that.
    denied: Option<Stopwatch>,
    denied_for: Duration,
    /// Settles that failed alone, while the bus answered otherwise, and since when.
    stuck: HashMap<ClaimId, Stopwatch>,
    /// The next turn is to bring messages and settle none: the last settle failed alone.
    aside: bool,
    closed: bool,
}

impl<'r, H: Handler> Turns<'r, H> {
    pub(super) fn new(
        runner: &'r Runner<H>,
        shutdown: &'r Shutdown,
        topics: Live<Vec<Topic>>,
        in_flight: InFlight,
        handlers: &Tasks,
    ) -> Self {
        let options = &runner.options;
        let pace = Pace::new(options.prefetch, options.lease);
        let starter = Arc::new_cyclic(|own| Starter {
            handler: Arc::clone(&runner.handler),
            options: options.clone(),
            topics: topics.clone(),
            bus: runner.bus.clone(),
            retry: Resolved::new(runner.retry.clone()),
            circuits: Arc::clone(&runner.circuits),
            handlers: handlers.clone(),
            done: Done::new(),
            in_flight,
            places: Places::new(options.concurrency, pace),
            meters: Meters::new(&runner.role()),
            draining: shutdown.draining().clone(),
            stop: shutdown.cancelled().child_token(),
            own: own.clone(),
        });
        let taker: Weak<Starter<H>> = Arc::downgrade(&starter);
        Self {
            bus: &runner.bus,
            shutdown,
            topics,
            starter,
            taker: Some(taker),
            under_way: FuturesUnordered::new(),
            settles: Gathered::default(),
            look: true,
            heard: 0,
            soon: Duration::MAX,
            looked: Stopwatch::start(),
            pause: None,
            backoff: Duration::ZERO,
            amounts: Amounts::new(options.concurrency),
            careful: None,
            many: false,
            answered: false,
            locked_out: false,
            odd: HashSet::new(),
            denied: None,
            denied_for: DENIED_FOR,
            stuck: HashMap::new(),
            aside: false,
            closed: false,
        }
    }

    /// Goes on until the worker is to stop and everything is settled.
    pub(super) async fn run(mut self, ready: &watch::Sender<bool>) -> Result<(), Error> {
        let mut woken = self.bus.waker(Signal::Work);
        let mut rejoined = self.bus.waker(Signal::Link);
        let mut topics = self.topics.clone();
        let starter = Arc::clone(&self.starter);
        let (draining, cancelled) = (self.shutdown.draining(), self.shutdown.cancelled());
        loop {
            if draining.is_cancelled() {
                self.close();
            }
            let nap = self.gather(&mut woken);
            if self.is_over() {
                return Ok(());
            }
            if self.begin() {
                continue;
            }
            let (is_open, is_cancelled) = (!self.closed, cancelled.is_cancelled());
            let poll = self.bus.pause().min(self.soon).saturating_sub(self.looked.elapsed());
            let is_paused = self.pause.is_some();
            tokio::select! {
                Some(ended) = self.under_way.next() => match ended {
                    Ended::Turn(turn) => {
                        if self.end(*turn, ready)? {
                            return Ok(());
                        }
                    }
                    Ended::Refused(unanswered, why) => self.end_parts(unanswered, why),
                },
                () = starter.places.stirred() => {}
                () = woken.woken(), if is_open => self.hear(),
                () = topics.changed(), if is_open => self.hear(),
                () = tokio::time::sleep(poll), if is_open => {
                    self.hear();
                    self.looked = Stopwatch::start();
                    self.soon = self.soon.saturating_mul(2);
                }
                () = tokio::time::sleep(nap.unwrap_or_default()), if nap.is_some() => {}
                () = rejoined.woken(), if is_paused => self.pause = None,
                () = draining.cancelled(), if is_open => {}
                () = cancelled.cancelled(), if !is_cancelled => self.pause = None,
            }
        }
    }

    /// Something may have come to be claimed.
    fn hear(&mut self) {
        self.heard += 1;
        self.look = true;
    }

    /// Nothing is begun from now on; what waits here goes back.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.starter.put_back(&self.starter.places.close(), "worker_shutdown");
        }
    }

    fn is_over(&self) -> bool {
        let starter = &self.starter;
        if !self.closed || !self.settles.is_empty() || !self.under_way.is_empty() {
            return false;
        }
        // What is handed in and not gathered yet is in flight still.
        starter.places.are_all_free() && starter.in_flight.is_empty()
            || self.shutdown.cancelled().is_cancelled()
                && starter.in_flight.is_empty()
                && !starter.places.are_kept()
    }

    /// Takes what was handed in, and gives how long it is until there is something to do that nobody tells of.
    fn gather(&mut self, woken: &mut Waker) -> Option<Duration> {
        if woken.rang() {
            self.hear();
        }
        self.look &= !self.closed;
        let starter = &self.starter;
        let (overdue, mut nap) = starter.places.overdue();
        starter.put_back(&overdue, "worker_busy");
        let enough = self.enough();
        let missing = enough.saturating_sub(self.settles.len()).max(1);
        self.settles.append(starter.done.take(missing));
        if starter.in_flight.superseded() {
            self.keep_newest();
        }
        let starter = &self.starter;
        starter.meters.in_hand(starter.in_flight.running(), starter.places.waiting());
        if let Some((since, pause)) = self.pause {
            match pause.saturating_sub(since.elapsed()) {
                Duration::ZERO => self.pause = None,
                left => nap = Some(nap.map_or(left, |nap| nap.min(left))),
            }
        }
        if self.pause.is_none()
            && let Some(waited) = self.settles.since.first().map(Stopwatch::elapsed)
        {
            let left = self.patience().saturating_sub(waited);
            if self.under_way.len() < self.turns_max() {
                nap = Some(nap.map_or(left, |nap| nap.min(left)));
            }
        }
        nap
    }

    /// A batch that names a message twice is refused as a whole.
    fn keep_newest(&mut self) {
        let in_flight = &self.starter.in_flight;
        self.settles.retain(|settle| {
            let claim = (settle.id, settle.claim_no);
            let is_newest = in_flight.is_newest(claim);
            if !is_newest {
                stale(claim);
            }
            is_newest
        });
    }

    /// So many settles are worth a statement of their own.
    fn enough(&self) -> usize {
        (self.starter.places.most() / 2).clamp(group::MANY, SETTLES_MAX)
    }

    /// How much of what may be in hand one turn asks for; no less than can be begun at once.
    fn share(&self) -> usize {
        let share = self.starter.places.most().div_ceil(self.turns_max());
        share.max(self.starter.options.concurrency)
    }

    fn turns_max(&self) -> usize {
        if self.bus.pace().is_far { 1 } else { TURNS_MAX }
    }

    /// Whether what has gathered is to go now. Under load it is given a moment to grow: a statement costs more than what
    /// it does for one message.
    fn is_enough(&self) -> bool {
        let Some(waited) = self.settles.since.first().map(Stopwatch::elapsed) else {
            return false;
        };
        // When nothing is being handled, nothing more comes until a turn brings it.
        let (enough, is_quiet) = (self.enough(), self.starter.places.are_quiet());
        let enough = if is_quiet { enough.div_ceil(2) } else { enough };
        let may_grow = !self.under_way.is_empty() || !is_quiet;
        self.settles.len() >= enough || !may_grow || waited >= self.patience()
    }

    /// How long settles wait for more, which is not at all where one comes now and then.
    fn patience(&self) -> Duration {
        match (self.under_way.is_empty(), self.many) {
            (true, false) => Duration::ZERO,
            (true, true) => group::LINGER,
            (false, false) => group::ALONE_FOR,
            (false, true) => BESIDE,
        }
    }

    /// Begins a turn, if there is reason to. Whether there was.
    fn begin(&mut self) -> bool {
        if self.pause.is_some() || self.under_way.len() >= self.turns_max() {
            return false;
        }
        let topics = self.topics.get();
        let look = self.look && !topics.is_empty() && !self.closed;
        let aside = std::mem::take(&mut self.aside) && look;
        let is_enough = self.is_enough() && !aside;
        // A turn that settles claims as well where something may wait: where the last look found more than there
        // was room for, where a settled message makes way for the next of its key, and over the internet, where
        // a look of its own would cost a request. Else nothing does, and a result need not wait for the look.
        // After a failure settles go alone: else one of the two could keep the other from being done.
        let takes = if is_enough {
            let is_likely =
                || self.bus.pace().is_far || self.settles.settles.iter().any(Settle::makes_way);
            self.backoff.is_zero() && (look || is_likely())
        } else {
            look && (self.settles.is_empty() || !self.under_way.is_empty() || aside)
        };
        let takes = takes && !self.closed && !topics.is_empty();
        let asked = if takes {
            let least = if is_enough || self.under_way.is_empty() { 1 } else { self.enough() };
            let is_careful = self.careful.is_some_and(|since| since.elapsed() < CAREFUL);
            let most = self.amounts.claims().min(self.share());
            self.starter.places.ask(least, most, is_enough, is_careful)
        } else {
            Asked::default()
        };
        if !is_enough && asked.all() == 0 {
            return false;
        }
        if !self.settles.is_empty() {
            self.many = self.settles.len() >= group::MANY;
        }
        let batch =
            if aside { Gathered::default() } else { self.settles.take(self.amounts.settles()) };
        let request = self.starter.request(&topics, asked.all());
        let (bus, heard) = (self.bus.clone(), self.heard);
        let turn = async move {
            let began = Stopwatch::start();
            let answer = bus.step_bare(&batch.settles, &request).await;
            Ended::Turn(Box::new(Turn { batch, asked, heard, began, answer }))
        };
        self.under_way.push(turn.boxed());
        true
    }
}

impl<H> Drop for Turns<'_, H> {
    /// However it ended: nobody settles what would be begun from now on, nor keeps the leases of what is being handled.
    fn drop(&mut self) {
        self.starter.places.close();
        self.starter.stop.cancel();
    }
}
