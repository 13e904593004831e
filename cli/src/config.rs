//! `cogo config`: whether the configuration is good, and what it means.

use std::error::Error;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::config::{File, Source};
use cogo::error::chain;
use cogo::retry::Policies;
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
COGO_WORKER_CONCURRENCY), then flags. Of retry policies the longest dotted prefix of the key wins,
field by field: mcp.call.browser.get_title, mcp.call.browser, mcp.call, mcp, default.")]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every file and variable, and tell all that is wrong
    Check {
        /// Also show the retry policy for this key, such as mcp.call.figma
        #[arg(long)]
        key: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    state: State,
    error: Option<String>,
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
        let mut checked = vec![
            check::<Policies>(&source),
            check::<cogo::config::Worker>(&source),
            check::<cogo::hub::Options>(&source),
            check::<cogo::bus::Limits>(&source),
            check_mcp(global, &source),
        ];
        checked.extend(unknown(&source, &checked));
        let bad = checked.iter().any(|checked| checked.error.is_some());
        let policy = match key {
            Some(key) if !bad => Some((key.clone(), source.load::<Policies>()?.resolve(&key))),
            _ => None,
        };
        if output.json {
            let policy = policy.as_ref().map(|(_, policy)| policy);
            output.value(&serde_json::json!({"ok": !bad, "files": checked, "policy": policy}))?;
        } else {
            show(output, &checked)?;
            if let Some((key, policy)) = policy {
                output.line("")?;
                output.line(&format!("{} {key}", output.paint(Ink::Faint, "policy")))?;
                output.line(&serde_json::to_string_pretty(&policy)?)?;
            }
        }
        Ok(if bad { Exit::Usage } else { Exit::Done })
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
