//! `report.json` and the plots beside it.

use std::io;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::bench::arguments::Plan;
use crate::bench::machine::Machine;
use crate::bench::measure::{Measurement, Record, Series};
use crate::bench::plot;
use crate::bench::scenario::Scenario;
use crate::bench::server::Server;
use crate::exit::Exit;
use crate::version::COMMIT;

/// What the report is written as; raised when a reader of it would have to change.
const SCHEMA: &str = "cogo.bench/1";
/// The report's name.
pub(super) const FILE: &str = "report.json";

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Complete,
    Failed(String),
    Interrupted,
    NotRun,
}

/// A scenario that has ended, and its figures.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) scenario: Scenario,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    pub(super) record: Record,
}

/// All of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    begun_at: String,
    took_s: f64,
    /// Whether all that was asked for was measured to its end.
    complete: bool,
    pub(super) warnings: Vec<String>,
    build: Build,
    pub(super) machine: Machine,
    /// Before anything was started.
    pub(super) load_average: Option<[f64; 3]>,
    pub(super) postgres: Server,
    options: Plan,
    pub(super) scenarios: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Build {
    version: &'static str,
    commit: Option<&'static str>,
    profile: &'static str,
}

/// A scenario, as the report tells of it.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(super) name: &'static str,
    about: &'static str,
    /// `complete`, `partial` (it was cut off), `failed` or `not_run`.
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    took_s: f64,
    pub(super) measurements: Vec<Measurement>,
    pub(super) series: Vec<Series>,
    plots: Vec<String>,
}

impl Report {
    pub(super) fn new(
        begun_at: DateTime<Utc>,
        took: Duration,
        load_average: Option<[f64; 3]>,
        plan: &Plan,
        mut server: Server,
        ended: Vec<Ended>,
    ) -> Self {
        let mut warnings = std::mem::take(&mut server.warnings);
        let profile = env!("COGO_BUILD_PROFILE");
        if cfg!(debug_assertions) {
            let text =
                "this is a debug build, many times slower than what is shipped: `just bench`";
            warnings.push(text.to_owned());
        }
        if plan.quick {
            warnings.push("a quick run says that all works, and not how fast".to_owned());
        }
        let machine = Machine::look();
        if load_average.is_some_and(|[one, ..]| one > 0.5) {
            warnings.push("the machine was busy before the run began".to_owned());
        }
        let complete = ended.iter().all(|ended| ended.outcome == Outcome::Complete);
        Self {
            schema: SCHEMA,
            begun_at: begun_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            took_s: took.as_secs_f64(),
            complete,
            warnings,
            build: Build { version: env!("CARGO_PKG_VERSION"), commit: COMMIT, profile },
            machine,
            load_average,
            postgres: server,
            options: plan.clone(),
            scenarios: ended.into_iter().map(Told::of).collect(),
        }
    }

    /// Writes the report, and a plot of each unit of each scenario.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        for told in &self.scenarios {
            for (name, svg) in plot::all(told) {
                std::fs::write(dir.join(name), svg)?;
            }
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        // By rename, so that nobody reads half of it.
        let half = dir.join("report.json.new");
        std::fs::write(&half, text)?;
        std::fs::rename(half, dir.join(FILE))
    }

    pub(super) fn exit(&self) -> Exit {
        let any = |outcome: &str| self.scenarios.iter().any(|told| told.outcome == outcome);
        match (any("partial") || any("not_run"), any("failed")) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Failed,
            (false, false) => Exit::Done,
        }
    }
}

impl Told {
    fn of(ended: Ended) -> Self {
        let Ended { scenario, outcome, took, record } = ended;
        let (outcome, error) = match outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Failed(why) => ("failed", Some(why)),
            Outcome::Interrupted => ("partial", None),
            Outcome::NotRun => ("not_run", None),
        };
        let mut told = Self {
            name: scenario.name(),
            about: scenario.about(),
            outcome,
            error,
            took_s: took.as_secs_f64(),
            measurements: record.measurements(),
            series: record.series(),
            plots: Vec::new(),
        };
        told.plots = plot::all(&told).into_iter().map(|(name, _)| name).collect();
        told
    }
}
