//! What a worker counts and measures, with the recorder's own handles: looked up once and not for each message.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::clock::Stopwatch;
use crate::metrics::{
    CLAIM_LATENCY_MS, HANDLER_LATENCY_MS, IN_FLIGHT, PREFETCHED, SETTLE_LATENCY_MS, SETTLES_TOTAL,
};

/// The metrics of one role.
#[derive(Clone)]
pub(super) struct Meters {
    role: String,
    done: Counter,
    claim_latency: Histogram,
    handler_latency: Histogram,
    settle_latency: Histogram,
    in_flight: Gauge,
    prefetched: Gauge,
}

impl Meters {
    pub(super) fn new(role: &str) -> Self {
        let role = role.to_owned();
        Self {
            done: counter!(SETTLES_TOTAL, "role" => role.clone(), "outcome" => "done"),
            claim_latency: histogram!(CLAIM_LATENCY_MS, "role" => role.clone()),
            handler_latency: histogram!(HANDLER_LATENCY_MS, "role" => role.clone()),
            settle_latency: histogram!(SETTLE_LATENCY_MS, "role" => role.clone()),
            in_flight: gauge!(IN_FLIGHT, "role" => role.clone()),
            prefetched: gauge!(PREFETCHED, "role" => role.clone()),
            role,
        }
    }

    /// One more settle of this outcome.
    pub(super) fn count(&self, outcome: &'static str) {
        match outcome {
            "done" => self.done.increment(1),
            // The others are rare, and what never happened is not shown.
            _ => counter!(SETTLES_TOTAL, "role" => self.role.clone(), "outcome" => outcome)
                .increment(1),
        }
    }

    /// From due to the handler's start.
    pub(super) fn claimed(&self, waited_ms: i64) {
        #[allow(clippy::cast_precision_loss)] // milliseconds
        self.claim_latency.record(waited_ms.max(0) as f64);
    }

    pub(super) fn handled(&self, took_ms: u64) {
        #[allow(clippy::cast_precision_loss)] // milliseconds
        self.handler_latency.record(took_ms as f64);
    }

    pub(super) fn settled(&self, since: Stopwatch) {
        #[allow(clippy::cast_precision_loss)] // milliseconds
        self.settle_latency.record(since.elapsed_ms() as f64);
    }

    /// How many handlers run, and how many messages wait for one.
    pub(super) fn in_hand(&self, running: usize, waiting: usize) {
        #[allow(clippy::cast_precision_loss)] // some thousand
        let (running, waiting) = (running as f64, waiting as f64);
        self.in_flight.set(running);
        self.prefetched.set(waiting);
    }
}
