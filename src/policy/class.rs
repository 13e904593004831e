//! Why an attempt failed, and the one table of what that leads to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Why an attempt failed, as far as a policy needs to know.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The target could not be reached; nothing was sent.
    Connect,
    /// No answer in time, and a second try does no harm (else it is [`ErrorClass::Ambiguous`]).
    Timeout,
    /// The connection closed, and a second try does no harm (else it is [`ErrorClass::Ambiguous`]).
    Closed,
    /// The target answered that it failed.
    ToolError,
    /// The target, the tool or its arguments are wrong; as things are, trying again cannot help.
    InvalidParams,
    /// The target answered something that the protocol does not allow.
    Protocol,
    /// The work may have been done, and whether it was is unknown (DESIGN, invariant 10).
    Ambiguous,
    /// A circuit breaker is open; the work was not tried.
    CircuitOpen,
    /// The worker that held the message vanished.
    LeaseExpired,
    /// The message's total deadline has passed, or would before the next attempt.
    DeadlineExceeded,
    /// The handler panicked, or failed in a way that is its own defect.
    Internal,
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// It is tried again, or requeued when its attempts have run out: what was wrong passes by itself.
    Retry,
    /// It ends in the dead-letter queue, and whether it is worth another try is the sender's to say.
    DeadLetter,
    /// It ends in the dead-letter queue, and a person must look, or change something, before it is requeued.
    Person,
}

/// Whether a failure may be tried again, while attempts and time are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retried {
    /// Where the policy's `retry_on` lists the class.
    IfListed,
    /// By the database, whatever the policy says: nobody was left to ask one.
    ByDatabase,
    /// Never: it cannot help.
    Never,
}

/// What a circuit breaker learns of the target from a call that ended with a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is sick, where the breaker's `failure_on` lists the class; else nothing.
    Sick,
    /// It answered, so it is well, unless `failure_on` lists the class.
    Well,
    /// Nothing, for the target may never have been asked; `failure_on` may list it all the same.
    Nothing,
}

/// A row of the table: what a class of failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// What it leads to.
    pub remedy: Remedy,
    /// What an operator does about it.
    pub advice: &'static str,
    /// Whether it may be tried again.
    pub retried: Retried,
    /// Why `failure_on` cannot list it, where it cannot.
    pub(crate) not_in_failure_on: Option<&'static str>,
    pub(crate) sign: Sign,
}

const BY_DATABASE: &str =
    "cannot list lease_expired: the database tries such a message again while attempts are left";
const NO_TIME: &str = "cannot list deadline_exceeded: no time is left to try again";
const NOT_SEEN: &str = "cannot list lease_expired: nobody is left who saw how the call went";
const NOT_TRIED: &str = "cannot list circuit_open: the target was not asked";
const NOT_ITS_FAULT: &str =
    "cannot list deadline_exceeded: the target may have been asked too late";

