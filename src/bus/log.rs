//! The log, as people look at it: pages of events, newest or oldest first.

use std::collections::HashMap;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};

use crate::bus::Bus;
use crate::bus::error::Error;
use crate::bus::queries::log as sql;
use crate::error::Code;
use crate::event::{Cursor, Event};
use crate::message::{MessageId, TraceId};

/// How many events are looked at in a stretch: first few, since most pages are full soon.
const STRETCHES: [i64; 3] = [2_000, 20_000, 178_000];
/// The same for a filter that looks into each event's message.
const DEAR_STRETCHES: [i64; 3] = [1_000, 4_000, 15_000];
/// By how much the times of events may run against the order of the log, for a transaction is numbered when it first
/// writes and may go on for as long as its owner likes. Longer ones are found without `since` and `until`.
const SKEW: TimeDelta = TimeDelta::hours(1);
/// The first year that the database knows as a whole, 4712 before Christ; its last is beyond those of a [`DateTime`].
const FIRST_YEAR: i32 = -4711;

/// Which way the log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// The oldest first.
    Asc,
    /// The newest first.
    #[default]
    Desc,
}

/// Which events; those that fit all that is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) tenant: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) types: Option<Vec<String>>,
    /// What their type begins with.
    pub(crate) prefix: Option<String>,
    /// What stands in their message's payload, and the key below which it stands there.
    pub(crate) tool: Option<(String, &'static str)>,
    pub(crate) message_id: Option<MessageId>,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page goes on, if there may be one. A page may be short all the same: as much of the log was read
    /// for it as may be.
    pub(crate) next: Option<Cursor>,
}

/// A stretch of the log that is still to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) order: Order,
    pub(crate) from: Cursor,
    /// The last place that may be of interest.
    pub(crate) bound: Cursor,
}

impl Bus {
    /// A page of events that fit `filter`, at most `max`, after (or before) `after`. Never one above the horizon.
    pub(crate) async fn log_page(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<Cursor>,
        max: u32,
    ) -> Result<Page<Event>, Error> {
        let span = self.span(order, after, filter.since, filter.until).await?;
        let postgres = self.core.postgres("looking at the log")?;
        if filter.message_id.is_some() || filter.trace_id.is_some() {
            let (from, max) = (span.from, i64::from(max));
            let read = || async {
                let ends = (from, span.bound);
                let rows = sql::of_one(postgres.db(), order, ends, filter, max + 1).await;
                rows.map_err(|error| Error::from_sqlx("log_page", error))
            };
            let mut items = self.core.retry("log_page", read).await?;
            let more = items.len() > usize::try_from(max).unwrap_or(usize::MAX);
            items.truncate(usize::try_from(max).unwrap_or(usize::MAX));
            let next = items.last().filter(|_| more).map(|event| event.cursor);
            return Ok(Page { items, next });
        }
        let stretches = if filter.tool.is_some() { DEAR_STRETCHES } else { STRETCHES };
        let read = |ends, max| sql::stretch(postgres.db(), order, ends, filter, max);
        self.read_stretches(span, &stretches, max, |event: &Event| event.cursor, read).await
    }

