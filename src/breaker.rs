//! Circuit breakers: a target that is sick is left alone for a while, and then tried with care.
//!
//! All of it is pure. [`Breakers`] counts the calls of one process and says what to do; the transitions
//! themselves are rows of the database, shared by the fleet, and come back through [`Breakers::adopt`].
//! Nothing here reads a clock: `now` is a reading of the caller's [`crate::clock::Stopwatch`], since whatever
//! moment it likes.

mod circuit;
mod policy;
mod window;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::ErrorClass;
use circuit::Circuit;
pub use policy::{Policies, Policy, Rule, Window};

/// How many breakers one process keeps. A key is a tool of a toolset, so this is far beyond what a fleet has,
/// and keeps one whose callers invent names from filling the memory.
const KEYS_MAX: usize = 10_000;

/// How long a key may be, by the database. A longer one has no breaker.
const KEY_CHARS_MAX: usize = 300;

/// Where a breaker stands, by the database's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// Calls go through and are counted. Set by the prober's successes, or by an operator.
    Closed,
    /// No call goes through. Set by a worker whose window said so, by a probe that failed, or by an operator.
    Open,
    /// One worker of the fleet tries some calls; no others go through. Set when it was granted the probe.
    HalfOpen,
}

impl State {
    /// The word that the database and events use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Which breaker: they are apart for each tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id {
    /// Whose messages it is for.
    pub tenant: String,
    /// The policy key, such as `mcp.call.browser.get_title.0`.
    pub key: String,
}

impl Id {
    /// The breaker of `key` for `tenant`.
    pub fn new(tenant: impl Into<String>, key: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), key: key.into() }
    }

    /// Whether the database can hold a breaker of this key. Whoever enqueues chooses a part of it, which may be
    /// megabytes long.
    fn can_be_watched(&self) -> bool {
        let fits = self.key.len() <= 4 * KEY_CHARS_MAX
            && (1..=KEY_CHARS_MAX).contains(&self.key.chars().count());
        fits && !self.key.contains(char::is_control)
    }
}

/// What the database says of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Which.
    pub id: Id,
    /// Where it stands.
    pub state: State,
    /// Whether an operator holds it there.
    pub forced: bool,
    /// Grows with every transition.
    pub version: i64,
    /// How long until a probe may be asked for, in milliseconds; `None` when that is an operator's to say.
    pub open_for_ms: Option<u64>,
    /// The worker that probes.
    pub prober: Option<String>,
}

/// Whether a message may be handled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Handle it, and give the permit back with [`Breakers::ended`].
    Admit(Permit),
    /// Put it back; it keeps its attempts.
    Park,
    /// Ask the database for the probe, adopt the answer, and try again.
    AskForProbe,
    /// An answer is on its way: try again when a row was adopted.
    Wait,
}

/// Belongs to a call that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
    probe: bool,
}

impl Permit {
    /// For a call that no breaker watches.
    const UNWATCHED: Self = Self { epoch: 0, probe: false };

    /// Whether the call is a probe.
    #[must_use]
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

/// How a call ended, as far as a breaker needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target did what it was asked.
    Done {
        /// How long it took.
        took: Duration,
    },
    /// It did not.
    Failed {
        /// Why.
        class: ErrorClass,
        /// How long it took.
        took: Duration,
    },
    /// Nobody knows, or the target was never asked: the lease was lost, the worker stops.
    Unknown,
}

/// What follows from the end of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// Tell the database that the breaker should open, and adopt the answer.
    ProposeOpening {
        /// The version of the row that was known.
        seen_version: i64,
        /// Why.
        evidence: Evidence,
    },
    /// Tell the database how the probe went, and adopt the answer.
    Report {
        /// Whether the target is well; `None` when the probe does not say.
        ok: Option<bool>,
    },
}

/// Why a breaker should open.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evidence {
    /// How many calls the window held.
    pub calls: u32,
    /// The share of them that failed.
    pub failure_rate: f64,
    /// The share of them that were slow.
    pub slow_rate: f64,
    /// Which rate was reached; the event's reason.
    #[serde(skip)]
    pub reason: &'static str,
}

