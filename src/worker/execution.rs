//! One delivery: run the handler within its time, and make a settle of whatever happens.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::{counter, histogram};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Settle};
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::message::Message;
use crate::metrics::{HANDLER_LATENCY_MS, SETTLES_TOTAL};
use crate::retry::{Decision, ErrorClass, Policy, Reason, Tried};
use crate::worker::{Delivery, Failure, Handler, Output};

/// How long a handler may go on after its time is up or its claim is cancelled, to say itself what that
/// means; then it is dropped.
const GRACE: Duration = Duration::from_secs(1);
/// The least time between two progress events of one delivery.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// What is needed to run one delivery.
pub(crate) struct Execution<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) message: Arc<Message>,
    pub(crate) policy: Policy,
    pub(crate) bus: Bus,
    pub(crate) worker_id: String,
    /// Since the claim was answered.
    pub(crate) claimed: Stopwatch,
    /// The claim's lease is lost.
    pub(crate) lost: CancellationToken,
    /// The worker stops and waits no longer.
    pub(crate) stop: CancellationToken,
}

/// How a handler ended.
enum End {
    Returned(Result<Output, Failure>),
    Panicked(String),
    TimedOut(Duration),
    /// Dropped because the lease was lost.
    Lost,
    /// Dropped because the worker stops.
    Stopped,
    /// Not begun, because the message's deadline has passed.
    TooLate,
}

impl<H: Handler> Execution<H> {
    /// Runs the handler to its end. `None` when the claim is lost and there is nothing to settle.
    pub(crate) async fn run(self) -> Option<Settle> {
        let began = Stopwatch::start();
        let end = self.handle().await;
        let elapsed_ms = began.elapsed_ms();
        let role = self.message.role.clone();
        #[allow(clippy::cast_precision_loss)] // milliseconds
        histogram!(HANDLER_LATENCY_MS, "role" => role).record(elapsed_ms as f64);
        self.settle(end, elapsed_ms)
    }

    /// What is left until the message's deadline, if it has one. Both times are the database's; what has gone
    /// by since is measured here.
    fn left(&self) -> Option<Duration> {
        let (deadline_at, claimed_at) = (self.message.deadline_at?, self.message.claimed_at?);
        let left = (deadline_at - claimed_at).to_std().unwrap_or_default();
        Some(left.saturating_sub(self.claimed.elapsed()))
    }

    async fn handle(&self) -> End {
        let timeout = self.policy.timeout(self.left());
        if timeout.is_zero() {
            return End::TooLate;
        }
        let (progress, mut reports) = watch::channel(None);
        // One token for both reasons to stop; the handler need not tell them apart.
        let cancelled = CancellationToken::new();
        let delivery = Delivery {
            message: Arc::clone(&self.message),
            timeout,
            cancelled: cancelled.clone(),
            progress,
        };
        // In a block, since `handle` need not be an async fn and may panic before it gives its future.
        let handling = async { self.handler.handle(delivery).await };
        let handling = AssertUnwindSafe(handling).catch_unwind();
        tokio::pin!(handling);
        let time_up = tokio::time::sleep(timeout + GRACE);
        tokio::pin!(time_up);
        let recording = self.record_progress(&mut reports);
        tokio::pin!(recording);

        let why = tokio::select! {
            ended = &mut handling => return returned(ended),
            never = &mut recording => match never {},
            () = &mut time_up => return End::TimedOut(timeout),
            () = self.lost.cancelled() => End::Lost,
            () = self.stop.cancelled() => End::Stopped,
        };
        cancelled.cancel();
        match tokio::time::timeout(GRACE, handling).await {
            Ok(ended) => returned(ended),
            Err(_) => why,
        }
    }

    /// Writes what the handler reports, at most once a [`PROGRESS_PERIOD`]. Never ends by itself.
    async fn record_progress(&self, reports: &mut watch::Receiver<Option<Value>>) -> Infallible {
        while reports.changed().await.is_ok() {
            let report = reports.borrow_and_update().clone();
            let message = &self.message;
            let event = json!({
                "event_type": format!("{}_progress", message.intent.replace('.', "_")),
                "message_id": message.id, "trace_id": message.trace_id, "tenant": message.tenant,
                "role": message.role, "service": message.service, "shard": message.shard,
                "attempt": message.attempts, "worker_id": self.worker_id,
                "payload": {"progress": report},
            });
            if let Err(error) = self.bus.append_event(event).await {
                tracing::debug!(message.id = %message.id, error = %chain(&error), "Lost a progress report");
            }
            tokio::time::sleep(PROGRESS_PERIOD).await;
        }
        std::future::pending().await
    }

