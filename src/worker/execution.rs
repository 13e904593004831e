//! One delivery: run the handler within its time, and make a settle of whatever happens.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::breaker::{Id, Outcome};
use crate::bus::Settle;
use crate::clock::Stopwatch;
use crate::message::Message;
use crate::retry::{Decision, ErrorClass, Policy, Reason, Tried};
use crate::trace;
use crate::worker::circuits::Passage;
use crate::worker::progress::Reports;
use crate::worker::spans::AttemptSpan;
use crate::worker::start::Starter;
use crate::worker::{Delivery, Failure, Handler, Output};

/// How long a handler may go on after its time is up or its claim is cancelled, to say itself what that
/// means; then it is dropped.
const GRACE: Duration = Duration::from_secs(1);
/// How long a result waits for the last progress reports to be written.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// What is needed to run one delivery.
pub(super) struct Execution<'a, H> {
    of: &'a Starter<H>,
    message: Arc<Message>,
    /// Under which policies are looked up.
    key: String,
    policy: Arc<Policy>,
    span: AttemptSpan,
    /// What the handler reports.
    reports: Reports,
    /// Since the claim was answered.
    claimed: Stopwatch,
    /// The claim's lease is lost.
    lost: CancellationToken,
}

/// What is left of a delivery: what to send, unless the claim is lost, and what its breaker learns from it.
pub(super) struct Ended {
    pub(super) settle: Option<Settle>,
    pub(super) called: Option<(Passage, Outcome)>,
}

/// Whether the work may be done now, and where.
enum Way {
    /// Where it belongs.
    Own(Passage),
    /// At the fallback of this name.
    Fallback(Passage, String),
    /// Nowhere: a breaker is not closed.
    None,
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
    /// The worker stopped before the handler began.
    NotBegun,
    /// The breaker of this key is not closed.
    Parked(String),
    /// Not begun, because the topic was given up meanwhile; why.
    Refused(&'static str),
}

/// What the event says beside what the handler says.
#[derive(Default)]
struct Facts {
    elapsed_ms: u64,
    /// The fallback that was used, and the key whose breaker is not closed.
    fallback: Option<(String, String)>,
}

impl Facts {
    fn put_into(&self, meta: Value) -> Value {
        let mut meta = if meta.is_object() { meta } else { json!({}) };
        meta["duration_ms"] = json!(self.elapsed_ms);
        if let Some((name, circuit)) = &self.fallback {
            meta["fallback"] = json!(name);
            meta["circuit"] = json!(circuit);
        }
        meta
    }
}

impl<'a, H: Handler> Execution<'a, H> {
    /// A delivery of `message`, whose claim was answered when `claimed` started.
    pub(super) fn new(
        of: &'a Starter<H>,
        message: Arc<Message>,
        claimed: Stopwatch,
        lost: CancellationToken,
    ) -> Self {
        let key = of.handler.policy_key(&message);
        let policy = of.retry.get(&key);
        let (span, reports) = (AttemptSpan::default(), Reports::default());
        Self { of, message, key, policy, span, reports, claimed, lost }
    }

    /// Runs the handler to its end, if its breaker lets it. What is logged meanwhile names the message.
    pub(super) async fn run(self) -> Ended {
        let span = tracing::info_span!(
            "attempt",
            trace_id = %self.message.trace_id, message.id = %self.message.id,
            claim.attempt = self.message.attempts
        );
        self.attempt().instrument(span).await
    }

    async fn attempt(self) -> Ended {
        if self.is_late() {
            self.begin_span(None);
            return self.not_tried(End::TooLate);
        }
        if let Some(reason) = self.of.handler.refuses(&self.message) {
            return self.not_tried(End::Refused(reason));
        }
        if self.of.stop.is_cancelled() {
            return self.not_tried(End::NotBegun);
        }
        let way = tokio::select! {
            biased; // mostly it is known at once
            way = self.way() => way,
            () = self.lost.cancelled() => return self.not_tried(End::Lost),
            () = self.of.stop.cancelled() => return self.not_tried(End::NotBegun),
        };
        let (passage, fallback) = match way {
            Way::Own(passage) => (passage, None),
            Way::Fallback(passage, name) => (passage, Some(name)),
            Way::None => return self.not_tried(End::Parked(self.key.clone())),
        };
        self.begin_span(fallback.as_deref());
        let began = Stopwatch::start();
        let end = self.handle(fallback.clone()).await;
        let took = began.elapsed();
        let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.of.meters.handled(elapsed_ms);
        let outcome = self.outcome(&end, took);
        let fallback = fallback.map(|name| (name, self.key.clone()));
        let facts = Facts { elapsed_ms, fallback };
        Ended { settle: self.settle(end, &facts), called: Some((passage, outcome)) }
    }

