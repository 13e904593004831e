//! Claims: the right to work on a message, for as long as the lease lasts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::bus::error::Error;
use crate::bus::json::storable;
use crate::message::{Message, MessageId};

/// What to claim, and for how long.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Who claims.
    pub worker: String,
    /// Whose work; `*` ([`crate::message::ALL_TENANTS`]) for everybody's, in fair shares.
    pub tenant: String,
    /// The topics, as `role/service`.
    pub topics: Vec<String>,
    /// How many at most.
    pub max: usize,
    /// How long the claims are held without being extended.
    pub lease: Duration,
}

/// A claimed message. Settling consumes it, so that it cannot be settled twice; dropping it leaves the
/// message to the end of its lease.
#[derive(Debug)]
#[must_use = "a claim that is not settled is held until its lease runs out"]
pub struct Claim {
    bus: Bus,
    message: Arc<Message>,
}

/// How a claim ends, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Settle {
    /// The message.
    pub id: MessageId,
    /// The fencing token.
    pub claim_no: i64,
    op: Op,
    /// Whether the message has an ordering key.
    ordered: bool,
    /// Whether the result is all that is to be told of the message: nothing was reported while it was handled.
    quiet: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Complete { result: Arc<Value>, meta: Value },
    Fail { error: Value, retry_in: Option<Duration>, reason: Option<String>, meta: Value },
    Release { delay: Duration, reason: String, park: Option<String> },
}

/// What became of a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was carried out.
    Settled,
    /// This same settle had been carried out before; its answer was lost.
    Repeated,
    /// The claim was no longer in force; nothing was changed.
    Stale,
}

impl Settle {
    /// The message was handled, with this result; `meta` is for the log alone.
    #[must_use]
    pub fn complete(message: &Message, result: Value, meta: Value) -> Self {
        Self::new(
            message,
            Op::Complete { result: Arc::new(storable(result)), meta: storable(meta) },
        )
    }

    /// The attempt failed: try again after `retry_in`, or not at all. `reason` says why not.
    #[must_use]
    pub fn fail(
        message: &Message,
        error: Value,
        retry_in: Option<Duration>,
        reason: Option<&str>,
        meta: Value,
    ) -> Self {
        let reason = reason.map(str::to_owned);
        Self::new(
            message,
            Op::Fail { error: storable(error), retry_in, reason, meta: storable(meta) },
        )
    }

    /// The message was not tried: put it back, due after `delay`; the attempt is given back.
    #[must_use]
    pub fn release(message: &Message, delay: Duration, reason: &str) -> Self {
        Self::new(message, Op::Release { delay, reason: reason.to_owned(), park: None })
    }

    /// The message was not tried, since the breaker of `key` is not closed: put it back, to be claimed once that
    /// has changed; the attempt is given back.
    #[must_use]
    pub fn park(message: &Message, key: &str) -> Self {
        let (delay, reason) = (Duration::ZERO, "circuit_open".to_owned());
        Self::new(message, Op::Release { delay, reason, park: Some(key.to_owned()) })
    }

    /// The settle of this claim was itself refused; a dead letter says so.
    pub(crate) fn refused(id: MessageId, claim_no: i64, error: Value) -> Self {
        let reason = Some("result_refused".to_owned());
        let op = Op::Fail { error, retry_in: None, reason, meta: json!({}) };
        Self { id, claim_no, op, ordered: true, quiet: false }
    }

    fn new(message: &Message, op: Op) -> Self {
        let ordered = message.ordering_key.is_some();
        Self { id: message.id, claim_no: message.claim_no, op, ordered, quiet: false }
    }

    /// Says that nothing was reported while the message was handled, this time and before.
    pub(crate) fn quietly(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// The result, if it is all that is to be told of the message once this is committed.
    pub(crate) fn last_word(&self) -> Option<&Arc<Value>> {
        match &self.op {
            Op::Complete { result, .. } if self.quiet => Some(result),
            _ => None,
        }
    }

    /// Whether the message may be claimed again at once because of this.
    pub(crate) fn makes_work(&self) -> bool {
        match &self.op {
            Op::Complete { .. } => false,
            Op::Fail { retry_in, .. } => retry_in.is_some_and(|delay| delay.is_zero()),
            // Of a breaker that has just closed, the next reap tells.
            Op::Release { delay, park, .. } => delay.is_zero() && park.is_none(),
        }
    }

    /// Whether it is a result, and concerns no other message: who waits for it here is told of it at once.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.op, Op::Complete { .. }) && !self.ordered
    }

