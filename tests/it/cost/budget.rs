//! What may be spent, and what is said when more is.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::server::Watched;

/// On which side of the budget the measured number has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    Most,
    Least,
}

/// A number that was counted now.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    pub(crate) key: String,
    pub(crate) what: String,
    pub(crate) value: f64,
    bound: Bound,
    /// How much room the first budget gets; the file's own holds afterwards.
    slack: f64,
    /// What issue 8 asks for, where it names a number.
    target: Option<f64>,
    why: &'static str,
    /// What was seen to cause it, if that is known.
    cause: String,
}

impl Measure {
    /// A number that should be small. Without slack: what is counted is the same each time.
    pub(crate) fn new(
        key: impl Into<String>,
        what: impl Into<String>,
        value: f64,
        why: &'static str,
    ) -> Self {
        let (key, what) = (key.into(), what.into());
        Self {
            key,
            what,
            value,
            bound: Bound::Most,
            slack: 1.0,
            target: None,
            why,
            cause: String::new(),
        }
    }

    pub(crate) fn slack(self, slack: f64) -> Self {
        Self { slack, ..self }
    }

    pub(crate) fn target(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Tells what is behind the number, should it be too large.
    pub(crate) fn because(self, cause: String) -> Self {
        Self { cause, ..self }
    }

    /// A number that should be large.
    pub(crate) fn at_least(self) -> Self {
        Self { bound: Bound::Least, ..self }
    }
}

/// One line of the budgets' file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) budget: f64,
    /// What was measured when the budget was set.
    pub(crate) measured: f64,
    /// The room between the two.
    pub(crate) slack: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<f64>,
    pub(crate) why: String,
}

impl Entry {
    /// Whether `value` keeps to it, counted by the server that it was set with, or by one of another version.
    pub(crate) fn holds(&self, value: f64, same_server: bool) -> bool {
        // What was rounded when it was written is not to fail by that.
        let mut grain = 1e-6 * self.budget.abs().max(1.0);
        if !same_server && self.slack > 1.0 {
            grain += OTHER_SERVER * self.budget.abs();
        }
        match self.bound {
            Bound::Most => value <= self.budget + grain,
            Bound::Least => value >= self.budget - grain,
        }
    }

    /// The entry for what was measured; what people decided about the last one stays.
    fn renewed(measure: &Measure, last: Option<&Self>) -> Self {
        let slack = last.map_or(measure.slack, |last| last.slack);
        let budget = match measure.bound {
            Bound::Most => ((measure.value * slack * 1000.0 - 1e-6).ceil() / 1000.0).max(0.0) + 0.0,
            Bound::Least => (measure.value / slack * 1000.0 + 1e-6).floor() / 1000.0,
        };
        Self {
            what: measure.what.clone(),
            bound: measure.bound,
            budget,
            measured: rounded(measure.value),
            slack,
            target: measure.target.or(last.and_then(|last| last.target)),
            why: last.map_or_else(|| measure.why.to_owned(), |last| last.why.clone()),
        }
    }
}

/// To thousandths.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Another version of Postgres lays out its pages and its log in another way. Numbers that are the same each time have
/// no such room: statements are ours.
const OTHER_SERVER: f64 = 0.1;

/// All budgets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// The version of Postgres that they were set with.
    pub(crate) postgres: i32,
    pub(crate) budgets: BTreeMap<String, Entry>,
}

impl Budgets {
    /// Of the file beside this one.
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// A line an entry, so that a change shows as the lines that it changes.
    pub(crate) fn text(&self) -> Result<String> {
        let mut text = format!("{{\n\"postgres\": {},\n\"budgets\": {{", self.postgres);
        for (n, (key, entry)) in self.budgets.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let (key, entry) = (serde_json::to_string(key)?, serde_json::to_string(entry)?);
            write!(text, "{comma}\n{key}: {entry}")?;
        }
        text.push_str("\n}\n}\n");
        Ok(text)
    }

    /// What is wrong with `measures`, which are all that there is below `group`.
    pub(crate) fn violations(
        &self,
        group: &str,
        measures: &[Measure],
        postgres: i32,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for measure in measures {
            assert!(is_of(group, &measure.key), "{} is not of {group}", measure.key);
            let (key, value) = (&measure.key, rounded(measure.value));
            let Some(entry) = self.budgets.get(key) else {
                found.push(format!(
                    "{key}: {} is {value}, and has no budget. Set one: {COMMAND}",
                    measure.what
                ));
                continue;
            };
            if !entry.holds(measure.value, postgres == self.postgres) {
                let bound = match entry.bound {
                    Bound::Most => "at most",
                    Bound::Least => "at least",
                };
                let cause = match measure.cause.as_str() {
                    "" => String::new(),
                    cause => format!(" Seen: {cause}."),
                };
                found.push(format!(
                    "{key}: {} is {value}; the budget is {bound} {} ({} when it was set). It is there because: {}.{cause} \
                     Mend what made it worse; or, where that is worth it, set the budget anew ({COMMAND}) and \
                     say in `why` what it buys.",
                    entry.what, entry.budget, entry.measured, entry.why
                ));
            }
        }
        for key in self.budgets.keys().filter(|key| is_of(group, key)) {
            if !measures.iter().any(|measure| measure.key == *key) {
                found.push(format!(
                    "{key}: has a budget, and is not measured any more. Remove it: {COMMAND}"
                ));
            }
        }
        found
    }

    /// Sets the budgets of `group` by what was measured.
    pub(crate) fn renew(&mut self, group: &str, measures: &[Measure]) {
        let last = self.budgets.clone();
        self.budgets.retain(|key, _| !is_of(group, key));
        for measure in measures {
            let entry = Entry::renewed(measure, last.get(&measure.key));
            self.budgets.insert(measure.key.clone(), entry);
        }
    }
}

/// How budgets are set.
pub(crate) const COMMAND: &str =
    "COGO_REGENERATE=1 cargo test -p cogo-bus --test it cost::, on tests/it/cost/budgets.json";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cost/budgets.json")
}

fn is_of(group: &str, key: &str) -> bool {
    key.strip_prefix(group).is_some_and(|rest| rest.starts_with('.'))
}

/// Held by whoever writes a file that other tests write too, in whichever processes they are.
pub(super) fn alone() -> Result<File> {
    let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cost.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
    file.lock()?;
    Ok(file)
}

/// Fails where a budget of `group` does not hold; with `COGO_REGENERATE`, sets them.
pub(crate) fn hold(server: &Watched, group: &str, measures: &[Measure]) {
    if let Err(error) = try_hold(group, measures, server.postgres) {
        panic!("{error:#}");
    }
}

fn try_hold(group: &str, measures: &[Measure], postgres: i32) -> Result<()> {
    let lock = alone()?;
    if env::var_os("COGO_REGENERATE").is_some() {
        let mut budgets = if path().exists() { Budgets::read()? } else { Budgets::default() };
        budgets.postgres = postgres;
        budgets.renew(group, measures);
        // By rename: a test that only reads takes no part in the locking.
        let new = path().with_extension("json.new");
        fs::write(&new, budgets.text()?)?;
        fs::rename(new, path())?;
    }
    let budgets = Budgets::read()?;
    super::report::write(&budgets, group, measures, postgres)?;
    drop(lock);
    let found = budgets.violations(group, measures, postgres);
    anyhow::ensure!(found.is_empty(), "over budget:\n\n{}\n", found.join("\n\n"));
    Ok(())
}
