//! A gate: stages that must pass, what each found, and what is told of it.
//!
//! A [`Stage`] goes through named steps by [`Steps`]; each step ends with what was seen, or with a [`Failure`] that says
//! why and what to do. All stages run, whatever the others found, since whoever reads the report wants to know
//! everything at once. The [`Report`] becomes JSON, JUnit and Markdown by [`Report::write`]. What the stages do is not
//! known here: `cogo gate` brings its own, and so may others.

mod junit;
mod markdown;
mod report;
mod steps;

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock::{Stopwatch, utc_now};

pub use report::{Build, Outcome, Report, SCHEMA, StageReport, StepReport, Verdict};
pub use steps::{Done, Failure, Steps, Stopped, done};

/// What a gate is made of.
pub trait Stage: Send {
    /// What it is called: one word, in lower case. The same in all runs.
    fn name(&self) -> &'static str;

    /// How long it may take, all its steps together. Then it has failed at the step that is under way.
    fn at_most(&self) -> Duration;

    /// Goes through its steps, and ends at the first that it cannot do without. When this future is dropped, which is
    /// how a stage ends that takes too long, nothing that it started may go on.
    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>>;
}

/// Who is told how far a gate has come.
pub trait Progress: Send + Sync {
    /// A stage begins.
    fn stage(&self, stage: &str);
    /// A step begins.
    fn step(&self, stage: &str, step: &str);
    /// A step has ended, or was passed over.
    fn stepped(&self, stage: &str, step: &StepReport);
    /// A stage has ended.
    fn staged(&self, stage: &StageReport);
}

/// Runs the stages one after the other and tells what they found. It never ends early: to stop it, drop it.
pub async fn run(
    name: &str,
    build: Build,
    stages: &mut [Box<dyn Stage + '_>],
    progress: &dyn Progress,
) -> Report {
    let (started_at, watch) = (utc_now(), Stopwatch::start());
    let mut reports = Vec::with_capacity(stages.len());
    for stage in stages {
        reports.push(run_stage(stage.as_mut(), progress).await);
    }
    Report::new(name, build, started_at, watch.elapsed(), reports)
}

async fn run_stage(stage: &mut dyn Stage, progress: &dyn Progress) -> StageReport {
    let (name, at_most) = (stage.name(), stage.at_most());
    progress.stage(name);
    let (started_at, watch) = (utc_now(), Stopwatch::start());
    let steps = Steps::new(name, progress);
    let in_time = tokio::time::timeout(at_most, stage.run(&steps)).await.is_ok();
    if !in_time {
        steps.late(at_most);
    }
    let report = steps.report(started_at, watch.elapsed());
    progress.staged(&report);
    report
}
