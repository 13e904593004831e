//! How far the gate has come, as lines.

use cogo::gate::{Progress, StageReport, StepReport};

use crate::output::note;

/// A line for each step.
#[derive(Debug)]
pub(super) struct Lines;

impl Progress for Lines {
    fn stage(&self, stage: &str) {
        note(&format!("== {stage}"));
    }

    fn step(&self, _stage: &str, _step: &str) {}

    fn stepped(&self, _stage: &str, step: &StepReport) {
        note(&format!("   {} {}: {}", step.name, step.outcome.word(), step.outcome.text()));
    }

    fn staged(&self, stage: &StageReport) {
        note(&format!("== {} {}", stage.name, stage.outcome.word()));
    }
}
