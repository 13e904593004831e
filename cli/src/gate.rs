//! `cogo gate`: whether this checkout, with its configuration, does what it is for.

mod docker;
mod e2e;
mod local;
mod ping;
mod process;
mod progress;
mod servers;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use cogo::gate::{self, Build, Report, Stage, Verdict};
use cogo::shutdown::Tasks;
use tokio::sync::oneshot;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::lifecycle::{Signals, exit_at_once};
use crate::output::{Output, note};
use crate::version::COMMIT;

use self::progress::Screen;

/// Try everything that must work, and say what does not
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo gate unified
  cogo gate unified --start-servers --skip-docker
  cogo gate unified --stage ping
  cogo gate unified --stage local --inject lost-message      must fail, and say so
  cogo gate e2e
  cogo gate unified --json | jq '.stages[] | {name, outcome, failed_step, reason}'

In a checkout, `cargo gate:unified` is the same, built for release.")]
pub(crate) struct Gate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All stages: the MCP servers, a whole bus of real processes, and the same in containers
    Unified(Unified),
    E2e(e2e::E2e),
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
#[command(after_help = "\
Examples:
  cogo gate unified
  cogo gate unified --start-servers --skip-docker
  cogo gate unified --stage ping --stage local --out /tmp/gate
  cogo gate unified --stage local --inject broken-migration      must fail, and say so
  cogo gate unified --stage local --migrations migrations --keep

All stages run, whatever the others find. The reports are <out>/gate-run/<time>/report.json, junit.xml and
summary.md; what the stages leave behind is in <out>/full-scenario/<time> and <out>/docker-scenario/<time>.
It exits with 0 where the gate is open, and with 1 where a stage failed or none found anything good.")]
struct Unified {
    /// Only this stage; may be given more than once
    #[arg(long, value_name = "STAGE")]
    stage: Vec<Named>,
    /// Without the stage `docker`, also where an engine runs
    #[arg(long)]
    skip_docker: bool,
    /// Start the servers of mcp-servers/ that nobody has started, and stop them at the end
    #[arg(long)]
    start_servers: bool,
    /// Below what the folders gate-run, full-scenario and docker-scenario are made
    #[arg(long, value_name = "DIR", default_value = "artifacts")]
    out: PathBuf,
    /// For the stage `local`: the migrations of this directory, in place of those that are built in
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// For the stage `local`: break something on purpose, to see that the gate notices
    #[arg(long, value_name = "FAULT")]
    inject: Option<local::Fault>,
    /// Leave databases, containers and logs as they are at the end, to look at them
    #[arg(long)]
    keep: bool,
}

impl Gate {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::Unified(unified) => unified.run(global, output).await,
            Command::E2e(e2e) => e2e.run(global, output).await,
        }
    }
}

impl Unified {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        self.check()?;
        let place = Place::make(&self.out)?;
        let screen = Arc::new(Screen::new(global));
        let stages = self.stages(global, &place, &screen);
        hold("gate:unified", stages, &place, &screen, output, |report| report).await
    }

    fn wants(&self, stage: Named) -> bool {
        self.stage.is_empty() || self.stage.contains(&stage)
    }

    /// Refuses flags of which one would do nothing: whoever gave it would take the run for something that it is not.
    fn check(&self) -> Result<()> {
        let flags = [
            ("--start-servers", self.start_servers, Named::Ping, "ping"),
            ("--inject", self.inject.is_some(), Named::Local, "local"),
            ("--migrations", self.migrations.is_some(), Named::Local, "local"),
        ];
        for (flag, given, stage, name) in flags {
            if given && !self.wants(stage) {
                let text = format!("{flag}: is for the stage {name}, which --stage leaves out");
                return Err(Failed::usage(text).hint(format!("Add --stage {name}.")).into());
            }
        }
        if self.skip_docker && self.stage.contains(&Named::Docker) {
            return Err(Failed::usage("--skip-docker: contradicts --stage docker").into());
        }
        match &self.migrations {
            Some(dir) if !dir.is_dir() => {
                Err(Failed::usage(format!("--migrations {}: is no directory", dir.display()))
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn stages(&self, global: &Global, place: &Place, screen: &Arc<Screen>) -> Vec<Box<dyn Stage>> {
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        let below = |folder: &str| self.out.join(folder).join(&place.begun);
        if self.wants(Named::Ping) {
            let logs = self.start_servers.then(|| place.dir.join("servers"));
            let screen = Arc::clone(screen);
            stages.push(Box::new(ping::Ping::new(global.clone(), screen, logs)));
        }
        if self.wants(Named::Local) {
            let options = local::LocalOptions {
                inject: self.inject,
                migrations: self.migrations.clone(),
                keep: self.keep,
            };
            stages.push(Box::new(local::Local::new(
                global.clone(),
                below("full-scenario"),
                options,
            )));
        }
        if self.wants(Named::Docker) {
            let dir = below("docker-scenario");
            // Who names it wants it: then it is a failure that no engine runs.
            let skip = match (self.skip_docker, self.stage.contains(&Named::Docker)) {
                (true, _) => docker::Skip::Always,
                (false, false) => docker::Skip::WithoutEngine,
                (false, true) => docker::Skip::Never,
            };
            stages.push(Box::new(docker::Docker::new(dir, skip, self.keep)));
        }
        stages
    }
}

/// Where a run leaves its report, and when it began: the name of all its folders.
#[derive(Debug)]
struct Place {
    begun: String,
    dir: PathBuf,
}

impl Place {
    fn make(out: &Path) -> Result<Self> {
        let begun = cogo::clock::utc_now().format("%Y%m%dT%H%M%S%.3fZ").to_string();
        let dir = out.join("gate-run").join(&begun);
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failed::usage(format!("--out {}: {error}", out.display())))?;
        Ok(Self { begun, dir })
    }
}

/// Runs the stages, and tells what they found. At a signal they are dropped, and with them goes all that they
/// started.
async fn hold(
    name: &str,
    mut stages: Vec<Box<dyn Stage>>,
    place: &Place,
    screen: &Arc<Screen>,
    output: Output,
    judge: fn(Report) -> Report,
) -> Result<Exit> {
    let mut interrupted = interrupts(screen)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let build = Build { version, commit: COMMIT.map(str::to_owned) };
    let report = tokio::select! {
        report = gate::run(name, build, &mut stages, &**screen) => Some(report),
        _ = &mut interrupted => None,
        never = screen.keep_up() => never,
    };
    drop(stages);
    let Some(report) = report else { return Ok(Exit::Interrupted) };
    let (report, dir) = (judge(report), &place.dir);
    report.write(dir).with_context(|| format!("writing the report to {}", dir.display()))?;
    if output.json {
        output.value(&report)?;
    } else {
        summary::show(output, &report, dir)?;
    }
    Ok(match report.verdict {
        Verdict::Passed | Verdict::Skipped => Exit::Done,
        Verdict::Failed => Exit::Failed,
    })
}

/// Resolves at the first signal. It is heard by a task of its own: what stages do when they are dropped may block this
/// thread, and the second signal must be heard all the same.
fn interrupts(screen: &Arc<Screen>) -> Result<oneshot::Receiver<()>> {
    let mut signals = Signals::serving().context("hearing signals")?;
    let (tell, told) = oneshot::channel();
    let screen = Arc::clone(screen);
    Tasks::new().spawn(async move {
        let signal = signals.next().await;
        screen.clear();
        note(&format!("{signal}: stopping what was started. Again to exit at once."));
        if tell.send(()).is_ok() {
            signals.next().await;
        }
        exit_at_once()
    });
    Ok(told)
}
