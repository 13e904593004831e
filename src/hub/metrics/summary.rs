//! The figures of one window.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::breaker;
use crate::bus::activity::{Activity, Backlog, Row};
use crate::bus::{Bus, Error};
use crate::hub::tools;
use crate::message::ALL_TENANTS;

/// How many points a series has at most; as wide as a plot is.
const POINTS: u32 = 60;
/// How many tools and how many services are told one by one, those first that have the most to do. Whoever may enqueue
/// may make up names; the sums are of all.
const LISTED: usize = 500;

/// What was found.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) at: DateTime<Utc>,
    pub(super) window_s: u32,
    pub(super) truncated: bool,
    pub(super) mcp: Value,
    queue: Value,
    pending: i64,
    workers: Value,
    circuits: Value,
    series: Value,
}

impl Summary {
    /// Finds it out.
    pub(super) async fn of(bus: &Bus, window_s: u32) -> Result<Self, Error> {
        let at = bus.now().await?;
        let since = at - TimeDelta::seconds(i64::from(window_s));
        let step_s = window_s.div_ceil(POINTS).max(1);
        let activity = bus.activity(tools::INTENT, tools::TOOL, since, step_s).await?;
        let backlog = bus.backlog(at).await?;
        let fleet = bus.fleet().await?;
        let in_flight = bus.in_flight(tools::INTENT).await?;
        let circuits = bus.circuits(ALL_TENANTS).await?;
        let count = |state| circuits.iter().filter(|circuit| circuit.state == state).count();
        Ok(Self {
            at,
            window_s,
            truncated: activity.truncated,
            mcp: calls(&activity, in_flight),
            queue: queue(&backlog, activity.rows.first().map_or(0, |row| row.done)),
            pending: backlog.iter().map(|b| b.queued + b.delayed + b.parked + b.claimed).sum(),
            workers: json!(fleet),
            circuits: json!({
                "open": count(breaker::State::Open),
                "half_open": count(breaker::State::HalfOpen),
                "closed": count(breaker::State::Closed),
            }),
            series: series(&activity, since, window_s, step_s),
        })
    }

    /// All of it, as it is answered.
    pub(super) fn whole(&self) -> Value {
        json!({
            "ok": true,
            "at": self.at,
            "window_s": self.window_s,
            "truncated": self.truncated,
            "mcp": self.mcp,
            "queue": self.queue,
            "pending_tasks": self.pending,
            "workers": self.workers,
            "circuits": self.circuits,
            "series": self.series,
        })
    }
}

fn calls(activity: &Activity, in_flight: i64) -> Value {
    let tools: Vec<Value> =
        activity.rows.iter().filter(|row| row.by_tool).take(LISTED).map(tool).collect();
    let all = activity.rows.iter().find(|row| !row.by_tool && !row.by_step);
    let count = |of: fn(&Row) -> i64| all.map_or(0, of);
    json!({
        "calls": count(|row| row.calls),
        "succeeded": count(|row| row.succeeded),
        "fails": count(|row| row.fails),
        "retries": count(|row| row.retries),
        "dead_lettered": count(|row| row.dead_lettered),
        "in_flight": in_flight,
        "p50_ms": all.and_then(|row| row.p50_ms),
        "p95_ms": all.and_then(|row| row.p95_ms),
        "handler_p50_ms": all.and_then(|row| row.handler_p50_ms),
        "handler_p95_ms": all.and_then(|row| row.handler_p95_ms),
        "tools": tools,
    })
}

fn tool(row: &Row) -> Value {
    let last_error = row.error_at.map(|at| {
        json!({"class": row.class, "message": row.message, "at": at, "message_id": row.error_of})
    });
    json!({
        "toolset": row.service,
        "tool": row.tool,
        "calls": row.calls,
        "succeeded": row.succeeded,
        "fails": row.fails,
        "retries": row.retries,
        "dead_lettered": row.dead_lettered,
        "p50_ms": row.p50_ms,
        "p95_ms": row.p95_ms,
        "handler_p50_ms": row.handler_p50_ms,
        "handler_p95_ms": row.handler_p95_ms,
        "last_error": last_error,
        "last_at": row.last_at,
    })
}

fn queue(backlog: &[Backlog], done: i64) -> Value {
    let sum = |of: fn(&Backlog) -> i64| backlog.iter().map(of).sum::<i64>();
    json!({
        "queued": sum(|b| b.queued),
        "delayed": sum(|b| b.delayed),
        "claimed": sum(|b| b.claimed),
        "parked": sum(|b| b.parked),
        "failed": sum(|b| b.failed),
        "done": done,
        "oldest_ms": backlog.iter().filter_map(|b| b.oldest_ms).max(),
        "roles": backlog.iter().take(LISTED).collect::<Vec<_>>(),
    })
}

/// A point for each step of the window, also where nothing happened.
fn series(activity: &Activity, since: DateTime<Utc>, window_s: u32, step_s: u32) -> Value {
    let steps = window_s.div_ceil(step_s);
    let points = (0..steps).map(|step| {
        let at = since + TimeDelta::seconds(i64::from(step) * i64::from(step_s));
        let number = i32::try_from(step).ok();
        // What happened while it was being counted is in a step beyond the last one.
        let is_last = step + 1 == steps;
        let fits = |row: &&Row| {
            row.by_step
                && (row.step == number || is_last && row.step.is_some_and(|s| Some(s) > number))
        };
        let sum = |of: fn(&Row) -> i64| activity.rows.iter().filter(fits).map(of).sum::<i64>();
        let first = activity.rows.iter().find(fits);
        json!({
            "at": at,
            "scheduled": sum(|row| row.calls),
            "succeeded": sum(|row| row.succeeded),
            "failed": sum(|row| row.fails),
            "dead_lettered": sum(|row| row.dead_lettered),
            "p50_ms": first.and_then(|row| row.p50_ms),
            "p95_ms": first.and_then(|row| row.p95_ms),
        })
    });
    json!({"step_s": step_s, "points": points.collect::<Vec<_>>()})
}
