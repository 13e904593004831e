//! What a worker role implements, and what it is given.
//!
//! A role is a crate that exports one [`Role`]. Most roles implement [`Handler`] and let the
//! [`runner`] do the rest: claim, keep the lease, time out, retry by policy, settle, drain.

mod circuits;
mod execution;
mod in_flight;
mod lease;
mod meters;
mod places;
mod prefetch;
mod progress;
mod refused;
mod resolved;
pub mod runner;
mod spans;
mod start;
mod topics;
mod turns;
mod upkeep;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::artifact;
use crate::breaker;
use crate::bus::Bus;
use crate::live::Live;
use crate::message::Message;
use crate::retry::{self, ErrorClass};
use crate::shutdown::Shutdown;
use crate::trace::Place;
pub use prefetch::{PREFETCH_MAX, Prefetch};

/// Does the work of a role, one message at a time.
///
/// Delivery is at least once: a handler may see a message again after a crash or a lost lease, and
/// must bear it (the message's id and `idempotency_key` stay the same).
pub trait Handler: Send + Sync + 'static {
    /// Handles one delivery. What it returns is settled; while it runs, the lease is kept alive.
    ///
    /// The future is dropped when the lease is lost or the time is up, at whatever `await` it is.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<Output, Failure>> + Send;

    /// Whether a handler that was dropped in the middle, because its time was up or the worker stopped, may
    /// simply run again. Where it may not, the outcome is [`ErrorClass::Ambiguous`], and the policy decides.
    fn may_repeat(&self, _message: &Message) -> bool {
        true
    }

    /// The key under which policies are looked up; by default `<intent>.<service>`.
    fn policy_key(&self, message: &Message) -> String {
        format!("{}.{}", message.intent, message.service)
    }

    /// Another way to do the same work, for as long as the breaker of the message's own key is not closed.
    /// Without one such messages are parked. `may_have_run` says that an earlier attempt may have done it where
    /// it belongs: two places may then do what one would not do twice.
    fn fallback(&self, _message: &Message, _may_have_run: bool) -> Option<Fallback> {
        None
    }

    /// Why the message is not this worker's any more, if so: it came with a claim that was under way when its topic
    /// was given up. It is put back as it was, with its attempt. One that is still claimed would come again at once.
    fn refuses(&self, _message: &Message) -> Option<&'static str> {
        None
    }

    /// Where the message was sent from, if it says so: the attempt's span then goes below that one.
    fn sent_from(&self, _message: &Message) -> Option<Place> {
        None
    }

    /// What others may see of the worker in `workers.info`, such as the tools that it offers; a JSON object of at
    /// most some fifty kilobytes. Asked again and again, so that it may change; each change is an event of the log.
    fn info(&self) -> Value {
        json!({})
    }

    /// Waits until [`Handler::info`] gives something else than when it was last asked, so that others see it soon
    /// and not only with the worker's next sign of life. Dropped and called again at will.
    fn info_changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Where work goes whose breaker is not closed. It has a breaker of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// What [`Delivery::fallback`] and the event say.
    pub name: String,
    /// The key of its breaker.
    pub policy_key: String,
}

/// One delivery of a message to a handler.
#[derive(Debug)]
pub struct Delivery {
    /// The message, as it was when it was claimed.
    pub message: Arc<Message>,
    /// How long the handler may take. The runner cuts it off somewhat later, so that a handler which
    /// watches the time itself can still say what the timeout means.
    pub timeout: Duration,
    /// Cancelled when the lease is lost: whatever the handler still does, its result is refused.
    pub cancelled: CancellationToken,
    /// The name of the [`Fallback`] to use, since the breaker of the message's own key is not closed.
    pub fallback: Option<String>,
    /// The attempt's span, for what the handler does on its behalf; none where no spans are made.
    pub place: Option<Place>,
    pub(crate) progress: progress::Reports,
}

impl Delivery {
    /// Reports how far the work is. All reports are written to the log as `*_progress` events, in order, up to ten
    /// times a second and before the result. Of more than 32 between two writes the oldest are dropped; of one
    /// over 4 KiB the numbers and the beginnings of texts are kept.
    pub fn progress(&self, report: Value) {
        self.progress.push(report);
    }
}

/// What a handler gives when the work is done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// The result that the sender reads.
    pub result: Value,
    /// What else the log should hold, such as the paths of artifacts; a JSON object.
    pub meta: Value,
}

impl From<Value> for Output {
    fn from(result: Value) -> Self {
        Self { result, meta: json!({}) }
    }
}

/// Why a handler could not do the work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// What the retry policy decides by.
    pub class: ErrorClass,
    /// One sentence for a person.
    pub message: String,
    /// What the target said, if it said anything.
    pub detail: Option<Value>,
    /// What else the log should hold, such as the paths of artifacts; a JSON object.
    pub meta: Value,
    /// The target was not asked at all, so that its circuit breaker learns nothing from this.
    pub unasked: bool,
    /// The work was not sent to the target, so that nothing of it was done. What the circuit breaker learns is the same.
    pub unsent: bool,
}

impl Failure {
    /// A failure of `class`, explained by `message`.
    #[must_use]
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            detail: None,
            meta: json!({}),
            unasked: false,
            unsent: false,
        }
    }

    /// Adds what the target said.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Adds what else the log should hold.
    #[must_use]
    pub fn with_meta(mut self, meta: Value) -> Self {
        self.meta = meta;
        self
    }
}

/// A future without a name.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a role could not start, or stopped before it was asked to.
pub type RoleError = Box<dyn std::error::Error + Send + Sync>;

/// A worker role: what `cogo worker <name>` starts.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// The name, as on the command line and in `agent_messages.role`.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Runs the role until [`Context::shutdown`] says stop.
    pub start: fn(Context) -> BoxFuture<Result<(), RoleError>>,
}

/// What a role is given to run with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The bus.
    pub bus: Bus,
    /// Who this worker is, unique among all workers.
    pub worker_id: String,
    /// Whose work it does; `*` for everybody's.
    pub tenant: String,
    /// How many messages it handles at once.
    pub concurrency: usize,
    /// How many claimed messages may wait in it until one of these is done.
    pub prefetch: Prefetch,
    /// How long a claim is held without being extended.
    pub lease: Duration,
    /// How long to wait for running handlers when stopping.
    pub drain: Duration,
    /// The retry policies.
    pub retry: Live<retry::Policies>,
    /// When the circuit breakers open.
    pub breaker: Live<breaker::Policies>,
    /// Where the configuration files are.
    pub config_dir: PathBuf,
    /// Where artifacts go.
    pub artifacts_dir: PathBuf,
    /// Keeps what is too large for a message.
    pub artifacts: artifact::Store,
    /// Replaced when files are to be read again, as on a SIGHUP.
    pub reread: Live<()>,
    /// When to stop.
    pub shutdown: Shutdown,
    /// Set to true once the role claims messages; the hub's `/readyz` waits for it.
    pub ready: watch::Sender<bool>,
}
