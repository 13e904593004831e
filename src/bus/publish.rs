//! Putting messages on the bus.

use std::time::Duration;

use crate::bus::error::Error;
use crate::bus::{Bus, json};
use crate::error::Code;
use crate::message::{MessageId, NewMessage, TraceId};

/// The bus's answer to a publish: the message is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The message; an earlier one if the idempotency key was known.
    pub id: MessageId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Whether the message was there already.
    pub duplicate: bool,
}

impl Bus {
    /// Publishes one message; concurrent calls share a round trip. When it returns, the message is
    /// committed.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Field`], [`Error::Refused`] and [`Error::Full`] mean that nothing was written;
    /// [`Error::Database`] that it is unknown: publishing the same [`NewMessage`] again is safe.
    pub async fn publish(&self, message: NewMessage) -> Result<Receipt, Error> {
        check(&message)?;
        self.publishes.call(message).await
    }

    /// Publishes a batch in one transaction: all or nothing. Answers in the batch's order.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_all(&self, messages: &[NewMessage]) -> Result<Vec<Receipt>, Error> {
        messages.iter().try_for_each(check)?;
        self.core.enqueue(messages, false).await
    }
}

pub(crate) fn check(message: &NewMessage) -> Result<(), Error> {
    message.validate()?;
    let refuse = |field, rule, code| Err(Error::Field { field, rule, code });
    if json::holds_nul(&message.payload) {
        let rule = "must not hold the character U+0000, which Postgres cannot store";
        return refuse("payload", rule, Code::InvalidArgument);
    }
    if let Some(key) = &message.idempotency_key
        && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
    {
        return refuse(
            "idempotency_key",
            "must be 1 to 255 characters, none of them U+0000",
            Code::InvalidArgument,
        );
    }
    if !(-100..=100).contains(&message.priority) {
        return refuse("priority", "must be from -100 to 100", Code::InvalidArgument);
    }
    if !(0..=99_999).contains(&message.shard) {
        return refuse("shard", "must be from 0 to 99999", Code::InvalidArgument);
    }
    if message.max_attempts.is_some_and(|attempts| !(1..=1000).contains(&attempts)) {
        return refuse("max_attempts", "must be from 1 to 1000", Code::InvalidArgument);
    }
    if message.delay > Duration::from_secs(365 * 24 * 3600) {
        return refuse("delay_ms", "must be at most a year", Code::InvalidArgument);
    }
    Ok(())
}
