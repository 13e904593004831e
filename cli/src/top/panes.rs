//! The four panes: their rows, as text with colours, for the screen and for print.

use cogo::breaker::State;
use serde_json::Value;

use crate::output::Ink;
use crate::text::{event_ink, millis, moment, time_of_day};
use crate::top::frame::{Frame, is_closed};

/// A pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Queues,
    Workers,
    Circuits,
    Failures,
}

/// The panes' names.
pub(super) const TITLES: [&str; 4] = ["Queues", "Workers", "Circuits", "Latest failures"];

/// A row: its fields, and all that there is to say of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<(String, Ink)>,
    /// What Enter shows: names and values.
    pub(super) detail: Vec<(&'static str, String)>,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [Self::Queues, Self::Workers, Self::Circuits, Self::Failures];

    pub(super) fn heading(self) -> &'static [&'static str] {
        match self {
            Self::Queues => &["TOPIC", "QUEUED", "OLDEST", "HELD", "DELAYED", "PARKED", "DEAD"],
            Self::Workers => &["WORKER", "STATUS", "HELD", "HOST", "TOPICS"],
            Self::Circuits => &["CIRCUIT", "STATE", "FOR", "WHY"],
            Self::Failures => &["AT", "WHAT", "TOPIC", "TRY", "WHY"],
        }
    }

    /// What stands in an empty pane.
    pub(super) fn nothing(self, frame: &Frame) -> &'static str {
        let key = match self {
            Self::Queues => "queues",
            Self::Workers => "workers",
            Self::Circuits => "circuits",
            Self::Failures => "",
        };
        if frame.hidden.contains(&key) {
            return "This key may not see them.";
        }
        match self {
            Self::Queues => "Nothing waits.",
            Self::Workers => "No worker was ever here. `cogo worker <role>` runs one.",
            Self::Circuits => "No breaker has ever opened.",
            Self::Failures => "None of late.",
        }
    }

    /// The pane's rows.
    pub(super) fn rows(self, frame: &Frame) -> Vec<Row> {
        match self {
            Self::Queues => queues(frame),
            Self::Workers => workers(frame),
            Self::Circuits => circuits(frame),
            Self::Failures => failures(frame),
        }
    }
}

/// A count; nothing is faint.
fn count(number: i64, ink: Ink) -> (String, Ink) {
    (number.to_string(), if number == 0 { Ink::Faint } else { ink })
}

fn queues(frame: &Frame) -> Vec<Row> {
    let row = |topic: &super::frame::Topic| {
        let depths = &topic.depths;
        let name = format!("{}/{}", topic.role, topic.service);
        let oldest = depths.oldest_ms.filter(|_| depths.queued > 0).map(millis);
        let detail = vec![
            ("topic", name.clone()),
            ("queued", depths.queued.to_string()),
            ("oldest has been due", oldest.clone().unwrap_or_else(|| "-".to_owned())),
            ("claimed", depths.claimed.to_string()),
            ("delayed", depths.delayed.to_string()),
            ("parked", format!("{} (`cogo status` says why)", depths.parked)),
            ("dead letters", format!("{} (`cogo dlq list`)", depths.failed)),
        ];
        let cells = vec![
            (name, Ink::Name),
            count(depths.queued, Ink::Warn),
            (oldest.unwrap_or_else(|| "-".to_owned()), Ink::Plain),
            count(depths.claimed, Ink::Good),
            count(depths.delayed, Ink::Plain),
            count(depths.parked, Ink::Warn),
            count(depths.failed, Ink::Bad),
        ];
        Row { cells, detail }
    };
    frame.topics.iter().map(row).collect()
}

fn workers(frame: &Frame) -> Vec<Row> {
    let row = |worker: &cogo::bus::WorkerRow| {
        let is_online = worker.status == "online";
        let ink = if is_online { Ink::Good } else { Ink::Faint };
        let cells = vec![
            (worker.id.clone(), if is_online { Ink::Name } else { Ink::Faint }),
            (worker.status.clone(), ink),
            count(if is_online { worker.in_flight } else { 0 }, Ink::Good),
            (worker.host.clone(), Ink::Plain),
            (worker.topics.join(" "), Ink::Plain),
        ];
        let mut detail = vec![
            ("worker", worker.id.clone()),
            ("status", worker.status.clone()),
            ("tenant", worker.tenant.clone()),
            ("role", worker.role.clone()),
            ("host", worker.host.clone()),
            ("version", worker.version.clone()),
            ("in hand", worker.in_flight.to_string()),
            ("online since", moment(worker.started_at)),
            ("last seen", moment(worker.last_seen_at)),
            ("topics", worker.topics.join(" ")),
        ];
        detail.extend(tools(&worker.info).map(|tools| ("tools", tools)));
        Row { cells, detail }
    };
    frame.workers.iter().map(row).collect()
}

