//! The calls themselves: one round trip each, tried again where that is safe.

use std::time::Duration;

use metrics::counter;
use rand::RngExt as _;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;

use crate::bus::claim::{ClaimRequest, Settle, Settled};
use crate::bus::error::Error;
use crate::bus::patience::Patient;
use crate::bus::wake::{Signal, Wake};
use crate::bus::{Receipt, queries};
use crate::error::{Code, chain};
use crate::message::{Message, NewMessage};
use crate::metrics::{BUS_RETRIES_TOTAL, PUBLISHED_TOTAL};

/// How often a call is tried when the database does not answer, before the caller is told.
const TRIES: u32 = 4;

/// What the groupers' tasks need; apart from [`Bus`], or they would keep themselves alive.
#[derive(Debug, Clone)]
pub(super) struct Core {
    pub(super) pool: PgPool,
    pub(super) wake: Wake,
}

impl Core {
    pub(super) async fn enqueue(&self, messages: &[NewMessage]) -> Result<Vec<Receipt>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let batch = serde_json::to_string(messages).map_err(|error| Error::Refused {
            code: Code::InvalidArgument,
            message: format!("messages: {error}"),
        })?;
        let mut tried = 0;
        let rows = self
            .retry("bus_enqueue", || {
                tried += 1;
                queries::enqueue(Patient::new(&self.pool), &batch)
            })
            .await?;
        self.wake.wake(Signal::Work);
        self.wake.wake(Signal::Log);
        let receipts = messages.iter().zip(rows).map(|(message, row)| {
            // When the first answer was lost, our own message comes back as known; it is not a duplicate
            // to its sender.
            let own = tried > 1 && row.id == message.id;
            let duplicate = row.duplicate && !own;
            if !duplicate {
                counter!(PUBLISHED_TOTAL, "role" => message.role.clone()).increment(1);
            }
            Receipt { id: row.id, trace_id: row.trace_id, duplicate }
        });
        Ok(receipts.collect())
    }

    pub(super) async fn settle(&self, settles: &[Settle]) -> Result<Vec<Settled>, Error> {
        let nothing = ClaimRequest {
            worker: "settle".to_owned(),
            tenant: crate::message::DEFAULT_TENANT.to_owned(),
            topics: Vec::new(),
            max: 0,
            lease: Duration::from_secs(1),
        };
        let (outcomes, _) = self.step_retried(settles, &nothing).await?;
        Ok(outcomes)
    }

    /// Only for steps that claim nothing.
    async fn step_retried(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Box<Message>>), Error> {
        let mut pause = Pause::new();
        loop {
            match self
                .step_once(settles, request)
                .await
                .map(|(outcomes, claimed, _)| (outcomes, claimed))
            {
                Err(error) if error.is_transient() && pause.next("bus_step", &error).await => {}
                other => return other,
            }
        }
    }

    /// Settles and claims. What was claimed and cannot be read goes to the dead-letter queue at once: no
    /// worker could do anything else, and without that it would come back when its lease runs out.
    pub(super) async fn step(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Box<Message>>), Error> {
        let (outcomes, messages, unreadable) = self.step_once(settles, request).await?;
        if !unreadable.is_empty() {
            let verdicts: Vec<Settle> = unreadable.iter().map(|message| bury(message)).collect();
            if let Err(error) = self.settle(&verdicts).await {
                tracing::error!(
                    error = %chain(&error),
                    "Could not dead-letter {} messages that cannot be read; their leases will run out",
                    verdicts.len()
                );
            }
        }
        Ok((outcomes, messages))
    }

    async fn step_once(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<Stepped, Error> {
        let batch: Value = settles.iter().map(Settle::to_json).collect();
        let rows = queries::step(
            Patient::new(&self.pool),
            &batch.to_string(),
            &request.worker,
            &request.topics,
            i32::try_from(request.max).unwrap_or(i32::MAX),
            millis(request.lease),
            &request.tenant,
        )
        .await
        .map_err(|error| Error::from_sqlx("bus_step", error))?;
        let mut outcomes = vec![Settled::Stale; settles.len()];
        let (mut messages, mut unreadable) = (Vec::new(), Vec::new());
        for row in rows {
            match row {
                queries::StepRow::Claimed(message) => messages.push(message),
                queries::StepRow::Unreadable(message) => unreadable.push(message),
                queries::StepRow::Outcome { ord, outcome } => {
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
            self.wake.wake(Signal::Log);
            if settles.iter().any(Settle::makes_work) {
                self.wake.wake(Signal::Work);
            }
        }
        Ok((outcomes, messages, unreadable))
    }

    pub(super) async fn once<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Error> {
        answer.await.map_err(|error| Error::from_sqlx(call, error))
    }

    /// Makes a call that is safe to repeat, a few times if the database does not answer.
    pub(super) async fn retry<T, Fut>(
        &self,
        call: &'static str,
        mut attempt: impl FnMut() -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = sqlx::Result<T>>,
    {
        let mut pause = Pause::new();
        loop {
            match self.once(call, attempt()).await {
                Err(error) if error.is_transient() && pause.next(call, &error).await => {}
                other => return other,
            }
        }
    }
}

/// What became of the settles, what was claimed, and what was claimed and cannot be read.
type Stepped = (Vec<Settled>, Vec<Box<Message>>, Vec<Box<Message>>);

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
        if self.tried >= TRIES {
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
