//! `configs/circuit_breaker.json`: when a breaker opens, and how it closes again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{self, ErrorClass, Invalid, Sign, listed, overlay, within};

/// `configs/circuit_breaker.json`: dotted keys to rules.
pub type Policies = policy::Policies<Rule>;

/// The longest time that a breaker looks back over. Older calls say little of how the target is now.
const WINDOW_MS_MAX: u64 = 3_600_000;
/// The most calls that a count window holds: 32 bytes each.
const CALLS_MAX: u32 = 1000;
/// The longest that a breaker stays open by itself; an operator's may stay open for good.
const OPEN_MS_MAX: u64 = 86_400_000;

/// How far a breaker looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    /// Over the last calls, however long ago they were.
    Count {
        /// How many calls; from 1 to 1000.
        #[schemars(range(min = 1, max = 1000))]
        calls: u32,
    },
    /// Over the calls of the last while.
    Time {
        /// How long, in milliseconds; from 100 to 3600000 (an hour).
        #[schemars(range(min = 100, max = 3_600_000))]
        ms: u64,
    },
}

/// The policy for one key, complete.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// Whether the breaker opens by itself. What an operator or another worker opened holds all the same.
    pub enabled: bool,
    /// How far it looks back.
    pub window: Window,
    /// How many calls the window must hold before it says anything.
    pub min_requests: u32,
    /// The share of failures, of the calls in the window, at which the breaker opens.
    pub failure_rate: f64,
    /// A call that takes this long is slow; where it is not set, none is.
    pub slow_call_ms: Option<u64>,
    /// The share of slow calls at which the breaker opens.
    pub slow_call_rate: f64,
    /// How long it stays open before the target is probed.
    pub open_ms: u64,
    /// How many probe calls the one prober may have in flight at once.
    pub half_open_max_calls: u32,
    /// How many probes must succeed in a row before it closes.
    pub successes_to_close: u32,
    /// Which classes of failure say that the target is sick.
    pub failure_on: Vec<ErrorClass>,
}

impl Default for Policy {
    /// What holds where the configuration says nothing.
    fn default() -> Self {
        Self {
            enabled: true,
            // A minute: long enough for ten calls of a tool in steady use, and short enough that what was
            // mended is soon forgotten.
            window: Window::Time { ms: 60_000 },
            min_requests: 10,
            failure_rate: 0.5,
            // Tools differ too much for one number; what is too slow altogether runs into its timeout.
            slow_call_ms: None,
            slow_call_rate: 0.8,
            open_ms: 30_000,
            half_open_max_calls: 1,
            successes_to_close: 2,
            // Not tool_error nor invalid_params: there the server is well.
            failure_on: ErrorClass::ALL
                .into_iter()
                .filter(|class| class.treatment().sign == Sign::Sick)
                .collect(),
        }
    }
}

/// What `configs/circuit_breaker.json` says for one key; what it leaves out comes from the next shorter
/// key that says it, and in the end from `default`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whether the breaker opens by itself. What an operator or another worker opened holds all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How far it looks back: `{"kind": "count", "calls": 20}` or `{"kind": "time", "ms": 60000}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// How many calls the window must hold before it says anything; from 1 to 1000, and at most the calls
    /// of a count window.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
    /// The share of failures at which the breaker opens; above 0, at most 1.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<f64>,
    /// A call that takes this long is slow, in milliseconds; from 1 to 86400000. Where no key says it, no
    /// call is.
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_ms: Option<u64>,
    /// The share of slow calls at which the breaker opens; above 0, at most 1.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_rate: Option<f64>,
    /// How long it stays open before the target is probed, in milliseconds; from 1 to 86400000 (a day).
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_ms: Option<u64>,
    /// How many probe calls the one prober may have in flight at once; from 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_max_calls: Option<u32>,
    /// How many probes must succeed in a row before it closes; from 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes_to_close: Option<u32>,
    /// Which classes of failure say that the target is sick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_on: Option<Vec<ErrorClass>>,
}

impl policy::Rule for Rule {
    type Policy = Policy;

    fn apply(&self, policy: &mut Policy) {
        overlay(&mut policy.enabled, self.enabled.as_ref());
        overlay(&mut policy.window, self.window.as_ref());
        overlay(&mut policy.min_requests, self.min_requests.as_ref());
        overlay(&mut policy.failure_rate, self.failure_rate.as_ref());
        policy.slow_call_ms = self.slow_call_ms.or(policy.slow_call_ms);
        overlay(&mut policy.slow_call_rate, self.slow_call_rate.as_ref());
        overlay(&mut policy.open_ms, self.open_ms.as_ref());
        overlay(&mut policy.half_open_max_calls, self.half_open_max_calls.as_ref());
        overlay(&mut policy.successes_to_close, self.successes_to_close.as_ref());
        overlay(&mut policy.failure_on, self.failure_on.as_ref());
    }

