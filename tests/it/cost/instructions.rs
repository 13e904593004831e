//! How many instructions the client's side takes a message: making it, writing and reading JSON and the wire. Counted
//! by valgrind, which runs this test's binary again, for few messages and for more; the difference is theirs.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cogo::bus::{Bus, Settle};
use cogo::message::{Message, NewMessage};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use super::budget::{Measure, hold};
use super::calls::payload;
use super::report::not_measured;
use super::server::Watched;
use crate::fixtures::{request, topic};

const WHY: &str = "what a process that publishes and works spends beside its handlers; a value copied or parsed twice shows here";
const GROUP: &str = "instructions";
/// Small enough for a program that runs fifty times as slowly.
const BATCH: usize = 50;
/// Batches of the two runs.
const RUNS: [usize; 2] = [2, 6];

/// Why they cannot be counted here, if they cannot.
fn hindrance() -> Option<&'static str> {
    if !cfg!(debug_assertions) {
        return Some("the budgets are those of a debug build");
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the budgets are those of x86-64");
    }
    if env::var_os("LLVM_PROFILE_FILE").is_some() {
        return Some("the program is instrumented");
    }
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    (!valgrind.is_ok_and(|status| status.success())).then_some("there is no valgrind")
}

/// How many instructions a process takes that works on so many batches.
fn count(url: &str, batches: usize) -> Result<f64> {
    let log = tempfile::NamedTempFile::new()?;
    let out = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", log.path().display()))
        .arg(env::current_exe()?)
        .args(["--exact", "cost::instructions::works_on_some_batches", "--ignored", "--nocapture"])
        .env_remove("NEXTEST_RUN_ID")
        .envs([("COGO_COST_URL", url), ("COGO_COST_BATCHES", &batches.to_string())])
        .output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success() && said.contains("1 passed"), "valgrind: {said}");
    read(log.path())
}

/// The number in what cachegrind says: `I   refs:      3,141,432`.
fn read(log: &Path) -> Result<f64> {
    let log = std::fs::read_to_string(log)?;
    let line = log.lines().find(|line| line.contains("I") && line.contains("refs:"));
    let number = line.and_then(|line| line.split_once("refs:")).context(log.clone())?.1;
    number.replace(',', "").trim().parse().context(log)
}

#[tokio::test]
async fn the_client_takes_few_instructions_a_message() {
    if let Some(why) = hindrance() {
        return not_measured(GROUP, why);
    }
    let server = Watched::new().await;
    let url = server.db.url();
    // One after the other: they would claim each other's.
    let counted = tokio::task::spawn_blocking(move || RUNS.map(|batches| count(&url, batches)));
    let [few, more] = counted.await.expect("ran").map(|counted| counted.expect("counted"));
    let messages = f64::from(u32::try_from((RUNS[1] - RUNS[0]) * BATCH).expect("few"));
    let thousands = (more - few) / messages / 1000.0;
    let what = format!(
        "thousands of instructions of a debug build to publish, claim and settle a message in batches of {BATCH}"
    );
    // Which instructions a copy takes depends on the processor.
    hold(&server, GROUP, &[Measure::new("instructions.message", what, thousands, WHY).slack(1.15)]);
}

/// What valgrind runs.
#[tokio::test]
#[ignore = "no test of its own: the one above runs it in a process of its own, under valgrind"]
async fn works_on_some_batches() {
    let (Ok(url), Ok(batches)) = (env::var("COGO_COST_URL"), env::var("COGO_COST_BATCHES")) else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.expect("connected");
    let bus = Bus::new(pool);
    let mut settles: Vec<Settle> = Vec::new();
    let worker = format!("w{batches}");
    for _ in 0..batches.parse::<usize>().expect("a number") {
        let batch: Vec<_> =
            (0..BATCH).map(|_| NewMessage::new(&topic(), "echo", payload())).collect();
        bus.publish_all(&batch).await.expect("published");
        let step = bus.step(&settles, &request(&worker, BATCH)).await.expect("stepped");
        assert_eq!(step.claims.len(), BATCH);
        let settle =
            |message: &Message| Settle::complete(message, json!({"title": "A page"}), json!({}));
        let messages = step.claims.into_iter().map(|claim| claim.into_message());
        settles = messages.map(|message| settle(&message)).collect();
    }
}
