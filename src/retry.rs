//! Retry policy: what is tried again, how often, and after how long.
//!
//! Policies are data (`configs/retry_policy.json`) and pure functions. Nothing here sleeps; the
//! worker runner sends the delay to the database, whose clock makes a time of it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::DEADLINE_MS_MAX;
use crate::policy::{self, Invalid, Remedy, Retried, Treatment, listed, overlay, within};

pub use crate::policy::ErrorClass;

/// `configs/retry_policy.json`: dotted keys to rules.
pub type Policies = policy::Policies<Rule>;

/// The longest that one attempt, or the pause before the next, may take.
const DAY_MS: u64 = 86_400_000;

/// How the delay before the next attempt grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Backoff {
    /// The same delay each time.
    Fixed {
        /// The delay, in milliseconds.
        delay_ms: u64,
    },
    /// Full jitter: uniformly random between zero and a ceiling that doubles with each attempt, so
    /// that many failures of one moment do not come back in one moment.
    Exponential {
        /// The ceiling after the first attempt, in milliseconds.
        base_ms: u64,
        /// The ceiling never exceeds this, in milliseconds.
        max_ms: u64,
    },
}

impl Backoff {
    /// The delay after the failure of attempt `attempt` (the first is 1), where `random` is uniform
    /// in `[0, 1)`.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        match *self {
            Self::Fixed { delay_ms } => Duration::from_millis(delay_ms),
            Self::Exponential { base_ms, max_ms } => {
                let doublings = attempt.saturating_sub(1).min(63);
                let ceiling = base_ms.saturating_mul(1u64 << doublings).min(max_ms);
                Duration::from_millis(ceiling).mul_f64(random.clamp(0.0, 1.0))
            }
        }
    }
}

/// The policy for one key, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// How many attempts in all, the first included.
    pub max_attempts: u32,
    /// How long to wait between them.
    pub backoff: Backoff,
    /// How long one attempt may take.
    pub timeout_ms: u64,
    /// How long all of it may take, from the enqueue on; without one, as long as it takes.
    pub deadline_ms: Option<u64>,
    /// Which classes of failure are tried again; all others go to the dead-letter queue at once.
    pub retry_on: Vec<ErrorClass>,
}

/// What comes after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after the delay.
    Retry(Duration),
    /// Give up.
    DeadLetter(Reason),
}

/// Why a message is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No attempt is left.
    AttemptsExhausted,
    /// The policy does not retry this class.
    NotRetried,
    /// The next attempt would begin after the deadline.
    DeadlineExceeded,
}

impl Reason {
    /// The word that events use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::NotRetried => "not_retried",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// Where a message stands when an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Which attempt it was; the first is 1.
    pub attempt: u32,
    /// The message's own limit: it was set from the policy when the message was enqueued, unless its sender
    /// said otherwise.
    pub max_attempts: u32,
    /// What is left until the message's deadline, if it has one.
    pub left: Option<Duration>,
}

impl Policy {
    /// What to do after an attempt failed with `class`; `random` is uniform in `[0, 1)`.
    #[must_use]
    pub fn decide(&self, class: ErrorClass, tried: Tried, random: f64) -> Decision {
        if class == ErrorClass::DeadlineExceeded {
            return Decision::DeadLetter(Reason::DeadlineExceeded);
        }
        if self.remedy(class) != Remedy::Retry {
            return Decision::DeadLetter(Reason::NotRetried);
        }
        if tried.attempt >= tried.max_attempts {
            return Decision::DeadLetter(Reason::AttemptsExhausted);
        }
        let delay = self.backoff.delay(tried.attempt, random);
        match tried.left {
            Some(left) if delay >= left => Decision::DeadLetter(Reason::DeadlineExceeded),
            _ => Decision::Retry(delay),
        }
    }

    /// What a failure of this class leads to under this policy, by the table ([`ErrorClass::treatment`]).
    #[must_use]
    pub fn remedy(&self, class: ErrorClass) -> Remedy {
        let treatment = class.treatment();
        match (treatment.retried, treatment.remedy) {
            (Retried::ByDatabase, _) => Remedy::Retry,
            (Retried::IfListed, _) if self.retry_on.contains(&class) => Remedy::Retry,
            // It would pass, but the policy does not wait for that.
            (Retried::IfListed | Retried::Never, Remedy::Retry) => Remedy::DeadLetter,
            (Retried::IfListed | Retried::Never, remedy) => remedy,
        }
    }