    fn check(policy: &Policy) -> Result<(), Invalid> {
        match policy.window {
            Window::Count { calls } => within("window.calls", calls, 1..=CALLS_MAX)?,
            Window::Time { ms } => within("window.ms", ms, 100..=WINDOW_MS_MAX)?,
        }
        within("min_requests", policy.min_requests, 1..=CALLS_MAX)?;
        if let Window::Count { calls } = policy.window
            && policy.min_requests > calls
        {
            let rule = format!("must not exceed window.calls, which is {calls}: it never opened");
            return Err(Invalid::new("min_requests", rule));
        }
        rate("failure_rate", policy.failure_rate)?;
        within("slow_call_ms", policy.slow_call_ms.unwrap_or(1), 1..=OPEN_MS_MAX)?;
        rate("slow_call_rate", policy.slow_call_rate)?;
        within("open_ms", policy.open_ms, 1..=OPEN_MS_MAX)?;
        within("half_open_max_calls", policy.half_open_max_calls, 1..=100)?;
        within("successes_to_close", policy.successes_to_close, 1..=1000)?;
        listed("failure_on", &policy.failure_on, |row| row.not_in_failure_on)
    }
}

/// At a rate of 0 a breaker would open without a failure.
fn rate(field: &str, rate: f64) -> Result<(), Invalid> {
    if rate > 0.0 && rate <= 1.0 {
        return Ok(());
    }
    Err(Invalid::new(field, "must be above 0, and at most 1"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policies(rules: Value) -> Policies {
        serde_json::from_value(json!({ "policies": rules })).expect("a good file")
    }

    #[test]
    fn the_longest_prefix_wins_field_by_field() {
        let policies = policies(json!({
            "default": {"open_ms": 1, "slow_call_ms": 7},
            "mcp.call.figma": {"window": {"kind": "count", "calls": 9}, "min_requests": 3},
            "mcp.call.figma.export": {"enabled": false},
        }));
        assert_eq!(policies.validate(), Ok(()));
        let export = policies.resolve("mcp.call.figma.export.0");
        let wanted = Policy {
            enabled: false,
            window: Window::Count { calls: 9 },
            min_requests: 3,
            open_ms: 1,
            slow_call_ms: Some(7),
            ..Policy::default()
        };
        assert_eq!(export, wanted);
        assert!(policies.resolve("mcp.call.figma.exports.0").enabled);
    }

    #[test]
    fn a_bad_policy_names_its_field_and_its_rule() {
        for (rules, field, words) in [
            (json!({"a": {"failure_rate": 1.01}}), "policies.a.failure_rate", "at most 1"),
            (json!({"a": {"failure_rate": 0.0}}), "policies.a.failure_rate", "above 0"),
            (json!({"a": {"slow_call_rate": -1.0}}), "policies.a.slow_call_rate", "above 0"),
            (json!({"a": {"min_requests": 0}}), "policies.a.min_requests", "from 1"),
            (json!({"a": {"open_ms": 0}}), "policies.a.open_ms", "from 1"),
            (json!({"a": {"slow_call_ms": 0}}), "policies.a.slow_call_ms", "from 1"),
            (
                json!({"a": {"half_open_max_calls": 101}}),
                "policies.a.half_open_max_calls",
                "to 100",
            ),
            (json!({"a": {"successes_to_close": 0}}), "policies.a.successes_to_close", "from 1"),
            (
                json!({"a": {"failure_on": ["connect", "circuit_open"]}}),
                "policies.a.failure_on",
                "circuit_open",
            ),
            // Good alone, and not together: named where they meet.
            (
                json!({"default": {"window": {"kind": "count", "calls": 12}},
                       "a.b": {"min_requests": 13}}),
                "policies.a.b.min_requests",
                "window.calls, which is 12",
            ),
        ] {
            let invalid = policies(rules).validate().expect_err("refused");
            assert_eq!(invalid.field, field);
            assert!(invalid.rule.contains(words), "{invalid}");
        }
        assert_eq!(policies(json!({"default": {}})).validate(), Ok(()), "the defaults are good");
    }
}
