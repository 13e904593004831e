//! The gate's stages, verdict and reports.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::gate::{
    Build, Failure, Outcome, Progress, Report, Stage, StageReport, StepReport, Steps, Stopped,
    Verdict, done, run,
};
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};

/// Hears everything, as lines.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn say(&self, line: String) {
        self.0.lock().expect("nobody panics with it").push(line);
    }
}

impl Progress for Heard {
    fn stage(&self, stage: &str) {
        self.say(format!("{stage}:"));
    }
    fn step(&self, stage: &str, step: &str) {
        self.say(format!("{stage}/{step} ..."));
    }
    fn stepped(&self, stage: &str, step: &StepReport) {
        self.say(format!("{stage}/{} {}: {}", step.name, step.outcome.word(), step.outcome.text()));
    }
    fn staged(&self, stage: &StageReport) {
        self.say(format!("{} {}", stage.name, stage.outcome.word()));
    }
}

#[derive(Clone, Copy)]
enum What {
    Passes,
    FailsAtTheSecondStep,
    IsPassedOver,
    DoesNothing,
    Hangs,
    LooksAtThreeSideBySide,
}

struct Tried(&'static str, What);

impl Stage for Tried {
    fn name(&self) -> &'static str {
        self.0
    }
    fn at_most(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let fine = || async { Ok(done((), "fine")) };
            let sick = || async {
                Err::<cogo::gate::Done<()>, _>(Failure::new("a <b> | `c`").remedy("start it"))
            };
            match self.1 {
                What::Passes => steps.step("one", fine()).await,
                What::FailsAtTheSecondStep => {
                    steps.step("one", fine()).await?;
                    steps.fact("messages", 3);
                    steps.step("two", sick()).await?;
                    steps.step("three", fine()).await
                }
                What::IsPassedOver => {
                    steps.skip_stage("no engine runs");
                    Ok(())
                }
                What::DoesNothing => Ok(()),
                What::Hangs => steps.step("waits", std::future::pending()).await,
                What::LooksAtThreeSideBySide => {
                    let looks =
                        [("a", true), ("b", false), ("c", true)].map(|(name, well)| async move {
                            steps
                                .step(name, async move {
                                    tokio::task::yield_now().await;
                                    if well {
                                        Ok(done((), "well"))
                                    } else {
                                        Err(Failure::new("sick"))
                                    }
                                })
                                .await
                        });
                    join_all(looks).await.into_iter().collect()
                }
            }
        })
    }
}

async fn report(stages: &[(&'static str, What)], heard: &Heard) -> Report {
    let mut stages: Vec<Box<dyn Stage>> =
        stages.iter().map(|(name, what)| Box::new(Tried(name, *what)) as Box<dyn Stage>).collect();
    run("gate:unified", Build { version: "1.2.3".into(), commit: None }, &mut stages, heard).await
}

#[tokio::test]
async fn a_failed_stage_names_its_step_and_the_stages_after_it_run_all_the_same() -> Result<()> {
    let heard = Heard::default();
    let report =
        report(&[("ping", What::FailsAtTheSecondStep), ("local", What::Passes)], &heard).await;
    assert_eq!(report.verdict, Verdict::Failed);
    let ping = serde_json::to_value(&report.stages[0])?;
    assert_eq!(ping["outcome"], "failed");
    assert_eq!(ping["failed_step"], "two");
    assert_eq!(ping["reason"], "a <b> | `c`");
    assert_eq!(ping["remedy"], "start it");
    assert_eq!(ping["facts"], json!({"messages": 3}));
    assert_eq!(report.stages[1].outcome, Outcome::Passed { detail: "1 steps".into() });
    let heard = heard.0.into_inner()?;
    assert_eq!(
        heard,
        [
            "ping:",
            "ping/one ...",
            "ping/one passed: fine",
            "ping/two ...",
            "ping/two failed: a <b> | `c`",
            "ping failed",
            "local:",
            "local/one ...",
            "local/one passed: fine",
            "local passed"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_gate_that_looked_at_nothing_is_not_open() {
    let heard = Heard::default();
    assert_eq!(report(&[], &heard).await.verdict, Verdict::Failed);
    assert_eq!(report(&[("docker", What::IsPassedOver)], &heard).await.verdict, Verdict::Failed);
    assert_eq!(report(&[("local", What::DoesNothing)], &heard).await.verdict, Verdict::Failed);
    let with_one = report(&[("local", What::Passes), ("docker", What::IsPassedOver)], &heard).await;
    assert_eq!(with_one.verdict, Verdict::Passed);
}

#[tokio::test]
async fn what_need_not_be_possible_everywhere_is_skipped_and_not_failed() {
    let heard = Heard::default();
    let verdict = async |stages| report(stages, &heard).await.may_be_skipped().verdict;
    assert_eq!(verdict(&[("https", What::IsPassedOver)]).await, Verdict::Skipped);
    assert_eq!(verdict(&[]).await, Verdict::Failed);
    let failed = [("https", What::IsPassedOver), ("postgres", What::FailsAtTheSecondStep)];
    assert_eq!(verdict(&failed).await, Verdict::Failed);
    let passed = [("https", What::IsPassedOver), ("postgres", What::Passes)];
    assert_eq!(verdict(&passed).await, Verdict::Passed);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_hangs_fails_at_the_step_that_is_under_way() {
    let report =
        report(&[("local", What::Hangs), ("docker", What::Passes)], &Heard::default()).await;
    assert_eq!(report.stages[0].failed_step.as_deref(), Some("waits"));
    assert!(report.stages[0].outcome.text().contains("longer than 60 s"), "{:?}", report.stages[0]);
    assert_eq!(report.stages[1].outcome.word(), "passed");
}

#[tokio::test]
async fn steps_side_by_side_are_all_recorded_and_one_of_them_fails_the_stage() {
    let report = report(&[("ping", What::LooksAtThreeSideBySide)], &Heard::default()).await;
    assert_eq!(report.stages[0].steps.len(), 3);
    assert_eq!(report.stages[0].failed_step.as_deref(), Some("b"));
}

#[tokio::test]
async fn what_is_written_is_json_junit_and_markdown() -> Result<()> {
    let stages = [
        ("ping", What::FailsAtTheSecondStep),
        ("local", What::Passes),
        ("docker", What::IsPassedOver),
    ];
    let report = report(&stages, &Heard::default()).await;
    let dir = tempfile::tempdir()?;
    report.write(dir.path())?;

    let read: Value = serde_json::from_slice(&std::fs::read(dir.path().join("report.json"))?)?;
    assert_eq!(read["schema"], "cogo.gate/1");
    assert_eq!(read["verdict"], "failed");
    assert_eq!(read["stages"].as_array().context("stages")?.len(), 3);

    let junit = std::fs::read_to_string(dir.path().join("junit.xml"))?;
    // Two steps, one, and the stage that was passed over.
    assert!(junit.contains(r#"tests="4" skipped="1" failures="1""#), "{junit}");
    assert!(junit.contains("a &lt;b&gt; | `c`"), "{junit}");

    let markdown = std::fs::read_to_string(dir.path().join("summary.md"))?;
    assert!(markdown.contains(r"**two**: a &lt;b&gt; \| \`c\`"), "{markdown}");
    assert!(markdown.contains("start it"), "{markdown}");
    Ok(())
}
