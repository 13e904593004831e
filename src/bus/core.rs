//! The calls themselves: one round trip each, tried again where that is safe.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use rand::RngExt as _;
use serde_json::json;

use crate::bus::Receipt;
use crate::bus::claim::{ClaimRequest, Settle, Settled};
use crate::bus::error::Error;
use crate::bus::json::size;
use crate::bus::postgres::Postgres;
use crate::bus::queries::{Enqueued, StepRow};
use crate::bus::take::Reserved;
use crate::bus::transport::Transport;
use crate::bus::wake::{Ended, Signal, Wake};
use crate::error::{Code, chain};
use crate::message::{Message, MessageId, NewMessage};
use crate::metrics::{BUS_RETRIES_TOTAL, PUBLISHED_TOTAL, Values};

/// How often a call is tried when the database does not answer, before the caller is told.
const TRIES: u32 = 4;
/// Roles that get a label of their own: who may publish may make up roles.
static ROLES: Values = Values::new(100);

/// A server that asks for more patience than this is left alone: whoever called knows better what to do meanwhile.
const WAIT_AT_MOST: Duration = Duration::from_millis(500);

/// What the groupers' tasks need; apart from [`Bus`], or they would keep themselves alive.
#[derive(Debug, Clone)]
pub(super) struct Core {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) wake: Wake,
}

impl Core {
    /// Enqueues; with `take`, also has a worker of this process that has places free take them in the same round trip.
    /// That is for who does not give up waiting: the claims of an answer that nobody reads would run out.
    pub(super) async fn enqueue(
        &self,
        messages: &[NewMessage],
        take: bool,
    ) -> Result<Vec<Receipt>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let mut tried = 0;
        let (mut rows, mut taken) = (None, Vec::new());
        if take {
            match self.enqueue_and_take(messages).await {
                None => {}
                Some(Ok((enqueued, ids))) => (rows, taken) = (Some(enqueued), ids),
                Some(Err(error)) if error.is_transient() => {
                    // Where it lost to another transaction, nothing of it is there.
                    tried = u32::from(!error.lost_to_another());
                }
                Some(Err(error)) => return Err(error),
            }
        }
        let rows = match rows {
            Some(rows) => rows,
            None => {
                self.retry("bus_enqueue", || {
                    tried += 1;
                    self.transport.enqueue(messages)
                })
                .await?
            }
        };
        // What is taken already need not be looked for.
        if rows.iter().all(|row| taken.contains(&row.id)) {
            self.wake.grown();
        } else {
            self.wake.wake(Signal::Work);
            self.wake.wake(Signal::Log);
        }
        if messages.iter().any(|message| !message.delay.is_zero()) {
            self.wake.wake_here(Signal::Due);
        }
        let mut published: Option<(&str, u64)> = None;
        let tell = |(role, count)| {
            counter!(PUBLISHED_TOTAL, "role" => ROLES.bounded(role)).increment(count);
        };
        let receipts = messages.iter().zip(rows).map(|(message, row)| {
            // When the first answer was lost, our own message comes back as known; it is not a duplicate
            // to its sender.
            let own = tried > 1 && row.id == message.id;
            let duplicate = row.duplicate && !own;
            if !duplicate {
                // Mostly all of a batch are of one role.
                match &mut published {
                    Some((role, count)) if *role == message.role => *count += 1,
                    other => other.replace((&message.role, 1)).into_iter().for_each(tell),
                }
            }
            Receipt { id: row.id, trace_id: row.trace_id, duplicate }
        });
        let receipts = receipts.collect();
        published.into_iter().for_each(tell);
        Ok(receipts)
    }

    /// Enqueues, and has a worker of this process take them, if there is one with places free; and the ids of what it
    /// took. Made once: if the answer is lost, claims may have been made, as in a step.
    async fn enqueue_and_take(
        &self,
        messages: &[NewMessage],
    ) -> Option<Result<(Vec<Enqueued>, Vec<MessageId>), Error>> {
        let postgres = self.transport.postgres()?;
        let reserved = Reserved::at(self.wake.takers(), messages)?;
        let batch = match batch(messages) {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let (rows, stepped) = match postgres.enqueue_and_claim(&batch, &reserved.request).await {
            Ok(rows) => rows,
            Err(error) => return Some(Err(error)),
        };
        let Stepped { messages, unreadable, .. } = self.stepped(&[], stepped);
        let taken = messages.iter().map(|message| message.id).collect();
        reserved.take(messages);
        self.bury_all(&unreadable).await;
        Some(Ok((rows, taken)))
    }

    /// Settles, and claims nothing.
    pub(super) async fn settle(&self, settles: &[Settle]) -> Result<Vec<Settled>, Error> {
        let batch = batch(settles)?;
        let rows = self.retry("bus_step", || self.transport.settle(&batch)).await?;
        Ok(self.stepped(settles, rows).outcomes)
    }

    /// Settles and claims. What was claimed and cannot be read goes to the dead-letter queue at once: no
    /// worker could do anything else, and without that it would come back when its lease runs out.
    ///
    /// Made once: if the answer is lost, claims may have been made.
    pub(super) async fn step(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Box<Message>>), Error> {
        let (first, last) = self.cut(settles);
        let mut outcomes = Vec::with_capacity(settles.len());
        for piece in first {
            outcomes.extend(self.settle(piece).await?);
        }
        let rows = self.transport.step(&batch(last)?, request).await?;
        let Stepped { outcomes: ended, messages, unreadable } = self.stepped(last, rows);
        outcomes.extend(ended);
        self.bury_all(&unreadable).await;
        Ok((outcomes, messages))
    }

    /// Dead-letters what was claimed and cannot be read.
    async fn bury_all(&self, unreadable: &[Box<Message>]) {
        if unreadable.is_empty() {
            return;
        }
        let verdicts: Vec<Settle> = unreadable.iter().map(|message| bury(message)).collect();
        if let Err(error) = self.settle(&verdicts).await {
            tracing::error!(
                error = %chain(&error),
                "Could not dead-letter {} messages that cannot be read; their leases will run out",
                verdicts.len()
            );
        }
    }

    /// Settles in pieces that fit into a request each, the last of them apart.
    fn cut<'s>(&self, settles: &'s [Settle]) -> (Vec<&'s [Settle]>, &'s [Settle]) {
        let room = self.transport.room();
        let (mut pieces, mut from, mut weight) = (Vec::new(), 0, 0);
        if room < usize::MAX {
            for (at, settle) in settles.iter().enumerate() {
                let size = size(settle);
                if at > from && size.saturating_add(weight) > room {
                    pieces.push(&settles[from..at]);
                    (from, weight) = (at, 0);
                }
                weight += size;
            }
        }
        (pieces, &settles[from..])
    }

    fn stepped(&self, settles: &[Settle], rows: Vec<StepRow>) -> Stepped {
        let mut outcomes = vec![Settled::Stale; settles.len()];
        let (mut messages, mut unreadable) = (Vec::new(), Vec::new());
        for row in rows {
            match row {
                StepRow::Claimed(message) => messages.push(message),
                StepRow::Unreadable(message) => unreadable.push(message),
                StepRow::Outcome { ord, outcome } => {
                    let place = usize::try_from(ord - 1).ok().and_then(|at| outcomes.get_mut(at));
                    if let Some(place) = place {
                        *place = match outcome.as_str() {
                            "settled" => Settled::Settled,
                            "repeated" => Settled::Repeated,
                            _ => Settled::Stale,
                        };
                    }
                }
            }
        }
        if !settles.is_empty() {
            let ended = settles.iter().zip(&outcomes).filter(|(settle, outcome)| {
                settle.may_end() && matches!(outcome, Settled::Settled | Settled::Repeated)
            });
            let ended: Vec<_> = ended
                .map(|(settle, outcome)| {
                    let last_word = settle.last_word();
                    let result = last_word.filter(|_| *outcome == Settled::Settled);
                    Ended { id: settle.id, result }
                })
                .collect();
            self.wake.ended(&ended);
            if settles.iter().all(Settle::is_plain) {
                self.wake.grown();
            } else {
                self.wake.wake(Signal::Log);
            }
            if settles.iter().any(Settle::makes_work) {
                self.wake.wake(Signal::Work);
            }
            if settles.iter().any(Settle::puts_off) {
                self.wake.wake_here(Signal::Due);
            }
        }
        Stepped { outcomes, messages, unreadable }
    }

    /// The database itself, for `what` only an operator with one can do.
    pub(super) fn postgres(&self, what: &'static str) -> Result<&Postgres, Error> {
        self.transport.postgres().ok_or(Error::NeedsDatabase { what })
    }

    /// Makes a call that is safe to repeat, a few times if the bus does not answer.
    pub(super) async fn retry<T, Fut>(
        &self,
        call: &'static str,
        mut attempt: impl FnMut() -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut pause = Pause::new();
        loop {
            match attempt().await {
                Err(error) if error.is_transient() && pause.next(call, &error).await => {}
                other => return other,
            }
        }
    }
}

