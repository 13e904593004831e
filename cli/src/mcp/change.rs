//! `cogo mcp add|remove|enable|disable`: changes of `configs/mcp.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cogo::error::chain;
use cogo_worker_mcp_gateway::config::edit::{Edit, EditError};
use cogo_worker_mcp_gateway::config::{Config, EnvValue, FILE, FromEnv, Tls, Toolset};
use serde_json::{Value, json};

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Output, note};
use crate::text::parse_duration;

/// What stands before the name of a variable.
const REFERENCE: &str = "from_env:";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo mcp add browser --url ws://localhost:3004
  cogo mcp add figma --url https://figma.example.com/mcp --header Authorization=from_env:FIGMA_AUTH
  cogo mcp add files --timeout 30s -- npx -y @modelcontextprotocol/server-filesystem /srv
  cogo mcp add search --env API_KEY=from_env:SEARCH_KEY --env LANG=C -- search-server --stdio

A running gateway on this machine takes it up by itself. Secrets are named and never written: the
variable must be set where the gateway runs.")]
pub(super) struct Add {
    /// Its name, by which calls address it
    name: String,
    /// Where it is: ws://, wss:// or, for streamable HTTP, http:// or https://
    #[arg(long, conflicts_with = "command")]
    url: Option<String>,
    /// A header for every request, from a variable of the gateway's environment
    #[arg(long = "header", value_name = "NAME=from_env:VARIABLE", value_parser = header)]
    headers: Vec<(String, FromEnv)>,
    /// A variable for the command, as it stands or from the gateway's environment
    #[arg(long = "env", value_name = "NAME=VALUE|NAME=from_env:VARIABLE", value_parser = variable)]
    env: Vec<(String, EnvValue)>,
    /// The directory in which the command runs
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A PEM file of the certificates to trust there, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long a call may take, such as 30s
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// How many calls it takes at once
    #[arg(long, value_name = "N")]
    max_in_flight: Option<usize>,
    /// The toolset that takes its calls while its circuit breaker is not closed
    #[arg(long, value_name = "NAME")]
    fallback: Option<String>,
    /// Add it without serving it yet
    #[arg(long)]
    disabled: bool,
    /// Put it in the place of one that is there
    #[arg(long)]
    replace: bool,
    /// The program that is the server, over its standard input and output, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The toolset
    name: String,
}

fn header(text: &str) -> Result<(String, FromEnv), String> {
    let (name, value) = split(text)?;
    let Some(variable) = value.strip_prefix(REFERENCE) else {
        // The value is not repeated: it is a secret, most likely.
        return Err(format!(
            "the value must not stand here, where the shell's history and the file keep it: put it into a variable of \
             the gateway's environment, and write {name}={REFERENCE}VARIABLE"
        ));
    };
    Ok((name, FromEnv { from_env: variable.to_owned() }))
}

fn variable(text: &str) -> Result<(String, EnvValue), String> {
    let (name, value) = split(text)?;
    let value = match value.strip_prefix(REFERENCE) {
        Some(variable) => EnvValue::FromEnv(FromEnv { from_env: variable.to_owned() }),
        None => EnvValue::Plain(value),
    };
    Ok((name, value))
}

