//! `cogo hub`: the hub alone.

use anyhow::Result;
use clap::Args;

use crate::connect::Global;
use crate::exit::Exit;
use crate::serve::{Listen, What, serve};
use crate::worker::Limits;

/// Run a hub: the bus over HTTP, without workers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://… cogo hub --listen 0.0.0.0:8787
  cogo hub --local                              with a Postgres of its own

Any number of hubs may run on one database. `cogo migrate` makes its schema; with --local that is done
at the start. Where a hub listens beyond this machine, reading needs the admin token too, and the
names by which it is called stand in configs/hub.json (allowed_hosts). Hubs that take the same keys
share COGO_JWT_SECRET; for remote workers, `grant cogo_hub to` the login of the hub.")]
pub(crate) struct Hub {
    #[command(flatten)]
    listen: Listen,
    /// Start a Postgres in the data directory, unless a database is named
    #[arg(long)]
    local: bool,
    /// How long requests may take to finish when stopping, in milliseconds
    #[arg(long, value_name = "MS")]
    drain_ms: Option<u64>,
}

impl Hub {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit> {
        let limits = Limits { concurrency: None, drain_ms: self.drain_ms };
        serve(global, &self.listen, &limits, What { embedded: self.local, gateway: false }).await
    }
}
