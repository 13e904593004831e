//! Replay: does the table say what the log says, restore it where it does not, do a finished trace's work
//! again.
//!
//! Table and log are compared range by range in the order of message ids, within one transaction, so that a
//! million events need no more memory than a few thousand, on either side.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::bus::error::Error;
use crate::bus::queries::replay::{self as sql, Range};
use crate::bus::{Bus, Signal};
use crate::error::Code;
use crate::message::{MessageId, TraceId};

/// What a bus without a database refuses.
const WHAT: &str = "replay";

/// How a comparison goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// About how many events are compared in one call, from 1 to 100,000. More are hardly faster; what a
    /// range needs in memory grows with it.
    pub range: u32,
    /// How many of the messages that are wrong are told in detail.
    pub show: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { range: 5000, show: 20 }
    }
}

/// How far a comparison has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Events read.
    pub events: u64,
    /// How many the log holds, as far as the server has counted them: an estimate, perhaps 0.
    pub about: u64,
}

/// What is wrong with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Table and log differ in some fields.
    Differs,
    /// The log has it, the table has not.
    Missing,
    /// The table has it, and the log says that it was dropped or purged.
    Extra,
    /// The table has it, and the log, complete since before it was made, does not know it.
    Unknown,
}

/// A message that is not as the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The message.
    pub id: MessageId,
    /// What is wrong with it.
    pub verdict: Verdict,
    /// The fields that differ, if it is in both.
    pub fields: Vec<Field>,
}

/// A field in which table and log differ. The values are cut to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub field: String,
    /// What the table says.
    pub in_table: Option<String>,
    /// What the log says.
    pub in_log: Option<String>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Messages that are as the log says.
    pub messages: u64,
    /// Events of messages that were read.
    pub events: u64,
    /// Messages whose beginning left the log with its partition, so that it cannot judge them.
    pub unjudged: u64,
    /// How many are [`Verdict::Differs`].
    pub differing: u64,
    /// How many are [`Verdict::Missing`].
    pub missing: u64,
    /// How many are [`Verdict::Extra`].
    pub extra: u64,
    /// How many are [`Verdict::Unknown`].
    pub unknown: u64,
    /// The first of those that are wrong, in the order of their ids.
    pub differences: Vec<Difference>,
}

impl Report {
    /// How many messages are not as the log says.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.differing + self.missing + self.extra + self.unknown
    }

    /// Whether the table is what the log says.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.wrong() == 0
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Messages that were as the log says, and were left alone.
    pub messages: u64,
    /// Events of messages that were read.
    pub events: u64,
    /// Messages that were missing and are there again.
    pub inserted: u64,
    /// Messages that differed and were written anew.
    pub replaced: u64,
    /// Messages that the log says are gone, and now are.
    pub removed: u64,
    /// Messages that the log cannot judge; left alone.
    pub unjudged: u64,
    /// Messages that the log should know and does not; left alone.
    pub unknown: u64,
}

/// A trace that is done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The new trace.
    pub trace_id: TraceId,
    /// Which trace's work it is.
    pub replays: TraceId,
    /// Its messages.
    pub messages: Vec<ReplayedMessage>,
}

/// A message of a trace that is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReplayedMessage {
    /// The new message.
    pub id: MessageId,
    /// Which message's work it is; the new one's parent.
    pub replays: MessageId,
}

impl Bus {
    /// Folds the log and compares it with the table. Exact while work goes on, which it does not hold up: it
    /// reads one snapshot, and writes nothing. `tell` hears of each range.
    ///
    /// # Errors
    /// [`Error::Refused`] where the login is no operator, or an option is out of range; [`Error::Database`].
    pub async fn replay_verify(
        &self,
        options: &Options,
        mut tell: impl FnMut(Progress),
    ) -> Result<Report, Error> {
        let mut tx = self
            .core
            .postgres(WHAT)?
            .pool()
            .begin_with("begin isolation level repeatable read read only")
            .await
            .map_err(failed)?;
        let db = &mut *tx;
        sql::hold_tables(db).await.map_err(failed)?;
        let mut report = Report::default();
        let mut ranges = Ranges::start(db, options).await?;
        while let Some(first) = ranges.first {
            let range = ranges.next(db, first).await?;
            let room = options.show.saturating_sub(length(&report.differences));
            let checked = sql::check(db, &range, count(room)).await.map_err(failed)?;
            report.events += natural(checked.events);
            report.messages += natural(checked.same);
            report.unjudged += natural(checked.unjudged);
            report.missing += natural(checked.missing);
            report.extra += natural(checked.extra);
            report.unknown += natural(checked.unknown);
            report.differing += natural(checked.differing);
            let shown: Vec<Difference> =
                serde_json::from_value(checked.shown).map_err(|error| Error::Refused {
                    code: Code::Internal,
                    message: format!("bus_replay_check: {error}"),
                })?;
            report.differences.extend(shown);
            ranges.after(checked.last);
            tell(Progress { events: report.events, about: ranges.about });
        }
        tx.rollback().await.map_err(failed)?;
        Ok(report)
    }

