//! The dead-letter queue: list, show, requeue, drop.

mod history;

use std::future::Future;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use history::{Attempt, End, Requeued, Step};

use crate::bus::error::Error;
use crate::bus::postgres::Postgres;
use crate::bus::queries::dead_letters::{self as sql, Place};
use crate::bus::{Bus, Signal, json::holds_nul, queries};
use crate::error::Code;
use crate::message::{
    INTENT_RULE, InvalidName, Message, MessageId, NAME_RULE, TraceId, valid_intent, valid_name,
};

/// How many messages one call of the database operates on.
const BATCH: usize = 500;
/// How large such a call may be: new params are sent along with each id.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// As much of a reason as the log keeps.
const REASON_MAX: usize = 200;
/// How many steps of a message's way are told; one with many retries has a few hundred.
const HISTORY_MAX: i64 = 2000;

/// Which dead letters; those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this worker role.
    pub role: Option<String>,
    /// Of this service (for the MCP gateway the toolset).
    pub service: Option<String>,
    /// That ask for this.
    pub intent: Option<String>,
    /// Whose last error is of this class.
    pub class: Option<String>,
    /// That ended for this reason, such as `attempts_exhausted` or `deadline_exceeded`.
    pub reason: Option<String>,
    /// Of this trace.
    pub trace_id: Option<TraceId>,
    /// That died then or later.
    pub since: Option<DateTime<Utc>>,
    /// That died before.
    pub until: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether it lets everything pass.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Name`] or [`Error::Field`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Error> {
        let name = |field, value: &String, rule| {
            Err(InvalidName { field, value: value.clone(), rule }.into())
        };
        let names = [
            ("tenant", &self.tenant),
            ("role", &self.role),
            ("service", &self.service),
            ("class", &self.class),
        ];
        for (field, value) in names {
            if let Some(value) = value.as_ref().filter(|value| !valid_name(value)) {
                return name(field, value, NAME_RULE);
            }
        }
        if let Some(value) = self.intent.as_ref().filter(|intent| !valid_intent(intent)) {
            return name("intent", value, INTENT_RULE);
        }
        if self.reason.as_deref().is_some_and(|reason| reason.is_empty() || !short(reason)) {
            return refuse("reason", "must be 1 to 200 characters, none of them U+0000");
        }
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            return refuse("until", "must be later than since");
        }
        Ok(())
    }
}

fn refuse<T>(field: &'static str, rule: &'static str) -> Result<T, Error> {
    Err(Error::Field { field, rule, code: Code::InvalidArgument })
}

fn short(text: &str) -> bool {
    text.chars().count() <= REASON_MAX && !text.contains('\0')
}

pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), Error> {
    match reason {
        Some(text) if !short(text) => {
            refuse("reason", "must be at most 200 characters, none of them U+0000")
        }
        _ => Ok(()),
    }
}

/// A message in the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct DeadLetter {
    /// The message; its `error` is the last one, and it died at `done_at`.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub message: Message,
    /// The class of the last error.
    pub class: Option<String>,
    /// Why it ended there; unknown once the log has let that event go.
    pub reason: Option<String>,
    /// Where the artifacts of all its attempts are, below the artifacts directory, the oldest first.
    pub artifacts: Vec<String>,
}

/// A dead letter with all that led to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examined {
    /// The dead letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Its attempts, ends and requeues, the oldest first, as far back as the log goes.
    pub history: Vec<Step>,
    /// Whether there are more steps than are told.
    pub truncated: bool,
}

/// What a requeued message gets beside its attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// What its handler gets, if not what it got before.
    pub payload: Option<NewPayload>,
    /// How many attempts it has, if not as many as before; from 1 to 1000.
    pub max_attempts: Option<i32>,
}

/// What takes the place of a payload.
#[derive(Debug, Clone, PartialEq)]
pub enum NewPayload {
    /// Another payload.
    Whole(Value),
    /// Another field `params` within the payload, which must be an object.
    Params(Map<String, Value>),
}

impl Change {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Field`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Error> {
        const NO_NUL: &str = "must not hold the character U+0000, which Postgres cannot store";
        match &self.payload {
            Some(NewPayload::Whole(payload)) if holds_nul(payload) => refuse("payload", NO_NUL),
            Some(NewPayload::Params(params))
                if params.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)) =>
            {
                refuse("params", NO_NUL)
            }
            _ if self.max_attempts.is_some_and(|attempts| !(1..=1000).contains(&attempts)) => {
                refuse("max_attempts", "must be from 1 to 1000")
            }
            _ => Ok(()),
        }
    }

    /// What `bus_requeue` takes of it for each message.
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        match &self.payload {
            Some(NewPayload::Whole(payload)) => {
                fields.insert("payload".to_owned(), payload.clone());
            }
            Some(NewPayload::Params(params)) => {
                fields.insert("params".to_owned(), params.clone().into());
            }
            None => {}
        }
        if let Some(attempts) = self.max_attempts {
            fields.insert("max_attempts".to_owned(), attempts.into());
        }
        fields
    }
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
    /// The message's payload is no object, so it has no place for new params.
    NoPlaceForParams,
}

