//! From events to rates: what happened in the last minute, by the database's clock.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};
use cogo::clock::Stopwatch;
use cogo::event::Event;
use cogo::message::MessageId;
use serde::Serialize;
use serde_json::Value;

use crate::text::error_text;

/// How many seconds are looked back.
pub(super) const WINDOW_S: usize = 60;
/// How many beginnings are remembered, to tell how long what ends has taken.
const BEGUN_MAX: usize = 50_000;
/// How many durations of a minute are kept.
const DURATIONS_MAX: usize = 20_000;
/// How many failures are.
const FAILURES_MAX: usize = 100;

/// One second of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Second {
    pub(super) scheduled: u64,
    pub(super) succeeded: u64,
    /// Attempts that failed.
    pub(super) failed: u64,
    pub(super) dead_lettered: u64,
}

/// What the last minute came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) window_s: usize,
    pub(super) scheduled_per_s: f64,
    pub(super) succeeded_per_s: f64,
    pub(super) failed_per_s: f64,
    pub(super) dead_lettered: u64,
    /// From enqueue to success, of what began since we look.
    pub(super) p50_ms: Option<i64>,
    pub(super) p95_ms: Option<i64>,
    /// More happened than was read: the rates are too low.
    pub(super) sampled: bool,
    /// The seconds, the oldest first.
    pub(super) seconds: Vec<Second>,
}

/// A failed attempt, or the end of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    pub(super) at: DateTime<Utc>,
    pub(super) event_type: String,
    pub(super) topic: String,
    pub(super) tenant: String,
    pub(super) attempt: i32,
    pub(super) message_id: Option<MessageId>,
    pub(super) trace_id: String,
    pub(super) reason: Option<String>,
    pub(super) error: Option<String>,
    pub(super) worker_id: Option<String>,
}

/// Reads the log along.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// By the second since the epoch, the oldest first; those in which nothing happened have none.
    seconds: VecDeque<(i64, Second)>,
    durations: VecDeque<(i64, i64)>,
    begun: HashMap<MessageId, DateTime<Utc>>,
    /// In which order they began.
    order: VecDeque<MessageId>,
    failures: VecDeque<Failure>,
    /// The latest time of the database that was seen, and how long ago that was by our clock.
    latest: Option<(DateTime<Utc>, Stopwatch)>,
    /// When something was skipped.
    skipped: Option<i64>,
}

impl Rates {
    pub(super) fn take(&mut self, event: &Event) {
        if self.latest.as_ref().is_none_or(|(latest, _)| *latest < event.created_at) {
            self.latest = Some((event.created_at, Stopwatch::start()));
        }
        let (at, kind) = (event.created_at.timestamp(), event.event_type.as_str());
        let ends = |end: &str| kind.ends_with(end);
        if ends("_scheduled") && !ends("_retry_scheduled") {
            self.second(at).scheduled += 1;
            self.begin(event);
        } else if ends("_succeeded") {
            self.second(at).succeeded += 1;
            self.end(event);
        } else if ends("_failed") || ends("_lease_expired") {
            self.second(at).failed += 1;
            self.fail(event);
        } else if ends("_dead_lettered") {
            self.second(at).dead_lettered += 1;
            self.fail(event);
        }
    }

    /// Says that events were left out.
    pub(super) fn skip(&mut self) {
        self.skipped = self.now();
    }

    fn second(&mut self, at: i64) -> &mut Second {
        // Nearly in order: transactions that overlap are told by their ids.
        let place = self.seconds.partition_point(|(second, _)| *second < at);
        if self.seconds.get(place).is_none_or(|(second, _)| *second != at) {
            self.seconds.insert(place, (at, Second::default()));
        }
        &mut self.seconds[place].1
    }