fn split(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

impl Add {
    pub(super) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let (name, replace) = (self.name.clone(), self.replace);
        let toolset = self.toolset()?;
        if let Some((field, remedy)) = toolset.literal_secret() {
            return Err(Failed::usage(format!("{field}: {remedy}")).into());
        }
        let mut edit = begin(global)?;
        let was = edit.config().toolsets.contains_key(&name);
        edit.put(&name, &toolset, replace).map_err(|error| refused(&error))?;
        let unset = unset(&toolset);
        let saved = save(edit)?;
        for variable in &unset {
            note(&format!(
                "{variable} is not set here; it must be where the gateway runs, or in RemoteEnv (`cogo env set`), or calls of {name} fail."
            ));
        }
        let did = if was { "replaced" } else { "added" };
        saved.tell(output, &name, did, json!({"unset": unset}))
    }

    fn toolset(self) -> Result<Toolset> {
        let mut command = self.command.into_iter();
        let program = command.next();
        if self.url.is_none() && program.is_none() {
            let failed = Failed::usage("name the server: --url URL, or -- COMMAND ARGS…");
            return Err(failed.hint("See `cogo mcp add --help` for examples.").into());
        }
        let given = Toolset {
            url: self.url,
            headers: unique("--header", self.headers)?,
            command: program,
            args: command.collect(),
            env: unique("--env", self.env)?,
            cwd: self.cwd,
            tls: self.ca_file.map(|ca_file| Tls { ca_file, client_cert: None, client_key: None }),
            fallback: self.fallback,
            enabled: !self.disabled,
            call_timeout_ms: self
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            ..Toolset::default()
        };
        let max_in_flight = self.max_in_flight.unwrap_or(given.max_in_flight);
        Ok(Toolset { max_in_flight, ..given })
    }
}

fn unique<T>(flag: &str, given: Vec<(String, T)>) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for (name, value) in given {
        if found.insert(name.clone(), value).is_some() {
            return Err(Failed::usage(format!("{flag} {name}: is given twice")).into());
        }
    }
    Ok(found)
}

/// The variables that are referred to and not set here.
fn unset(toolset: &Toolset) -> Vec<String> {
    let names = toolset.references().map(str::to_owned);
    let mut names: Vec<_> = names.filter(|name| std::env::var_os(name).is_none()).collect();
    names.sort();
    names.dedup();
    names
}

impl Named {
    pub(super) fn remove(self, global: &Global, output: Output) -> Result<Exit> {
        let mut edit = begin(global)?;
        edit.remove(&self.name).map_err(|error| refused(&error))?;
        save(edit)?.tell(output, &self.name, "removed", json!({}))
    }

    pub(super) fn enable(self, global: &Global, output: Output, enabled: bool) -> Result<Exit> {
        let mut edit = begin(global)?;
        let changed = edit.enable(&self.name, enabled).map_err(|error| refused(&error))?;
        let did = match (enabled, changed) {
            (true, true) => "enabled",
            (false, true) => "disabled",
            (true, false) => "enabled already",
            (false, false) => "disabled already",
        };
        save(edit)?.tell(output, &self.name, did, json!({"changed": changed}))
    }
}

fn begin(global: &Global) -> Result<Edit> {
    let dir = global.config_dir()?.unwrap_or_else(|| PathBuf::from("configs"));
    Ok(Edit::begin(&dir).map_err(|error| refused(&error))?)
}

struct Saved {
    path: PathBuf,
    config: Config,
}

fn save(edit: Edit) -> Result<Saved> {
    let path = edit.path().to_owned();
    let config = edit.save().map_err(|error| refused(&error))?;
    Ok(Saved { path, config })
}

impl Saved {
    fn tell(&self, output: Output, name: &str, did: &str, more: Value) -> Result<Exit> {
        if output.json {
            let mut told = json!({
                "ok": true, "name": name, "did": did, "file": self.path,
                "toolset": self.config.toolsets.get(name),
            });
            if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
                told.extend(more);
            }
            output.value(&told)?;
        } else {
            let path = self.path.display();
            note(&format!("{name} is {did} in {path}. A running gateway takes it up by itself."));
        }
        Ok(Exit::Done)
    }
}

fn refused(error: &EditError) -> Failed {
    let text = chain(error).to_string();
    match error {
        EditError::Exists(name) => Failed::new(Exit::Refused, text)
            .hint(format!("Put another in its place with --replace, or `cogo mcp remove {name}`.")),
        EditError::Missing { .. } => Failed::new(Exit::NotFound, text),
        EditError::Busy(_) | EditError::Changed(_) => Failed::new(Exit::Refused, text),
        EditError::Config { path, .. } => Failed::usage(shown(path, &text)),
        _ => Failed::new(Exit::Failed, text),
    }
}

fn shown(path: &Path, text: &str) -> String {
    if text.contains(FILE) { text.to_owned() } else { format!("{}: {text}", path.display()) }
}
