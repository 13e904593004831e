//! How long to wait before the next attempt. There is always a next one.

use std::time::Duration;

use rand::RngExt;

/// How to come back after a loss: by jittered pauses that double up to a limit, without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The longest first pause; the shortest is a fifth of it, and so of every later one.
    pub first: Duration,
    /// No pause is longer.
    pub max: Duration,
    /// No pause is longer while the network itself is away: trying costs the server nothing, and the
    /// worker is to be back soon after the link is.
    pub max_offline: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(10),
            max_offline: Duration::from_secs(2),
        }
    }
}

/// What the next attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing.
    Now,
    /// The network.
    Offline,
    /// A pause that grows.
    Usual,
    /// The longest pause: the server said that it is too much.
    Slow,
}

/// The losses in a row, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    retry: Retry,
    losses: u32,
}

impl Backoff {
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, losses: 0 }
    }

    /// The loss that comes next is a first one.
    pub(super) fn reset(&mut self) {
        self.losses = 0;
    }

    pub(super) fn after_loss(&mut self, pace: Pace) -> Duration {
        let doubled = self.retry.first.saturating_mul(1 << self.losses.min(16));
        let ceiling = match pace {
            Pace::Now => return Duration::ZERO,
            Pace::Offline => doubled.min(self.retry.max_offline),
            Pace::Usual => doubled.min(self.retry.max),
            Pace::Slow => self.retry.max,
        };
        self.losses = self.losses.saturating_add(1);
        ceiling.mul_f64(rand::rng().random_range(0.2..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_never_end() {
        let mut backoff = Backoff::new(Retry::default());
        for ceiling in [1, 2, 4, 8, 10, 10].into_iter().chain([10; 100]) {
            let pause = backoff.after_loss(Pace::Usual);
            let ceiling = Duration::from_secs(ceiling);
            assert!(pause <= ceiling && pause >= ceiling / 5, "{pause:?} of {ceiling:?}");
        }
        assert!(backoff.after_loss(Pace::Offline) <= Duration::from_secs(2));
        assert_eq!(backoff.after_loss(Pace::Now), Duration::ZERO);
        backoff.reset();
        assert!(backoff.after_loss(Pace::Usual) <= Duration::from_secs(1));
        assert!(backoff.after_loss(Pace::Slow) >= Duration::from_secs(2));
    }
}