/// The breakers of one process.
#[derive(Debug)]
pub struct Breakers {
    worker: String,
    circuits: HashMap<Id, Circuit>,
    /// The last epoch that was given out; 0 is nobody's.
    epoch: u64,
    most: usize,
}

impl Breakers {
    /// No breakers yet, for the worker of this id.
    pub fn new(worker: impl Into<String>) -> Self {
        Self { worker: worker.into(), circuits: HashMap::new(), epoch: 0, most: KEYS_MAX }
    }

    /// Whether a message of this key may be handled now.
    pub fn admit(&mut self, id: &Id, policy: &Policy, now: Duration) -> Admission {
        match self.circuit(id, policy, now) {
            Some(circuit) => circuit.admit(policy, now),
            None => Admission::Admit(Permit::UNWATCHED),
        }
    }

    /// A call that was admitted has ended. Must be called for every permit.
    pub fn ended(
        &mut self,
        id: &Id,
        permit: Permit,
        outcome: Outcome,
        policy: &Policy,
        now: Duration,
    ) -> Verdict {
        match self.circuits.get_mut(id) {
            Some(circuit) => circuit.ended(permit, outcome, policy, now),
            None => Verdict::Nothing, // forgotten while the call ran
        }
    }

    /// A row of the database was asked for at `now`. What it says goes over what we thought: a newer version
    /// also empties the window, since what was counted led there or is past. Whether it was news.
    pub fn adopt(&mut self, row: &Remote, policy: &Policy, now: Duration) -> bool {
        let ours = row.prober.as_deref() == Some(self.worker.as_str());
        self.epoch += 1;
        let epoch = self.epoch;
        match self.circuit(&row.id, policy, now) {
            Some(circuit) => circuit.adopt(row, ours, epoch, now),
            None => false,
        }
    }

    /// What was asked of the database about this breaker got no answer.
    pub fn unanswered(&mut self, id: &Id) {
        if let Some(circuit) = self.circuits.get_mut(id) {
            circuit.unanswered();
        }
    }

    /// Where a breaker stands, and the version of the row that says so; closed where nothing is known.
    #[must_use]
    pub fn state(&self, id: &Id) -> (State, i64) {
        self.circuits
            .get(id)
            .map_or((State::Closed, 0), |circuit| (circuit.state(), circuit.version()))
    }

    /// For how long probes of this breaker are still ours to make; `None` when they are not.
    #[must_use]
    pub fn probe_left(&self, id: &Id, now: Duration) -> Option<Duration> {
        self.circuits.get(id)?.probe_left(now)
    }

    /// The breakers that are not closed, and the versions of the rows that say so.
    pub fn open(&self) -> impl Iterator<Item = (&Id, i64)> {
        let open = self.circuits.iter().filter(|(_, circuit)| circuit.state() != State::Closed);
        open.map(|(id, circuit)| (id, circuit.version()))
    }

    /// The breaker of `id`, made if there is room.
    fn circuit(&mut self, id: &Id, policy: &Policy, now: Duration) -> Option<&mut Circuit> {
        if !self.circuits.contains_key(id) {
            if !id.can_be_watched() {
                return None;
            }
            if self.circuits.len() >= self.most {
                self.forget();
            }
            if self.circuits.len() >= self.most {
                return None;
            }
            self.epoch += 1;
            self.circuits.insert(id.clone(), Circuit::new(policy, self.epoch, now));
        }
        self.circuits.get_mut(id)
    }

    /// Forgets the tenth of all breakers that has been closed and unused for longest: so many at once, since
    /// looking for them takes a look at all.
    fn forget(&mut self) {
        let mut idle: Vec<(Duration, Id)> = self
            .circuits
            .iter()
            .filter_map(|(id, circuit)| Some((circuit.idle_since()?, id.clone())))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        for (_, id) in idle.iter().take(self.most.div_ceil(10)) {
            self.circuits.remove(id);
        }
    }
}
