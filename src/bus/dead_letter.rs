//! The dead-letter queue: list, requeue, drop.

use serde_json::{Value, json};

use crate::bus::error::Error;
use crate::bus::{Bus, Signal, queries};
use crate::error::Code;
use crate::message::{Message, MessageId};

/// Which dead letters to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this worker role.
    pub role: Option<String>,
    /// Of this service (for the MCP gateway the toolset).
    pub service: Option<String>,
    /// Whose last error is of this class.
    pub class: Option<String>,
}

/// What an operator's call did to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operated {
    /// It was done.
    Done,
    /// There is no such message.
    NotFound,
    /// The message is not in a state that allows it.
    NotAllowed,
}

impl Operated {
    fn of(code: Option<&str>) -> Self {
        match code.and_then(Code::from_sqlstate) {
            None => Self::Done,
            Some(Code::NotFound) => Self::NotFound,
            Some(_) => Self::NotAllowed,
        }
    }
}

fn ids(messages: &[MessageId]) -> Value {
    messages.iter().map(|id| json!({"id": id})).collect()
}

fn answers(rows: Vec<queries::Operated>) -> Vec<(MessageId, Operated)> {
    rows.into_iter().map(|row| (row.id, Operated::of(row.code.as_deref()))).collect()
}

impl Bus {
    /// The dead letters that fit `filter`, the latest first, at most `max`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dead_letters(&self, filter: &Filter, max: u32) -> Result<Vec<Message>, Error> {
        let Filter { role, service, class } = filter;
        queries::dead_letters(
            self.db(),
            role.as_deref(),
            service.as_deref(),
            class.as_deref(),
            i64::from(max),
        )
        .await
        .map_err(|error| Error::from_sqlx("dead_letters", error))
    }

    /// Brings messages back from the dead-letter queue, or from cancelled, with all attempts before them.
    ///
    /// # Errors
    /// When the database does not answer; what became of each message is in the answer.
    pub async fn requeue(
        &self,
        messages: &[MessageId],
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        let rows = queries::requeue(self.db(), &ids(messages), reason).await;
        self.wake(Signal::Work);
        self.wake(Signal::Log);
        rows.map(answers).map_err(|error| Error::from_sqlx("bus_requeue", error))
    }

    /// Withdraws messages that are not finished.
    ///
    /// # Errors
    /// When the database does not answer; what became of each message is in the answer.
    pub async fn cancel(
        &self,
        messages: &[MessageId],
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        let rows = queries::cancel(self.db(), &ids(messages), reason).await;
        self.wake(Signal::Log);
        rows.map(answers).map_err(|error| Error::from_sqlx("bus_cancel", error))
    }

    /// Drops messages from the dead-letter queue for good. Their events stay.
    ///
    /// # Errors
    /// When the database does not answer; what became of each message is in the answer.
    pub async fn drop_dead_letters(
        &self,
        messages: &[MessageId],
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        let rows = queries::drop_dead(self.db(), &ids(messages), reason).await;
        self.wake(Signal::Log);
        rows.map(answers).map_err(|error| Error::from_sqlx("bus_drop", error))
    }
}