    fn settle(&self, end: End, elapsed_ms: u64) -> Option<Settle> {
        let stopping = self.stop.is_cancelled();
        match end {
            End::Returned(Ok(output)) => {
                self.count("done");
                let meta = with_duration(output.meta, elapsed_ms);
                Some(Settle::complete(&self.message, output.result, meta))
            }
            // The worker stops, and the handler says that a second try does no harm.
            End::Returned(Err(failure)) if stopping && self.policy.retries(failure.class) => {
                Some(self.release())
            }
            End::Returned(Err(failure)) => Some(self.fail(failure, elapsed_ms)),
            End::Panicked(what) => {
                tracing::error!(
                    message.id = %self.message.id, message.topic = %self.message.topic(),
                    "The handler of message {} panicked: {what}", self.message.id
                );
                let failure =
                    Failure::new(ErrorClass::Internal, format!("the handler panicked: {what}"));
                Some(self.fail(failure, elapsed_ms))
            }
            End::TimedOut(timeout) => {
                let text = format!("the handler took longer than {} ms", timeout.as_millis());
                let class =
                    if self.may_repeat() { ErrorClass::Timeout } else { ErrorClass::Ambiguous };
                Some(self.fail(Failure::new(class, text), elapsed_ms))
            }
            End::TooLate => {
                let text = "the deadline had passed before the attempt began";
                Some(self.fail(Failure::new(ErrorClass::DeadlineExceeded, text), elapsed_ms))
            }
            End::Stopped if self.may_repeat() => Some(self.release()),
            End::Stopped => {
                let text = "the worker stopped in the middle of the work";
                Some(self.fail(Failure::new(ErrorClass::Ambiguous, text), elapsed_ms))
            }
            End::Lost => {
                self.count("lost");
                None
            }
        }
    }

    fn may_repeat(&self) -> bool {
        self.handler.may_repeat(&self.message)
    }

    fn release(&self) -> Settle {
        self.count("released");
        Settle::release(&self.message, Duration::ZERO, "worker_shutdown")
    }

    fn fail(&self, failure: Failure, elapsed_ms: u64) -> Settle {
        let message = &self.message;
        let attempt = u32::try_from(message.attempts).unwrap_or(1);
        let limit = u32::try_from(message.max_attempts).unwrap_or(1);
        let tried = Tried { attempt, max_attempts: limit, left: self.left() };
        let (retry_in, reason) =
            match self.policy.decide(failure.class, tried, rand::random::<f64>()) {
                Decision::Retry(delay) => (Some(delay), None),
                Decision::DeadLetter(reason) => (None, Some(reason.as_str())),
            };
        self.count(if retry_in.is_some() { "retried" } else { "dead_lettered" });
        let (id, class) = (message.id, failure.class);
        match retry_in {
            Some(delay) => tracing::info!(
                message.id = %id, message.topic = %message.topic(), claim.attempt = attempt,
                "Attempt {attempt} of message {id} failed ({class}); the next is due in {} ms",
                delay.as_millis()
            ),
            None => tracing::warn!(
                message.id = %id, message.topic = %message.topic(), claim.attempt = attempt,
                "Dead-lettered message {id} after attempt {attempt} ({class}). {}",
                class.treatment().advice
            ),
        }
        let mut error = json!({"class": class, "message": failure.message});
        if let Some(detail) = failure.detail {
            error["detail"] = detail;
        }
        Settle::fail(message, error, retry_in, reason, with_duration(failure.meta, elapsed_ms))
    }

    fn count(&self, outcome: &'static str) {
        let role = self.message.role.clone();
        counter!(SETTLES_TOTAL, "role" => role, "outcome" => outcome).increment(1);
    }
}

fn returned(ended: std::thread::Result<Result<Output, Failure>>) -> End {
    match ended {
        Ok(result) => End::Returned(result),
        Err(panic) => End::Panicked(words(&*panic)),
    }
}

/// The settle of a delivery that panicked around the handler's own future: in its `policy_key`, its
/// `may_repeat`, or when it was dropped. There is no policy to ask, so it is a dead letter.
pub(crate) fn panicked(message: &Message, panic: &(dyn Any + Send)) -> Settle {
    let what = words(panic);
    tracing::error!(
        message.id = %message.id, message.topic = %message.topic(),
        "The handler of message {} panicked: {what}", message.id
    );
    let text = format!("the handler panicked: {what}");
    let error = json!({"class": ErrorClass::Internal, "message": text});
    Settle::fail(message, error, None, Some(Reason::NotRetried.as_str()), json!({}))
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn with_duration(meta: Value, elapsed_ms: u64) -> Value {
    let mut meta = if meta.is_object() { meta } else { json!({}) };
    meta["duration_ms"] = json!(elapsed_ms);
    meta
}
