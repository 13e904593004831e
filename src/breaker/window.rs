//! The sliding window: how the last calls went, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::breaker::policy;

/// Into how many pieces a time window is cut. What it forgets, it forgets by the piece, so that it reaches
/// back between nineteen twentieths of its length and all of it.
const PIECES: u32 = 20;

/// How one call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// Calls, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Counts {
    fn add(&mut self, call: Call) {
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(call.failed));
        self.slow = self.slow.saturating_add(u32::from(call.slow));
    }

    fn remove(&mut self, gone: Self) {
        self.calls = self.calls.saturating_sub(gone.calls);
        self.failed = self.failed.saturating_sub(gone.failed);
        self.slow = self.slow.saturating_sub(gone.slow);
    }
}

impl From<Call> for Counts {
    fn from(call: Call) -> Self {
        Self { calls: 1, failed: u32::from(call.failed), slow: u32::from(call.slow) }
    }
}

/// A sliding window. It reads no clock; `now` is the caller's, and only ever compared with itself.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    shape: policy::Window,
    total: Counts,
    held: VecDeque<Piece>,
}

/// A part of the window: one call, or the calls of a twentieth of the time.
#[derive(Debug, Clone, Copy)]
struct Piece {
    number: u128,
    counts: Counts,
}

impl Window {
    pub(crate) fn new(shape: policy::Window) -> Self {
        Self { shape, total: Counts::default(), held: VecDeque::new() }
    }

    pub(crate) fn shape(&self) -> policy::Window {
        self.shape
    }

    /// What the window holds at `now`.
    pub(crate) fn counts(&mut self, now: Duration) -> Counts {
        if let policy::Window::Time { ms } = self.shape {
            let newest = number(now, ms);
            self.forget(newest, PIECES);
        }
        self.total
    }

    pub(crate) fn record(&mut self, call: Call, now: Duration) {
        let last = self.held.back().map(|piece| piece.number);
        let (number, most) = match self.shape {
            policy::Window::Count { calls } => (last.map_or(0, |last| last + 1), calls),
            // A reading that is older than the last one counts as of then.
            policy::Window::Time { ms } => (number(now, ms).max(last.unwrap_or(0)), PIECES),
        };
        self.forget(number, most);
        match self.held.back_mut() {
            Some(piece) if piece.number == number => piece.counts.add(call),
            _ => self.held.push_back(Piece { number, counts: call.into() }),
        }
        self.total.add(call);
    }

    /// Lets go of what is not among the `most` pieces that end with `newest`.
    fn forget(&mut self, newest: u128, most: u32) {
        while let Some(oldest) = self.held.front().copied()
            && oldest.number + u128::from(most) <= newest
        {
            self.total.remove(oldest.counts);
            self.held.pop_front();
        }
    }
}

/// The number of the piece that `now` falls into. Counted in nanoseconds, since a twentieth of a window need
/// not be whole milliseconds.
fn number(now: Duration, ms: u64) -> u128 {
    let length = Duration::from_millis(ms.max(1)).as_nanos() / u128::from(PIECES);
    now.as_nanos() / length.max(1)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn any(rng: &mut StdRng) -> Call {
        Call { failed: rng.random_bool(0.4), slow: rng.random_bool(0.2) }
    }

    fn sum<'a>(calls: impl Iterator<Item = &'a Call>) -> Counts {
        calls.fold(Counts::default(), |mut counts, call| {
            counts.add(*call);
            counts
        })
    }

    #[test]
    fn a_count_window_holds_exactly_the_last_calls() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let most = rng.random_range(1..30);
            let mut window = Window::new(policy::Window::Count { calls: most });
            let mut all = Vec::new();
            for _ in 0..100 {
                all.push(any(&mut rng));
                window.record(all[all.len() - 1], Duration::ZERO);
                let wanted = sum(all.iter().rev().take(most as usize));
                assert_eq!(window.counts(Duration::ZERO), wanted, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_time_window_holds_all_that_is_young_and_nothing_that_is_old() {
        const MS: u64 = 1000;
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut window = Window::new(policy::Window::Time { ms: MS });
            let mut all: Vec<(Duration, Call)> = Vec::new();
            let mut now = Duration::from_millis(rng.random_range(0..5000));
            for _ in 0..300 {
                now += Duration::from_millis(rng.random_range(0..60));
                all.push((now, any(&mut rng)));
                window.record(all[all.len() - 1].1, now);
                now += Duration::from_millis(rng.random_range(0..10));
                let younger = |than: Duration| {
                    sum(all.iter().filter(|(at, _)| now - *at < than).map(|(_, call)| call))
                };
                let held = window.counts(now);
                let (least, most) = (
                    younger(Duration::from_millis(MS - MS / u64::from(PIECES))),
                    younger(Duration::from_millis(MS)),
                );
                assert!(least.calls <= held.calls && held.calls <= most.calls, "seed {seed}");
                assert!(least.failed <= held.failed && held.failed <= most.failed, "seed {seed}");
                assert!(least.slow <= held.slow && held.slow <= most.slow, "seed {seed}");
                assert!(window.held.len() <= PIECES as usize, "bounded, whatever the load");
            }
            assert_eq!(window.counts(now + Duration::from_millis(MS)), Counts::default());
        }
    }
}
