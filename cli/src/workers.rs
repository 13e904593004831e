//! `cogo workers`: who works, where, on what.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use cogo::bus::WorkerRow;
use cogo::message::{NAME_RULE, valid_name};

use crate::connect::Global;
use crate::exit::Exit;
use crate::output::{Cell, Ink, Output, note};

/// How long a worker may be unseen before it is called silent, if it did not say so itself: workers show
/// themselves every ten seconds.
const SILENT_AFTER: TimeDelta = TimeDelta::seconds(35);
/// How long one that went away is listed without --all.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);
/// The table with all its columns needs about so much room.
const ROOMY: usize = 120;

/// List the workers: who is there, where, and on what
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo workers
  cogo workers --role mcp-gateway --all
  cogo workers --json | jq '.[] | select(.status == \"online\") | {id, host, info}'
  watch cogo workers

A worker that has not been heard of for its lease is `silent`, and soon `offline`; its messages go
to others. Times are the database's, in UTC; of another day the date is shown. In a narrow terminal
role, host and version are left out; --json has everything, also what a worker says of itself, such
as the tools that it offers.")]
pub(crate) struct Workers {
    /// Only those of this role
    #[arg(long, value_parser = name)]
    role: Option<String>,
    /// Only those of this tenant; `*` for those that serve all
    #[arg(long, value_parser = tenant)]
    tenant: Option<String>,
    /// Also those that went away more than a day ago
    #[arg(long)]
    all: bool,
    /// The most that are looked at: those online first, the last seen first
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

fn name(text: &str) -> Result<String, String> {
    if valid_name(text) { Ok(text.to_owned()) } else { Err(format!("must be {NAME_RULE}")) }
}

fn tenant(text: &str) -> Result<String, String> {
    if text == cogo::message::ALL_TENANTS { Ok(text.to_owned()) } else { name(text) }
}

impl Workers {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let mut workers = global.bus().await?.workers(self.limit).await?;
        let full = workers.len() == usize::try_from(self.limit).unwrap_or(usize::MAX);
        // A worker's times are the database's: compared with the last one that it wrote for anybody, and
        // never with our clock.
        let latest = workers.iter().map(|worker| worker.last_seen_at).max();
        workers.retain(|worker| {
            self.role.as_ref().is_none_or(|role| *role == worker.role)
                && self.tenant.as_ref().is_none_or(|tenant| *tenant == worker.tenant)
        });
        let found = workers.len();
        let unseen = |worker: &WorkerRow| {
            latest.map_or_else(TimeDelta::zero, |latest| latest - worker.last_seen_at)
        };
        workers
            .retain(|worker| self.all || worker.status == "online" || unseen(worker) <= REMEMBERED);
        let hidden = found - workers.len();
        if output.json {
            output.value(&workers)?;
        } else if workers.is_empty() {
            note(match (found, self.role.is_some() || self.tenant.is_some()) {
                (0, true) => "No such worker was ever here.",
                (0, false) => "No worker was ever here. `cogo worker <role>` runs one.",
                _ => "No worker is here.",
            });
        } else {
            show(output, &workers, latest, unseen)?;
        }
        if hidden > 0 {
            note(&format!("{hidden} that went away more than a day ago: --all lists them, too."));
        }
        if full {
            note(&format!("Only the first {} were looked at; see --limit.", self.limit));
        }
        Ok(Exit::Done)
    }
}

fn show(
    output: Output,
    workers: &[WorkerRow],
    latest: Option<DateTime<Utc>>,
    unseen: impl Fn(&WorkerRow) -> TimeDelta,
) -> Result<()> {
    let narrow = output.narrower_than(ROOMY);
    let several = workers.iter().any(|worker| worker.tenant != workers[0].tenant);
    let mut heading = vec!["ID"];
    if several {
        heading.push("TENANT");
    }
    if !narrow {
        heading.extend(["ROLE", "HOST", "VERSION"]);
    }
    heading.extend(["STATUS", "SEEN", "IN FLIGHT", "TOPICS"]);
    let row = |worker: &WorkerRow| {
        let mut row = vec![Cell::new(&worker.id, Ink::Name)];
        if several {
            row.push(Cell::plain(&worker.tenant));
        }
        if !narrow {
            row.extend([&worker.role, &worker.host, &worker.version].map(Cell::plain));
        }
        row.push(status(worker, unseen(worker)));
        row.push(Cell::new(seen(worker.last_seen_at, latest), Ink::Faint));
        row.push(match worker.status.as_str() {
            "online" => Cell::number(worker.in_flight.to_string()),
            _ => Cell::number("-"),
        });
        row.push(Cell::plain(worker.topics.join(" ")));
        row
    };
    let rows: Vec<_> = workers.iter().map(row).collect();
    Ok(output.table(&heading, &rows)?)
}

fn status(worker: &WorkerRow, unseen: TimeDelta) -> Cell {
    let patience = worker.lease_ms.map_or(SILENT_AFTER, TimeDelta::milliseconds);
    match worker.status.as_str() {
        "online" if unseen > patience => Cell::new("silent", Ink::Warn),
        "online" => Cell::new("online", Ink::Good),
        other => Cell::new(other, Ink::Faint),
    }
}

/// The time of the day on which anybody was seen last, else the day.
fn seen(at: DateTime<Utc>, latest: Option<DateTime<Utc>>) -> String {
    if latest.is_some_and(|latest| latest.date_naive() == at.date_naive()) {
        at.format("%H:%M:%S").to_string()
    } else {
        at.format("%Y-%m-%d").to_string()
    }
}
