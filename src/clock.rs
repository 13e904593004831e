//! Time, read in one place.
//!
//! The time of record is the database's (`cogo.now()` in SQL); what this module gives is for
//! measuring how long something took and for deciding when to look again. Nothing read here is ever
//! compared with a time that another machine wrote, but for the expiry of tokens, which RFC 7519 puts to the
//! clock of whoever verifies (`identity` says with what leeway).

#![allow(clippy::disallowed_methods)] // the one module that may read the clocks

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// The wall clock, for names of files, lines of logs and the expiry of tokens; never for leases or schedules.
#[must_use]
pub fn utc_now() -> DateTime<Utc> {
    Utc::now()
}

/// A running measurement of elapsed time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since [`Stopwatch::start`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The time since [`Stopwatch::start`] in whole milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Measures the time between looks, also where the machine slept in between: by the wall clock and by
/// the steady one, which stands still during sleep on Linux and macOS.
#[derive(Debug, Clone, Copy)]
pub struct Laps {
    wall: DateTime<Utc>,
    steady: Instant,
}

impl Laps {
    /// Starts the first lap now.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: Utc::now(), steady: Instant::now() }
    }

    /// The time since the last look, by whichever clock says more; and the next lap starts. A wall clock
    /// that was set forward looks like sleep, so nothing may depend on it but a needless look.
    pub fn lap(&mut self) -> Duration {
        let now = Self::start();
        let wall = (now.wall - self.wall).to_std().unwrap_or_default();
        let steady = now.steady - self.steady;
        *self = now;
        wall.max(steady)
    }
}
