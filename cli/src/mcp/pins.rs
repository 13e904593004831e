//! `cogo mcp pins`: which definitions of tools are approved, and what has changed since.

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::bus::offer::NewPin;
use cogo_worker_mcp_gateway::catalogue::pins::{self, PinView, State};
use cogo_worker_mcp_gateway::config::{Mesh, Pinning};
use serde_json::json;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::mcp::{load, whose};
use crate::output::{Cell, Ink, Output, note, printable};
use crate::text::moment;

/// Look at approved tools and at what has changed since, and approve or revoke
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo mcp pins
  cogo mcp pins approve browser__click
  cogo mcp pins approve --all
  cogo mcp pins revoke browser__click
  cogo mcp pins --json | jq '.[] | select(.state == \"changed\") | .diff'

With \"pinning\": \"first_use\" in the section `mesh` of the hub's configs/mcp.json a tool stays as it was first seen, and
with \"strict\" none is offered before it is approved. What differs from what was approved is held: not listed, and
not called. `changed` is shown with what has changed since it was approved; read it before you approve it, since a
description is what a model goes by.")]
pub(super) struct Pins {
    #[command(subcommand)]
    action: Option<Action>,
    /// Whose; by default the key's tenant, or `default`
    #[arg(long, global = true)]
    tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Approve tools as some machine offers them now
    Approve {
        /// The tools, as `<toolset>__<tool>`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        tools: Vec<String>,
        /// All that is held
        #[arg(long)]
        all: bool,
        /// Which definition, where machines differ: the beginning of its hash
        #[arg(long, conflicts_with = "all")]
        hash: Option<String>,
    },
    /// Revoke what was approved: such tools are held until they are approved again
    Revoke {
        /// The tools, as `<toolset>__<tool>`
        #[arg(required = true)]
        tools: Vec<String>,
    },
}

impl Pins {
    pub(super) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let mesh = load(global)?.mesh;
        let bus = global.bus().await?;
        let tenant = whose(self.tenant, &bus)?;
        let views = pins::read(&bus, &tenant, &mesh).await?;
        let refuse = |why: String| Failed::new(Exit::NotFound, why);
        match self.action {
            None => list(&views, &mesh, output),
            Some(Action::Approve { tools, hash, .. }) => {
                let chosen = pins::to_approve(&views, &tools, hash.as_deref()).map_err(refuse)?;
                change(&bus, &tenant, &chosen, "approved", output).await
            }
            Some(Action::Revoke { tools }) => {
                let chosen = pins::to_revoke(&views, &tools).map_err(refuse)?;
                change(&bus, &tenant, &chosen, "revoked", output).await
            }
        }
    }
}

async fn change(
    bus: &Bus,
    tenant: &str,
    chosen: &[NewPin],
    what: &str,
    output: Output,
) -> Result<Exit> {
    let changed = bus.pin(tenant, chosen, Some("cli")).await?;
    bus.wake_others().await;
    if output.json {
        output.value(&json!({"changed": changed, "pins": chosen}))?;
    } else if chosen.is_empty() {
        note("Nothing is held.");
    } else {
        for pin in chosen {
            note(&format!("{}__{} is {what}.", printable(&pin.toolset), printable(&pin.tool)));
        }
    }
    Ok(Exit::Done)
}

fn list(views: &[PinView], mesh: &Mesh, output: Output) -> Result<Exit> {
    if output.json {
        output.value(&views)?;
        return Ok(Exit::Done);
    }
    if views.is_empty() {
        note("No machine offers a tool, and nothing was ever approved.");
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = views.iter().map(row).collect();
    output.table(&["TOOL", "STATE", "HASH", "WORKERS", "SINCE", "BY"], &rows)?;
    for view in views {
        if let Some(diff) = &view.diff {
            show_diff(view, diff, output)?;
        }
    }
    if mesh.pinning == Pinning::Off {
        note(
            "Pinning is off in the configs/mcp.json that is read here. Where it is off at the hub as well, nothing is held.",
        );
    }
    Ok(Exit::Done)
}

fn row(view: &PinView) -> Vec<Cell> {
    let ink = match view.state {
        State::Approved => Ink::Good,
        State::Changed => Ink::Bad,
        State::New | State::Revoked => Ink::Warn,
    };
    let hash: String = view.hash.as_deref().unwrap_or_default().chars().take(12).collect();
    vec![
        Cell::new(&view.name, Ink::Name),
        Cell::new(view.state.as_str(), ink),
        Cell::new(hash, Ink::Faint),
        Cell::number(view.workers.to_string()),
        Cell::new(view.at.map(moment).unwrap_or_default(), Ink::Faint),
        Cell::plain(view.by.as_deref().unwrap_or_default()),
    ]
}

fn show_diff(view: &PinView, diff: &str, output: Output) -> Result<()> {
    output.line("")?;
    let machines = view.machines.join(", ");
    let heading = format!("{}, as {machines} has it:", view.name);
    output.line(&output.paint(Ink::Strong, &printable(&heading)))?;
    for line in diff.lines() {
        let ink = match line.as_bytes().first() {
            Some(b'+') => Ink::Good,
            Some(b'-') => Ink::Bad,
            Some(b'@') => Ink::Faint,
            _ => Ink::Plain,
        };
        // Whoever describes a tool must not draw on this terminal.
        output.line(&output.paint(ink, &format!("  {}", printable(line))))?;
    }
    Ok(())
}
