//! `cogo up`: everything in one process.

use anyhow::Result;
use clap::Args;

use crate::connect::Global;
use crate::exit::Exit;
use crate::serve::{Listen, What, serve};
use crate::worker::Limits;

/// Start everything in one process: Postgres, the hub and the MCP gateway
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo up
  cogo up --data-dir ./data --listen 127.0.0.1:0
  DATABASE_URL=postgres://… cogo up             with a database of yours instead of its own

Then, in another terminal:
  cogo mcp call demo echo --params '{\"message\": \"hello\"}'
  cogo status

It brings along the toolset `demo`; others stand in configs/mcp.json. The first Ctrl-C (or SIGTERM)
lets running calls finish, a second one ends it at once; in either case nothing is lost, and the
next start finds everything. COGO_ADMIN_TOKEN sets the admin token, and COGO_JWT_SECRET the secrets
(with commas between them) that sign the keys of remote workers; otherwise both are made and kept in
the data directory.")]
pub(crate) struct Up {
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    limits: Limits,
}

impl Up {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit> {
        serve(global, &self.listen, &self.limits, What { embedded: true, gateway: true }).await
    }
}
