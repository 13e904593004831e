//! The stage `docker`: the same bus in containers, looked at from outside.
//!
//! `docker-compose.ci.yml` is built and brought up under a project name of this run, called through the port that its
//! hub publishes, and taken down again, whatever came of it. What is called stands in the file too, as `x-gate`, since
//! that depends on the MCP server that it brings up. Containers, networks and volumes go at the end; images stay, as
//! they are what makes the next build short.

mod compose;
mod engine;
mod health;
mod hub;
mod plan;
mod scenario;
mod stack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cogo::gate::{Done, Failure, Stage, Steps, Stopped, done};
use futures_util::future::BoxFuture;

use self::compose::Compose;
use self::engine::Engine;
use self::hub::Hub;
use self::plan::Plan;
use self::scenario::Scenario;
use self::stack::Stack;

/// What is brought up, in the working directory: the checkout.
const FILE: &str = "docker-compose.ci.yml";
/// A first build compiles everything, on a machine of CI with two cores.
const BUILD_WITHIN: Duration = Duration::from_secs(1500);

/// When the stage is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// It is not wanted.
    Always,
    /// Where no engine runs.
    WithoutEngine,
    /// It was asked for by name.
    Never,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Docker {
    dir: PathBuf,
    skip: Skip,
    keep: bool,
}

impl Docker {
    /// A stage that leaves its files in `dir`, which it makes. Dropped in the middle, it ends what it started, unless the
    /// containers are to be kept.
    pub(super) fn new(dir: PathBuf, skip: Skip, keep: bool) -> Self {
        Self { dir, skip, keep }
    }

    async fn through(&self, steps: &Steps<'_>, engine: Engine) -> Result<(), Stopped> {
        let compose = steps
            .step("engine", async {
                let compose = self.prepare(&engine)?;
                Ok(done(compose, engine.to_string()))
            })
            .await?;
        steps.artifacts(&self.dir);
        steps.fact("project", compose.project());
        let stack = Stack::new(compose, self.keep);
        let ended = self.in_containers(steps, &stack).await;
        // Whatever came of it: why something failed is in there, and nothing must stay.
        stack.collect().await;
        if self.keep {
            steps.skip("down", format!("--keep; `{}` takes it down", stack.compose().down_line()));
            return ended;
        }
        let down = steps
            .step("down", async {
                stack.down().await?;
                Ok(done(
                    (),
                    "no container is left, and Compose says that its networks and volumes are gone",
                ))
            })
            .await;
        ended.and(down)
    }

    /// What must be there before anything is started.
    fn prepare(&self, engine: &Engine) -> Result<Compose, Failure> {
        let file = std::path::absolute(FILE)?;
        if !file.is_file() {
            let reason = format!("there is no {FILE} in the working directory");
            return Err(Failure::new(reason)
                .remedy("Run this in a checkout, or leave the stage out with --skip-docker."));
        }
        std::fs::create_dir_all(&self.dir)
            .map_err(|error| Failure::new(format!("making {}: {error}", self.dir.display())))?;
        Compose::new(engine, &file, &self.dir)
    }

    async fn in_containers(&self, steps: &Steps<'_>, stack: &Stack) -> Result<(), Stopped> {
        let compose = stack.compose();
        let plan = steps
            .step("build", async {
                let plan = Plan::of(&compose.config().await?)?;
                compose.log("build", &["build"], BUILD_WITHIN).await?;
                Ok(done(plan, format!("the images of {FILE}")))
            })
            .await?;
        let hub = steps
            .step("up", async {
                let healthy = health::up(compose, &plan).await?;
                let url = compose.published(&plan.hub.service, plan.hub.port).await?;
                let hub = Hub::new(url, compose.admin_token())?;
                let detail = format!("{healthy}; the hub is at {}", hub.url());
                Ok(done(hub, detail))
            })
            .await?;
        Scenario { compose, plan: &plan, hub: &hub, dir: &self.dir }.run(steps).await
    }
}

impl Stage for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn at_most(&self) -> Duration {
        BUILD_WITHIN + Duration::from_secs(600)
    }

    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async {
            if self.skip == Skip::Always {
                steps.skip_stage("--skip-docker");
                return Ok(());
            }
            match Engine::find().await {
                Ok(engine) => self.through(steps, engine).await,
                Err(why) if self.skip == Skip::Never => {
                    let why =
                        Failure::new(why).remedy("Start an engine, or leave --stage docker out.");
                    steps.step("engine", async { Err::<Done<()>, _>(why) }).await
                }
                Err(why) => {
                    steps.skip_stage(why);
                    Ok(())
                }
            }
        })
    }
}

/// The last lines of what a program said: there it says why it ended.
fn last_lines(text: &str, lines: usize) -> String {
    let said: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    said[said.len().saturating_sub(lines)..].join(" / ")
}

/// Keeps a text among the stage's files. What cannot be kept costs the file, not the run.
fn keep(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.and_then(|()| std::fs::write(&path, text)) {
        tracing::warn!("{} cannot be kept: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use cogo::gate::{self, Build, Outcome, Progress, StageReport, StepReport};

    use super::*;

    struct Quiet;

    impl Progress for Quiet {
        fn stage(&self, _: &str) {}
        fn step(&self, _: &str, _: &str) {}
        fn stepped(&self, _: &str, _: &StepReport) {}
        fn staged(&self, _: &StageReport) {}
    }

    #[tokio::test]
    async fn left_out_it_is_skipped_and_asks_no_engine() {
        let docker = Docker::new(PathBuf::from("/nowhere"), Skip::Always, false);
        let build = Build { version: String::new(), commit: None };
        let report = gate::run("gate", build, &mut [Box::new(docker)], &Quiet).await;
        let stage = &report.stages[0];
        assert_eq!(stage.outcome, Outcome::Skipped { reason: "--skip-docker".to_owned() });
        assert!(stage.steps.is_empty());
    }

    #[test]
    fn the_last_lines_are_those_with_something_in_them() {
        assert_eq!(last_lines("a\n\n b \nc\n\n", 2), "b / c");
        assert_eq!(last_lines("", 2), "");
    }
}
