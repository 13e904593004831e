//! Every metric name of the library, described once.
//!
//! Labels are bounded: roles, services, statuses, event types, outcomes; never ids.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Messages that wait, are held or are dead, by `role`, `service` and `status`.
pub const QUEUE_MESSAGES: &str = "cogo_queue_messages";
/// How long the oldest queued message has been due, by `role` and `service`.
pub const QUEUE_OLDEST_SECONDS: &str = "cogo_queue_oldest_seconds";
/// Messages that are due and may not be claimed, by `role`, `service` and `reason` (ordering, circuit).
pub const PARKED_MESSAGES: &str = "cogo_parked_messages";
/// Messages that wait for a worker and for nothing else, by `role` and `service`: what workers are started for.
pub const PENDING_TASKS: &str = "cogo_pending_tasks";
/// Workers that are online, by `role`.
pub const WORKERS_ONLINE: &str = "cogo_workers_online";
/// 1 where `/readyz` says that the hub is ready, else 0.
pub const HUB_READY: &str = "cogo_hub_ready";
/// How long ago the hub had last read the log to its end. A minimal hub does not follow it.
pub const FEED_AGE_SECONDS: &str = "cogo_feed_age_seconds";
/// 1, with the `version` of the program.
pub const BUILD_INFO: &str = "cogo_build_info";
/// Memory that the process holds.
pub const PROCESS_RESIDENT_BYTES: &str = "process_resident_memory_bytes";
/// Time on processors, in whole seconds.
pub const PROCESS_CPU_SECONDS_TOTAL: &str = "process_cpu_seconds_total";
/// Open file descriptors.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// Threads.
pub const PROCESS_THREADS: &str = "process_threads";
/// From due to the handler's start, by `role`: to the claim by the database's clock, and what it waited in the worker.
pub const CLAIM_LATENCY_MS: &str = "cogo_claim_latency_ms";
/// From the handler's end to the settle's commit, by `role`.
pub const SETTLE_LATENCY_MS: &str = "cogo_settle_latency_ms";
/// How long handlers ran, by `role`.
pub const HANDLER_LATENCY_MS: &str = "cogo_handler_latency_ms";
/// Settles by `role` and `outcome` (done, retried, dead_lettered, released, parked, lost).
pub const SETTLES_TOTAL: &str = "cogo_settles_total";
/// Handlers running now, by `role`.
pub const IN_FLIGHT: &str = "cogo_handlers_in_flight";
/// Messages that this worker has claimed and that wait in it for a handler to be free, by `role`.
pub const PREFETCHED: &str = "cogo_prefetched_messages";
/// Events seen in the log since this hub started, by `event_type`.
pub const EVENTS_TOTAL: &str = "cogo_bus_events_total";
/// Leases lost while a handler ran, by `role`.
pub const LEASES_LOST_TOTAL: &str = "cogo_leases_lost_total";
/// Progress reports that were dropped because a handler made more than are written, by `role`.
pub const PROGRESS_DROPPED_TOTAL: &str = "cogo_progress_dropped_total";
/// Round trips to the database that failed and were tried again, by `call`.
pub const BUS_RETRIES_TOTAL: &str = "cogo_bus_retries_total";
/// Messages published by this process, by `role`.
pub const PUBLISHED_TOTAL: &str = "cogo_messages_published_total";
/// Configuration files read again while running, by `file` and `outcome` (applied, refused, unchanged).
pub const CONFIG_RELOADS_TOTAL: &str = "cogo_config_reloads_total";
/// Spans by `outcome`: exported, dropped (too many waited), failed (the collector did not take them).
pub const TRACE_SPANS_TOTAL: &str = "cogo_trace_spans_total";

/// What the hub refused before its handlers, by `why` (credentials, policy, rate, guessing, connections).
pub const HUB_REFUSED_TOTAL: &str = "cogo_hub_refused_total";
/// Requests of remote callers that were answered, by `route` (function, table) and `status`.
pub const REST_REQUESTS_TOTAL: &str = "cogo_rest_requests_total";
/// How long requests of remote callers took, by `route`.
pub const REST_LATENCY_MS: &str = "cogo_rest_latency_ms";

/// Circuit breakers that are not closed, by `key` (at most a hundred; the others are one, `_other`).
pub const CIRCUIT_OPEN_CURRENT: &str = "cogo_circuit_open_current";
/// How often a breaker opened, by the log since this hub started.
pub const CIRCUIT_OPEN_TOTAL: &str = "cogo_circuit_open_total";
/// How often a breaker closed, by the log since this hub started.
pub const CIRCUIT_CLOSE_TOTAL: &str = "cogo_circuit_close_total";

/// Sockets of the hub's Realtime that are open.
pub const REALTIME_CONNECTIONS: &str = "cogo_realtime_connections";
/// Channels that are joined.
pub const REALTIME_CHANNELS: &str = "cogo_realtime_channels";
/// Frames by `direction` (in, out).
pub const REALTIME_FRAMES_TOTAL: &str = "cogo_realtime_frames_total";
/// Sockets that were dropped because they did not read.
pub const REALTIME_SLOW_SOCKETS_TOTAL: &str = "cogo_realtime_slow_sockets_total";
/// What the hub's Realtime refused, by `what` (connection, join, event, token) and `reason`.
pub const REALTIME_REFUSED_TOTAL: &str = "cogo_realtime_refused_total";