/// `demo: add echo sleep`, for each toolset that a worker offers.
fn tools(info: &Value) -> Option<String> {
    let toolsets = info.get("toolsets")?.as_object()?;
    let one = |(name, toolset): (&String, &Value)| {
        let tools = toolset.get("tools").and_then(Value::as_object);
        let names: Vec<_> = tools.into_iter().flatten().map(|(tool, _)| tool.as_str()).collect();
        format!("{name}: {}", names.join(" "))
    };
    Some(toolsets.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn circuits(frame: &Frame) -> Vec<Row> {
    let row = |circuit: &cogo::bus::circuit::Circuit| {
        let (state, ink) = match circuit.state {
            State::Closed => ("closed", Ink::Good),
            State::Open if circuit.forced => ("forced open", Ink::Bad),
            State::Open => ("open", Ink::Bad),
            _ => ("half-open", Ink::Warn),
        };
        let left = circuit.open_for_ms.filter(|_| !is_closed(circuit)).map(|ms| millis(ms.max(0)));
        let why = circuit.reason.clone().unwrap_or_default();
        let detail = vec![
            ("circuit", circuit.key.clone()),
            ("tenant", circuit.tenant.clone()),
            ("state", state.to_owned()),
            ("asks for a probe in", left.clone().unwrap_or_else(|| "-".to_owned())),
            ("prober", circuit.prober.clone().unwrap_or_else(|| "-".to_owned())),
            ("why", why.clone()),
            ("by", circuit.worker_id.clone().unwrap_or_else(|| "-".to_owned())),
            ("its window held", circuit.evidence.to_string()),
            ("opened", circuit.opened_at.map(moment).unwrap_or_else(|| "-".to_owned())),
            ("changed", moment(circuit.updated_at)),
            ("what to do", format!("cogo circuit close {}", circuit.key)),
        ];
        let cells = vec![
            (circuit.key.clone(), Ink::Name),
            (state.to_owned(), ink),
            (left.unwrap_or_else(|| "-".to_owned()), Ink::Plain),
            (why, Ink::Plain),
        ];
        Row { cells, detail }
    };
    frame.circuits.iter().map(row).collect()
}

fn failures(frame: &Frame) -> Vec<Row> {
    let row = |failure: &super::rates::Failure| {
        let what = match failure.event_type.as_str() {
            kind if kind.ends_with("_dead_lettered") => "dead",
            kind if kind.ends_with("_lease_expired") => "lease lost",
            _ => "failed",
        };
        let why = failure.error.clone().or_else(|| failure.reason.clone()).unwrap_or_default();
        let mut detail = vec![
            ("at", moment(failure.at)),
            ("event", failure.event_type.clone()),
            ("topic", failure.topic.clone()),
            ("tenant", failure.tenant.clone()),
            ("attempt", failure.attempt.to_string()),
            ("worker", failure.worker_id.clone().unwrap_or_else(|| "-".to_owned())),
            ("reason", failure.reason.clone().unwrap_or_else(|| "-".to_owned())),
            ("error", failure.error.clone().unwrap_or_else(|| "-".to_owned())),
            ("all of it", format!("cogo trace {}", failure.trace_id)),
        ];
        if let (Some(id), "dead") = (failure.message_id, what) {
            detail.push(("again", format!("cogo dlq requeue {id}")));
        }
        let cells = vec![
            (time_of_day(failure.at), Ink::Faint),
            (what.to_owned(), event_ink(&failure.event_type)),
            (failure.topic.clone(), Ink::Name),
            (failure.attempt.to_string(), Ink::Plain),
            (why, Ink::Plain),
        ];
        Row { cells, detail }
    };
    frame.failures.iter().map(row).collect()
}
