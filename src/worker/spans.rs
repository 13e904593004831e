//! The span of one attempt: from when a handler may begin until it is known what follows from it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::message::Message;
use crate::retry::ErrorClass;
use crate::trace::{Attribute, Kind, Origin, Place, Span};

/// What an attempt says of itself, in pieces; ends with it.
#[derive(Debug, Default)]
pub(crate) struct AttemptSpan(Mutex<Span>);

impl AttemptSpan {
    /// Begins it, below what sent the message where that is known and of the message's own trace.
    pub(crate) fn begin(
        &self,
        message: &Message,
        worker_id: &str,
        parent: Option<&Place>,
        fallback: Option<&str>,
    ) {
        let origin = Origin::within(message.trace_id.0, parent);
        // A message that was replayed names the span that sent it the first time, in another trace.
        let link = parent.filter(|_| !matches!(origin, Origin::Under(_)));
        let span = Span::start_linked(Kind::Consumer, origin, link, || {
            let topic = message.topic();
            let name = format!("process {topic}");
            (name, attributes(message, topic, worker_id, fallback))
        });
        *self.span() = span;
    }

    /// Its place, for what the handler does.
    pub(crate) fn place(&self) -> Option<Place> {
        self.span().place()
    }

    /// What becomes of the claim: done, retried, dead_lettered, released, lost.
    pub(crate) fn outcome(&self, outcome: &'static str) {
        let mut span = self.span();
        if outcome == "lost" {
            span.fail(ErrorClass::LeaseExpired.as_str());
        }
        span.set("cogo.outcome", outcome);
    }

    /// The attempt failed: when the next one is due, or why there is none.
    pub(crate) fn failed(
        &self,
        class: ErrorClass,
        retry_in: Option<Duration>,
        reason: Option<&'static str>,
    ) {
        let mut span = self.span();
        if !span.is_recording() {
            return;
        }
        span.fail(class.as_str());
        match retry_in {
            Some(delay) => {
                let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                span.event("retry", vec![Attribute::new("cogo.retry_in_ms", delay)]);
            }
            None => {
                let reason = reason.unwrap_or("unknown");
                span.event("dead_letter", vec![Attribute::new("cogo.reason", reason)]);
            }
        }
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messaging's conventions of OpenTelemetry, and what only we have.
fn attributes(
    message: &Message,
    topic: String,
    worker_id: &str,
    fallback: Option<&str>,
) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::new("messaging.system", "cogo"),
        Attribute::new("messaging.operation.name", "process"),
        Attribute::new("messaging.operation.type", "process"),
        Attribute::new("messaging.destination.name", topic),
        Attribute::new("messaging.message.id", message.id.to_string()),
        Attribute::new("messaging.client.id", worker_id.to_owned()),
        Attribute::new("cogo.tenant", message.tenant.clone()),
        Attribute::new("cogo.intent", message.intent.clone()),
        Attribute::new("cogo.attempt", i64::from(message.attempts)),
        Attribute::new("cogo.max_attempts", i64::from(message.max_attempts)),
        Attribute::new("cogo.claim_no", message.claim_no),
    ];
    if let Some(claimed_at) = message.claimed_at {
        // Both times are the database's.
        let waited = (claimed_at - message.run_at).num_milliseconds().max(0);
        attributes.push(Attribute::new("cogo.queue_wait_ms", waited));
    }
    if let Some(fallback) = fallback {
        attributes.push(Attribute::new("cogo.fallback", fallback.to_owned()));
    }
    attributes
}
