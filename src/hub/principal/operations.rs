//! The bus as a principal: the hub's own for operators, one transaction under the caller's role and claims for keys.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::bus::circuit::Circuit;
use crate::bus::dead_letter::{self, DeadLetter, Operated};
use crate::bus::queries::{self, dead_letters};
use crate::bus::{self, Error, Receipt, Signal, WorkerRow};
use crate::event::Event;
use crate::hub::caller::{About, Access, Transaction, within};
use crate::hub::principal::Principal;
use crate::message::{Message, MessageId, NewMessage, TraceId};

/// A transaction of a key, and what it is for.
struct Opened {
    transaction: Transaction,
    call: &'static str,
}

impl Opened {
    /// Ends it: what was done is so, or an error says why nothing was.
    async fn end<T>(self, answer: sqlx::Result<T>) -> Result<T, Error> {
        let Self { transaction, call } = self;
        match answer {
            Ok(answer) => {
                let committed = transaction.commit().await;
                committed.map_err(|error| Error::from_sqlx(call, error))?;
                Ok(answer)
            }
            Err(error) => {
                if error.as_database_error().is_some() {
                    transaction.rollback().await;
                }
                Err(Error::from_sqlx(call, error))
            }
        }
    }
}

/// Runs one query of [`queries`] in an [`Opened`] transaction and ends that.
macro_rules! ask {
    ($opened:expr, $query:path $(, $argument:expr)*) => {{
        let mut opened = $opened;
        let patience = opened.transaction.patience();
        let answer = within(patience, $query(&mut *opened.transaction $(, $argument)*)).await;
        opened.end(answer).await
    }};
}

impl Principal {
    /// A transaction under the key's role and claims; none for operators, who use the hub's own bus.
    async fn open(&self, call: &'static str, access: Access) -> Result<Option<Opened>, Error> {
        self.check()?;
        let Some(caller) = self.caller() else { return Ok(None) };
        let headers = HeaderMap::new();
        let about = About { method: "POST", path: "/mcp", headers: &headers };
        let begun = caller.begun(&self.0.all.database, access, &about).await;
        let transaction = begun.map_err(|error| Error::from_sqlx(call, error))?;
        Ok(Some(Opened { transaction, call }))
    }

    fn wake(&self, signals: &[Signal]) {
        signals.iter().for_each(|signal| self.0.all.bus.wake(*signal));
    }

    /// Publishes a message for its tenant, whatever tenant the message names. When it returns, the message is
    /// committed.
    ///
    /// # Errors
    /// As [`crate::bus::Bus::publish`]; and [`Error::Refused`] (forbidden) where the key may not send there.
    pub async fn publish(&self, mut message: NewMessage) -> Result<Receipt, Error> {
        self.tenant().clone_into(&mut message.tenant);
        bus::check(&message)?;
        let Some(opened) = self.open("bus_enqueue", Access::Write).await? else {
            return self.0.all.bus.publish(message).await;
        };
        let batch = json!([message]).to_string();
        let rows = ask!(opened, queries::enqueue, &batch)?;
        self.wake(&[Signal::Work, Signal::Log]);
        let row = rows.into_iter().next().ok_or(Error::NoMessage(message.id))?;
        Ok(Receipt { id: row.id, trace_id: row.trace_id, duplicate: row.duplicate })
    }

    /// A message as it stands.
    ///
    /// # Errors
    /// [`Error::NoMessage`], also for one that the key may not see; [`Error::Database`].
    pub async fn message(&self, id: MessageId) -> Result<Message, Error> {
        let Some(opened) = self.open("message", Access::Read).await? else {
            return self.0.all.bus.message(id).await;
        };
        ask!(opened, queries::message, id)?.ok_or(Error::NoMessage(id))
    }