    /// Restores the table from the log, all or nothing. Writers wait until it is done; readers do not.
    ///
    /// Whoever holds a claim on a message that is written anew has lost it: the message waits again, with a
    /// claim number that the old one is below.
    ///
    /// # Errors
    /// [`Error::Refused`] where the login is no operator, an option is out of range, or what the log does not
    /// judge stands in the way; [`Error::Database`], also where writers did not let go within 30 s.
    pub async fn replay_rebuild(
        &self,
        options: &Options,
        mut tell: impl FnMut(Progress),
    ) -> Result<Rebuilt, Error> {
        let mut tx = self.core.postgres(WHAT)?.pool().begin().await.map_err(failed)?;
        let db = &mut *tx;
        // First of all: what is read before it may have changed meanwhile.
        sql::lock(db).await.map_err(failed)?;
        let mut rebuilt = Rebuilt::default();
        let mut ranges = Ranges::start(db, options).await?;
        while let Some(first) = ranges.first {
            let range = ranges.next(db, first).await?;
            let done = sql::rebuild(db, &range).await.map_err(failed)?;
            rebuilt.events += natural(done.events);
            rebuilt.messages += natural(done.same);
            rebuilt.unjudged += natural(done.unjudged);
            rebuilt.inserted += natural(done.inserted);
            rebuilt.removed += natural(done.removed);
            rebuilt.unknown += natural(done.unknown);
            rebuilt.replaced += natural(done.replaced);
            ranges.after(done.last);
            tell(Progress { events: rebuilt.events, about: ranges.about });
        }
        tx.commit().await.map_err(failed)?;
        self.wake(Signal::Work);
        self.wake(Signal::Log);
        Ok(rebuilt)
    }

    /// Does a finished trace's work again under the new trace `anew`: its roots, the messages whose parent is
    /// not in the trace, or all of it with `everything`. Read from the log, so that it works after retention
    /// has let the messages go.
    ///
    /// Not tried again by itself: when the answer is lost, look whether `anew` is there.
    ///
    /// # Errors
    /// [`Error::Refused`] where the trace is not found or not finished, the login is no operator, or a limit
    /// is reached; [`Error::Database`].
    pub async fn replay_trace(
        &self,
        trace: TraceId,
        anew: TraceId,
        everything: bool,
    ) -> Result<Replayed, Error> {
        let pool = self.core.postgres(WHAT)?.pool();
        let rows = sql::trace(pool, trace.0, anew.0, everything).await;
        let rows = rows.map_err(|error| refused("bus_replay_trace", error))?;
        self.wake(Signal::Work);
        self.wake(Signal::Log);
        let message =
            |(id, replays)| ReplayedMessage { id: MessageId(id), replays: MessageId(replays) };
        Ok(Replayed {
            trace_id: anew,
            replays: trace,
            messages: rows.into_iter().map(message).collect(),
        })
    }
}

/// The way through all ids, with what retention has purged on it.
struct Ranges {
    /// Where the next range begins; none at the end.
    first: Option<Uuid>,
    /// The next of the purged, with the event that purged each.
    purged: Vec<Uuid>,
    purged_seqs: Vec<i64>,
    /// Whether the cursor has given all.
    all_purged: bool,
    size: u32,
    about: u64,
}

impl Ranges {
    async fn start(db: &mut PgConnection, options: &Options) -> Result<Self, Error> {
        let about = sql::events_about(db).await.map_err(failed)?;
        sql::open_purged(db).await.map_err(failed)?;
        Ok(Self {
            first: Some(Uuid::nil()),
            purged: Vec::new(),
            purged_seqs: Vec::new(),
            all_purged: false,
            size: options.range,
            about: natural(about),
        })
    }

    /// The range that begins at `first`.
    async fn next(&mut self, db: &mut PgConnection, first: Uuid) -> Result<Range<'_>, Error> {
        // As many as a range may have: one that ended earlier for want of them would be a short one.
        let wanted = (self.size as usize).saturating_sub(self.purged.len());
        if !self.all_purged && wanted > 0 {
            let rows = sql::fetch_purged(db, wanted).await.map_err(failed)?;
            self.all_purged = rows.len() < wanted;
            for (id, seq) in rows {
                self.purged.push(id);
                self.purged_seqs.push(seq);
            }
        }
        Ok(Range {
            first,
            purged: &self.purged,
            purged_seqs: &self.purged_seqs,
            all_purged: self.all_purged,
            size: count(self.size),
        })
    }

    /// Goes on behind `last`.
    fn after(&mut self, last: Uuid) {
        self.first = last.as_u128().checked_add(1).map(Uuid::from_u128);
        let behind = self.purged.partition_point(|id| *id <= last);
        self.purged.drain(..behind);
        self.purged_seqs.drain(..behind);
    }
}

fn failed(error: sqlx::Error) -> Error {
    refused("replay", error)
}

/// What only operators may is a refusal of its own, and no failure of the database.
fn refused(call: &'static str, error: sqlx::Error) -> Error {
    if let sqlx::Error::Database(denied) = &error
        && denied.code().as_deref() == Some("42501")
    {
        return Error::Refused {
            code: Code::Forbidden,
            message: format!("{}; this is for operators (role cogo_operator)", denied.message()),
        };
    }
    Error::from_sqlx(call, error)
}

fn natural(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}