    /// Whether the policy tries a failure of this class again.
    #[must_use]
    pub fn retries(&self, class: ErrorClass) -> bool {
        self.remedy(class) == Remedy::Retry
    }

    /// How long one attempt may take, where `left` is what is left until the message's deadline.
    #[must_use]
    pub fn timeout(&self, left: Option<Duration>) -> Duration {
        let timeout = Duration::from_millis(self.timeout_ms);
        left.map_or(timeout, |left| timeout.min(left))
    }
}

impl Default for Policy {
    /// What holds where the configuration says nothing.
    fn default() -> Self {
        Self {
            max_attempts: 5,
            backoff: Backoff::Exponential { base_ms: 500, max_ms: 60_000 },
            timeout_ms: 60_000,
            deadline_ms: None,
            retry_on: vec![
                ErrorClass::Connect,
                ErrorClass::Timeout,
                ErrorClass::Closed,
                ErrorClass::CircuitOpen,
            ],
        }
    }
}

/// What `configs/retry_policy.json` says for one key; what it leaves out comes from the next shorter
/// key that says it, and in the end from `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How many attempts in all, the first included; from 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long to wait between attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// How long one attempt may take, in milliseconds; from 1 to 86400000 (a day).
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long all of it may take, from the enqueue on, in milliseconds; from 1 to 31536000000 (a year).
    /// Whoever enqueues may say otherwise. Where no key says it there is no deadline.
    #[schemars(range(min = 1, max = 31_536_000_000u64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Which classes of failure are tried again; neither lease_expired, which the database looks after, nor
    /// deadline_exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<Vec<ErrorClass>>,
}

impl policy::Rule for Rule {
    type Policy = Policy;

    fn apply(&self, policy: &mut Policy) {
        overlay(&mut policy.max_attempts, self.max_attempts.as_ref());
        overlay(&mut policy.backoff, self.backoff.as_ref());
        overlay(&mut policy.timeout_ms, self.timeout_ms.as_ref());
        policy.deadline_ms = self.deadline_ms.or(policy.deadline_ms);
        overlay(&mut policy.retry_on, self.retry_on.as_ref());
    }

