//! `cogo gate e2e`: a real call over a bus that others use too, such as a hosted Supabase project.
//!
//! It goes by variables of its own, so that it never tries itself on what DATABASE_URL or COGO_URL happen to name:
//! `COGO_E2E_URL` with `COGO_E2E_KEY` (and `COGO_API_KEY` on hosted Supabase, `COGO_CA_FILE`), `COGO_E2E_DATABASE_URL`.

mod access;
mod round;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use cogo::gate::{Report, Stage};

use self::access::Access;
use self::round::Round;
use super::progress::Screen;
use super::{Place, hold};
use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::Output;

/// A real MCP call over a configured bus, such as a hosted Supabase project; skipped where none is configured
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  COGO_E2E_URL=https://<ref>.supabase.co COGO_E2E_KEY=… COGO_API_KEY=sb_publishable_… cogo gate e2e
  COGO_E2E_URL=http://127.0.0.1:8787 COGO_E2E_KEY=\"$(cat e2e.key)\" cogo gate e2e
  COGO_E2E_DATABASE_URL=postgres://… cogo gate e2e --require
  cogo gate e2e --json | jq -r .verdict

The key claims and sends: `cogo token mint --tenant default --worker e2e --topic 'mcp-gateway/*' --send
'mcp-gateway/*'`. A gateway worker is started here, which serves one toolset with a name of this run alone, so that it
takes nobody's work and nobody takes its own. What it leaves behind is cancelled or dropped where the rights
suffice, and else told. Variables that are empty count as missing; with none of the two ways, the verdict is
`skipped` and the exit code 0, or 1 with --require.")]
pub(super) struct E2e {
    /// Fail where what is needed is missing, instead of skipping it
    #[arg(long)]
    require: bool,
    /// Below what the folder gate-run is made
    #[arg(long, value_name = "DIR", default_value = "artifacts")]
    out: PathBuf,
}

impl E2e {
    pub(super) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        if global.remote.is_flag() {
            let text = "--url: `cogo gate e2e` does not go by it, nor by --database-url";
            let hint = "Set COGO_E2E_URL and COGO_E2E_KEY, or COGO_E2E_DATABASE_URL.";
            return Err(Failed::usage(text).hint(hint).into());
        }
        let https = Access::https(global)?;
        let postgres = Access::postgres()?;
        let place = Place::make(&self.out)?;
        let screen = Arc::new(Screen::new(global));
        // What a worker's key may not drop, who has the database may.
        let operator = postgres.clone().ok();
        let round = |name, access| -> Box<dyn Stage> {
            let dir = place.dir.join("e2e").join(name);
            Box::new(Round::new(name, access, operator.clone(), dir))
        };
        let stages = vec![round("https", https), round("postgres", postgres)];
        let judge = if self.require { |report| report } else { Report::may_be_skipped };
        hold("mcp:verify:e2e", stages, &place, &screen, output, judge).await
    }
}