impl Operated {
    pub(crate) fn of(code: Option<&str>) -> Self {
        match code.and_then(Code::from_sqlstate) {
            None => Self::Done,
            Some(Code::NotFound) => Self::NotFound,
            Some(Code::InvalidArgument) => Self::NoPlaceForParams,
            Some(_) => Self::NotAllowed,
        }
    }
}

/// What an operator's call did to the dead letters that fit a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// What became of each, in the order of the list. What somebody else took meanwhile is left out.
    pub results: Vec<(MessageId, Operated)>,
    /// Whether more fit than were asked for.
    pub more: bool,
}

fn items(messages: &[MessageId], fields: &Map<String, Value>) -> Value {
    let item = |id: &MessageId| {
        let mut item = fields.clone();
        item.insert("id".to_owned(), json!(id));
        Value::from(item)
    };
    messages.iter().map(item).collect()
}

fn answers(rows: Vec<queries::Operated>) -> Vec<(MessageId, Operated)> {
    rows.into_iter().map(|row| (row.id, Operated::of(row.code.as_deref()))).collect()
}

async fn ask<T>(answer: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    answer.await.map_err(|error| Error::from_sqlx("dead_letters", error))
}

impl Bus {
    /// What reads the dead-letter queue.
    fn dead_letter_queue(&self) -> Result<&Postgres, Error> {
        self.core.postgres("the dead-letter queue")
    }

    /// The dead letters that fit `filter`, the latest first, at most `max`.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Field`] name what is wrong with the filter; [`Error::Database`].
    pub async fn dead_letters(&self, filter: &Filter, max: u32) -> Result<Vec<DeadLetter>, Error> {
        filter.validate()?;
        let max = i64::from(max);
        let db = self.dead_letter_queue()?;
        self.core.retry("dead_letters", || ask(sql::list(db.db(), filter, max))).await
    }

    /// As [`Bus::dead_letters`], until what they carry adds up to `bytes`; and whether any were left out for that.
    #[cfg(feature = "hub")]
    pub(crate) async fn dead_letters_within(
        &self,
        filter: &Filter,
        max: u32,
        bytes: u32,
    ) -> Result<(Vec<DeadLetter>, bool), Error> {
        filter.validate()?;
        let (max, bytes) = (i64::from(max), i64::from(bytes));
        let db = self.dead_letter_queue()?;
        let call = || ask(sql::list_within(db.db(), filter, max, bytes));
        let listed = self.core.retry("dead_letters", call).await?;
        let fitting = listed.first().map_or(0, |first| first.fitting);
        let truncated = i64::try_from(listed.len()).is_ok_and(|told| told < fitting);
        Ok((listed.into_iter().map(|listed| listed.letter).collect(), truncated))
    }

    /// One dead letter, with all that led to it.
    ///
    /// # Errors
    /// [`Error::NoMessage`]; [`Error::Refused`] (not found) for a message that is no dead letter;
    /// [`Error::Database`].
    pub async fn dead_letter(&self, id: MessageId) -> Result<Examined, Error> {
        let db = self.dead_letter_queue()?;
        let found = self.core.retry("dead_letter", || ask(sql::one(db.db(), id))).await?;
        let letter = found.ok_or(Error::NoMessage(id))?;
        let status = letter.message.status;
        if status != crate::message::Status::Failed {
            let message = format!("message {id}: is {status}, and not in the dead-letter queue");
            return Err(Error::Refused { code: Code::NotFound, message });
        }
        let trail = self
            .core
            .retry("dead_letter_history", || ask(sql::trail(db.db(), id, HISTORY_MAX + 1)))
            .await?;
        let most = usize::try_from(HISTORY_MAX).unwrap_or(usize::MAX);
        let truncated = trail.len() > most;
        let history = trail.into_iter().take(most).map(Step::from).collect();
        Ok(Examined { letter, history, truncated })
    }

    /// Brings messages back from the dead-letter queue, or from cancelled, with all attempts and their whole
    /// deadline before them.
    ///
    /// # Errors
    /// As [`Bus::requeue_with`].
    pub async fn requeue(
        &self,
        messages: &[MessageId],
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        self.requeue_with(messages, &Change::default(), reason).await
    }

    /// As [`Bus::requeue`], and changes them. At most 500 go in one transaction.
    ///
    /// # Errors
    /// [`Error::Field`] and [`Error::Refused`] name what is wrong, and nothing was changed;
    /// [`Error::Database`]. What became of each message is in the answer.
    pub async fn requeue_with(
        &self,
        messages: &[MessageId],
        change: &Change,
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        change.validate()?;
        check_reason(reason)?;
        let fields = change.fields();
        let size = Value::from(fields.clone()).to_string().len() + 50;
        let mut done = Vec::new();
        for ids in messages.chunks((BATCH_BYTES / size).clamp(1, BATCH)) {
            let rows = self.transport().requeue(&items(ids, &fields), reason).await;
            self.wake(Signal::Work);
            self.wake(Signal::Log);
            done.extend(answers(rows?));
        }
        Ok(done)
    }

