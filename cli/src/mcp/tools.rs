//! `cogo mcp tools`: what the mesh offers.

use anyhow::Result;
use clap::Args;
use cogo_worker_mcp_gateway::catalogue::{Offer, Reader, Snapshot};
use serde::Serialize;

use crate::connect::Global;
use crate::exit::Exit;
use crate::mcp::{load, whose};
use crate::output::{Cell, Ink, Output, note};

/// List the tools that the mesh offers: those of all machines that have joined
#[derive(Debug, Args)]
pub(super) struct Tools {
    /// Only those of this toolset
    toolset: Option<String>,
    /// Whose; by default the key's tenant, or `default`
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: String,
    title: Option<&'a str>,
    held: bool,
    #[serde(flatten)]
    offer: &'a Offer,
}

impl Tools {
    pub(super) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let mesh = load(global)?.mesh;
        let bus = global.bus().await?;
        let tenant = whose(self.tenant, &bus)?;
        let read = Reader::default().read(&bus, &tenant, &mesh).await?;
        let listed = self::listed(&read.snapshot, self.toolset.as_deref());
        if output.json {
            output.value(&listed)?;
        } else if listed.is_empty() {
            note(
                "No machine offers a tool. `cogo worker mcp-gateway` runs one, and `cogo workers` lists who is here.",
            );
        } else {
            show(output, &listed)?;
        }
        Ok(Exit::Done)
    }
}

fn listed<'a>(snapshot: &'a Snapshot, toolset: Option<&str>) -> Vec<Listed<'a>> {
    let offered = snapshot.iter().map(|offer| (&**offer, false));
    let held = snapshot.held().iter().map(|held| (&held.offer, true));
    let mut listed: Vec<_> = offered
        .chain(held)
        .filter(|(offer, _)| toolset.is_none_or(|toolset| toolset == offer.toolset))
        .map(|(offer, held)| Listed { name: offer.name(), title: offer.title(), held, offer })
        .collect();
    listed.sort_by(|a, b| (&a.name, a.held).cmp(&(&b.name, b.held)));
    listed
}

fn show(output: Output, listed: &[Listed<'_>]) -> Result<()> {
    let row = |listed: &Listed<'_>| {
        let said = listed.title.or_else(|| listed.offer.definition["description"].as_str());
        vec![
            Cell::new(&listed.name, Ink::Name),
            match (listed.held, listed.offer.workers) {
                (true, _) => Cell::new("held", Ink::Bad),
                (false, 0) => Cell::new("away", Ink::Warn),
                (false, _) => Cell::new("offered", Ink::Good),
            },
            Cell::number(listed.offer.workers.to_string()),
            match listed.offer.read_only {
                true => Cell::new("yes", Ink::Good),
                false => Cell::new("no", Ink::Faint),
            },
            // The first line: some describe themselves at length.
            Cell::plain(said.and_then(|said| said.lines().next()).unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = listed.iter().map(row).collect();
    Ok(output.table(&["TOOL", "STATE", "WORKERS", "READ ONLY", "TITLE"], &rows)?)
}
