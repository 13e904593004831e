//! `cogo hub`: the hub alone.

use anyhow::Result;
use clap::Args;

use crate::connect::Global;
use crate::exit::Exit;
use crate::minimal;
use crate::serve::{Listen, What, serve};
use crate::worker::Limits;

/// Run a hub: the bus over HTTP, without workers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://… cogo hub --listen 0.0.0.0:8787
  cogo hub --local                              with a Postgres of its own
  cogo hub --minimal                            health, metrics, /api/pending-tasks and artifacts alone

Any number of hubs may run on one database. `cogo migrate` makes its schema; with --local that is done
at the start. Where a hub listens beyond this machine, reading needs the admin token too, and the
names by which it is called stand in configs/hub.json (allowed_hosts). Hubs that take the same keys
share COGO_JWT_SECRET; for remote workers, `grant cogo_hub to` the login of the hub.

A minimal hub needs a few megabytes and starts also while the database is away, which /readyz then says.
It does none of the bus's chores: promoting what is due, taking back what a lost worker held. Another
hub, or any worker, does.")]
pub(crate) struct Hub {
    #[command(flatten)]
    listen: Listen,
    /// Start a Postgres in the data directory, unless a database is named
    #[arg(long)]
    local: bool,
    /// Serve only health, metrics, /api/pending-tasks and artifacts
    #[arg(long, conflicts_with = "local")]
    minimal: bool,
    /// How long requests may take to finish when stopping, in milliseconds
    #[arg(long, value_name = "MS")]
    drain_ms: Option<u64>,
}

impl Hub {
    /// Whether it is to do with one thread.
    pub(crate) fn is_minimal(&self) -> bool {
        self.minimal
    }

    pub(crate) async fn run(self, global: &Global) -> Result<Exit> {
        let limits = Limits { drain_ms: self.drain_ms, ..Limits::default() };
        if self.minimal {
            return minimal::serve(global, &self.listen, &limits).await;
        }
        serve(global, &self.listen, &limits, What { embedded: self.local, gateway: false }).await
    }
}