    fn begin_span(&self, fallback: Option<&str>) {
        if trace::installed() {
            let parent = self.of.handler.sent_from(&self.message);
            let worker = &self.of.options.worker_id;
            self.span.begin(&self.message, worker, parent.as_ref(), fallback);
        }
    }

    fn not_tried(&self, end: End) -> Ended {
        Ended { settle: self.settle(end, &Facts::default()), called: None }
    }

    async fn way(&self) -> Way {
        let id = |key: &str| Id::new(&self.message.tenant, key);
        let timeout = self.policy.timeout(None);
        if let Some(passage) = self.of.circuits.pass(id(&self.key), timeout).await {
            return Way::Own(passage);
        }
        let ran = may_have_run(&self.message);
        let Some(fallback) = self.of.handler.fallback(&self.message, ran) else { return Way::None };
        match self.of.circuits.pass(id(&fallback.policy_key), timeout).await {
            Some(passage) => Way::Fallback(passage, fallback.name),
            None => Way::None,
        }
    }

    /// What the breaker learns. Whom the deadline cut short may have been asked too late.
    fn outcome(&self, end: &End, took: Duration) -> Outcome {
        let failed = |class| match self.is_late() {
            true => Outcome::Unknown,
            false => Outcome::Failed { class, took },
        };
        match end {
            End::Returned(Ok(_)) => Outcome::Done { took },
            End::Returned(Err(failure)) if failure.unasked => Outcome::Unknown,
            End::Returned(Err(failure)) => failed(failure.class),
            End::Panicked(_) => failed(ErrorClass::Internal),
            End::TimedOut(_) => failed(self.timed_out()),
            End::Lost
            | End::Stopped
            | End::TooLate
            | End::NotBegun
            | End::Parked(_)
            | End::Refused(_) => Outcome::Unknown,
        }
    }

    /// What it means that the handler was dropped in the middle.
    fn timed_out(&self) -> ErrorClass {
        if self.may_repeat() { ErrorClass::Timeout } else { ErrorClass::Ambiguous }
    }

    /// What is left until the message's deadline, if it has one. Both times are the database's; what has gone
    /// by since is measured here.
    fn left(&self) -> Option<Duration> {
        let (deadline_at, claimed_at) = (self.message.deadline_at?, self.message.claimed_at?);
        let left = (deadline_at - claimed_at).to_std().unwrap_or_default();
        Some(left.saturating_sub(self.claimed.elapsed()))
    }

