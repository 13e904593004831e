//! What was measured, for people and for programs: `cost.json` and `cost.md` in the directory that
//! `COGO_COST_REPORT` names.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::budget::{Bound, Budgets, Measure, alone, rounded};

/// A number beside its budget. In a group's place, a text says why it was not measured.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    what: String,
    measured: f64,
    budget: Option<f64>,
    bound: Bound,
    holds: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    postgres: i32,
    budgets_set_with: i32,
    measured: BTreeMap<String, Row>,
    not_measured: BTreeMap<String, String>,
}

/// Adds a group to the report, if one is wanted. The caller has [`alone`].
pub(super) fn write(
    budgets: &Budgets,
    group: &str,
    measures: &[Measure],
    postgres: i32,
) -> Result<()> {
    change(|report| {
        (report.postgres, report.budgets_set_with) = (postgres, budgets.postgres);
        for measure in measures {
            let entry = budgets.budgets.get(&measure.key);
            let row = Row {
                what: measure.what.clone(),
                measured: rounded(measure.value),
                budget: entry.map(|entry| entry.budget),
                bound: entry.map_or(Bound::Most, |entry| entry.bound),
                holds: entry
                    .is_some_and(|entry| entry.holds(measure.value, postgres == budgets.postgres)),
                target: entry.and_then(|entry| entry.target),
            };
            report.measured.insert(measure.key.clone(), row);
        }
        report.not_measured.remove(group);
    })
}

/// Says that a group was not measured. Where all must be (`COGO_COST_STRICT`), that is a failure.
pub(super) fn not_measured(group: &str, why: &str) {
    assert!(env::var_os("COGO_COST_STRICT").is_none(), "{group} was not measured: {why}");
    let written = alone().and_then(|_lock| {
        change(|report| {
            report.not_measured.insert(group.to_owned(), why.to_owned());
        })
    });
    written.expect("the report can be written");
}

fn change(by: impl FnOnce(&mut Report)) -> Result<()> {
    let Some(dir) = env::var_os("COGO_COST_REPORT").map(PathBuf::from) else { return Ok(()) };
    fs::create_dir_all(&dir).with_context(|| format!("COGO_COST_REPORT: {}", dir.display()))?;
    let json = dir.join("cost.json");
    let mut report: Report = match fs::read_to_string(&json) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{}", json.display()))?,
        Err(_) => Report::default(),
    };
    by(&mut report);
    fs::write(&json, serde_json::to_string_pretty(&report)? + "\n")?;
    fs::write(dir.join("cost.md"), markdown(&report)?)?;
    Ok(())
}

fn markdown(report: &Report) -> Result<String> {
    let mut text =
        "# What was counted\n\n| | what | measured | budget | target |\n|---|---|---|---|---|\n"
            .to_owned();
    for (key, row) in &report.measured {
        let sign = match row.bound {
            Bound::Most => "≤",
            Bound::Least => "≥",
        };
        let limit = |limit: f64| format!("{sign} {limit}");
        let budget = row.budget.map_or_else(|| "none".to_owned(), limit);
        let over = if row.holds { "" } else { " **over**" };
        let target = row.target.map_or_else(String::new, |target| {
            let met = match row.bound {
                Bound::Most => row.measured <= target,
                Bound::Least => row.measured >= target,
            };
            format!("{}{}", limit(target), if met { "" } else { ", missed" })
        });
        writeln!(
            text,
            "| `{key}` | {} | {}{over} | {budget} | {target} |",
            row.what, row.measured
        )?;
    }
    for (group, why) in &report.not_measured {
        writeln!(text, "\n`{group}` was not measured: {why}")?;
    }
    Ok(text)
}