    /// Where to read for what happened between two times.
    ///
    /// # Errors
    /// [`Error::Field`] for a time that neither we nor the database can reckon with; [`Error::Database`].
    pub(crate) async fn span(
        &self,
        order: Order,
        after: Option<Cursor>,
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Span, Error> {
        let since = since.map(|at| told("since", at, at.checked_sub_signed(SKEW))).transpose()?;
        let until = until.map(|at| told("until", at, at.checked_add_signed(SKEW))).transpose()?;
        let low = match since {
            Some(since) => Cursor { xid: self.seek(since).await?, seq: 0 },
            None => Cursor::START,
        };
        let high = match until {
            Some(until) => Cursor { xid: self.seek(until).await?, seq: i64::MAX },
            None => sql::LAST,
        };
        Ok(match order {
            Order::Asc => {
                Span { order, from: after.map_or(low, |after| after.max(low)), bound: high }
            }
            Order::Desc => {
                Span { order, from: after.map_or(high, |after| after.min(high)), bound: low }
            }
        })
    }

    pub(crate) async fn seek(&self, at: DateTime<Utc>) -> Result<u64, Error> {
        let postgres = self.core.postgres("looking at the log")?;
        let seek = || async {
            let found = sql::seek(postgres.db(), at).await;
            found.map_err(|error| Error::from_sqlx("log_seek", error))
        };
        self.core.retry("log_seek", seek).await
    }

    /// Reads stretch after stretch until a page is full or the last one was read.
    pub(crate) async fn read_stretches<T, Fut>(
        &self,
        span: Span,
        stretches: &[i64],
        max: u32,
        place: impl Fn(&T) -> Cursor,
        read: impl Fn((Cursor, Cursor), i64) -> Fut,
    ) -> Result<Page<T>, Error>
    where
        Fut: Future<Output = sqlx::Result<Vec<T>>>,
    {
        let postgres = self.core.postgres("looking at the log")?;
        let (mut items, mut from) = (Vec::new(), span.from);
        let most = max as usize;
        for scan in stretches {
            let edge = || async {
                let edge = sql::edge(postgres.db(), span.order, from, span.bound, *scan).await;
                edge.map_err(|error| Error::from_sqlx("log_page", error))
            };
            let edge = self.core.retry("log_page", edge).await?;
            let to = edge.unwrap_or(span.bound);
            // One more than fits: whether there is one tells whether there is another page.
            let room = i64::try_from(most + 1 - items.len()).unwrap_or(i64::MAX);
            let rows = || async {
                read((from, to), room).await.map_err(|error| Error::from_sqlx("log_page", error))
            };
            items.extend(self.core.retry("log_page", rows).await?);
            if items.len() > most {
                items.truncate(most);
                let next = items.last().map(&place);
                return Ok(Page { items, next });
            }
            match edge {
                Some(edge) => from = edge,
                None => return Ok(Page { items, next: None }),
            }
        }
        Ok(Page { items, next: Some(from) })
    }

    /// What happened to one message, oldest first, at most `max` events. Payloads are whole until they add up to `bytes`;
    /// of large ones after that only the beginning.
    pub(crate) async fn message_log(
        &self,
        id: MessageId,
        max: u32,
        bytes: u32,
    ) -> Result<Vec<Event>, Error> {
        let postgres = self.core.postgres("looking at the log")?;
        let read = || async {
            let events = sql::message_events(postgres.db(), id, max.into(), bytes.into()).await;
            events.map_err(|error| Error::from_sqlx("message_events", error))
        };
        self.core.retry("message_events", read).await
    }

    /// What happened within one trace, as [`Bus::message_log`].
    pub(crate) async fn trace_log(
        &self,
        trace: TraceId,
        max: u32,
        bytes: u32,
    ) -> Result<Vec<Event>, Error> {
        let postgres = self.core.postgres("looking at the log")?;
        let read = || async {
            let events = sql::trace_events(postgres.db(), trace, max.into(), bytes.into()).await;
            events.map_err(|error| Error::from_sqlx("trace_events", error))
        };
        self.core.retry("trace_events", read).await
    }

    /// The next events after `after`, of large payloads only the beginning.
    pub(crate) async fn following(&self, after: Cursor, max: u32) -> Result<Vec<Event>, Error> {
        let postgres = self.core.postgres("following the log")?;
        let read = || async {
            let events = sql::following(postgres.db(), after, i64::from(max)).await;
            events.map_err(|error| Error::from_sqlx("following", error))
        };
        self.core.retry("following", read).await
    }

    /// The oldest event that retention has left.
    pub(crate) async fn log_begin(&self) -> Result<Option<Cursor>, Error> {
        let postgres = self.core.postgres("looking at the log")?;
        let read = || async {
            let oldest = sql::oldest(postgres.db()).await;
            oldest.map_err(|error| Error::from_sqlx("log_begin", error))
        };
        self.core.retry("log_begin", read).await
    }

    /// What stands below `key` in the payloads of messages.
    pub(crate) async fn tools_of(
        &self,
        messages: &[MessageId],
        key: &str,
    ) -> Result<HashMap<MessageId, String>, Error> {
        let postgres = self.core.postgres("looking at messages")?;
        let read = || async {
            let tools = sql::tools(postgres.db(), messages, key).await;
            tools.map_err(|error| Error::from_sqlx("tools_of", error))
        };
        Ok(self.core.retry("tools_of", read).await?.into_iter().collect())
    }

    /// The database's time.
    pub(crate) async fn now(&self) -> Result<DateTime<Utc>, Error> {
        let postgres = self.core.postgres("the database's time")?;
        let read = || async {
            let now = sql::now(postgres.db()).await;
            now.map_err(|error| Error::from_sqlx("bus_now", error))
        };
        self.core.retry("bus_now", read).await
    }
}

/// `moved`, which is `at` by a little earlier or later, unless one of the two is beyond all that can be reckoned with.
fn told(
    field: &'static str,
    at: DateTime<Utc>,
    moved: Option<DateTime<Utc>>,
) -> Result<DateTime<Utc>, Error> {
    let rule = "must be a time from 4712 BC on, and before the year 262142";
    let known = |moved: &DateTime<Utc>| at.min(*moved).year() >= FIRST_YEAR;
    moved.filter(known).ok_or(Error::Field { field, rule, code: Code::InvalidArgument })
}