    fn check(policy: &Policy) -> Result<(), Invalid> {
        within("max_attempts", policy.max_attempts, 1..=1000)?;
        within("timeout_ms", policy.timeout_ms, 1..=DAY_MS)?;
        within("deadline_ms", policy.deadline_ms.unwrap_or(1), 1..=DEADLINE_MS_MAX)?;
        match policy.backoff {
            Backoff::Fixed { delay_ms } => within("backoff.delay_ms", delay_ms, 0..=DAY_MS)?,
            Backoff::Exponential { base_ms, max_ms } if base_ms > max_ms => {
                return Err(Invalid::new("backoff.base_ms", "must not exceed max_ms"));
            }
            Backoff::Exponential { max_ms, .. } => within("backoff.max_ms", max_ms, 0..=DAY_MS)?,
        }
        listed("retry_on", &policy.retry_on, Treatment::not_in_retry_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(json: serde_json::Value) -> Policies {
        serde_json::from_value(json).expect("a good policy file")
    }

    #[test]
    fn the_longest_prefix_wins_field_by_field() {
        let policies = policies(serde_json::json!({"policies": {
            "default": {"max_attempts": 2, "timeout_ms": 1000},
            "mcp.call": {"timeout_ms": 2000},
            "mcp.call.browser": {"max_attempts": 7},
            "mcp.call.browser.get_title": {"timeout_ms": 9000},
        }}));
        let of = |key: &str| {
            let policy = policies.resolve(key);
            (policy.max_attempts, policy.timeout_ms)
        };
        assert_eq!(of("echo"), (2, 1000));
        assert_eq!(of("mcp.call.figma.x.0"), (2, 2000));
        assert_eq!(of("mcp.call.browser.click.0"), (7, 2000));
        assert_eq!(of("mcp.call.browser.get_title.0"), (7, 9000));
        // A prefix ends at a dot, not in the middle of a word.
        assert_eq!(of("mcp.call.browser2.x"), (2, 2000));
    }

    #[test]
    fn the_ceiling_doubles_and_stops_at_the_cap() {
        let backoff = Backoff::Exponential { base_ms: 100, max_ms: 1000 };
        let ceilings: Vec<_> = (1..=6).map(|n| backoff.delay(n, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(400, 1.0).as_millis(), 1000);
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn an_attempt_beyond_the_limit_is_never_scheduled() {
        let policy = Policy::default();
        let decide = |class, attempt| {
            policy.decide(class, Tried { attempt, max_attempts: 3, left: None }, 0.5)
        };
        assert!(matches!(decide(ErrorClass::Connect, 2), Decision::Retry(_)));
        let exhausted = Decision::DeadLetter(Reason::AttemptsExhausted);
        assert_eq!(decide(ErrorClass::Connect, 3), exhausted);
        assert_eq!(decide(ErrorClass::Ambiguous, 1), Decision::DeadLetter(Reason::NotRetried));
    }

    #[test]
    fn an_attempt_after_the_deadline_is_never_scheduled() {
        let policy = Policy { backoff: Backoff::Fixed { delay_ms: 100 }, ..Policy::default() };
        let decide = |class, left| {
            let left = Some(Duration::from_millis(left));
            policy.decide(class, Tried { attempt: 1, max_attempts: 3, left }, 0.5)
        };
        let retry = Decision::Retry(Duration::from_millis(100));
        let too_late = Decision::DeadLetter(Reason::DeadlineExceeded);
        assert_eq!(decide(ErrorClass::Connect, 101), retry);
        assert_eq!(decide(ErrorClass::Connect, 100), too_late);
        assert_eq!(decide(ErrorClass::DeadlineExceeded, 101), too_late);
        assert_eq!(decide(ErrorClass::ToolError, 0), Decision::DeadLetter(Reason::NotRetried));
        let timeout = |left: Option<u64>| policy.timeout(left.map(Duration::from_millis));
        assert_eq!(timeout(None), Duration::from_secs(60));
        assert_eq!(timeout(Some(60_001)), Duration::from_secs(60));
        assert_eq!(timeout(Some(7)), Duration::from_millis(7));
    }

    #[test]
    fn the_table_and_the_policy_say_together_what_happens() {
        let all = |retry_on: Vec<ErrorClass>| {
            let policy = Policy { retry_on, ..Policy::default() };
            ErrorClass::ALL.map(|class| policy.remedy(class))
        };
        use Remedy::{DeadLetter, Person, Retry};
        let nothing_listed = [
            DeadLetter, DeadLetter, DeadLetter, DeadLetter, Person, Person, Person, DeadLetter,
            Retry, DeadLetter, Person,
        ];
        assert_eq!(all(Vec::new()), nothing_listed);
        let mut all_listed = [Retry; 11];
        all_listed[9] = DeadLetter;
        assert_eq!(all(ErrorClass::ALL.to_vec()), all_listed);
    }

    #[test]
    fn a_bad_policy_names_its_field() {
        let bad = |json| policies(serde_json::json!({"policies": json})).validate();
        let field = |json| bad(json).expect_err("refused").field;
        assert_eq!(
            field(serde_json::json!({"a.b": {"max_attempts": 0}})),
            "policies.a.b.max_attempts"
        );
        assert_eq!(field(serde_json::json!({"a..b": {}})), "policies.a..b");
        assert_eq!(field(serde_json::json!({"a": {"deadline_ms": 0}})), "policies.a.deadline_ms");
        for never in ["deadline_exceeded", "lease_expired"] {
            let listed = bad(serde_json::json!({"a": {"retry_on": ["connect", never]}}));
            let invalid = listed.expect_err("refused");
            assert_eq!(invalid.field, "policies.a.retry_on");
            assert!(invalid.rule.contains(never), "{invalid}");
        }
        // Not the key that inherits it.
        let inherited = serde_json::json!({"a.b": {}, "default": {"max_attempts": 0}});
        assert_eq!(field(inherited), "policies.default.max_attempts");
        assert_eq!(
            field(serde_json::json!({"a": {"backoff":
                {"kind": "exponential", "base_ms": 2, "max_ms": 1}}})),
            "policies.a.backoff.base_ms"
        );
    }
}
