//! Figures: what happened lately and what is so, counted by the database.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::bus::Bus;
use crate::bus::error::Error;
use crate::bus::queries::activity as sql;

/// How many events are counted at most: a second's work for the database.
const EVENTS_MAX: i64 = 200_000;
/// How far the times of events may run against the order of the log; what ran for longer is not counted.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// What is to be counted.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) from_xid: u64,
    pub(crate) since: DateTime<Utc>,
    /// What types of events of the intent begin with.
    pub(crate) prefix: String,
    pub(crate) tool_key: &'static str,
    pub(crate) step_s: u32,
}

/// Counts of one group: of all, of one tool or of one step of time.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) by_step: bool,
    pub(crate) by_tool: bool,
    pub(crate) step: Option<i32>,
    pub(crate) service: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) calls: i64,
    pub(crate) succeeded: i64,
    pub(crate) fails: i64,
    pub(crate) retries: i64,
    pub(crate) dead_lettered: i64,
    pub(crate) p50_ms: Option<i64>,
    pub(crate) p95_ms: Option<i64>,
    pub(crate) handler_p50_ms: Option<i64>,
    pub(crate) handler_p95_ms: Option<i64>,
    pub(crate) last_at: Option<DateTime<Utc>>,
    pub(crate) class: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) error_at: Option<DateTime<Utc>>,
    pub(crate) error_of: Option<Uuid>,
    /// How many events were read for all of it.
    pub(crate) read: i64,
    /// How many messages of any intent were done.
    pub(crate) done: i64,
}

/// What waits, is held or is dead of a service.
#[derive(Debug, Clone, Default, Serialize, sqlx::FromRow)]
pub(crate) struct Backlog {
    pub(crate) tenant: String,
    pub(crate) role: String,
    pub(crate) service: String,
    pub(crate) queued: i64,
    pub(crate) delayed: i64,
    pub(crate) claimed: i64,
    pub(crate) parked: i64,
    pub(crate) failed: i64,
    /// How long the oldest of those has been due that no worker holds.
    pub(crate) oldest_ms: Option<i64>,
}

/// The workers, counted.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub(crate) struct Fleet {
    pub(crate) online: i64,
    pub(crate) offline: i64,
    pub(crate) in_flight: i64,
    pub(crate) capacity: Option<i64>,
}

/// What was counted of a window.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    pub(crate) rows: Vec<Row>,
    /// There were more events than are counted: the oldest of the window are missing.
    pub(crate) truncated: bool,
}

impl Bus {
    /// Counts what happened to the messages of `intent` since a time.
    pub(crate) async fn activity(
        &self,
        intent: &str,
        tool_key: &'static str,
        since: DateTime<Utc>,
        step_s: u32,
    ) -> Result<Activity, Error> {
        let from_xid = self.seek(since - SKEW).await?;
        let prefix = format!("{}_", intent.replace('.', "_"));
        let window = Window { from_xid, since, prefix, tool_key, step_s };
        let postgres = self.core.postgres("counting what happened")?;
        // The longer patience: it is cached, and a hub with a busy database must not be without its figures.
        let rows = sql::window(postgres.chores(), &window, EVENTS_MAX).await;
        let rows = rows.map_err(|error| Error::from_sqlx("activity", error))?;
        let truncated = rows.first().is_some_and(|row| row.read >= EVENTS_MAX);
        Ok(Activity { rows, truncated })
    }

    /// What waits, is held or is dead, those services first that have the most to do.
    pub(crate) async fn backlog(&self, now: DateTime<Utc>) -> Result<Vec<Backlog>, Error> {
        let db = self.core.postgres("counting what waits")?.db();
        sql::backlog(db, now).await.map_err(|error| Error::from_sqlx("backlog", error))
    }

    /// How many messages of `intent` workers hold.
    pub(crate) async fn in_flight(&self, intent: &str) -> Result<i64, Error> {
        let db = self.core.postgres("counting what is under way")?.db();
        sql::in_flight(db, intent).await.map_err(|error| Error::from_sqlx("in_flight", error))
    }

    /// The workers, counted.
    pub(crate) async fn fleet(&self) -> Result<Fleet, Error> {
        let db = self.core.postgres("counting workers")?.db();
        sql::fleet(db).await.map_err(|error| Error::from_sqlx("fleet", error))
    }
}
