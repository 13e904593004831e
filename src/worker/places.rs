//! The places of a worker, and the queue of what waits for one.
//!
//! Each place is free, kept for a claim that is being made, or taken by a task that handles one message after the
//! other: it takes the next from the queue by itself, and gives its place back when there is none. So no message waits
//! for the runner's round trip, and a task is made for many of them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Stopwatch;
use crate::worker::prefetch::Pace;

/// From so many bytes of memory that wait, whatever their number, what is claimed is for places alone. What a claim brings is
/// not known before: the first heavy ones after many light ones may be more, by what the bus lets one large claim bring, which is
/// some 64 MiB as well (`bus_claim`).
const WEIGHT_MAX: usize = 64 * 1024 * 1024;

/// What has a weight.
pub(super) trait Weigh {
    /// About how many bytes it takes.
    fn weight(&self) -> usize;
}

/// The places, and what waits.
#[derive(Debug)]
pub(super) struct Places<T> {
    state: Mutex<State<T>>,
    /// There may be something for the runner to do.
    stirred: Notify,
}

#[derive(Debug)]
struct State<T> {
    all: usize,
    /// Each by a task.
    taken: usize,
    /// Of these, how many have yet to take their first.
    starting: usize,
    waiting: VecDeque<Waiting<T>>,
    /// How much all of that weighs, and how much one did of what came last.
    weight: usize,
    each: usize,
    /// How many claims under way are to fill places, and how many more they ask for.
    asked: Asked,
    /// How many are kept by who publishes.
    kept: usize,
    /// Publishers take from them as well.
    shared: bool,
    closed: bool,
    pace: Pace,
    /// How many may wait.
    limit: usize,
    /// Since when at least one place is taken.
    at_work: Option<Stopwatch>,
    /// What the pace was not told of yet.
    worked: Duration,
    finished: usize,
    /// The runner wants to know when what waits becomes little.
    hungry: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    weight: usize,
    came: Stopwatch,
}

/// How much a claim asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// For places.
    own: usize,
    /// To wait.
    more: usize,
}

impl Asked {
    pub(super) fn all(self) -> usize {
        self.own + self.more
    }
}

/// What became of what was put in.
#[derive(Debug)]
#[must_use]
pub(super) struct Put<T> {
    /// So many tasks are to be started: their places are taken.
    pub(super) tasks: usize,
    /// Not taken in, since nothing is begun any more.
    pub(super) left: Vec<T>,
}

impl<T: Weigh> Places<T> {
    pub(super) fn new(all: usize, pace: Pace) -> Self {
        let state = State {
            all,
            taken: 0,
            starting: 0,
            waiting: VecDeque::new(),
            weight: 0,
            each: 0,
            asked: Asked::default(),
            kept: 0,
            shared: false,
            closed: false,
            limit: pace.limit(all),
            pace,
            at_work: None,
            worked: Duration::ZERO,
            finished: 0,
            hungry: false,
        };
        Self { state: Mutex::new(state), stirred: Notify::new() }
    }

    /// Asks for at most `most`, of which some may wait unless it is to be `careful`, and for nothing where that would be fewer
    /// than `least`; with `eager`, also for what would not be worth a call of its own. Half of the free places are left where
    /// publishers take them too: a look that held all would have what is published meanwhile looked for, and the next look
    /// hold all again.
    pub(super) fn ask(&self, least: usize, most: usize, eager: bool, careful: bool) -> Asked {
        let mut state = self.lock();
        state.measure();
        let free = state.free();
        let own = if state.shared { free.div_ceil(2) } else { free };
        let beyond = state.waiting.len() + state.asked.more;
        let light = state.light().saturating_sub(state.asked.more);
        let room = if careful { 0 } else { state.limit.saturating_sub(beyond).min(light) };
        state.hungry = state.waiting.len() > state.limit / 2;
        let more = if eager || free > 0 || beyond <= state.limit / 2 { room } else { 0 };
        let own = own.min(most);
        let asked = Asked { own, more: more.min(most - own) };
        if asked.all() < least {
            return Asked::default();
        }
        state.asked.own += asked.own;
        state.asked.more += asked.more;
        asked
    }

    /// What was `asked` for is answered by `items`, which came at `came`.
    pub(super) fn answered(&self, asked: Asked, items: Vec<T>, came: Stopwatch) -> Put<T> {
        let mut state = self.lock();
        state.asked.own -= asked.own;
        state.asked.more -= asked.more;
        let last = state.waiting.len();
        state.put(last, items, came)
    }

    /// Keeps at most `most` places for who publishes; none once it is closed. What is to wait does not count here: it
    /// would have those wait who could be served at once.
    pub(super) fn keep(&self, most: usize) -> usize {
        let mut state = self.lock();
        let kept = if state.closed { 0 } else { state.free().min(most) };
        state.kept += kept;
        kept
    }

