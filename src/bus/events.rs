//! Events: what happened, and what is added to the log that is no transition.

use serde_json::Value;

use crate::bus::error::Error;
use crate::bus::queries::events::Head;
use crate::bus::{Bus, Signal, json};
use crate::error::Code;
use crate::event::{Cursor, Event};
use crate::message::{MessageId, TraceId};

impl Bus {
    /// What happened to one message, oldest first, at most `max` events.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn message_events(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().message_events(id, max)).await
    }

    /// The events of one message's progress after the one with the number `after`, oldest first, at most `max`.
    pub(crate) async fn progress(
        &self,
        id: MessageId,
        after: i64,
        max: u32,
    ) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().progress(id, after, max)).await
    }

    /// What was said to one message (`<intent>_input`), oldest first, at most `max` events: without its progress, of
    /// which there may be far more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn inputs(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().inputs(id, max)).await
    }

    /// What happened within one trace, oldest first, at most `max` events.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn trace_events(&self, trace: TraceId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("trace_events", || self.transport().trace_events(trace, max)).await
    }

    /// The next events after `after`, at most `max`; `filter` as `bus_read_events` takes it.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn read_events(
        &self,
        after: Cursor,
        max: u32,
        filter: &Value,
    ) -> Result<Vec<Event>, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let call = || self.transport().read_events(after, max, filter);
        self.core.retry("bus_read_events", call).await
    }

    /// As [`Bus::read_events`], without what is wide.
    pub(crate) async fn read_heads(&self, after: Cursor, max: u32) -> Result<Vec<Head>, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        self.core.retry("bus_read_events", || self.transport().read_heads(after, max)).await
    }

    /// The end of the log: reading on from here gives what happens from now on.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn log_end(&self) -> Result<Cursor, Error> {
        let text = self.core.retry("bus_log_end", || self.transport().log_end()).await?;
        text.parse().map_err(|_| Error::Refused {
            code: Code::Internal,
            message: format!("bus_log_end: {text:?} is not a cursor"),
        })
    }

    /// Appends an event that is no transition, such as progress; an object as `bus_append_event` takes it.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn append_event(&self, event: Value) -> Result<(), Error> {
        self.append_events(vec![event]).await
    }

    /// As [`Bus::append_event`], for several: all or none.
    pub(crate) async fn append_events(&self, events: Vec<Value>) -> Result<(), Error> {
        let events: Value = events.into_iter().map(json::storable).collect();
        self.transport().append_events(&events).await?;
        self.wake(Signal::Log);
        Ok(())
    }
}