    fn begin(&mut self, event: &Event) {
        let Some(id) = event.message_id else { return };
        self.begun.insert(id, event.created_at);
        self.order.push_back(id);
        if self.order.len() > BEGUN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.begun.remove(&oldest);
        }
    }

    fn end(&mut self, event: &Event) {
        let Some(began) = event.message_id.and_then(|id| self.begun.remove(&id)) else { return };
        let took = (event.created_at - began).num_milliseconds().max(0);
        self.durations.push_back((event.created_at.timestamp(), took));
        if self.durations.len() > DURATIONS_MAX {
            self.durations.pop_front();
        }
    }

    fn fail(&mut self, event: &Event) {
        let error = event.payload.get("error").filter(|error| **error != Value::Null);
        // The end of a message does not repeat what its last attempt failed with.
        let before = || {
            let same = |failure: &&Failure| failure.message_id == event.message_id;
            self.failures.iter().find(same).and_then(|failure| failure.error.clone())
        };
        let error = error.map(error_text).or_else(before);
        self.failures.push_front(Failure {
            at: event.created_at,
            event_type: event.event_type.clone(),
            topic: format!("{}/{}", event.role, event.service),
            tenant: event.tenant.clone(),
            attempt: event.attempt,
            message_id: event.message_id,
            trace_id: event.trace_id.to_string(),
            reason: event.reason.clone(),
            error,
            worker_id: event.worker_id.clone(),
        });
        self.failures.truncate(FAILURES_MAX);
    }

    /// The second that it is by the database's clock, as far as we can tell.
    fn now(&self) -> Option<i64> {
        let (latest, since) = self.latest.as_ref()?;
        Some(latest.timestamp() + i64::try_from(since.elapsed().as_secs()).unwrap_or(0))
    }

    /// The failures, the latest first.
    pub(super) fn failures(&self) -> Vec<Failure> {
        self.failures.iter().cloned().collect()
    }

    /// What the last minute came to.
    pub(super) fn summary(&mut self) -> Summary {
        let Some(now) = self.now() else {
            return Summary {
                window_s: WINDOW_S,
                seconds: vec![Second::default(); WINDOW_S],
                ..Summary::default()
            };
        };
        let window = i64::try_from(WINDOW_S).unwrap_or(i64::MAX);
        let first = now - window + 1;
        self.seconds.retain(|(at, _)| *at >= first);
        self.durations.retain(|(at, _)| *at >= first);
        let mut seconds = vec![Second::default(); WINDOW_S];
        for (at, second) in &self.seconds {
            if let Some(slot) = usize::try_from(at - first).ok().and_then(|n| seconds.get_mut(n)) {
                *slot = *second;
            }
        }
        let sum = |of: fn(&Second) -> u64| seconds.iter().map(of).sum::<u64>();
        #[allow(clippy::cast_precision_loss)] // events of a minute
        let rate = |of: fn(&Second) -> u64| sum(of) as f64 / WINDOW_S as f64;
        let mut sorted: Vec<i64> = self.durations.iter().map(|(_, took)| *took).collect();
        sorted.sort_unstable();
        Summary {
            window_s: WINDOW_S,
            scheduled_per_s: rate(|second| second.scheduled),
            succeeded_per_s: rate(|second| second.succeeded),
            failed_per_s: rate(|second| second.failed),
            dead_lettered: sum(|second| second.dead_lettered),
            p50_ms: percentile(&sorted, 50),
            p95_ms: percentile(&sorted, 95),
            sampled: self.skipped.is_some_and(|at| at >= first),
            seconds,
        }
    }
}

/// The value that so many percent do not exceed (nearest rank).
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone as _};
    use cogo::event::Cursor;
    use cogo::message::TraceId;
    use serde_json::json;

    use super::*;

    fn event(kind: &str, id: MessageId, after_ms: i64) -> Event {
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("a time");
        Event {
            cursor: Cursor::START,
            id: Default::default(),
            event_type: kind.to_owned(),
            message_id: Some(id),
            trace_id: TraceId(Default::default()),
            tenant: "default".to_owned(),
            service: "demo".to_owned(),
            role: "mcp-gateway".to_owned(),
            shard: 0,
            attempt: 1,
            worker_id: None,
            reason: None,
            payload: json!({"error": {"class": "timeout", "message": "too slow"}}),
            created_at: start + TimeDelta::milliseconds(after_ms),
        }
    }

    #[test]
    fn a_minute_is_counted_and_what_began_and_ended_is_timed() {
        let mut rates = Rates::default();
        assert_eq!(rates.summary().p50_ms, None);
        for (at, took) in [(0, 10), (1000, 20), (2000, 300)] {
            let id = MessageId::new();
            rates.take(&event("mcp_call_scheduled", id, at));
            rates.take(&event("mcp_call_retry_scheduled", id, at));
            rates.take(&event("mcp_call_succeeded", id, at + took));
        }
        let summary = rates.summary();
        assert_eq!((summary.p50_ms, summary.p95_ms), (Some(20), Some(300)));
        assert!((summary.scheduled_per_s - 0.05).abs() < 1e-9, "{summary:?}");
        assert_eq!(summary.seconds.len(), WINDOW_S);
        assert_eq!(summary.seconds.iter().filter(|second| second.succeeded == 1).count(), 3);
        // A minute later nothing of it is left.
        rates.take(&event("agent_online", MessageId::new(), 63_000));
        let later = rates.summary();
        assert_eq!((later.p50_ms, later.scheduled_per_s), (None, 0.0));
    }

    #[test]
    fn failures_are_kept_the_latest_first_and_skipping_is_told() {
        let mut rates = Rates::default();
        let id = MessageId::new();
        rates.take(&event("mcp_call_failed", id, 0));
        rates.take(&event("mcp_call_dead_lettered", id, 5));
        let failures = rates.failures();
        assert_eq!(failures[0].event_type, "mcp_call_dead_lettered");
        assert_eq!(failures[1].error.as_deref(), Some("timeout: too slow"));
        let end = Event { payload: json!({}), ..event("mcp_call_dead_lettered", id, 6) };
        rates.take(&end);
        assert_eq!(rates.failures()[0].error.as_deref(), Some("timeout: too slow"));
        assert!(!rates.summary().sampled);
        rates.skip();
        let summary = rates.summary();
        assert!(summary.sampled);
        assert_eq!(summary.dead_lettered, 2);
    }

    #[test]
    fn what_comes_late_is_put_in_its_second_and_memory_is_bounded() {
        let mut rates = Rates::default();
        for at in [3000, 1000, 2000, 1000] {
            rates.take(&event("mcp_call_scheduled", MessageId::new(), at));
        }
        let at: Vec<_> =
            rates.seconds.iter().map(|(at, second)| (at % 60, second.scheduled)).collect();
        assert_eq!(at, [(1, 2), (2, 1), (3, 1)]);
        for n in 0..(BEGUN_MAX + 10) {
            rates.take(&event(
                "x_scheduled",
                MessageId::new(),
                i64::try_from(n % 7).expect("small"),
            ));
        }
        assert_eq!(rates.begun.len(), BEGUN_MAX);
    }
}