    /// The message that an idempotency key of its tenant stands for; none where it stands for none that the key may
    /// see.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn keyed_message(&self, key: &str) -> Result<Option<Message>, Error> {
        let Some(opened) = self.open("keyed_message", Access::Read).await? else {
            return self.0.all.bus.keyed_message(self.tenant(), key).await;
        };
        ask!(opened, queries::keyed_message, self.tenant(), key)
    }

    /// What happened to one message, oldest first, at most `max` events; none for one that the key may not see. For a
    /// key, a payload of more than 16 KiB is an object with its `beginning`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn message_events(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let Some(opened) = self.open("message_events", Access::Read).await? else {
            return self.0.all.bus.message_events(id, max).await;
        };
        ask!(opened, queries::events::message_excerpts, id, i64::from(max))
    }

    /// What was said to one message, as [`crate::bus::Bus::inputs`]; none for one that the key may not see.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn inputs(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let Some(opened) = self.open("message_events", Access::Read).await? else {
            return self.0.all.bus.inputs(id, max).await;
        };
        ask!(opened, queries::events::inputs, id, i64::from(max))
    }

    /// What happened within one trace, as far as the key may see it, oldest first, at most `max` events; payloads as
    /// in [`Principal::message_events`].
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn trace_events(&self, trace: TraceId, max: u32) -> Result<Vec<Event>, Error> {
        let Some(opened) = self.open("trace_events", Access::Read).await? else {
            return self.0.all.bus.trace_events(trace, max).await;
        };
        ask!(opened, queries::events::trace_excerpts, trace, i64::from(max))
    }

    /// Withdraws a message that is not finished. Who holds it is told to stop. [`Operated::NotAllowed`] says that it
    /// was finished already.
    ///
    /// # Errors
    /// [`Error::NoMessage`], also for one that the key may not see; [`Error::Database`].
    pub async fn cancel(&self, id: MessageId, reason: Option<&str>) -> Result<Operated, Error> {
        let Some(mut opened) = self.open("bus_cancel", Access::Write).await? else {
            let done = self.0.all.bus.cancel(&[id], reason).await?;
            return found(id, done.first().map(|(_, operated)| *operated));
        };
        let patience = opened.transaction.patience();
        // The function tells of a message that is somebody else's; a caller from outside need not know.
        let seen = within(patience, queries::message(&mut *opened.transaction, id)).await;
        match seen {
            Ok(Some(_)) => {}
            answer => {
                opened.end(answer.map(drop)).await?;
                return Err(Error::NoMessage(id));
            }
        }
        let rows = ask!(opened, queries::cancel, &json!([{"id": id}]), reason)?;
        self.wake(&[Signal::Work, Signal::Log, Signal::Claims]);
        found(id, rows.first().map(|row| Operated::of(row.code.as_deref())))
    }

    /// Appends an event that is no transition; an object as `bus_append_event` takes it. A key may append the
    /// `<intent>_input` of messages that it may send, and the `<intent>_progress` of those that its worker may claim.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn append_event(&self, event: Value) -> Result<(), Error> {
        let Some(opened) = self.open("bus_append_event", Access::Write).await? else {
            return self.0.all.bus.append_event(event).await;
        };
        ask!(opened, queries::events::append_events, &json!([bus::storable(event)]))?;
        self.wake(&[Signal::Log]);
        Ok(())
    }

    /// The workers that it may see, those online first, the last seen first, at most `max`. For an operator those of
    /// all tenants.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn workers(&self, max: u32) -> Result<Vec<WorkerRow>, Error> {
        let Some(opened) = self.open("workers", Access::Read).await? else {
            return self.0.all.bus.workers(max).await;
        };
        ask!(opened, queries::workers::workers, i64::from(max))
    }

    /// The dead letters that fit `filter` and that it may see, the latest first, at most `max`.
    ///
    /// # Errors
    /// As [`crate::bus::Bus::dead_letters`].
    pub async fn dead_letters(
        &self,
        filter: &dead_letter::Filter,
        max: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let Some(opened) = self.open("dead_letters", Access::Read).await? else {
            return self.0.all.bus.dead_letters(filter, max).await;
        };
        filter.validate()?;
        ask!(opened, dead_letters::list, filter, i64::from(max))
    }

    /// Brings a message back from the dead-letter queue, or from cancelled, with all attempts before it.
    ///
    /// # Errors
    /// [`Error::NoMessage`], also for one that the key may not see; [`Error::Refused`] (forbidden) where the key has
    /// no claim `operate`; [`Error::Database`].
    pub async fn requeue(&self, id: MessageId, reason: Option<&str>) -> Result<Operated, Error> {
        let Some(opened) = self.open("bus_requeue", Access::Write).await? else {
            let done = self.0.all.bus.requeue(&[id], reason).await?;
            return found(id, done.first().map(|(_, operated)| *operated));
        };
        dead_letter::check_reason(reason)?;
        let rows = ask!(opened, dead_letters::requeue, &json!([{"id": id}]), reason)?;
        self.wake(&[Signal::Work, Signal::Log]);
        found(id, rows.first().map(|row| Operated::of(row.code.as_deref())))
    }

    /// The circuit breakers of its tenant that have ever opened; those that are not closed first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn circuits(&self) -> Result<Vec<Circuit>, Error> {
        let Some(opened) = self.open("bus_circuits", Access::Read).await? else {
            return self.0.all.bus.circuits(self.tenant()).await;
        };
        ask!(opened, queries::circuits::circuits, self.tenant())
    }
}

fn found(id: MessageId, operated: Option<Operated>) -> Result<Operated, Error> {
    match operated {
        None | Some(Operated::NotFound) => Err(Error::NoMessage(id)),
        Some(operated) => Ok(operated),
    }
}
