//! The breaker of one key: closed → open → half-open → closed, as far as one process sees it.
//!
//! The database's row is what is so; a process only counts calls, proposes and asks. So every change of phase
//! is an adopted row, and what is decided here is decided from the last one:
//!
//! | phase | a message comes | a call ends |
//! |---|---|---|
//! | closed | admitted, and counted; waits while an opening is proposed | proposes an opening when the window says so |
//! | open | parked; once `open_ms` is over the probe is asked for, and others wait for the answer | says nothing: it began before |
//! | half-open, ours | admitted as a probe, up to `half_open_max_calls`; others are parked | is reported; a failure lets nobody in until it is answered |
//! | half-open, another's | parked; once the prober's time is over the probe is asked for | says nothing |

use std::time::Duration;

use super::policy::Policy;
use super::window::{Call, Counts, Window};
use super::{Admission, Evidence, Outcome, Permit, Remote, State, Verdict};
use crate::policy::Sign;

/// How long an answer of the database is waited for, before its question is asked again: a process in which
/// the asking task was lost must not wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where the breaker stands, by the newest row that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed {
        /// An operator holds it closed, so that it does not open by itself.
        held: bool,
    },
    Open {
        /// When the probe may be asked for; `None` when an operator holds it open.
        probe_at: Option<Duration>,
    },
    HalfOpen {
        /// How many probes are in flight, when they are ours to make.
        ours: Option<u32>,
        /// When the prober's time is over.
        probe_at: Option<Duration>,
    },
}

#[derive(Debug)]
pub(super) struct Circuit {
    version: i64,
    phase: Phase,
    /// Since when the database owes us an answer.
    asked: Option<Duration>,
    window: Window,
    /// Permits of an earlier epoch say nothing about this one.
    epoch: u64,
    /// When it was last of use.
    used: Duration,
}

impl Circuit {
    /// A breaker of which no row is known: closed.
    pub(super) fn new(policy: &Policy, epoch: u64, now: Duration) -> Self {
        Self {
            version: 0,
            phase: Phase::Closed { held: false },
            asked: None,
            window: Window::new(policy.window),
            epoch,
            used: now,
        }
    }

