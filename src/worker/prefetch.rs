//! How many messages may wait within a worker, beyond those that it handles.
//!
//! What waits here is with nobody else: so it is little where handlers take long, and enough to bridge a round trip
//! where they do not. How fast the worker is, is measured while it works: idle time says nothing of that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most that may be asked for: past that nothing becomes faster, and a crash leaves more behind.
pub const PREFETCH_MAX: usize = 1000;
/// The most that waits where the worker itself says how much: two turns of as many as one statement does well, since one is
/// under way while what the other brought is handled.
pub(super) const AUTO_MAX: usize = 2 * PREFETCH_MAX;
/// What waits is to be begun within this, all of it.
const HORIZON: Duration = Duration::from_millis(100);
/// And within this part of the lease.
const PART_OF_LEASE: u32 = 10;
/// How much of the work of the past counts: handlers of one kind are followed by those of another.
const MEMORY: Duration = Duration::from_millis(250);
/// What was to be begun within [`HORIZON`] and has waited so many times as long is given back.
const PATIENCE: u32 = 10;

/// How many claimed messages may wait in a worker until one of its handlers is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefetch {
    /// As many as the worker is expected to begin within a tenth of a second, at the pace that it has: up to
    /// twice [`PREFETCH_MAX`], and none where handlers take that long.
    #[default]
    Auto,
    /// Always up to so many; 0 for none.
    AtMost(usize),
}

impl Prefetch {
    /// What it must be, in words.
    pub const RULE: &str = "must be `auto`, or a number from 0 to 1000";
}

impl fmt::Display for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::AtMost(most) => most.fmt(f),
        }
    }
}

impl FromStr for Prefetch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let most = text.parse().ok().filter(|most| *most <= PREFETCH_MAX);
        most.map(Self::AtMost).ok_or_else(|| Self::RULE.to_owned())
    }
}

impl Serialize for Prefetch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::AtMost(most) => most.serialize(serializer),
        }
    }
}

/// As it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // the schema alone looks at the fields
enum Written {
    Word(Word),
    Most(#[schemars(range(max = 1000))] u64),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Word {
    Auto,
}

impl<'de> Deserialize<'de> for Prefetch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refuse = || serde::de::Error::custom(Self::RULE);
        match Written::deserialize(deserializer).map_err(|_| refuse())? {
            Written::Word(Word::Auto) => Ok(Self::Auto),
            Written::Most(most) => {
                let most = usize::try_from(most).ok().filter(|most| *most <= PREFETCH_MAX);
                most.map(Self::AtMost).ok_or_else(refuse)
            }
        }
    }
}

impl JsonSchema for Prefetch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Prefetch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

/// How fast a worker finishes what it begins, and what follows for how much may wait.
#[derive(Debug)]
pub(super) struct Pace {
    prefetch: Prefetch,
    horizon: Duration,
    /// What was finished of late, older things counting less, and how long the worker was at work for that.
    finished: f64,
    seconds: f64,
}

impl Pace {
    pub(super) fn new(prefetch: Prefetch, lease: Duration) -> Self {
        let horizon = HORIZON.min(lease / PART_OF_LEASE);
        Self { prefetch, horizon, finished: 0.0, seconds: 0.0 }
    }

    /// While the worker was at work for `busy`, it finished so many.
    pub(super) fn worked(&mut self, busy: Duration, finished: usize) {
        let kept = (-busy.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        #[allow(clippy::cast_precision_loss)] // a handful
        let finished = finished as f64;
        self.finished = self.finished.mul_add(kept, finished);
        self.seconds = self.seconds.mul_add(kept, busy.as_secs_f64());
    }

    /// How many may wait while `places` handlers run: what runs is a part of what is to be begun and finished in time.
    pub(super) fn limit(&self, places: usize) -> usize {
        match self.prefetch {
            Prefetch::AtMost(most) => most.min(PREFETCH_MAX),
            Prefetch::Auto if self.seconds <= 0.0 => 0,
            Prefetch::Auto => {
                let in_hand = self.finished / self.seconds * self.horizon.as_secs_f64();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is clamped
                let in_hand = in_hand.clamp(0.0, 1e6) as usize;
                in_hand.saturating_sub(places).min(AUTO_MAX)
            }
        }
    }

    /// How long a message may wait until others are to have it; `None`: for as long as it takes.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self.prefetch {
            Prefetch::Auto => Some(self.horizon * PATIENCE),
            Prefetch::AtMost(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const MS: Duration = Duration::from_millis(1);

    fn limit_of(handler: Duration, places: usize, lease: Duration) -> usize {
        let mut pace = Pace::new(Prefetch::Auto, lease);
        for _ in 0..100 {
            pace.worked(handler, places); // each place finishes one
        }
        pace.limit(places)
    }

    #[test]
    fn what_waits_is_begun_within_the_horizon() {
        // Two thousand, of which what runs is a part.
        assert!((1980..=1990).contains(&limit_of(4 * MS / 5, 16, LEASE)));
        assert_eq!(limit_of(MS / 100, 16, LEASE), AUTO_MAX);
        // A hundred milliseconds of work, of which what runs is a part.
        assert!((138..=144).contains(&limit_of(10 * MS, 16, LEASE)));
        for slow in [100, 150, 1000, 60_000] {
            assert_eq!(limit_of(slow * MS, 16, LEASE), 0, "{slow} ms");
        }
        assert_eq!(limit_of(10 * MS, 16, 100 * MS), 0, "well below the lease");
    }

    #[test]
    fn a_worker_that_gets_stuck_takes_no_more() {
        let mut pace = Pace::new(Prefetch::Auto, LEASE);
        assert_eq!(pace.limit(4), 0, "nothing is known");
        pace.worked(MS, 100);
        assert_eq!(pace.limit(4), AUTO_MAX);
        for _ in 0..100 {
            pace.worked(10 * MS, 0);
        }
        assert_eq!(pace.limit(4), 0);
    }

    #[test]
    fn a_number_holds_whatever_the_pace() {
        let pace = Pace::new(Prefetch::AtMost(7), LEASE);
        assert_eq!((pace.limit(4), pace.patience()), (7, None));
        assert_eq!(Pace::new(Prefetch::AtMost(0), LEASE).limit(4), 0);
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        for good in [Prefetch::Auto, Prefetch::AtMost(0), Prefetch::AtMost(1000)] {
            assert_eq!(good.to_string().parse(), Ok(good));
            let written = serde_json::to_string(&good).expect("written");
            assert_eq!(serde_json::from_str::<Prefetch>(&written).expect("read"), good);
        }
        for bad in ["", "many", "-1", "1001", "1.5"] {
            assert_eq!(bad.parse::<Prefetch>(), Err(Prefetch::RULE.to_owned()), "{bad}");
        }
        for bad in ["\"many\"", "1001", "-1", "1.5", "null"] {
            let refused = serde_json::from_str::<Prefetch>(bad).expect_err(bad);
            assert!(refused.to_string().contains(Prefetch::RULE), "{refused}");
        }
    }
}
