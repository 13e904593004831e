//! `cogo config`: whether the configuration is good, and what it means.

use std::error::Error;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::breaker;
use cogo::config::{File, Source};
use cogo::error::chain;
use cogo::policy::{ErrorClass, Remedy};
use cogo::retry;
use cogo_worker_mcp_gateway::config::FILE as MCP_FILE;
use serde::Serialize;

use crate::connect::Global;
use crate::exit::Exit;
use crate::mcp;
use crate::output::{Cell, Ink, Output, note};

/// Check the configuration, and show what it means
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo config check
  cogo config check --key mcp.call.browser.get_title
  cogo config check --config-dir /etc/cogo --json

Values come from defaults, then the files of --config-dir, then COGO_* variables (such as
COGO_WORKER_CONCURRENCY), then flags. Of the policies the longest dotted prefix of the key wins,
field by field: mcp.call.browser.get_title, mcp.call.browser, mcp.call, mcp, default.")]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every file and variable, and tell all that is wrong
    Check {
        /// Also show the policies for this key, such as mcp.call.figma
        #[arg(long)]
        key: Option<String>,
    },
}

/// What is to be said of one file.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) file: PathBuf,
    state: State,
    /// What is wrong, with the file, the line and the field.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    /// Not there; the defaults hold.
    Missing,
    Bad,
    /// Nobody reads it.
    Unknown,
}

impl Config {
    pub(crate) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let Command::Check { key } = self.command;
        let source = global.config()?;
        let checked = check_all(global)?;
        let bad = checked.iter().any(|checked| checked.error.is_some());
        let meant = match key {
            Some(key) if !bad => Some(Meant::of(key, &source)?),
            _ => None,
        };
        if output.json {
            let mut told = serde_json::json!({"ok": !bad, "files": checked});
            if let Some(meant) = &meant {
                told["policy"] = serde_json::json!(meant.retry);
                told["circuit_breaker"] = serde_json::json!(meant.breaker);
                told["failures"] = serde_json::json!(meant.failures());
            }
            output.value(&told)?;
        } else {
            show(output, &checked)?;
            if let Some(meant) = meant {
                meant.show(output)?;
            }
        }
        Ok(if bad { Exit::Usage } else { Exit::Done })
    }
}

/// What a failure of a class leads to.
#[derive(Debug, Serialize)]
struct Failure {
    class: ErrorClass,
    then: Remedy,
    advice: &'static str,
}

/// What the files mean for one key.
struct Meant {
    key: String,
    retry: retry::Policy,
    breaker: breaker::Policy,
}

impl Meant {
    fn of(key: String, source: &Source) -> Result<Self> {
        let retry = source.load::<retry::Policies>()?.resolve(&key);
        let breaker = source.load::<breaker::Policies>()?.resolve(&key);
        Ok(Self { key, retry, breaker })
    }

    fn show(&self, output: Output) -> Result<()> {
        let retry = serde_json::to_string_pretty(&self.retry)?;
        let breaker = serde_json::to_string_pretty(&self.breaker)?;
        for (title, policy) in [("retry policy", retry), ("circuit breaker", breaker)] {
            output.line("")?;
            output.line(&format!("{} {}", output.paint(Ink::Faint, title), self.key))?;
            output.line(&policy)?;
        }
        let rows: Vec<_> = self
            .failures()
            .iter()
            .map(|failure| {
                let (then, ink) = match failure.then {
                    Remedy::Retry => ("tried again", Ink::Good),
                    Remedy::DeadLetter => ("dead letter", Ink::Warn),
                    Remedy::Person => ("needs a person", Ink::Bad),
                };
                let class = Cell::plain(failure.class.as_str());
                vec![class, Cell::new(then, ink), Cell::plain(failure.advice)]
            })
            .collect();
        output.line("")?;
        output.table(&["FAILURE", "THEN", "WHAT TO DO ABOUT A DEAD LETTER"], &rows)?;
        Ok(())
    }

    fn failures(&self) -> Vec<Failure> {
        let failure = |class: ErrorClass| Failure {
            class,
            then: self.retry.remedy(class),
            advice: class.treatment().advice,
        };
        ErrorClass::ALL.into_iter().map(failure).collect()
    }
}

fn show(output: Output, checked: &[Checked]) -> Result<()> {
    let rows: Vec<_> = checked
        .iter()
        .map(|checked| {
            let (state, ink) = match checked.state {
                State::Good => ("good", Ink::Good),
                State::Missing => ("defaults", Ink::Faint),
                State::Bad => ("bad", Ink::Bad),
                State::Unknown => ("unknown", Ink::Bad),
            };
            vec![Cell::plain(checked.file.display().to_string()), Cell::new(state, ink)]
        })
        .collect();
    output.table(&["FILE", "STATE"], &rows)?;
    for error in checked.iter().filter_map(|checked| checked.error.as_ref()) {
        note(error);
    }
    Ok(())
}

/// Checks every file and variable, and what else lies there.
pub(crate) fn check_all(global: &Global) -> Result<Vec<Checked>> {
    let source = global.config()?;
    let mut checked = vec![
        check::<retry::Policies>(&source),
        check::<breaker::Policies>(&source),
        check::<cogo::config::Worker>(&source),
        check::<cogo::options::Options>(&source),
        #[cfg(feature = "full")]
        check::<cogo::hub::Policies>(&source),
        check::<cogo::bus::Limits>(&source),
        check_mcp(global, &source),
    ];
    checked.extend(unknown(&source, &checked));
    Ok(checked)
}

fn check<T: File>(source: &Source) -> Checked {
    let file = source.dir().map_or_else(|| PathBuf::from(T::NAME), |dir| dir.join(T::NAME));
    let error = source.load::<T>().err().map(|error| chain(&error).to_string());
    verdict(file, error)
}

fn check_mcp(global: &Global, source: &Source) -> Checked {
    let file = source.dir().map_or_else(|| PathBuf::from(MCP_FILE), |dir| dir.join(MCP_FILE));
    let error = mcp::load(global).err().map(|error| format!("{error:#}"));
    verdict(file, error)
}

fn verdict(file: PathBuf, error: Option<String>) -> Checked {
    let state = match &error {
        Some(_) => State::Bad,
        None if file.exists() => State::Good,
        None => State::Missing,
    };
    Checked { file, state, error }
}

/// JSON files that nobody reads: most likely a name that was mistyped.
fn unknown(source: &Source, known: &[Checked]) -> Vec<Checked> {
    let entries = source.dir().and_then(|dir| std::fs::read_dir(dir).ok());
    let mut unknown: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| !known.iter().any(|known| known.file == *path))
        .map(|file| {
            let error = format!("{}: is no configuration file that anything reads", file.display());
            Checked { file, state: State::Unknown, error: Some(error) }
        })
        .collect();
    unknown.sort_by(|one, other| one.file.cmp(&other.file));
    unknown
}

/// An error of a configuration file with the file's name before it, unless it is there already.
pub(crate) fn explain(file: &Path, error: &(dyn Error + 'static)) -> String {
    let (file, text) = (file.display().to_string(), chain(error).to_string());
    if text.contains(&file) { text } else { format!("{file}: {text}") }
}