    pub(super) fn version(&self) -> i64 {
        self.version
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn probe_left(&self, now: Duration) -> Option<Duration> {
        match self.phase {
            Phase::HalfOpen { ours: Some(_), probe_at } => Some(probe_at?.saturating_sub(now)),
            _ => None,
        }
    }

    /// Since when it could be forgotten, if it could: it is closed, and owed no answer.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        match (self.phase, self.asked) {
            (Phase::Closed { held: false }, None) => Some(self.used),
            _ => None,
        }
    }

    /// A message would be handled.
    pub(super) fn admit(&mut self, policy: &Policy, now: Duration) -> Admission {
        self.used = now;
        let waiting = self.asked.is_some_and(|since| now < since + ANSWER_WITHIN);
        let due = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        match self.phase {
            Phase::Closed { .. } | Phase::HalfOpen { ours: Some(_), .. } if waiting => {
                Admission::Wait
            }
            Phase::Closed { .. } => Admission::Admit(self.permit(false)),
            Phase::Open { probe_at } | Phase::HalfOpen { probe_at, .. } if due(probe_at) => {
                if waiting {
                    return Admission::Wait;
                }
                self.asked = Some(now);
                Admission::AskForProbe
            }
            Phase::HalfOpen { ours: Some(in_flight), probe_at } => {
                if in_flight >= policy.half_open_max_calls {
                    return Admission::Park;
                }
                self.phase = Phase::HalfOpen { ours: Some(in_flight + 1), probe_at };
                Admission::Admit(self.permit(true))
            }
            Phase::Open { .. } | Phase::HalfOpen { ours: None, .. } => Admission::Park,
        }
    }

    fn permit(&self, probe: bool) -> Permit {
        Permit { epoch: self.epoch, probe }
    }

    /// A call that was admitted has ended.
    pub(super) fn ended(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        policy: &Policy,
        now: Duration,
    ) -> Verdict {
        if permit.epoch != self.epoch {
            return Verdict::Nothing; // the row has changed since; a new window counts new calls
        }
        self.used = now;
        let call = seen(outcome, policy);
        match self.phase {
            Phase::Closed { held } => {
                let Some(call) = call else { return Verdict::Nothing };
                if self.window.shape() != policy.window {
                    self.window = Window::new(policy.window); // the configuration has changed
                }
                self.window.record(call, now);
                let counts = self.window.counts(now);
                let waiting = self.asked.is_some_and(|since| now < since + ANSWER_WITHIN);
                match evidence(counts, policy) {
                    Some(evidence) if policy.enabled && !held && !waiting => {
                        self.asked = Some(now);
                        Verdict::ProposeOpening { seen_version: self.version, evidence }
                    }
                    _ => Verdict::Nothing,
                }
            }
            Phase::HalfOpen { ours: Some(in_flight), probe_at } => {
                let in_flight = in_flight.saturating_sub(1);
                self.phase = Phase::HalfOpen { ours: Some(in_flight), probe_at };
                // A slow probe is no proof that the target is well; one that says nothing gives its place back.
                let ok = call.map(|call| !call.failed && !call.slow);
                if ok == Some(false) {
                    self.asked = Some(now);
                }
                Verdict::Report { ok }
            }
            // Nothing is admitted here, so that no permit is of this epoch.
            Phase::Open { .. } | Phase::HalfOpen { ours: None, .. } => Verdict::Nothing,
        }
    }

    /// A row of the database was read at `now` or a little later. `epoch` is one that no permit has.
    /// Whether it was news; an older row than the one that is known is not.
    pub(super) fn adopt(&mut self, row: &Remote, ours: bool, epoch: u64, now: Duration) -> bool {
        if row.version < self.version {
            return false;
        }
        let newer = row.version > self.version;
        let answered = self.asked.take().is_some();
        let probe_at = row.open_for_ms.map(|ms| now + Duration::from_millis(ms));
        let before = self.phase;
        self.phase = match (row.state, before) {
            (State::Closed, _) => Phase::Closed { held: row.forced },
            (State::Open, _) => Phase::Open { probe_at },
            (State::HalfOpen, Phase::HalfOpen { ours: Some(in_flight), .. }) if ours => {
                Phase::HalfOpen { ours: Some(in_flight), probe_at }
            }
            (State::HalfOpen, _) => Phase::HalfOpen { ours: ours.then_some(0), probe_at },
        };
        self.version = row.version;
        let probing = |phase| matches!(phase, Phase::HalfOpen { ours: Some(_), .. });
        if probing(before) && probing(self.phase) {
            return newer; // the same probes are still in flight
        }
        // An answer that leaves it closed says that the fleet does not agree: gather evidence anew.
        let news = newer || std::mem::discriminant(&before) != std::mem::discriminant(&self.phase);
        if news || probing(self.phase) || (answered && self.state() == State::Closed) {
            self.epoch = epoch;
            self.window = Window::new(self.window.shape());
        }
        news
    }

    /// What was asked of the database got no answer; ask again when there is reason to.
    pub(super) fn unanswered(&mut self) {
        self.asked = None;
    }
}

/// What a call says about the target; `None` when it says nothing.
fn seen(outcome: Outcome, policy: &Policy) -> Option<Call> {
    let slow =
        |took: Duration| policy.slow_call_ms.is_some_and(|ms| took >= Duration::from_millis(ms));
    match outcome {
        Outcome::Done { took } => Some(Call { failed: false, slow: slow(took) }),
        Outcome::Failed { class, took } => {
            let failed = policy.failure_on.contains(&class);
            let told = failed || class.treatment().sign == Sign::Well;
            told.then(|| Call { failed, slow: slow(took) })
        }
        Outcome::Unknown => None,
    }
}

fn evidence(counts: Counts, policy: &Policy) -> Option<Evidence> {
    if counts.calls == 0 || counts.calls < policy.min_requests {
        return None;
    }
    let share = |part: u32| f64::from(part) / f64::from(counts.calls);
    let evidence = Evidence {
        calls: counts.calls,
        failure_rate: share(counts.failed),
        slow_rate: share(counts.slow),
        reason: if share(counts.failed) >= policy.failure_rate {
            "failure_rate"
        } else {
            "slow_call_rate"
        },
    };
    let opens =
        evidence.failure_rate >= policy.failure_rate || evidence.slow_rate >= policy.slow_call_rate;
    opens.then_some(evidence)
}
