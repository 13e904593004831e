//! What a run leaves behind: each figure of each round, and where it comes from.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::install::root;
use crate::measure::{median, quantile};
use crate::participant::{Lock, Measure, Participant};

/// One measurement.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) round: u32,
    pub(crate) row: &'static str,
    pub(crate) measure: &'static str,
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) latencies_ms: Vec<f64>,
}

/// What went wrong.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) participant: &'static str,
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) figures: Vec<Figure>,
    pub(crate) failed: Vec<Failed>,
}

/// How figures become one: rates by themselves, latencies by a quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Of {
    Rate,
    Quantile(f64),
}

impl Record {
    /// The value of each round, in order of rounds.
    pub(crate) fn rounds(&self, row: &str, measure: Measure, of: Of) -> BTreeMap<u32, f64> {
        let figures = self.figures.iter().filter(|f| f.row == row && f.measure == measure.name());
        figures
            .filter_map(|figure| {
                let value = match of {
                    Of::Rate => Some(figure.messages as f64 / figure.seconds),
                    Of::Quantile(share) => quantile(&figure.latencies_ms, share),
                };
                Some((figure.round, value?))
            })
            .collect()
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, row: &str, measure: Measure, of: Of) -> Option<f64> {
        median(&self.rounds(row, measure, of).into_values().collect::<Vec<_>>())
    }

    /// Writes everything to `path`.
    pub(crate) fn write(
        &self,
        path: &Path,
        about: &Value,
        participants: &[Participant],
    ) -> Result<()> {
        let participants: Vec<Value> = participants
            .iter()
            .map(|p| json!({"name": p.name, "version": version(p), "settings": p.settings, "less": p.less}))
            .collect();
        let all = json!({
            "about": about,
            "participants": participants,
            "failed": self.failed,
            "figures": self.figures,
        });
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What was measured of a participant: the version in its lock file, or this commit.
pub(crate) fn version(participant: &Participant) -> String {
    let Some((package, lock)) = participant.package else {
        return if participant.name == "cogo" { commit() } else { String::new() };
    };
    let found = match lock {
        Lock::Cargo => after(
            include_str!("../Cargo.lock"),
            &format!("name = \"{package}\"\nversion = \""),
            '"',
        ),
        Lock::Npm => after(include_str!("../package.json"), &format!("\"{package}\": \""), '"'),
        Lock::Pip => after(include_str!("../requirements.txt"), &format!("\n{package}=="), ' '),
    };
    found.unwrap_or("?").to_owned()
}

fn after<'a>(text: &'a str, begin: &str, end: char) -> Option<&'a str> {
    text.split_once(begin)?.1.split(end).next()
}

/// The commit, and whether anything was changed since.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_none_or(|changes| !changes.is_empty());
    if changed { format!("{commit} and changes") } else { commit }
}

/// The machine, as far as figures depend on it.
pub(crate) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let memory = read("/proc/meminfo");
    json!({
        "cores": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "cpu": after(&cpu, "model name\t: ", '\n'),
        "memory_kb": after(&memory, "MemTotal:", 'k').and_then(|kb| kb.trim().parse::<u64>().ok()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_at_start": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant;

    #[test]
    fn each_peer_has_a_version() {
        for participant in participant::all() {
            if participant.package.is_some() {
                let version = version(&participant);
                assert!(
                    version.starts_with(|c: char| c.is_ascii_digit()),
                    "{}: {version}",
                    participant.name
                );
            }
        }
    }

    #[test]
    fn a_median_goes_over_the_rounds() {
        let figure = |round, seconds| Figure {
            round,
            row: "COGO",
            measure: Measure::Drain.name(),
            messages: 100,
            seconds,
            latencies_ms: Vec::new(),
        };
        let record = Record {
            figures: vec![figure(1, 1.0), figure(2, 4.0), figure(3, 2.0)],
            failed: Vec::new(),
        };
        assert_eq!(record.median("COGO", Measure::Drain, Of::Rate), Some(50.0));
        assert_eq!(record.median("COGO", Measure::Single, Of::Rate), None);
        assert_eq!(record.median("pgmq", Measure::Drain, Of::Rate), None);
    }
}
