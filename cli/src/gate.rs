//! `cogo gate`: whether this checkout, with its configuration, does what it is for.

mod docker;
mod local;
mod ping;
mod progress;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use cogo::gate::{self, Build, Stage, Verdict};

use crate::connect::Global;
use crate::exit::Exit;
use crate::output::{Output, note};
use crate::version::COMMIT;

/// Try everything that must work, and say what does not
#[derive(Debug, Args)]
pub(crate) struct Gate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All stages: the MCP servers, a whole bus of real processes, and the same in containers
    Unified(Unified),
}

/// A stage, by the name that `--stage` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    /// Each toolset of configs/mcp.json gives a sign of life and its tools
    Ping,
    /// A fresh database, a hub and workers as processes of their own go through all that a message can
    Local,
    /// The same from outside, of containers made by docker-compose.ci.yml
    Docker,
}

#[derive(Debug, Args)]
struct Unified {
    /// Only this stage; may be given more than once
    #[arg(long, value_name = "STAGE")]
    stage: Vec<Named>,
    /// Without the stage `docker`, also where an engine runs
    #[arg(long)]
    skip_docker: bool,
    /// Below what the folders gate-run, full-scenario and docker-scenario are made
    #[arg(long, value_name = "DIR", default_value = "artifacts")]
    out: PathBuf,
    /// Break something on purpose, to see that the gate notices
    #[arg(long, value_name = "FAULT")]
    inject: Option<local::Fault>,
}

impl Gate {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::Unified(unified) => unified.run(global, output).await,
        }
    }
}

impl Unified {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let begun = cogo::clock::utc_now().format("%Y%m%dT%H%M%S%.3fZ").to_string();
        let dir = self.out.join("gate-run").join(&begun);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        let wanted = |stage| self.stage.is_empty() || self.stage.contains(&stage);
        if wanted(Named::Ping) {
            stages.push(Box::new(ping::Ping::new(global.clone())));
        }
        if wanted(Named::Local) {
            let dir = self.out.join("full-scenario").join(&begun);
            stages.push(Box::new(local::Local::new(global.clone(), dir, self.inject)));
        }
        if wanted(Named::Docker) {
            let dir = self.out.join("docker-scenario").join(&begun);
            stages.push(Box::new(docker::Docker::new(dir, self.skip_docker)));
        }
        let build = Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: COMMIT.map(str::to_owned),
        };
        let report = gate::run("gate:unified", build, &mut stages, &progress::Lines).await;
        report.write(&dir).with_context(|| format!("writing the report to {}", dir.display()))?;
        if output.json {
            output.value(&report)?;
        }
        note(&format!("The report is in {}", dir.display()));
        Ok(match report.verdict {
            Verdict::Passed => Exit::Done,
            Verdict::Failed => Exit::Failed,
        })
    }
}