    fn is_late(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    async fn handle(&self, fallback: Option<String>) -> End {
        let timeout = self.policy.timeout(self.left());
        if timeout.is_zero() {
            return End::TooLate;
        }
        // One token for both reasons to stop; the handler need not tell them apart.
        let cancelled = CancellationToken::new();
        let delivery = Delivery {
            message: Arc::clone(&self.message),
            timeout,
            cancelled: cancelled.clone(),
            fallback,
            place: self.span.place(),
            progress: self.reports.clone(),
        };
        // In a block, since `handle` need not be an async fn and may panic before it gives its future.
        let handling = async { self.of.handler.handle(delivery).await };
        let handling = pin!(AssertUnwindSafe(handling).catch_unwind());
        self.attend(handling, &cancelled, timeout).await
    }

    /// Waits for the handler's end, or ends it. Reports are written meanwhile.
    async fn attend(
        &self,
        mut handling: Pin<&mut impl Future<Output = Returned>>,
        cancelled: &CancellationToken,
        timeout: Duration,
    ) -> End {
        let reports = &self.reports;
        let ended = CancellationToken::new();
        let worker_id = &self.of.options.worker_id;
        let mut recording = pin!(reports.record(&self.of.bus, &self.message, worker_id, &ended));
        // Many never wait: then no timer needs to know of them.
        let end = match futures_util::poll!(handling.as_mut()) {
            Poll::Ready(result) if !reports.used() => return returned(result),
            Poll::Ready(result) => returned(result),
            Poll::Pending => {
                let time_up = tokio::time::sleep(timeout + GRACE);
                let working = async {
                    let why = tokio::select! {
                        ended = &mut handling => return returned(ended),
                        () = time_up => return End::TimedOut(timeout),
                        () = self.lost.cancelled() => End::Lost,
                        () = self.of.stop.cancelled() => End::Stopped,
                    };
                    cancelled.cancel();
                    match tokio::time::timeout(GRACE, handling).await {
                        Ok(ended) => returned(ended),
                        Err(_) => why,
                    }
                };
                let mut working = pin!(working);
                tokio::select! {
                    end = &mut working => end,
                    // It ends after the handler alone.
                    () = &mut recording => working.await,
                }
            }
        };
        ended.cancel();
        // Whoever watches sees the last report before the result. A claim that is lost has no result.
        if !self.lost.is_cancelled() && tokio::time::timeout(LAST_REPORTS, recording).await.is_err()
        {
            tracing::debug!(message.id = %self.message.id, "Lost the last progress reports");
        }
        end
    }

    fn settle(&self, end: End, facts: &Facts) -> Option<Settle> {
        let stopping = self.of.stop.is_cancelled();
        match end {
            End::Returned(Ok(output)) => {
                self.count("done");
                let meta = facts.put_into(output.meta);
                let settle = Settle::complete(&self.message, output.result, meta);
                let quiet = self.is_first_claim() && !self.reports.used();
                Some(if quiet { settle.quietly() } else { settle })
            }
            // The worker stops, and the handler says that a second try does no harm.
            End::Returned(Err(failure)) if stopping && self.policy.retries(failure.class) => {
                Some(self.release())
            }
            End::Returned(Err(failure)) => Some(self.fail(failure, facts)),
            End::Panicked(what) => {
                tracing::error!(
                    message.id = %self.message.id, message.topic = %self.message.topic(),
                    "The handler of message {} panicked: {what}", self.message.id
                );
                let failure =
                    Failure::new(ErrorClass::Internal, format!("the handler panicked: {what}"));
                Some(self.fail(failure, facts))
            }
            End::TimedOut(timeout) => {
                let text = format!("the handler took longer than {} ms", timeout.as_millis());
                Some(self.fail(Failure::new(self.timed_out(), text), facts))
            }
            End::NotBegun => Some(self.release()),
            End::Refused(reason) => {
                self.count("released");
                Some(Settle::release(&self.message, Duration::ZERO, reason))
            }
            End::Parked(key) => {
                self.count("parked");
                Some(Settle::park(&self.message, &key))
            }
            End::TooLate => {
                let text = "the deadline had passed before the attempt began";
                Some(self.fail(Failure::new(ErrorClass::DeadlineExceeded, text), facts))
            }
            End::Stopped if self.may_repeat() => Some(self.release()),
            End::Stopped => {
                let text = "the worker stopped in the middle of the work";
                Some(self.fail(Failure::new(ErrorClass::Ambiguous, text), facts))
            }
            End::Lost => {
                self.count("lost");
                None
            }
        }
    }

    /// Whether nobody has held the message before: claims are numbered from the microseconds of the enqueue, and each
    /// takes the next number. Attempts do not tell, since a release gives one back and a requeue begins anew.
    fn is_first_claim(&self) -> bool {
        let message = &self.message;
        message.claim_no == message.created_at.timestamp_micros() + 1
    }

    fn may_repeat(&self) -> bool {
        self.of.handler.may_repeat(&self.message)
    }

    fn release(&self) -> Settle {
        self.count("released");
        Settle::release(&self.message, Duration::ZERO, "worker_shutdown")
    }

    fn fail(&self, failure: Failure, facts: &Facts) -> Settle {
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
        self.span.failed(failure.class, retry_in, reason);
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
        let sent = !failure.unasked && !failure.unsent;
        if may_have_run(message) || leaves_doubt(failure.class) && sent {
            error["may_have_run"] = json!(true);
        }
        Settle::fail(message, error, retry_in, reason, facts.put_into(failure.meta))
    }

    fn count(&self, outcome: &'static str) {
        self.span.outcome(outcome);
        self.of.meters.count(outcome);
    }
}

/// What a handler's future gives, or its panic.
type Returned = std::thread::Result<Result<Output, Failure>>;

fn returned(ended: Returned) -> End {
    match ended {
        Ok(result) => End::Returned(result),
        Err(panic) => End::Panicked(words(&*panic)),
    }
}

/// Whether an earlier attempt may have done the work, or a part of it, unseen. It is remembered from attempt to
/// attempt, since a message keeps only its last error; an operator's requeue begins anew.
pub(crate) fn may_have_run(message: &Message) -> bool {
    let Some(error) = message.error.as_ref().filter(|_| message.attempts > 1) else { return false };
    let vanished = error["class"] == ErrorClass::LeaseExpired.as_str();
    vanished || error["may_have_run"] == true
}

/// Whether a failure of this class says nothing about what was done.
fn leaves_doubt(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Timeout | ErrorClass::Closed | ErrorClass::Protocol | ErrorClass::Ambiguous
    )
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
