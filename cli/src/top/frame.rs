//! One look at everything, to be drawn, printed or given to a program.

use anyhow::Result;
use chrono::{DateTime, Utc};
use cogo::bus::WorkerRow;
use cogo::bus::circuit::Circuit;
use serde::Serialize;

use crate::output::{Cell, Ink, Output};
use crate::text::millis;
use crate::top::panes::{Pane, Row, TITLES};
use crate::top::rates::{Failure, Summary};

/// What waits and is held, of one topic or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Depths {
    pub(super) queued: i64,
    pub(super) delayed: i64,
    pub(super) claimed: i64,
    pub(super) parked: i64,
    pub(super) failed: i64,
    /// How long the oldest queued message has been due.
    pub(super) oldest_ms: Option<i64>,
}

/// A topic's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Topic {
    pub(super) role: String,
    pub(super) service: String,
    #[serde(flatten)]
    pub(super) depths: Depths,
}

/// One look.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Frame {
    /// Our own time, for the eye alone.
    pub(super) at: DateTime<Utc>,
    /// Which database or hub.
    pub(super) place: String,
    pub(super) tenant: Option<String>,
    pub(super) rates: Summary,
    pub(super) queue: Depths,
    pub(super) topics: Vec<Topic>,
    pub(super) workers: Vec<WorkerRow>,
    pub(super) circuits: Vec<Circuit>,
    pub(super) failures: Vec<Failure>,
    /// What the key may not see.
    pub(super) hidden: Vec<&'static str>,
    /// Why this is an old look.
    pub(super) problem: Option<String>,
}

impl Frame {
    /// How many workers are here, and how many messages they have in hand.
    pub(super) fn at_work(&self) -> (usize, i64) {
        let online = self.workers.iter().filter(|worker| worker.status == "online");
        online.fold((0, 0), |(count, held), worker| (count + 1, held + worker.in_flight))
    }

    /// As text, for where nothing can be drawn.
    pub(super) fn print(&self, output: Output) -> Result<()> {
        let strong = |text: &str| output.paint(Ink::Strong, text);
        output.line(&format!("{}  {}", strong(&self.place), self.headline()))?;
        for pane in Pane::ALL {
            let rows: Vec<Row> = pane.rows(self);
            output.line(&format!("\n{}", strong(TITLES[pane as usize])))?;
            if rows.is_empty() {
                output.line(&format!("  {}", pane.nothing(self)))?;
                continue;
            }
            let rows: Vec<Vec<Cell>> = rows
                .into_iter()
                .map(|row| row.cells.into_iter().map(|(text, ink)| Cell::new(text, ink)).collect())
                .collect();
            output.table(pane.heading(), &rows)?;
        }
        Ok(())
    }

    /// The figures that matter most, in a line.
    pub(super) fn headline(&self) -> String {
        let (online, held) = self.at_work();
        let open = self.circuits.iter().filter(|circuit| !is_closed(circuit)).count();
        let mut parts = vec![
            format!("{} queued", self.queue.queued),
            format!("{} claimed", self.queue.claimed),
            format!("{} dead", self.queue.failed),
            format!("{online} workers, {held} in hand"),
            format!("{open} circuits open"),
        ];
        if let Some(ms) = self.queue.oldest_ms.filter(|_| self.queue.queued > 0) {
            parts.insert(1, format!("oldest {}", millis(ms)));
        }
        parts.join(" · ")
    }
}

/// Whether calls pass freely.
pub(super) fn is_closed(circuit: &Circuit) -> bool {
    circuit.state == cogo::breaker::State::Closed
}
