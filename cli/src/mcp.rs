//! `cogo mcp`: the MCP servers of `configs/mcp.json`, and calls of their tools through the bus.

mod change;
mod pins;
mod tools;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::message::{DEFAULT_TENANT, NAME_RULE, NewMessage, Status, Topic, valid_name};
use cogo::retry::Policies;
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::config::{Config, DEMO, FILE, Toolset};
use cogo_worker_mcp_gateway::handler::INTENT;
use cogo_worker_mcp_gateway::{Gateway, ROLE};
use serde::Serialize;
use serde_json::{Value, json};

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::message::{by_policy, read_json, wait_for};
use crate::output::{Cell, Ink, Output, note};
use crate::text::{error_text, parse_duration};
use crate::up_file::UpFile;

/// Look at MCP servers, and call their tools through the bus
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo mcp list
  cogo mcp add browser --url ws://localhost:3004
  cogo mcp disable browser
  cogo mcp ping figma
  cogo mcp tools
  cogo mcp pins
  cogo mcp call demo echo --params '{\"message\": \"hello\"}'
  cogo mcp call browser get_title --params - --timeout 2m < params.json
  cogo mcp call demo add --params '{\"a\": 1, \"b\": 2}' --json | jq .message.result

`list` and `ping` look from here at the servers of configs/mcp.json, and at the `demo` of a running
`cogo up`. `tools` are those of all machines that have joined, and `pins` what is approved of them.
`call` puts a message on the bus: any mcp-gateway worker that serves the toolset makes the call,
wherever it runs.")]
pub(crate) struct Mcp {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the toolsets of configs/mcp.json, and `demo` while `cogo up` runs
    List,
    /// Ask MCP servers for a sign of life and their tools; never runs a tool
    Ping {
        /// Which toolset; by default all that are enabled
        toolset: Option<String>,
    },
    /// Call a tool through the bus and wait for its result
    Call(Call),
    Tools(tools::Tools),
    Pins(pins::Pins),
    /// Add an MCP server to configs/mcp.json
    Add(Box<change::Add>),
    /// Take an MCP server out of configs/mcp.json
    Remove(change::Named),
    /// Serve a toolset that was disabled
    Enable(change::Named),
    /// Keep a toolset in configs/mcp.json without serving it; its calls wait, or go to other machines
    Disable(change::Named),
}

#[derive(Debug, Args)]
struct Call {
    /// The toolset: a name in configs/mcp.json of the worker, or `demo` of a running `cogo up`
    toolset: String,
    /// The tool
    tool: String,
    /// Its arguments, a JSON object; @FILE reads a file and - reads stdin
    #[arg(long, default_value = "{}", value_name = "JSON")]
    params: String,
    /// How long to wait for the result; the call itself goes on
    #[arg(long, value_parser = parse_duration, default_value = "60s", value_name = "DURATION")]
    timeout: Duration,
    /// The same key gives the same call, and its result
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Give up when it is not done after this long, such as 10m; by default what the retry policy says
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    deadline: Option<Duration>,
    /// Make the toolset's calls with the same key one at a time, in order
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// Only put the call on the bus, and print its id
    #[arg(long)]
    no_wait: bool,
}

impl Mcp {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::List => list(global, output).await,
            Command::Ping { toolset } => ping(toolset.as_deref(), global, output).await,
            Command::Call(call) => call.run(global, output).await,
            Command::Tools(tools) => tools.run(global, output).await,
            Command::Pins(pins) => pins.run(global, output).await,
            Command::Add(add) => add.run(global, output),
            Command::Remove(named) => named.remove(global, output),
            Command::Enable(named) => named.enable(global, output, true),
            Command::Disable(named) => named.enable(global, output, false),
        }
    }
}

/// The tenant that is meant: the one that is named, or else the key's own.
fn whose(tenant: Option<String>, bus: &Bus) -> Result<String> {
    let own = || bus.claims().and_then(|claims| claims.tenant);
    let tenant = tenant.or_else(own).unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    if valid_name(&tenant) {
        return Ok(tenant);
    }
    Err(Failed::usage(format!("--tenant {tenant:?}: must be {NAME_RULE}")).into())
}

