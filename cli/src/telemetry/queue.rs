//! From a span's end to the collector.
//!
//! Spans wait in a bounded queue for a thread that sends them in batches. Whoever ends a span never waits: one that
//! finds the queue full is dropped and counted. A collector that does not answer is told of once, until it does.

use std::fmt;
use std::sync::mpsc::{Receiver as Done, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cogo::metrics::TRACE_SPANS_TOTAL;
use metrics::counter;
use opentelemetry::Context;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::{mpsc, watch};

/// How much waits, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many spans wait; further ones are dropped.
    pub(super) spans: usize,
    /// How many are sent at once.
    pub(super) batch: usize,
    /// How long to wait for more of them.
    pub(super) delay: Duration,
}

/// Why the last request failed: the exporter says only that it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub(super) fn is(&self, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes spans that have ended.
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    stop: watch::Sender<bool>,
    done: Mutex<Done<()>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    /// Starts the thread that sends them by `exporter` to `endpoint`, as people may read it.
    pub(super) fn start<E: SpanExporter + 'static>(
        exporter: E,
        limits: Limits,
        endpoint: &str,
        trouble: Trouble,
    ) -> std::io::Result<Self> {
        let (spans, waiting) = mpsc::channel(limits.spans);
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = sync_channel(1);
        // Of its own: it goes on when the main one stops, or has more to do than it can.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = endpoint.to_owned();
        let mut sending = Sending { exporter, limits, endpoint, trouble, down: None };
        std::thread::Builder::new().name("cogo-traces".to_owned()).spawn(move || {
            runtime.block_on(sending.run(waiting, stopped));
            let _nobody_waits = finished.send(());
        })?;
        Ok(Self { spans, stop, done: Mutex::new(done) })
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(()) // nobody asks for it
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.stop.send_replace(true);
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.recv_timeout(timeout).map_err(|_| {
            tracing::warn!("The last spans could not be exported within {timeout:?}");
            OTelSdkError::Timeout(timeout)
        })
    }
}

/// The thread's side.
struct Sending<E> {
    exporter: E,
    limits: Limits,
    endpoint: String,
    trouble: Trouble,
    /// How many spans were lost since the collector was last heard of, while it does not answer.
    down: Option<u64>,
}

impl<E: SpanExporter> Sending<E> {
    async fn run(
        &mut self,
        mut waiting: mpsc::Receiver<SpanData>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut batch = Vec::with_capacity(self.limits.batch);
        loop {
            self.gather(&mut batch, &mut waiting, &mut stop).await;
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
            if ended(&waiting, &stop) {
                waiting.close();
                if waiting.is_empty() {
                    return;
                }
            }
        }
    }

    /// Fills `batch` until it is full, its first span has waited long enough, or the end is near.
    async fn gather(
        &self,
        batch: &mut Vec<SpanData>,
        waiting: &mut mpsc::Receiver<SpanData>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let full = self.limits.batch;
        while batch.is_empty() && !ended(waiting, stop) {
            tokio::select! {
                _ = waiting.recv_many(batch, full) => {}
                _ = stop.changed() => {}
            }
        }
        let late = tokio::time::sleep(self.limits.delay);
        tokio::pin!(late);
        while batch.len() < full && !ended(waiting, stop) {
            tokio::select! {
                _ = waiting.recv_many(batch, full - batch.len()) => {}
                _ = stop.changed() => {}
                () = &mut late => return,
            }
        }
        while batch.len() < full
            && let Ok(span) = waiting.try_recv()
        {
            batch.push(span);
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                count("exported", spans);
                if let Some(lost) = self.down.take() {
                    tracing::info!("{} takes traces again; {lost} spans were lost", self.endpoint);
                }
            }
            Err(error) => {
                count("failed", spans);
                let why = self.trouble.take().unwrap_or_else(|| error.to_string());
                let lost = self.down.get_or_insert_with(|| {
                    tracing::warn!(
                        error = %why,
                        "{} takes no traces: spans are lost until it does, and all else goes on",
                        self.endpoint
                    );
                    0
                });
                *lost += spans;
            }
        }
    }
}

/// Whether nothing more comes that would be worth waiting for.
fn ended(waiting: &mpsc::Receiver<SpanData>, stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || waiting.is_closed()
}

fn count(outcome: &'static str, spans: u64) {
    counter!(TRACE_SPANS_TOTAL, "outcome" => outcome).increment(spans);
}