impl ErrorClass {
    /// Every class, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Timeout,
        Self::Closed,
        Self::ToolError,
        Self::InvalidParams,
        Self::Protocol,
        Self::Ambiguous,
        Self::CircuitOpen,
        Self::LeaseExpired,
        Self::DeadlineExceeded,
        Self::Internal,
    ];

    /// The word that events and configuration use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::ToolError => "tool_error",
            Self::InvalidParams => "invalid_params",
            Self::Protocol => "protocol",
            Self::Ambiguous => "ambiguous",
            Self::CircuitOpen => "circuit_open",
            Self::LeaseExpired => "lease_expired",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Internal => "internal",
        }
    }

    /// The class of a word, as events have it. What wrote the event may be newer than we are, so that there
    /// may be none; such a failure needs a person.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }

    /// The class's row of the one table that says what happens.
    #[must_use]
    pub fn treatment(self) -> Treatment {
        let row = |remedy, sign, advice| Treatment {
            remedy,
            advice,
            retried: Retried::IfListed,
            not_in_failure_on: None,
            sign,
        };
        match self {
            Self::Connect => row(
                Remedy::Retry,
                Sign::Sick,
                "Nothing was sent. See that the target runs and its address is right; then requeue.",
            ),
            Self::Timeout => row(
                Remedy::Retry,
                Sign::Sick,
                "A second try does no harm. If it is always too slow, raise timeout_ms; then requeue.",
            ),
            Self::Closed => row(
                Remedy::Retry,
                Sign::Sick,
                "A second try does no harm. See whether the target restarts or crashes; then requeue.",
            ),
            Self::ToolError => row(
                Remedy::DeadLetter,
                Sign::Well,
                "The target did the work and says that it failed. Requeue if its reason has passed, or \
                 with other params.",
            ),
            Self::InvalidParams => row(
                Remedy::Person,
                // What is wrong is often found before the target is asked.
                Sign::Nothing,
                "The target, the tool or its arguments do not exist as named. Correct them, and requeue \
                 with other params.",
            ),
            Self::Protocol => row(
                Remedy::Person,
                Sign::Sick,
                "The target does not speak the protocol. Look at its version and at the artifacts of the \
                 attempt before requeueing.",
            ),
            Self::Ambiguous => row(
                Remedy::Person,
                Sign::Sick,
                "The work may have been done. Find out at the target; requeue only if it was not, or may \
                 be done twice.",
            ),
            Self::CircuitOpen => Treatment {
                not_in_failure_on: Some(NOT_TRIED),
                ..row(
                    Remedy::Retry,
                    Sign::Nothing,
                    "Nothing was tried. Once the breaker has closed, requeue.",
                )
            },
            Self::LeaseExpired => Treatment {
                retried: Retried::ByDatabase,
                not_in_failure_on: Some(NOT_SEEN),
                ..row(
                    Remedy::Person,
                    Sign::Nothing,
                    "Each worker that held it vanished. It may be what kills them: look at their logs \
                     before requeueing.",
                )
            },
            Self::DeadlineExceeded => Treatment {
                retried: Retried::Never,
                not_in_failure_on: Some(NOT_ITS_FAULT),
                ..row(
                    Remedy::DeadLetter,
                    Sign::Nothing,
                    "It is too late for its sender. Requeue if it is wanted all the same: the deadline \
                     begins anew.",
                )
            },
            Self::Internal => row(
                Remedy::Person,
                Sign::Nothing,
                "A defect of the worker or of its role. Mend it; then requeue.",
            ),
        }
    }
}

impl Treatment {
    /// Why `retry_on` cannot list the class, where it cannot: no setting may look as if it did something.
    pub(crate) fn not_in_retry_on(self) -> Option<&'static str> {
        match self.retried {
            Retried::IfListed => None,
            Retried::ByDatabase => Some(BY_DATABASE),
            Retried::Never => Some(NO_TIME),
        }
    }

    /// What a circuit breaker makes of it, in a word, while its `failure_on` is the default: `failure`,
    /// `success` or `nothing`; `never` where `failure_on` cannot list it.
    #[must_use]
    pub fn breaker(self) -> &'static str {
        match (self.not_in_failure_on, self.sign) {
            (Some(_), _) => "never",
            (None, Sign::Sick) => "failure",
            (None, Sign::Well) => "success",
            (None, Sign::Nothing) => "nothing",
        }
    }
}

/// Checks a list of classes: none may stand in it of which the table says that it has no place there.
pub(crate) fn listed(
    field: &str,
    classes: &[ErrorClass],
    refused: fn(Treatment) -> Option<&'static str>,
) -> Result<(), Invalid> {
    let mut rules = classes.iter().map(|class| refused(class.treatment()));
    match rules.find_map(|rule| rule) {
        Some(rule) => Err(Invalid::new(field, rule)),
        None => Ok(()),
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_read_as_it_is_written() {
        for class in ErrorClass::ALL {
            assert_eq!(ErrorClass::of(class.as_str()), Some(class));
            assert_eq!(serde_json::to_value(class).expect("JSON"), class.as_str());
        }
        assert_eq!(ErrorClass::of("weather"), None);
    }
}