/// What became of the settles, what was claimed, and what was claimed and cannot be read.
#[allow(clippy::vec_box)] // as they come out of the rows; a message is some four hundred bytes
struct Stepped {
    outcomes: Vec<Settled>,
    messages: Vec<Box<Message>>,
    unreadable: Vec<Box<Message>>,
}

/// A batch as JSON.
pub(super) fn batch(items: &[impl serde::Serialize]) -> Result<String, Error> {
    serde_json::to_string(items).map_err(|error| Error::Refused {
        code: Code::InvalidArgument,
        message: format!("the batch cannot be written as JSON: {error}"),
    })
}

/// The end of a message whose payload cannot be read.
fn bury(message: &Message) -> Settle {
    let why = message.payload["unreadable"].as_str().unwrap_or_default();
    tracing::warn!(
        message.id = %message.id, message.topic = %message.topic(),
        "Dead-lettered message {}, whose payload cannot be read", message.id
    );
    let error = json!({
        "class": "invalid_params", "message": format!("the payload cannot be read: {why}"),
    });
    Settle::fail(message, error, None, Some("unreadable"), json!({}))
}

/// The pauses between the tries of one call: 50, 100, 200 ms, each with jitter.
struct Pause {
    tried: u32,
}

impl Pause {
    fn new() -> Self {
        Self { tried: 1 }
    }

    /// Waits before the next try; false when there is to be none.
    async fn next(&mut self, call: &'static str, error: &Error) -> bool {
        let later = matches!(error, Error::Unavailable { retry_after: Some(after), .. }
            if *after > WAIT_AT_MOST);
        if self.tried >= TRIES || later {
            return false;
        }
        counter!(BUS_RETRIES_TOTAL, "call" => call).increment(1);
        tracing::debug!(error = %chain(error), "Trying {call} again");
        let ceiling = Duration::from_millis(50) * 2u32.pow(self.tried - 1);
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(ceiling.mul_f64(jitter)).await;
        self.tried += 1;
        true
    }
}

pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