/// Tells the recorder what each metric means. Call it once, after installing the recorder.
pub fn describe() {
    describe_gauge!(QUEUE_MESSAGES, "Messages that wait, are held or are dead");
    describe_gauge!(
        QUEUE_OLDEST_SECONDS,
        Unit::Seconds,
        "How long the oldest queued message has been due"
    );
    describe_gauge!(PARKED_MESSAGES, "Messages that are due and may not be claimed");
    describe_gauge!(PENDING_TASKS, "Messages that wait for a worker and for nothing else");
    describe_gauge!(WORKERS_ONLINE, "Workers that are online");
    describe_gauge!(HUB_READY, "Whether the hub is ready (1) or not (0)");
    describe_gauge!(
        FEED_AGE_SECONDS,
        Unit::Seconds,
        "How long ago the hub had last read the log to its end"
    );
    describe_gauge!(BUILD_INFO, "Which version of the program runs");
    describe_gauge!(PROCESS_RESIDENT_BYTES, Unit::Bytes, "Memory that the process holds");
    describe_counter!(PROCESS_CPU_SECONDS_TOTAL, Unit::Seconds, "Time on processors");
    describe_gauge!(PROCESS_OPEN_FDS, "Open file descriptors");
    describe_gauge!(PROCESS_THREADS, "Threads");
    describe_histogram!(CLAIM_LATENCY_MS, Unit::Milliseconds, "From due to the handler's start");
    describe_histogram!(
        SETTLE_LATENCY_MS,
        Unit::Milliseconds,
        "From the handler's end to the settle's commit"
    );
    describe_histogram!(HANDLER_LATENCY_MS, Unit::Milliseconds, "How long handlers ran");
    describe_counter!(HUB_REFUSED_TOTAL, "What the hub refused before its handlers, and why");
    describe_counter!(REST_REQUESTS_TOTAL, "Requests of remote callers that were answered");
    describe_histogram!(
        REST_LATENCY_MS,
        Unit::Milliseconds,
        "How long requests of remote callers took"
    );
    describe_counter!(SETTLES_TOTAL, "Settled claims by outcome");
    describe_gauge!(IN_FLIGHT, "Handlers running now");
    describe_gauge!(PREFETCHED, "Claimed messages that wait in a worker for a free handler");
    describe_counter!(EVENTS_TOTAL, "Events seen in the log since this hub started");
    describe_counter!(LEASES_LOST_TOTAL, "Leases lost while a handler ran");
    describe_counter!(PROGRESS_DROPPED_TOTAL, "Progress reports that were dropped");
    describe_counter!(BUS_RETRIES_TOTAL, "Round trips to the database that were tried again");
    describe_counter!(PUBLISHED_TOTAL, "Messages published by this process");
    describe_gauge!(CIRCUIT_OPEN_CURRENT, "Circuit breakers that are not closed");
    describe_counter!(CIRCUIT_OPEN_TOTAL, "How often a circuit breaker opened");
    describe_counter!(CIRCUIT_CLOSE_TOTAL, "How often a circuit breaker closed");
    describe_counter!(CONFIG_RELOADS_TOTAL, "Configuration files read again while running");
    describe_counter!(TRACE_SPANS_TOTAL, "Spans of traces by what became of them");
    describe_gauge!(REALTIME_CONNECTIONS, "Open sockets of the hub's Realtime");
    describe_gauge!(REALTIME_CHANNELS, "Joined channels of the hub's Realtime");
    describe_counter!(REALTIME_FRAMES_TOTAL, "Frames of the hub's Realtime by direction");
    describe_counter!(REALTIME_SLOW_SOCKETS_TOTAL, "Sockets dropped because they did not read");
    describe_counter!(REALTIME_REFUSED_TOTAL, "What the hub's Realtime refused, and why");
}

/// The label of what is one value too many. No role, service, toolset or tool is called so.
pub const OTHER: &str = "_other";

/// The values that one label has had over the life of the process. Where anybody may make up values, each new one is
/// memory for ever, here and at whoever scrapes.
#[derive(Debug)]
pub struct Values {
    max: usize,
    seen: Mutex<BTreeSet<String>>,
}

impl Values {
    /// At most `max` values.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, seen: Mutex::new(BTreeSet::new()) }
    }

    /// `value`, or [`OTHER`] where there have been too many.
    pub fn bounded(&self, value: &str) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.contains(value) || seen.len() < self.max && seen.insert(value.to_owned());
        if known { value.to_owned() } else { OTHER.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_too_many_is_another() {
        let values = Values::new(2);
        let given: Vec<String> = ["a", "b", "c", "a"].map(|value| values.bounded(value)).into();
        assert_eq!(given, ["a", "b", OTHER, "a"]);
    }
}