    /// Whether another message may be claimed because of this: the next of its key.
    pub(crate) fn makes_way(&self) -> bool {
        self.ordered
    }

    /// Whether the message may be finished because of this.
    pub(crate) fn may_end(&self) -> bool {
        !matches!(self.op, Op::Release { .. })
    }

    /// Whether the message may be claimed again later because of this.
    pub(crate) fn puts_off(&self) -> bool {
        match &self.op {
            Op::Complete { .. } => false,
            Op::Fail { retry_in, .. } => retry_in.is_some_and(|delay| !delay.is_zero()),
            Op::Release { delay, .. } => !delay.is_zero(),
        }
    }
}

/// A settle as `bus_step` takes it.
#[derive(Default, serde::Serialize)]
struct Item<'a> {
    op: &'static str,
    id: Option<MessageId>,
    claim_no: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    park: Option<&'a str>,
}

/// As `bus_step` takes it.
impl serde::Serialize for Settle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = |delay: &Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let item = match &self.op {
            Op::Complete { result, meta } => {
                Item { op: "complete", result: Some(result), meta: Some(meta), ..Item::default() }
            }
            Op::Fail { error, retry_in, reason, meta } => Item {
                op: "fail",
                error: Some(error),
                meta: Some(meta),
                reason: reason.as_deref(),
                retry_in_ms: retry_in.as_ref().map(millis),
                ..Item::default()
            },
            Op::Release { delay, reason, park } => Item {
                op: "release",
                retry_in_ms: Some(millis(delay)),
                reason: Some(reason),
                park: park.as_deref(),
                ..Item::default()
            },
        };
        Item { id: Some(self.id), claim_no: self.claim_no, ..item }.serialize(serializer)
    }
}

impl Claim {
    pub(crate) fn new(bus: Bus, message: Message) -> Self {
        Self { bus, message: Arc::new(message) }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// Gives up the claim for its message, to settle it by [`Bus::settle`] or [`Bus::step`].
    #[must_use]
    pub fn into_message(self) -> Arc<Message> {
        self.message
    }

    /// Finishes the message.
    ///
    /// # Errors
    /// [`Error::StaleClaim`] when the claim is no longer in force.
    pub async fn complete(self, result: Value) -> Result<(), Error> {
        let settle = Settle::complete(&self.message, result, json!({}));
        self.settle(settle).await
    }

    /// Says that the attempt failed; without `retry_in` the message goes to the dead-letter queue, and
    /// with it as well when no attempt is left.
    ///
    /// # Errors
    /// [`Error::StaleClaim`] when the claim is no longer in force.
    pub async fn fail(self, error: Value, retry_in: Option<Duration>) -> Result<(), Error> {
        let settle = Settle::fail(&self.message, error, retry_in, None, json!({}));
        self.settle(settle).await
    }

    /// Puts the message back untried, due after `delay`.
    ///
    /// # Errors
    /// [`Error::StaleClaim`] when the claim is no longer in force.
    pub async fn release(self, delay: Duration, reason: &str) -> Result<(), Error> {
        let settle = Settle::release(&self.message, delay, reason);
        self.settle(settle).await
    }

    /// Keeps the claim alive: its lease ends `lease` from now.
    ///
    /// # Errors
    /// [`Error::StaleClaim`] when the claim is no longer in force.
    pub async fn extend(&self, lease: Duration) -> Result<(), Error> {
        let (id, claim_no) = (self.message.id, self.message.claim_no);
        let stale = self.bus.extend(&[(id, claim_no)], lease).await?;
        if stale.is_empty() { Ok(()) } else { Err(Error::StaleClaim { id, claim_no }) }
    }

    async fn settle(self, settle: Settle) -> Result<(), Error> {
        let (id, claim_no) = (settle.id, settle.claim_no);
        match self.bus.settle(settle).await? {
            Settled::Settled | Settled::Repeated => Ok(()),
            Settled::Stale => Err(Error::StaleClaim { id, claim_no }),
        }
    }
}
