//! Lists for people: messages, traces and workers, a page at a time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bus::error::Error;
use crate::bus::log::{Order, Page};
use crate::bus::queries::lists as sql;
use crate::bus::{Bus, WorkerRow};
use crate::event::Cursor;
use crate::message::{MessageId, Status, Stored, TraceId};

/// How many events are looked at in a stretch for a page of messages: each that a message began with is looked up.
const MESSAGES: [i64; 3] = [2_000, 20_000, 78_000];
/// The same for traces, of each of which all events are read.
const TRACES: [i64; 3] = [1_000, 5_000, 14_000];

/// Which messages; those that fit all that is given.
#[derive(Debug, Clone)]
pub(crate) struct MessageFilter {
    pub(crate) tenant: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) tool: Option<String>,
    /// Where a payload names its tool.
    pub(crate) tool_key: &'static str,
}

/// A message in a list: all but what is large.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub(crate) struct Listed {
    #[serde(skip)]
    #[sqlx(try_from = "String")]
    pub(crate) cursor: Cursor,
    id: MessageId,
    tenant: String,
    role: String,
    service: String,
    shard: i32,
    intent: String,
    tool: Option<String>,
    trace_id: TraceId,
    parent_id: Option<MessageId>,
    idempotency_key: Option<String>,
    priority: i16,
    status: Status,
    attempts: i32,
    max_attempts: i32,
    claim_no: i64,
    run_at: DateTime<Utc>,
    claimed_by: Option<String>,
    claimed_at: Option<DateTime<Utc>>,
    lease_until: Option<DateTime<Utc>>,
    #[sqlx(try_from = "Stored")]
    error: Option<Value>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    done_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    ordering_key: Option<String>,
    parked_for: Option<String>,
}

/// What has become of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TraceStatus {
    /// One of its messages is a dead letter, or was when it was dropped.
    Failed,
    /// All its messages have ended.
    Done,
    /// Something is still to happen.
    Waiting,
}

impl TraceStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Waiting => "waiting",
        }
    }
}

/// Which traces; those that fit all that is given.
#[derive(Debug, Clone)]
pub(crate) struct TraceFilter {
    pub(crate) tenant: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) status: Option<TraceStatus>,
    pub(crate) since: Option<DateTime<Utc>>,
    /// The intent of messages that call a tool, and where their payload names it.
    pub(crate) intent: &'static str,
    pub(crate) tool_key: &'static str,
}

/// A trace, as its events tell it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Traced {
    #[sqlx(try_from = "String")]
    pub(crate) cursor: Cursor,
    pub(crate) trace_id: TraceId,
    pub(crate) tenant: String,
    pub(crate) message_id: Option<MessageId>,
    pub(crate) first_at: DateTime<Utc>,
    pub(crate) last_at: DateTime<Utc>,
    pub(crate) events: i64,
    pub(crate) messages: i64,
    pub(crate) attempts: i64,
    pub(crate) status: String,
    pub(crate) toolset: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) message: Option<String>,
}

/// A place in the list of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerPlace {
    pub(crate) status: String,
    pub(crate) tenant: String,
    pub(crate) id: String,
}

impl Bus {
    /// A page of messages, the newest first, before `after`.
    pub(crate) async fn message_page(
        &self,
        filter: &MessageFilter,
        after: Option<Cursor>,
        max: u32,
    ) -> Result<Page<Listed>, Error> {
        let span = self.span(Order::Desc, after, None, None).await?;
        let postgres = self.core.postgres("listing messages")?;
        let read = |ends, max| sql::messages(postgres.db(), ends, filter, max);
        self.read_stretches(span, &MESSAGES, max, |message: &Listed| message.cursor, read).await
    }

    /// A page of traces, the newest first, before `after`.
    pub(crate) async fn trace_page(
        &self,
        filter: &TraceFilter,
        after: Option<Cursor>,
        max: u32,
    ) -> Result<Page<Traced>, Error> {
        let span = self.span(Order::Desc, after, filter.since, None).await?;
        let postgres = self.core.postgres("listing traces")?;
        let read = |ends, max| sql::traces(postgres.db(), ends, filter, max);
        self.read_stretches(span, &TRACES, max, |trace: &Traced| trace.cursor, read).await
    }

    /// Workers after a place in the list, those online first, at most `max`.
    pub(crate) async fn worker_page(
        &self,
        after: Option<&WorkerPlace>,
        state: Option<&str>,
        max: u32,
    ) -> Result<Vec<WorkerRow>, Error> {
        let postgres = self.core.postgres("listing workers")?;
        let read = || async {
            let rows = sql::workers(postgres.db(), after, state, i64::from(max)).await;
            rows.map_err(|error| Error::from_sqlx("workers", error))
        };
        self.core.retry("workers", read).await
    }
}