    /// Of `kept` ones, as many are taken as there are `items`, and the others free. They go before what waits, which was
    /// asked for beyond these places.
    pub(super) fn filled(&self, kept: usize, items: Vec<T>, came: Stopwatch) -> Put<T> {
        let put = {
            let mut state = self.lock();
            state.kept -= kept;
            state.put(0, items, came)
        };
        self.stirred.notify_one();
        put
    }

    /// The next to handle, for a task that has a place and has `finished` one before, or not. Without one its place is
    /// free from now on.
    pub(super) fn next(&self, finished: bool) -> Option<(T, Stopwatch)> {
        let mut state = self.lock();
        if finished {
            state.finished += 1;
        } else {
            state.starting -= 1;
        }
        let next = state.pop();
        if next.is_none() {
            state.taken -= 1;
            if state.taken == 0 {
                state.pause();
            }
        }
        let stirs = next.is_none() || state.hungry && state.waiting.len() <= state.limit / 2;
        if stirs {
            state.hungry = false;
            drop(state);
            self.stirred.notify_one();
        }
        next
    }

    /// Takes back what has waited for longer than is fair to other workers, with the moment when this is to be asked again.
    pub(super) fn overdue(&self) -> (Vec<T>, Option<Duration>) {
        let mut state = self.lock();
        let Some(patience) = state.pace.patience() else { return (Vec::new(), None) };
        let mut overdue = Vec::new();
        while let Some(first) = state.waiting.front() {
            let waited = first.came.elapsed();
            if waited < patience {
                return (overdue, Some(patience - waited));
            }
            overdue.extend(state.pop().map(|(item, _)| item));
        }
        (overdue, None)
    }

    /// Nothing is begun from now on, and nothing kept for who publishes; gives what waited.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        state.weight = 0;
        state.waiting.drain(..).map(|waiting| waiting.item).collect()
    }

    /// From now on publishers take from them as well.
    pub(super) fn share(&self) {
        self.lock().shared = true;
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many may be in hand at once, as things are.
    pub(super) fn most(&self) -> usize {
        let state = self.lock();
        state.all + state.limit
    }

    /// Whether nothing is being handled, and nothing is about to.
    pub(super) fn are_all_free(&self) -> bool {
        let state = self.lock();
        state.taken + state.kept + state.asked.all() + state.waiting.len() == 0
    }

    /// Whether no task is at work.
    pub(super) fn are_quiet(&self) -> bool {
        self.lock().taken == 0
    }

    /// Whether who publishes keeps some.
    pub(super) fn are_kept(&self) -> bool {
        self.lock().kept > 0
    }

    /// Says that there is something for the runner.
    pub(super) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Waits until something was said.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Weigh> State<T> {
    fn free(&self) -> usize {
        self.all.saturating_sub(self.taken + self.asked.own + self.kept)
    }

    /// Puts `items` to what waits, from place `at` on.
    fn put(&mut self, at: usize, items: Vec<T>, came: Stopwatch) -> Put<T> {
        if self.closed {
            return Put { tasks: 0, left: items };
        }
        let (before, count) = (self.weight, items.len());
        for (place, item) in (at..).zip(items) {
            let weight = item.weight();
            self.weight += weight;
            self.waiting.insert(place, Waiting { item, weight, came });
        }
        self.each = (self.weight - before).checked_div(count).unwrap_or(self.each);
        // For those that wait for no task that is about to take them.
        let more = self.waiting.len().saturating_sub(self.starting);
        let tasks = more.min(self.all.saturating_sub(self.taken + self.kept));
        if tasks > 0 && self.taken == 0 {
            self.at_work = Some(Stopwatch::start());
        }
        self.taken += tasks;
        self.starting += tasks;
        Put { tasks, left: Vec::new() }
    }

    /// The next of what waits.
    fn pop(&mut self) -> Option<(T, Stopwatch)> {
        let Waiting { item, weight, came } = self.waiting.pop_front()?;
        self.weight -= weight;
        Some((item, came))
    }

    /// How many more may come to wait, if they weigh what the last ones did.
    fn light(&self) -> usize {
        WEIGHT_MAX.saturating_sub(self.weight) / self.each.max(1)
    }

    fn pause(&mut self) {
        if let Some(since) = self.at_work.take() {
            self.worked += since.elapsed();
        }
    }

    /// Tells the pace of what was done since it was last told.
    fn measure(&mut self) {
        if self.at_work.is_some() {
            self.pause();
            self.at_work = Some(Stopwatch::start());
        }
        let (worked, finished) =
            (std::mem::take(&mut self.worked), std::mem::take(&mut self.finished));
        self.pace.worked(worked, finished);
        self.limit = self.pace.limit(self.all);
    }
}
