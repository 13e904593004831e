//! `cogo status`: is it all there, and how much waits.

mod probe;

use anyhow::Result;
use clap::Args;
use cogo::bus::{Depth, Parked, WorkerRow};
use serde::Serialize;

use crate::connect::{self, Global, newest_migration};
use crate::exit::Exit;
use crate::output::{Cell, Ink, Output};
use crate::text::{millis, moment, status_ink};
use crate::up_file::UpFile;

use self::probe::Probe;

/// How long a worker may be unseen before it is called silent: it shows itself every ten seconds.
const SILENT_AFTER_S: i64 = 35;

/// Show what waits, who works, and whether the hub answers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo status
  cogo status --json | jq '.queue[] | select(.status == \"failed\")'
  watch cogo status
  cogo status --probe                           the health check of a container; needs no database

Finished messages are not counted: there may be millions, and the log has them.")]
pub(crate) struct Status {
    /// The most workers that are listed
    #[arg(long, default_value_t = 20)]
    workers: u32,
    #[command(flatten)]
    probe: Probe,
}

/// What `status --json` prints.
#[derive(Debug, Serialize)]
struct Found {
    database: String,
    schema_version: Option<i64>,
    newest_migration: i64,
    hub: Option<Hub>,
    queue: Vec<Depth>,
    parked: Vec<Parked>,
    workers: Vec<WorkerRow>,
}

#[derive(Debug, Serialize)]
struct Hub {
    url: String,
    pid: u32,
    ready: bool,
    /// What is missing, when it is not ready.
    missing: Option<String>,
}

impl Status {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        if let Some(wanted) = self.probe.wanted() {
            return self.probe.run(wanted, output).await;
        }
        let database = global.database()?;
        let bus = global.bus().await?;
        let found = Found {
            database: connect::name(&database),
            schema_version: bus.schema_version().await?,
            newest_migration: newest_migration(),
            hub: hub(global).await,
            queue: bus.stats().await?,
            parked: bus.parked().await?,
            workers: bus.workers(self.workers).await?,
        };
        if output.json {
            output.value(&found)?;
        } else {
            show(output, &found)?;
        }
        Ok(Exit::Done)
    }
}

/// The hub of `cogo up` in our data directory, if one says that it runs.
async fn hub(global: &Global) -> Option<Hub> {
    let up = UpFile::read(&global.data_dir().ok()?)?;
    let (ready, missing) = match up.ready().await {
        Ok(()) => (true, None),
        Err(error) => (false, Some(format!("{error:#}"))),
    };
    Some(Hub { url: up.url, pid: up.pid, ready, missing })
}

fn show(output: Output, found: &Found) -> Result<()> {
    let line = |name: &str, value: Cell| {
        output.line(&output.row(&[Cell::new(name, Ink::Faint), value], &[8, 0]))
    };
    line("database", Cell::plain(&found.database))?;
    line(
        "schema",
        match found.schema_version {
            Some(version) if version == found.newest_migration => Cell::plain(version.to_string()),
            Some(version) => Cell::new(
                format!("{version}; this program knows {}", found.newest_migration),
                Ink::Warn,
            ),
            None => Cell::new("loaded by other means", Ink::Warn),
        },
    )?;
    line(
        "hub",
        match &found.hub {
            None => Cell::new("none runs in this data directory", Ink::Faint),
            Some(hub) if hub.ready => {
                Cell::new(format!("{}, ready (pid {})", hub.url, hub.pid), Ink::Good)
            }
            Some(hub) => {
                let missing = hub.missing.as_deref().unwrap_or("not ready");
                Cell::new(format!("{}: {missing}", hub.url), Ink::Bad)
            }
        },
    )?;
    output.line("")?;
    if found.queue.is_empty() {
        output.line("Nothing waits, is held or is dead.")?;
    } else {
        let rows: Vec<_> = found
            .queue
            .iter()
            .map(|depth| {
                vec![
                    Cell::new(format!("{}/{}", depth.role, depth.service), Ink::Name),
                    Cell::new(depth.status.to_string(), status_ink(depth.status)),
                    Cell::number(depth.messages.to_string()),
                    Cell::number(depth.oldest_ms.map(millis).unwrap_or_default()),
                ]
            })
            .collect();
        output.table(&["TOPIC", "STATUS", "MESSAGES", "OLDEST"], &rows)?;
    }
    output.line("")?;
    if !found.parked.is_empty() {
        let rows: Vec<_> = found
            .parked
            .iter()
            .map(|parked| {
                vec![
                    Cell::new(format!("{}/{}", parked.role, parked.service), Ink::Name),
                    Cell::number(parked.messages.to_string()),
                    Cell::number(parked.oldest_ms.map(millis).unwrap_or_default()),
                    Cell::new(&parked.reason, Ink::Warn),
                ]
            })
            .collect();
        output.table(&["TOPIC", "PARKED", "OLDEST", "WAITS FOR"], &rows)?;
        output.line("")?;
    }
    if found.workers.is_empty() {
        return Ok(output.line("No worker was ever here.")?);
    }
    // A worker that was killed could not say so. Its times are the database's, so they are compared with
    // the last one that it wrote for anybody, and not with our clock.
    let latest = found.workers.iter().map(|worker| worker.last_seen_at).max();
    let silent = |worker: &WorkerRow| {
        latest.is_some_and(|latest| (latest - worker.last_seen_at).num_seconds() > SILENT_AFTER_S)
    };
    let rows: Vec<_> = found
        .workers
        .iter()
        .map(|worker| {
            let (status, ink) = match worker.status.as_str() {
                "online" if silent(worker) => ("silent", Ink::Warn),
                "online" => ("online", Ink::Good),
                other => (other, Ink::Faint),
            };
            vec![
                Cell::plain(&worker.id),
                Cell::new(status, ink),
                Cell::new(moment(worker.last_seen_at), Ink::Faint),
                Cell::plain(&worker.tenant),
                Cell::plain(worker.topics.join(" ")),
            ]
        })
        .collect();
    output.table(&["WORKER", "STATUS", "LAST SEEN", "TENANT", "TOPICS"], &rows)?;
    Ok(())
}
