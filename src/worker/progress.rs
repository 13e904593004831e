//! Progress: what handlers report, on its way to the log. Every report, in order, the first at once; bounded in number
//! and size, because a handler passes on what some tool says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::error::chain;
use crate::message::Message;
use crate::metrics::PROGRESS_DROPPED_TOTAL;

/// The least time between two writes of one delivery: as fast as a person sees something move.
const PERIOD: Duration = Duration::from_millis(100);
/// How many reports may wait for the next write; of more the oldest are dropped.
const REPORTS_MAX: usize = 32;
/// The largest report that is kept whole.
const REPORT_BYTES: usize = 4 * 1024;
/// As much of a text as is kept of a report that is too large, in characters.
const TEXT_MAX: usize = 500;
/// How much of reports goes into one event. The last of them stands there twice, and the bus takes 64 KiB.
const EVENT_BYTES: usize = 40 * 1024;

/// The reports of one delivery. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Batch>,
    filled: Notify,
    used: AtomicBool,
}

/// Reports that were not written yet, the oldest first.
#[derive(Debug, Default)]
struct Batch {
    reports: VecDeque<Value>,
    dropped: u64,
}

impl Reports {
    /// Takes a report in. Never waits.
    pub(crate) fn push(&self, report: Value) {
        let report = bounded(report);
        self.0.used.store(true, Ordering::Release);
        {
            let mut waiting = self.lock();
            if waiting.reports.len() >= REPORTS_MAX {
                waiting.reports.pop_front();
                waiting.dropped += 1;
            }
            waiting.reports.push_back(report);
        }
        self.0.filled.notify_one();
    }

    /// Whether there ever was a report.
    pub(crate) fn used(&self) -> bool {
        self.0.used.load(Ordering::Acquire)
    }

    fn take(&self) -> Batch {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is reported of `message`, until the handler has `ended` and all of it is written.
    pub(crate) async fn record(
        &self,
        bus: &Bus,
        message: &Message,
        worker_id: &str,
        ended: &CancellationToken,
    ) {
        loop {
            let batch = self.take();
            if batch.reports.is_empty() {
                if ended.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = self.0.filled.notified() => {}
                    () = ended.cancelled() => {}
                }
                continue;
            }
            if batch.dropped > 0 {
                let role = message.role.clone();
                counter!(PROGRESS_DROPPED_TOTAL, "role" => role).increment(batch.dropped);
            }
            let events: Vec<Value> = payloads(batch)
                .into_iter()
                .map(|payload| event(message, worker_id, &payload))
                .collect();
            // Not tried again: whether it was written is unknown, and nobody wants to hear it twice.
            if let Err(error) = bus.append_events(events).await {
                tracing::debug!(message.id = %message.id, error = %chain(&error), "Lost progress reports");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = ended.cancelled() => {}
            }
        }
    }
}

fn event(message: &Message, worker_id: &str, payload: &Value) -> Value {
    json!({
        "event_type": format!("{}_progress", message.intent.replace('.', "_")),
        "message_id": message.id, "trace_id": message.trace_id, "tenant": message.tenant,
        "role": message.role, "service": message.service, "shard": message.shard,
        "attempt": message.attempts, "worker_id": worker_id, "payload": payload,
    })
}

/// The payloads of events that hold a batch: `progress` is the last report, `reports` all of them where there are
/// several, and `dropped` how many went before them unwritten.
fn payloads(batch: Batch) -> Vec<Value> {
    let mut pieces: Vec<Vec<Value>> = Vec::new();
    let mut size = usize::MAX;
    for report in batch.reports {
        let its = report.to_string().len();
        match pieces.last_mut() {
            Some(piece) if size + its <= EVENT_BYTES => {
                size += its;
                piece.push(report);
            }
            _ => {
                size = its;
                pieces.push(vec![report]);
            }
        }
    }
    let mut dropped = batch.dropped;
    pieces
        .into_iter()
        .map(|reports| {
            let mut payload = json!({"progress": reports.last()});
            if reports.len() > 1 {
                payload["reports"] = Value::Array(reports);
            }
            match std::mem::take(&mut dropped) {
                0 => {}
                dropped => payload["dropped"] = json!(dropped),
            }
            payload
        })
        .collect()
}

/// A report of a size that can be kept: of one that is too large its numbers, and the beginnings of its texts.
fn bounded(report: Value) -> Value {
    if report.to_string().len() <= REPORT_BYTES {
        return report;
    }
    let Value::Object(fields) = report else { return json!({"truncated": true}) };
    let kept: Map<String, Value> = fields
        .into_iter()
        .take(8)
        .filter_map(|(name, value)| match value {
            Value::Number(_) | Value::Bool(_) => Some((name, value)),
            Value::String(text) => {
                Some((name, text.chars().take(TEXT_MAX).collect::<String>().into()))
            }
            _ => None,
        })
        .chain([("truncated".to_owned(), json!(true))])
        .collect();
    let kept = Value::Object(kept);
    if kept.to_string().len() <= REPORT_BYTES { kept } else { json!({"truncated": true}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_reports_the_oldest_are_dropped_and_counted() {
        let reports = Reports::default();
        for n in 0..40 {
            reports.push(json!({"progress": n}));
        }
        let [payload] = &payloads(reports.take())[..] else { panic!("one event") };
        assert_eq!(payload["dropped"], 8);
        let told: Vec<_> = payload["reports"].as_array().expect("reports").iter().collect();
        assert_eq!(
            (told.len(), &told[0]["progress"], &told[31]["progress"]),
            (32, &json!(8), &json!(39))
        );
        assert_eq!(payload["progress"], json!({"progress": 39}));
        reports.push(json!(1));
        assert_eq!(payloads(reports.take()), [json!({"progress": 1})]);
    }

    #[test]
    fn a_large_report_keeps_its_numbers_and_a_batch_of_them_fits_into_events() {
        let reports = Reports::default();
        for n in 0..32 {
            reports.push(json!({"progress": n, "total": 32, "message": "x".repeat(3900)}));
        }
        reports.push(json!({"progress": 99, "message": "é".repeat(9000), "more": {"a": "b"}}));
        reports.push(json!("y".repeat(9000)));
        let payloads = payloads(reports.take());
        assert!(payloads.len() > 1);
        assert!(payloads.iter().all(|payload| payload.to_string().len() < 60_000));
        let told: Vec<Value> = payloads
            .iter()
            .flat_map(|it| {
                it["reports"].as_array().cloned().unwrap_or(vec![it["progress"].clone()])
            })
            .collect();
        assert_eq!(told.len(), 32);
        assert_eq!(told[30]["progress"], 99);
        assert_eq!(told[30]["message"], json!("é".repeat(TEXT_MAX)));
        assert_eq!(told[30]["truncated"], true);
        assert_eq!(told[31], json!({"truncated": true}));
    }
}
