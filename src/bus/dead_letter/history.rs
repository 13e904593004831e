//! How a message came to be a dead letter, as far back as the log goes.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::bus::queries::dead_letters::Trail;

/// One step on a message's way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// An attempt that failed, or whose worker vanished (class `lease_expired`).
    Attempt(Attempt),
    /// It went to the dead-letter queue.
    DeadLettered(End),
    /// It was withdrawn.
    Cancelled(End),
    /// It was brought back, and its attempts count from 1 again.
    Requeued(Requeued),
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Which attempt since the message was enqueued or last requeued, from 1.
    pub attempt: i32,
    /// The class of the failure.
    pub class: Option<String>,
    /// What went wrong.
    pub message: Option<String>,
    /// Who made it.
    pub worker_id: Option<String>,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How long it took, if its worker lived to say so.
    pub duration_ms: Option<i64>,
    /// Where its artifacts are, below the artifacts directory.
    pub artifacts: Option<String>,
    /// The event that says so.
    pub event: Uuid,
}

/// The end of a message, until it is requeued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// Why.
    pub reason: Option<String>,
    /// The class of what ended it.
    pub class: Option<String>,
    /// What went wrong, where no attempt says so: a deadline that passed in the queue.
    pub message: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// The event that says so.
    pub event: Uuid,
}

/// The break between two lives of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Requeued {
    /// Why, as whoever did it said.
    pub reason: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// How many attempts it has from here on.
    pub max_attempts: Option<i32>,
    /// Whether it got another payload.
    pub changed: bool,
    /// What went before: `{attempts, max_attempts, error, event, events}`, where `event` is the one that ended
    /// it and `events` counts those up to there.
    pub previous: Option<Value>,
    /// The event that says so.
    pub event: Uuid,
}

impl From<Trail> for Step {
    fn from(trail: Trail) -> Self {
        let Trail { id: event, created_at: at, reason, class, message, .. } = trail;
        let is = |what: &str| trail.event_type.ends_with(what);
        if is("_requeued") {
            let Trail { max_attempts, changed, previous, .. } = trail;
            Self::Requeued(Requeued { reason, at, max_attempts, changed, previous, event })
        } else if is("_dead_lettered") {
            Self::DeadLettered(End { reason, class, message, at, event })
        } else if is("_cancelled") {
            Self::Cancelled(End { reason, class, message, at, event })
        } else {
            let Trail { attempt, worker_id, duration_ms, artifacts, .. } = trail;
            Self::Attempt(Attempt {
                attempt,
                class,
                message,
                worker_id,
                at,
                duration_ms,
                artifacts,
                event,
            })
        }
    }
}