    /// Brings back the dead letters that fit `filter`, the latest first, at most `max`.
    ///
    /// # Errors
    /// As [`Bus::requeue_with`]. When the database stops answering, what went before is done.
    pub async fn requeue_fitting(
        &self,
        filter: &Filter,
        max: Option<u32>,
        change: &Change,
        reason: Option<&str>,
    ) -> Result<Swept, Error> {
        change.validate()?;
        check_reason(reason)?;
        self.sweep(filter, max, async |ids| self.requeue_with(&ids, change, reason).await).await
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
        let rows = self.transport().cancel(&items(messages, &Map::new()), reason).await;
        // Who holds one of them should stop; what stood behind one of an ordering key may go on.
        [Signal::Log, Signal::Claims, Signal::Work]
            .into_iter()
            .for_each(|signal| self.wake(signal));
        rows.map(answers)
    }

    /// Drops messages from the dead-letter queue for good. Their events stay.
    ///
    /// # Errors
    /// [`Error::Field`]; [`Error::Database`]. What became of each message is in the answer.
    pub async fn drop_dead_letters(
        &self,
        messages: &[MessageId],
        reason: Option<&str>,
    ) -> Result<Vec<(MessageId, Operated)>, Error> {
        check_reason(reason)?;
        let mut done = Vec::new();
        for ids in messages.chunks(BATCH) {
            let rows = self.transport().drop_dead(&items(ids, &Map::new()), reason).await;
            self.wake(Signal::Log);
            done.extend(answers(rows?));
        }
        Ok(done)
    }

    /// Drops the dead letters that fit `filter` for good, the latest first, at most `max`.
    ///
    /// # Errors
    /// As [`Bus::drop_dead_letters`]. When the database stops answering, what went before is gone.
    pub async fn drop_fitting(
        &self,
        filter: &Filter,
        max: Option<u32>,
        reason: Option<&str>,
    ) -> Result<Swept, Error> {
        check_reason(reason)?;
        self.sweep(filter, max, async |ids| self.drop_dead_letters(&ids, reason).await).await
    }

    /// Operates on all that fits, page by page down the list. What dies again meanwhile comes in above, so
    /// nothing is taken twice and this ends.
    async fn sweep<W, F>(&self, filter: &Filter, max: Option<u32>, work: W) -> Result<Swept, Error>
    where
        W: Fn(Vec<MessageId>) -> F,
        F: Future<Output = Result<Vec<(MessageId, Operated)>, Error>>,
    {
        filter.validate()?;
        let db = self.dead_letter_queue()?;
        let mut left = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let mut after: Option<Place> = None;
        let mut results = Vec::new();
        loop {
            let page = left.min(BATCH);
            // One more than is taken says whether there are more.
            let asked = i64::try_from(page).unwrap_or(i64::MAX) + 1;
            let call = || ask(sql::places(db.db(), filter, after, asked));
            let mut places = self.core.retry("dead_letters", call).await?;
            let more = places.len() > page;
            places.truncate(page);
            after = places.last().copied().or(after);
            let ids: Vec<MessageId> = places.iter().map(|place| place.id).collect();
            if !ids.is_empty() {
                let taken = work(ids).await?;
                // Somebody else was faster with what is not there; that is no failure of ours.
                let ours =
                    |operated| matches!(operated, Operated::Done | Operated::NoPlaceForParams);
                results.extend(taken.into_iter().filter(|(_, operated)| ours(*operated)));
            }
            left -= places.len();
            if !more || left == 0 {
                return Ok(Swept { results, more });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_breaks_a_rule_names_its_field() {
        let refused = |json: Value| {
            let filter: Filter = serde_json::from_value(json).expect("well-formed");
            filter.validate().expect_err("refused").to_string()
        };
        for field in ["tenant", "role", "service", "intent", "class", "reason"] {
            let message = refused(json!({field: ""}));
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
        let backwards = json!({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"});
        assert_eq!(refused(backwards), "until: must be later than since");
        assert!(Filter::default().validate().is_ok() && Filter::default().is_empty());
    }

    #[test]
    fn a_change_that_breaks_a_rule_names_its_field() {
        let params = Map::from_iter([("a".to_owned(), json!(["\0"]))]);
        for (change, field) in [
            (Change { payload: Some(NewPayload::Params(params)), ..Change::default() }, "params"),
            (
                Change { payload: Some(NewPayload::Whole(json!("\0"))), ..Change::default() },
                "payload",
            ),
            (Change { max_attempts: Some(0), ..Change::default() }, "max_attempts"),
            (Change { max_attempts: Some(1001), ..Change::default() }, "max_attempts"),
        ] {
            let message = change.validate().expect_err(field).to_string();
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
    }
}
