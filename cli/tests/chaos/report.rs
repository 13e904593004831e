//! The report of a series: `artifacts/chaos/<time>/report.json` and `report.md`, and the logs of failed runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::run::Outcome;
use crate::{full_disk, skew};

/// A series of runs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) started_at: String,
    pub(crate) wanted: usize,
    pub(crate) lanes: usize,
    pub(crate) full_disk: &'static str,
    pub(crate) clock_skew: &'static str,
    pub(crate) duration_ms: u64,
    pub(crate) runs: Vec<Outcome>,
    #[serde(skip)]
    dir: PathBuf,
}

impl Report {
    /// An empty report, in a directory of its own.
    pub(crate) fn new(wanted: usize, lanes: usize) -> Result<Self> {
        let now = cogo::clock::utc_now();
        let name = now.format("%Y%m%dT%H%M%S%.3fZ").to_string();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../artifacts/chaos");
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self {
            started_at: now.to_rfc3339(),
            wanted,
            lanes,
            full_disk: full_disk::how(),
            clock_skew: skew::how(),
            duration_ms: 0,
            runs: Vec::new(),
            dir: dir.canonicalize()?,
        })
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a run; the logs of its processes are kept if it failed.
    pub(crate) fn add(&mut self, outcome: Outcome) -> Result<()> {
        if !outcome.ok {
            let dir = self.dir.join(format!("seed-{}", outcome.seed));
            std::fs::create_dir_all(&dir)?;
            for (name, log) in &outcome.logs {
                std::fs::write(dir.join(format!("{name}.log")), log)?;
            }
        }
        self.runs.push(outcome);
        Ok(())
    }

    /// Writes both files.
    pub(crate) fn write(&mut self) -> Result<()> {
        self.runs.sort_by_key(|run| run.seed);
        std::fs::write(self.dir.join("report.json"), serde_json::to_string_pretty(self)?)?;
        std::fs::write(self.dir.join("report.md"), self.text())?;
        Ok(())
    }

    /// The runs that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter(|run| !run.ok)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.render(&mut text);
        text
    }

    fn render(&self, text: &mut String) -> std::fmt::Result {
        let (runs, failed) = (self.runs.len(), self.failed().count());
        writeln!(text, "# Chaos, {}\n", self.started_at)?;
        writeln!(
            text,
            "{} of {} runs passed, {failed} failed, in {} s.\n",
            runs - failed,
            self.wanted,
            self.duration_ms / 1000
        )?;
        let seeds = (
            self.runs.iter().map(|run| run.seed).min(),
            self.runs.iter().map(|run| run.seed).max(),
        );
        if let (Some(first), Some(last)) = seeds {
            writeln!(text, "- seeds: {first} to {last}")?;
        }
        writeln!(text, "- side by side: {}", self.lanes)?;
        writeln!(text, "- full disk: {}", self.full_disk)?;
        writeln!(text, "- clock skew: {}", self.clock_skew)?;
        let sum = |of: &dyn Fn(&Outcome) -> usize| self.runs.iter().map(of).sum::<usize>();
        writeln!(
            text,
            "- messages acknowledged: {}, sent again: {}",
            sum(&|run| run.messages.acknowledged),
            sum(&|run| run.messages.repeated)
        )?;
        writeln!(text, "- tool calls that arrived: {}", sum(&|run| run.calls))?;
        writeln!(text, "- late settles and leases refused: {}", sum(&|run| run.refused_late))?;
        writeln!(text, "- times a breaker opened: {}", sum(&|run| run.breakers_opened))?;
        writeln!(text, "- messages parked by one: {}", sum(&|run| run.parked))?;
        writeln!(text, "- attempts without artifacts: {}\n", sum(&|run| run.without_artifacts))?;

        table(
            text,
            "Faults injected",
            "fault",
            self.count(|run| run.faults.iter().map(|fault| (fault.kind.clone(), 1)).collect()),
        )?;
        table(
            text,
            "Messages",
            "outcome",
            self.count(|run| {
                run.outcomes.iter().map(|(name, count)| (name.clone(), *count)).collect()
            }),
        )?;
        table(
            text,
            "Answers to the sender",
            "answer",
            self.count(|run| {
                run.messages.answers.iter().map(|(name, count)| (name.clone(), *count)).collect()
            }),
        )?;
        table(
            text,
            "Checks",
            "passed",
            self.count(|run| {
                let passed = run.checks.iter().filter(|check| check.ok);
                passed.map(|check| (check.name.to_owned(), 1)).collect()
            }),
        )?;
        self.durations(text)?;
        for run in self.failed() {
            writeln!(text, "## Seed {} failed\n", run.seed)?;
            writeln!(text, "Again: `just chaos 1 {}`. Logs: `seed-{}/`.\n", run.seed, run.seed)?;
            if let Some(error) = &run.error {
                writeln!(text, "- {error}")?;
            }
            for check in run.checks.iter().filter(|check| !check.ok) {
                writeln!(text, "- **{}**", check.name)?;
                for problem in &check.problems {
                    writeln!(text, "  - {}", problem.replace('\n', "\n    "))?;
                }
            }
            for fault in &run.faults {
                writeln!(
                    text,
                    "- {} {} from {} to {} ms {}",
                    fault.kind,
                    fault.target,
                    fault.at_ms,
                    fault.until_ms,
                    fault.note.as_deref().unwrap_or_default()
                )?;
            }
            writeln!(text)?;
        }
        Ok(())
    }

    fn durations(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "## Durations in ms\n\n| phase | median | longest |\n|---|---|---|")?;
        let mut by_phase: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (phase, ms) in self.runs.iter().flat_map(|run| &run.durations_ms) {
            by_phase.entry(phase).or_default().push(*ms);
        }
        for (phase, mut all) in by_phase {
            all.sort_unstable();
            writeln!(text, "| {phase} | {} | {} |", all[all.len() / 2], all[all.len() - 1])?;
        }
        writeln!(text)
    }

    fn count(&self, of: impl Fn(&Outcome) -> Vec<(String, usize)>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (name, count) in self.runs.iter().flat_map(of) {
            *counts.entry(name).or_default() += count;
        }
        counts
    }
}

fn table(
    text: &mut String,
    title: &str,
    column: &str,
    counts: BTreeMap<String, usize>,
) -> std::fmt::Result {
    writeln!(text, "## {title}\n\n| {column} | count |\n|---|---|")?;
    for (name, count) in counts {
        writeln!(text, "| {name} | {count} |")?;
    }
    writeln!(text)
}
