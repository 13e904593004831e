//! Many runs, one after the other in each of a few lanes.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use tokio::sync::{Mutex, mpsc};

use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::report::Report;
use crate::run;

/// How many runs CI has time for.
const RUNS: usize = 4;
/// How many runs go on side by side: they mostly wait.
const LANES: usize = 2;
/// Failures after which a series ends: more would tell nothing new.
const ENOUGH: usize = 5;

/// The one heavy thing that this process does at a time: tests of one binary run side by side.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits for the other heavy tests of this process.
pub(crate) async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    ALONE.lock().await
}

fn wanted<T: FromStr>(variable: &str) -> Result<Option<T>> {
    match std::env::var(variable).ok().filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => anyhow::bail!("{variable}: {text:?} is no number"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_faults_lose_nothing_repeat_nothing_and_leave_nothing_behind() -> Result<()> {
    let _alone = alone().await;
    let runs = wanted("COGO_CHAOS_RUNS")?.unwrap_or(RUNS);
    let first = wanted("COGO_CHAOS_SEED")?.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let lanes = wanted("COGO_CHAOS_LANES")?.unwrap_or(LANES).clamp(1, runs.max(1));
    let report = series(first, runs, lanes).await?;
    let failed: Vec<_> = report.failed().map(|run| run.seed).collect();
    assert!(
        failed.is_empty() && report.runs.len() == runs,
        "seeds {failed:?} failed; again: `just chaos 1 <seed>`; see {}/report.md",
        report.dir().display()
    );
    Ok(())
}

#[allow(clippy::print_stderr)] // for whoever waits for two hundred runs
async fn series(first: u64, runs: usize, lanes: usize) -> Result<Report> {
    let clock = Stopwatch::start();
    let mut report = Report::new(runs, lanes)?;
    eprintln!("{runs} runs from seed {first}; report in {}", report.dir().display());
    let seeds = Arc::new(Mutex::new(first..first + runs as u64));
    let (done, mut outcomes) = mpsc::unbounded_channel();
    let tasks = Tasks::new();
    let working: Vec<_> = (0..lanes)
        .map(|_| {
            let (seeds, done) = (Arc::clone(&seeds), done.clone());
            tasks.spawn(async move {
                let postgres = Arc::new(Postgres::start().await.context("starting Postgres")?);
                loop {
                    let Some(seed) = seeds.lock().await.next() else { break };
                    let outcome = run::run(&postgres, &Plan::draw(seed)).await;
                    if done.send(outcome).is_err() {
                        break; // nobody wants more
                    }
                }
                let postgres = Arc::into_inner(postgres).context("somebody still uses Postgres")?;
                postgres.stop().await
            })
        })
        .collect();
    drop(done);
    while let Some(outcome) = outcomes.recv().await {
        let (ms, number) = (outcome.durations_ms["all"], report.runs.len() + 1);
        let verdict = if outcome.ok { "passed" } else { "FAILED" };
        eprintln!("{number}/{runs} seed {} {verdict} in {ms} ms", outcome.seed);
        for check in outcome.checks.iter().filter(|check| !check.ok) {
            eprintln!("  {}: {}", check.name, check.problems.join("\n    "));
        }
        if let Some(error) = &outcome.error {
            eprintln!("  {error}");
        }
        report.add(outcome)?;
        report.duration_ms = clock.elapsed_ms();
        report.write()?;
        if report.failed().count() >= ENOUGH {
            eprintln!("{ENOUGH} seeds failed; the rest is not run");
            outcomes.close();
        }
    }
    for lane in working {
        lane.await??;
    }
    Ok(report)
}
