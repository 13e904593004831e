//! `cogo limits`: how much may wait, and how much does.

use anyhow::Result;
use clap::Args;

use crate::connect::Global;
use crate::exit::Exit;
use crate::output::{Cell, Ink, Output, note};

/// Show how much may wait by tenant and topic, and how much does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo limits
  cogo limits --json | jq '.[] | select(.waiting >= .max_queued)'

They are set by configs/limits.json of a hub, for everybody on the bus. What would go over a limit is
refused (429 with Retry-After; exit code 5), and nothing of it is written. `*` holds for each tenant or
topic that is not named. The weight is a tenant's share of workers that serve all tenants.")]
pub(crate) struct Limits {}

impl Limits {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let limits = global.bus().await?.limits().await?;
        if output.json {
            output.value(&limits)?;
            return Ok(Exit::Done);
        }
        if limits.is_empty() {
            note("Nothing is limited; a hub with a configs/limits.json sets limits.");
            return Ok(Exit::Done);
        }
        let rows: Vec<_> = limits
            .iter()
            .map(|limit| {
                let full = limit.max_queued.zip(limit.waiting).is_some_and(|(max, n)| n >= max);
                let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
                let ink = if full { Ink::Bad } else { Ink::Plain };
                let weight = match limit.kind.as_str() {
                    "tenant" => limit.weight.to_string(),
                    _ => String::new(),
                };
                vec![
                    Cell::plain(&limit.kind),
                    Cell::new(&limit.name, Ink::Name),
                    Cell::new(number(limit.waiting), ink).right(),
                    Cell::number(number(limit.max_queued)),
                    Cell::number(weight),
                ]
            })
            .collect();
        output.table(&["KIND", "NAME", "WAITING", "AT MOST", "WEIGHT"], &rows)?;
        Ok(Exit::Done)
    }
}
