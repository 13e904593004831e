//! A report in Markdown, for the page of a CI job.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::Report;
use super::{Outcome, Verdict};

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let verdict = match report.verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Skipped => "skipped",
    };
    let commit = report
        .build
        .commit
        .as_deref()
        .map(|commit| format!(", commit {commit}"))
        .unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "## {} {verdict}\n", report.name);
    let _ = writeln!(out, "cogo {}{commit}, {}\n", report.build.version, seconds(report.took));
    let _ = writeln!(out, "| stage | outcome | took | |\n|---|---|---:|---|");
    for stage in &report.stages {
        let step = stage
            .failed_step
            .as_deref()
            .map(|step| format!("**{}**: ", plain(step)))
            .unwrap_or_default();
        let (word, text) = (stage.outcome.word(), plain(stage.outcome.text()));
        let _ =
            writeln!(out, "| {} | {word} | {} | {step}{text} |", stage.name, seconds(stage.took));
    }
    for stage in &report.stages {
        if let Outcome::Failed { remedy: Some(remedy), .. } = &stage.outcome {
            let _ = writeln!(out, "\n**{}**: {}", stage.name, plain(remedy));
        }
    }
    for stage in report.stages.iter().filter(|stage| !stage.steps.is_empty()) {
        let _ = writeln!(out, "\n<details><summary>{}</summary>\n", stage.name);
        let _ = writeln!(out, "| step | outcome | took | |\n|---|---|---:|---|");
        for step in &stage.steps {
            let (name, word, text) =
                (plain(&step.name), step.outcome.word(), plain(step.outcome.text()));
            let _ = writeln!(out, "| {name} | {word} | {} | {text} |", seconds(step.took));
        }
        let _ = writeln!(out, "\n</details>");
    }
    out
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// A text that stays in its cell and is nothing but text: what failed may come from anywhere.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '#' | '!' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
    out
}
