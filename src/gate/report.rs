//! What a gate found, as data.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{junit, markdown};

/// The shape of the report; another number when a field changes its meaning or goes.
pub const SCHEMA: &str = "cogo.gate/1";

/// Of which program a report is.
#[derive(Debug, Clone, Serialize)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The commit that it was built from, where that is known.
    pub commit: Option<String>,
}

/// Whether the gate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No stage failed, and at least one passed.
    Passed,
    /// A stage failed, or none was run: a gate that looked at nothing is not open.
    Failed,
}

/// What came of a step, or of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// As it should be.
    Passed {
        /// What was seen.
        detail: String,
    },
    /// Not as it should be.
    Failed {
        /// What was expected, and what was seen.
        reason: String,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// Passed over.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Its word: `passed`, `failed` or `skipped`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed { .. } => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
        }
    }

    /// What is said of it.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Passed { detail } => detail,
            Self::Failed { reason, .. } | Self::Skipped { reason } => reason,
        }
    }
}

/// One step of a stage.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// What it is called.
    pub name: String,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One stage, with its steps in the order in which they ended.
#[derive(Debug, Clone, Serialize)]
pub struct StageReport {
    /// What it is called.
    pub name: String,
    /// When it began, by this machine's clock.
    #[serde(serialize_with = "time")]
    pub started_at: DateTime<Utc>,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// What came of it: the first step that failed, if any did.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The step that the reason is of, where it failed.
    pub failed_step: Option<String>,
    /// Its steps.
    pub steps: Vec<StepReport>,
    /// What it measured and counted.
    pub facts: Map<String, Value>,
    /// Where it left its files.
    pub artifacts: Option<PathBuf>,
}

impl StageReport {
    pub(super) fn new(
        name: &str,
        started_at: DateTime<Utc>,
        took: Duration,
        steps: Vec<StepReport>,
        facts: Map<String, Value>,
        artifacts: Option<PathBuf>,
        skipped: Option<String>,
    ) -> Self {
        let failed = steps.iter().find(|step| matches!(step.outcome, Outcome::Failed { .. }));
        let passed =
            steps.iter().filter(|step| matches!(step.outcome, Outcome::Passed { .. })).count();
        let outcome = match (failed, skipped) {
            (Some(step), _) => step.outcome.clone(),
            (None, Some(reason)) => Outcome::Skipped { reason },
            (None, None) if passed == 0 => {
                Outcome::Failed { reason: "it went through no step".to_owned(), remedy: None }
            }
            (None, None) => Outcome::Passed { detail: format!("{passed} steps") },
        };
        let failed_step = failed.map(|step| step.name.clone());
        Self {
            name: name.to_owned(),
            started_at,
            took,
            outcome,
            failed_step,
            steps,
            facts,
            artifacts,
        }
    }
}

/// What a gate found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    schema: &'static str,
    /// What was run, such as `gate:unified`.
    pub name: String,
    /// Whether the gate is open.
    pub verdict: Verdict,
    /// Of which program.
    pub build: Build,
    /// When it began, by this machine's clock.
    #[serde(serialize_with = "time")]
    pub started_at: DateTime<Utc>,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// The stages, in the order in which they were run.
    pub stages: Vec<StageReport>,
}

impl Report {
    pub(super) fn new(
        name: &str,
        build: Build,
        started_at: DateTime<Utc>,
        took: Duration,
        stages: Vec<StageReport>,
    ) -> Self {
        let any = |word: &str| stages.iter().any(|stage| stage.outcome.word() == word);
        let verdict =
            if any("passed") && !any("failed") { Verdict::Passed } else { Verdict::Failed };
        Self { schema: SCHEMA, name: name.to_owned(), verdict, build, started_at, took, stages }
    }

    /// As JUnit's XML, a suite a stage and a case a step.
    ///
    /// # Errors
    ///
    /// If a text cannot stand in XML.
    pub fn junit(&self) -> io::Result<String> {
        junit::text(self)
    }

    /// As Markdown, for the page of a CI job.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::text(self)
    }

    /// Writes `report.json`, `junit.xml` and `summary.md` into a directory that is there.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        json.push(b'\n');
        std::fs::write(dir.join("report.json"), json)?;
        std::fs::write(dir.join("junit.xml"), self.junit()?)?;
        std::fs::write(dir.join("summary.md"), self.markdown())
    }
}

fn milliseconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

fn time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
