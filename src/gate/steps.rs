//! What a stage goes through: each step with how long it took and what came of it.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Outcome, Progress, StageReport, StepReport};
use crate::clock::Stopwatch;
use crate::error::chain;

/// Why a step failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    reason: String,
    remedy: Option<String>,
}

impl Failure {
    /// A failure for this reason, a sentence that can be read alone: what was expected, and what was seen.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: None }
    }

    /// The same, with what whoever reads it should do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What to do about it, if anything is known to help.
    #[must_use]
    pub fn what_to_do(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The same in other words: a stage that knows secrets takes them out of what others said.
    #[must_use]
    pub fn map(self, words: impl Fn(&str) -> String) -> Self {
        Self { reason: words(&self.reason), remedy: self.remedy.as_deref().map(words) }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error).to_string())
    }
}

/// What a step gives, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    value: T,
    detail: String,
}

/// A step's value, and what was seen in a few words: `3 tools, 12 ms`.
pub fn done<T>(value: T, detail: impl Into<String>) -> Done<T> {
    Done { value, detail: detail.into() }
}

/// A step has failed, and was recorded. `?` on it ends the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Where a stage records its steps. Steps may run side by side.
pub struct Steps<'a> {
    stage: &'a str,
    progress: &'a dyn Progress,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    under_way: Vec<(String, Stopwatch)>,
    steps: Vec<StepReport>,
    facts: Map<String, Value>,
    artifacts: Option<PathBuf>,
    skipped: Option<String>,
}

impl fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("stage", &self.stage)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl<'a> Steps<'a> {
    pub(super) fn new(stage: &'a str, progress: &'a dyn Progress) -> Self {
        Self { stage, progress, found: Mutex::default() }
    }

    /// Goes through one step, and records what came of it.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the step fails.
    pub async fn step<T>(
        &self,
        name: impl Into<String>,
        work: impl Future<Output = Result<Done<T>, Failure>>,
    ) -> Result<T, Stopped> {
        let name = name.into();
        self.progress.step(self.stage, &name);
        let watch = Stopwatch::start();
        self.found().under_way.push((name.clone(), watch));
        let result = work.await;
        self.found().under_way.retain(|(other, _)| *other != name);
        let (result, outcome) = match result {
            Ok(Done { value, detail }) => (Ok(value), Outcome::Passed { detail }),
            Err(Failure { reason, remedy }) => (Err(Stopped), Outcome::Failed { reason, remedy }),
        };
        self.record(StepReport { name, took: watch.elapsed(), outcome });
        result
    }

    /// Records that a step was passed over, and why.
    pub fn skip(&self, name: impl Into<String>, reason: impl Into<String>) {
        let outcome = Outcome::Skipped { reason: reason.into() };
        self.record(StepReport { name: name.into(), took: Duration::ZERO, outcome });
    }

    /// The stage as a whole is passed over, and why: nothing of it can be done here.
    pub fn skip_stage(&self, reason: impl Into<String>) {
        self.found().skipped = Some(reason.into());
    }

    /// Something that was measured or counted, for the report.
    pub fn fact(&self, name: &str, value: impl Into<Value>) {
        self.found().facts.insert(name.to_owned(), value.into());
    }

    /// Where the stage leaves its files.
    pub fn artifacts(&self, dir: &Path) {
        self.found().artifacts = Some(dir.to_owned());
    }

    /// Fails what is under way, since the stage's time is over.
    pub(super) fn late(&self, at_most: Duration) {
        let mut under_way = std::mem::take(&mut self.found().under_way);
        if under_way.is_empty() {
            under_way.push(("between two steps".to_owned(), Stopwatch::start()));
        }
        for (name, watch) in under_way {
            let reason = format!(
                "the stage took longer than {} s, and this was under way",
                at_most.as_secs()
            );
            let outcome = Outcome::Failed { reason, remedy: None };
            self.record(StepReport { name, took: watch.elapsed(), outcome });
        }
    }

    pub(super) fn report(self, started_at: DateTime<Utc>, took: Duration) -> StageReport {
        let Found { steps, facts, artifacts, skipped, .. } =
            self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        StageReport::new(self.stage, started_at, took, steps, facts, artifacts, skipped)
    }

    fn record(&self, step: StepReport) {
        self.progress.stepped(self.stage, &step);
        self.found().steps.push(step);
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // What is held is complete between any two statements, so a panic elsewhere spoils nothing.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
