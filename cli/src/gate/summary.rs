//! What a gate found, for who reads it at the end.

use std::path::Path;

use anyhow::Result;
use cogo::gate::{Outcome, Report, Verdict};

use super::progress::{mark, seconds};
use crate::output::{Cell, Ink, Output, printable};

/// The stages, then each failure with its reason, its remedy and its files.
pub(super) fn show(output: Output, report: &Report, dir: &Path) -> Result<()> {
    let rows: Vec<_> = report
        .stages
        .iter()
        .map(|stage| {
            let (_, ink) = mark(&stage.outcome);
            let step = stage.failed_step.as_ref().map(|step| format!("{step}: "));
            let text = format!("{}{}", step.unwrap_or_default(), stage.outcome.text());
            vec![
                Cell::new(&stage.name, Ink::Name),
                Cell::new(stage.outcome.word(), ink),
                Cell::number(seconds(stage.took)),
                Cell::plain(text),
            ]
        })
        .collect();
    output.table(&["STAGE", "OUTCOME", "TOOK", ""], &rows)?;
    for stage in &report.stages {
        let failed = stage.steps.iter().filter_map(|step| match &step.outcome {
            Outcome::Failed { reason, remedy } => Some((&step.name, reason, remedy)),
            _ => None,
        });
        for (step, reason, remedy) in failed {
            let title = printable(&format!("{} / {step}", stage.name));
            output.line(&format!("\n{}", output.paint(Ink::Bad, &title)))?;
            output.line(&format!("  {}", printable(reason)))?;
            if let Some(remedy) = remedy {
                output.line(&format!("  What to do: {}", printable(remedy)))?;
            }
            if let Some(artifacts) = &stage.artifacts {
                output.line(&format!("  Files: {}", artifacts.display()))?;
            }
        }
    }
    let (word, ink) = match report.verdict {
        Verdict::Passed => ("passed", Ink::Good),
        Verdict::Failed => ("failed", Ink::Bad),
        Verdict::Skipped => ("skipped", Ink::Warn),
    };
    let (word, took) = (output.paint(ink, word), seconds(report.took));
    output.line(&format!("\n{} {word} after {took}. Reports: {}", report.name, dir.display()))?;
    Ok(())
}
