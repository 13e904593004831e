//! `cogo circuit`: the circuit breakers of the fleet.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::breaker::{Id, State};
use cogo::bus::circuit::{Circuit as Row, CircuitAction};
use cogo::message::{DEFAULT_TENANT, NAME_RULE, valid_name};

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note};
use crate::text::{millis, moment, parse_duration};

/// Look after circuit breakers: what is sick is left alone
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo circuit list
  cogo circuit open mcp.call.figma.export.0 --for 10m --reason 'figma is down'
  cogo circuit close mcp.call.figma.export.0
  cogo circuit reset mcp.call.figma.export.0

A breaker opens when too many calls of its key fail or are slow (configs/circuit_breaker.json), for all workers
at once. While it is open its messages are parked and keep their attempts; or they go to the toolset's fallback.
After open_ms one worker tests the water; when that goes well the breaker closes, and what was parked goes on by
itself. Opened by hand without --for it stays open until it is closed by hand. Keys are exact; a prefix opens nothing.")]
pub(crate) struct Circuit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List breakers that have ever opened, those that are not closed first
    List {
        /// Only those of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Only those that are not closed
        #[arg(long)]
        open: bool,
    },
    /// Open a breaker: its messages are parked
    Open {
        #[command(flatten)]
        target: Target,
        /// Only for so long, such as 10m; then one worker tests the water
        #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION")]
        period: Option<Duration>,
    },
    /// Close a breaker: what was parked goes on
    Close(Target),
    /// Close a breaker, and have every worker forget what it counted
    Reset(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// The key, such as mcp.call.browser.get_title.0; `cogo circuit list` has those that have ever opened
    key: String,
    /// Whose messages it is for
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// Why, for the log
    #[arg(long)]
    reason: Option<String>,
}

impl Circuit {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::List { tenant, open } => list(tenant, open, global, output).await,
            Command::Open { target, period } => {
                if period.is_some_and(|period| period.is_zero()) {
                    return Err(Failed::usage("--for: must be longer than nothing").into());
                }
                target.set(CircuitAction::Open(period), global, output).await
            }
            Command::Close(target) => target.set(CircuitAction::Close, global, output).await,
            Command::Reset(target) => target.set(CircuitAction::Reset, global, output).await,
        }
    }
}

async fn list(tenant: Option<String>, open: bool, global: &Global, output: Output) -> Result<Exit> {
    if let Some(tenant) = &tenant {
        check_tenant(tenant)?;
    }
    let bus = global.bus().await?;
    let tenant = tenant.or_else(|| bus.claims().and_then(|claims| claims.tenant));
    let mut circuits = bus.circuits(tenant.as_deref().unwrap_or("*")).await?;
    circuits.retain(|circuit| !open || circuit.state != State::Closed);
    if output.json {
        output.value(&circuits)?;
    } else if circuits.is_empty() {
        note(if open { "All breakers are closed." } else { "No breaker has ever opened." });
    } else {
        show(output, &circuits)?;
    }
    Ok(Exit::Done)
}

fn show(output: Output, circuits: &[Row]) -> Result<()> {
    let several = circuits.iter().any(|circuit| circuit.tenant != DEFAULT_TENANT);
    let rows: Vec<_> = circuits
        .iter()
        .map(|circuit| {
            let mut row = vec![Cell::new(&circuit.key, Ink::Name), state(circuit)];
            if several {
                row.insert(0, Cell::plain(&circuit.tenant));
            }
            row.push(Cell::plain(next(circuit)));
            row.push(Cell::new(moment(circuit.updated_at), Ink::Faint));
            row.push(Cell::plain(why(circuit)));
            row
        })
        .collect();
    let mut heading = vec!["KEY", "STATE", "NEXT", "SINCE", "WHY"];
    if several {
        heading.insert(0, "TENANT");
    }
    output.table(&heading, &rows)?;
    Ok(())
}

fn state(circuit: &Row) -> Cell {
    match (circuit.state, circuit.forced) {
        (State::Closed, _) => Cell::new("closed", Ink::Good),
        (State::Open, false) => Cell::new("open", Ink::Bad),
        (State::Open, true) => Cell::new("open, by hand", Ink::Bad),
        (State::HalfOpen, _) => Cell::new("half open", Ink::Warn),
    }
}

fn next(circuit: &Row) -> String {
    match (circuit.state, circuit.open_for_ms) {
        (State::Closed, _) => String::new(),
        (State::Open, None) => "until it is closed".to_owned(),
        (State::Open, Some(0)) => "a probe, with the next message".to_owned(),
        (State::Open, Some(ms)) => format!("a probe in {}", millis(ms)),
        (State::HalfOpen, _) => match &circuit.prober {
            Some(prober) => format!("{prober} probes"),
            None => "a probe, with the next message".to_owned(),
        },
    }
}

fn why(circuit: &Row) -> String {
    let reason = circuit.reason.clone().unwrap_or_default();
    let number = |name: &str| circuit.evidence.get(name).and_then(serde_json::Value::as_f64);
    match (circuit.state, number("failure_rate"), number("slow_rate"), number("calls")) {
        (State::Open, Some(failed), Some(slow), Some(calls)) => format!(
            "{reason}: of {calls} calls {:.0} % failed, {:.0} % were slow",
            failed * 100.0,
            slow * 100.0
        ),
        _ => reason,
    }
}

impl Target {
    async fn set(self, action: CircuitAction, global: &Global, output: Output) -> Result<Exit> {
        check_tenant(&self.tenant)?;
        let bus = global.bus().await?;
        let id = Id::new(self.tenant, self.key);
        let before = bus.circuits(&id.tenant).await?;
        if !before.iter().any(|circuit| circuit.key == id.key) {
            // A name that was mistyped opens a breaker that no call ever meets.
            note(
                "No breaker of this key has opened before. Keys are exact: <intent>.<service>, and for tools",
            );
            note("mcp.call.<toolset>.<tool>.<shard>. A prefix opens nothing.");
        }
        let circuit = bus.circuit_set(&id, action, Some("cli"), self.reason.as_deref()).await?;
        bus.wake_others().await;
        if output.json {
            output.value(&circuit)?;
        } else {
            let state = match circuit.state {
                State::Open => "open",
                State::HalfOpen => "half open",
                State::Closed => "closed",
            };
            note(&format!("{} is {state}.", circuit.key));
        }
        Ok(Exit::Done)
    }
}

fn check_tenant(tenant: &str) -> Result<()> {
    if valid_name(tenant) {
        return Ok(());
    }
    Err(Failed::usage(format!("--tenant {tenant:?}: must be {NAME_RULE}")).into())
}