/// `configs/mcp.json`; without one there are no toolsets.
pub(crate) fn load(global: &Global) -> Result<Config> {
    let source = global.config()?;
    let file = source.dir().map_or_else(|| PathBuf::from(FILE), |dir| dir.join(FILE));
    source.load().map_err(|error| Failed::usage(crate::config::explain(&file, &error)).into())
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    toolset: &'a str,
    transport: Value,
    endpoint: String,
    enabled: bool,
}

/// Where the `demo` of a `cogo up` in our data directory is, if one runs: no file names it.
async fn demo(global: &Global) -> Option<String> {
    UpFile::read(&global.data_dir().ok()?)?.demo().await
}

async fn list(global: &Global, output: Output) -> Result<Exit> {
    let mut config = load(global)?;
    if let Some(url) = demo(global).await {
        config.toolsets.insert(DEMO.to_owned(), Toolset::at(&url));
    }
    let listed: Vec<_> = config
        .toolsets
        .iter()
        .map(|(name, toolset)| Listed {
            toolset: name,
            transport: json!(toolset.transport()),
            endpoint: toolset.endpoint(),
            enabled: toolset.enabled,
        })
        .collect();
    if output.json {
        output.value(&listed)?;
    } else if listed.is_empty() {
        note(&format!("No toolset is configured; `cogo up` brings along `{DEMO}`."));
    } else {
        let rows: Vec<_> = listed
            .iter()
            .map(|listed| {
                vec![
                    Cell::new(listed.toolset, Ink::Name),
                    Cell::plain(listed.transport.as_str().unwrap_or_default()),
                    if listed.enabled {
                        Cell::new("yes", Ink::Good)
                    } else {
                        Cell::new("no", Ink::Faint)
                    },
                    Cell::plain(&listed.endpoint),
                ]
            })
            .collect();
        output.table(&["TOOLSET", "TRANSPORT", "ENABLED", "ENDPOINT"], &rows)?;
    }
    Ok(Exit::Done)
}

#[derive(Debug, Serialize)]
struct Pinged {
    toolset: String,
    ok: bool,
    server: Option<Value>,
    latency_ms: Option<u64>,
    tools: Vec<String>,
    error: Option<String>,
}

async fn ping(toolset: Option<&str>, global: &Global, output: Output) -> Result<Exit> {
    let mut config = load(global)?;
    if let Some(url) = demo(global).await {
        config.toolsets.insert(DEMO.to_owned(), Toolset::at(&url));
    }
    if let Some(name) = toolset {
        if !config.toolsets.contains_key(name) {
            let known = config.toolsets.keys().cloned().collect::<Vec<_>>().join(", ");
            let failed = Failed::new(Exit::NotFound, format!("there is no toolset {name:?}"));
            return Err(failed.hint(format!("Configured: {known}.")).into());
        }
        config.toolsets.retain(|known, _| known == name);
        for toolset in config.toolsets.values_mut() {
            toolset.enabled = true; // it was asked for by name
        }
    }
    let shutdown = Shutdown::new();
    let gateway = Gateway::start(config, None, &shutdown);
    let reports = gateway.toolsets().ping_all().await;
    gateway.shutdown().await;
    let pinged: Vec<_> = reports
        .into_iter()
        .map(|(toolset, report)| match report {
            Ok(report) => Pinged {
                toolset,
                ok: true,
                server: Some(json!(report.server)),
                latency_ms: Some(report.latency_ms),
                tools: report.tools,
                error: None,
            },
            Err(error) => Pinged {
                toolset,
                ok: false,
                server: None,
                latency_ms: None,
                tools: Vec::new(),
                error: Some(error.message),
            },
        })
        .collect();
    let all = pinged.iter().all(|pinged| pinged.ok);
    if output.json {
        output.value(&pinged)?;
    } else if pinged.is_empty() {
        note("No toolset is configured and enabled.");
    } else {
        let rows: Vec<_> = pinged
            .iter()
            .map(|pinged| {
                let (answer, ink) = if pinged.ok { ("yes", Ink::Good) } else { ("no", Ink::Bad) };
                let latency = pinged.latency_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
                let said = pinged.error.clone().unwrap_or_else(|| pinged.tools.join(", "));
                vec![
                    Cell::new(&pinged.toolset, Ink::Name),
                    Cell::new(answer, ink),
                    Cell::number(latency),
                    Cell::plain(said),
                ]
            })
            .collect();
        output.table(&["TOOLSET", "ANSWERS", "LATENCY", "TOOLS"], &rows)?;
    }
    Ok(if all { Exit::Done } else { Exit::Unavailable })
}

impl Call {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let params = read_json("params", &self.params)?;
        if !params.is_object() {
            return Err(Failed::usage("params: must be a JSON object").into());
        }
        let topic = Topic::new(ROLE.name, &self.toolset)
            .map_err(|_| Failed::usage(format!("toolset: {:?} is no name", self.toolset)))?;
        let policies: Policies = global.config()?.load()?;
        let key = format!("{INTENT}.{}.{}.0", self.toolset, self.tool);
        let payload = json!({"toolset": self.toolset, "tool": self.tool, "params": params});
        let message = NewMessage::new(&topic, INTENT, payload);
        let mut message = by_policy(message, &policies.resolve(&key), self.deadline);
        message.ordering_key = self.ordering_key;
        message.idempotency_key = self.idempotency_key;
        let bus = global.bus().await?;
        if let Some(tenant) = bus.claims().and_then(|claims| claims.tenant) {
            message.tenant = tenant;
        }
        let receipt = bus.publish(message).await?;
        if self.no_wait {
            bus.wake_others().await;
            if output.json {
                output.value(&receipt)?;
            } else {
                output.line(&receipt.id.to_string())?;
            }
            return Ok(Exit::Done);
        }
        note(&format!("message {}, trace {}", receipt.id, receipt.trace_id));
        let message = wait_for(&bus, receipt.id, self.timeout).await?;
        if output.json {
            output.value(&json!({"ok": message.status == Status::Done, "message": message}))?;
        } else if let Some(result) = &message.result {
            show(output, result)?;
        }
        match message.status {
            Status::Done => Ok(Exit::Done),
            Status::Failed | Status::Cancelled => {
                let why = message.error.as_ref().map(error_text).unwrap_or_default();
                let text = format!("message {} {}: {why}", message.id, message.status);
                let again = format!("Try it again with `cogo dlq requeue {}`.", message.id);
                Err(Failed::new(Exit::Failed, text).hint(again).into())
            }
            status => {
                let text = format!("message {} is still {status}", message.id);
                let hint = if message.attempts == 0 {
                    format!(
                        "Does any mcp-gateway worker serve {:?}? It goes on: `cogo get {} --wait`.",
                        self.toolset, message.id
                    )
                } else {
                    format!("It goes on: `cogo get {} --wait`.", message.id)
                };
                Err(Failed::new(Exit::Unfinished, text).hint(hint).into())
            }
        }
    }
}

/// A tool's result for a person: its texts as they are, everything else as JSON.
fn show(output: Output, result: &Value) -> Result<()> {
    let blocks = result.get("content").and_then(Value::as_array);
    let text = |block: &Value| block.get("text").and_then(Value::as_str).map(str::to_owned);
    let texts: Option<Vec<String>> = blocks.and_then(|blocks| blocks.iter().map(text).collect());
    match texts.filter(|texts| !texts.is_empty()) {
        Some(texts) => {
            for text in texts {
                output.line(&text)?;
            }
            Ok(())
        }
        None => {
            let shown = result.get("structuredContent").unwrap_or(result);
            Ok(output.line(&serde_json::to_string_pretty(shown)?)?)
        }
    }
}
