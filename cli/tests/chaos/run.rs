//! One run, from its plan to its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::message::{NewMessage, Topic};
use cogo::shutdown::Tasks;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::checks::{self, Check, Evidence};
use crate::faults::{self, Injected};
use crate::fleet::{self, Fleet, Options};
use crate::memory::Memory;
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::sender::{self, Totals};
use crate::{http, slow, snapshot};

/// How long all may take to end after the last fault.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// How long a worker may take to do one more thing after that.
const PROBE_WITHIN: Duration = Duration::from_secs(15);
/// How much more memory a process may hold when the work is done than when it had started, and how much more
/// it may have held at any time. Answers of 50 MB come in pieces, and up to `max_frame_bytes` (16 MiB) of each
/// is gathered in a buffer that doubles; the allocator keeps that for the next. That it does not grow from
/// answer to answer is for a drill to show.
const MORE_HELD_KB: u64 = 64 << 10;
const MORE_PEAK_KB: u64 = 96 << 10;

/// What happened in a run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) ok: bool,
    /// What stood in the way of the run itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) plan: Plan,
    pub(crate) faults: Vec<Injected>,
    pub(crate) messages: Totals,
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Calls that reached the MCP server.
    pub(crate) calls: usize,
    /// Settles and leases that were refused because somebody else had the message by then.
    pub(crate) refused_late: usize,
    /// Times a circuit breaker opened, and messages that were parked by one.
    pub(crate) breakers_opened: usize,
    pub(crate) parked: usize,
    /// Attempts whose artifacts could not be written.
    pub(crate) without_artifacts: usize,
    pub(crate) memory: BTreeMap<String, (Memory, Memory)>,
    pub(crate) checks: Vec<Check>,
    pub(crate) durations_ms: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    pub(crate) logs: Vec<(String, String)>,
}

/// Carries out a plan.
pub(crate) async fn run(postgres: &Arc<Postgres>, plan: &Plan) -> Outcome {
    let mut outcome = Outcome {
        seed: plan.seed,
        ok: false,
        error: None,
        plan: plan.clone(),
        faults: Vec::new(),
        messages: Totals::default(),
        outcomes: BTreeMap::new(),
        calls: 0,
        refused_late: 0,
        breakers_opened: 0,
        parked: 0,
        without_artifacts: 0,
        memory: BTreeMap::new(),
        checks: Vec::new(),
        durations_ms: BTreeMap::new(),
        logs: Vec::new(),
    };
    let clock = Stopwatch::start();
    let options = Options { shape: plan.shape.clone(), files: Vec::new() };
    match Fleet::start(Arc::clone(postgres), &options).await {
        Ok(fleet) => {
            outcome.durations_ms.insert("start", clock.elapsed_ms());
            let fleet = Arc::new(fleet);
            if let Err(error) = carry_out(&fleet, plan, &mut outcome).await {
                outcome.error = Some(format!("{error:#}"));
            }
            let ending = Stopwatch::start();
            let problems = fleet.end().await;
            outcome.durations_ms.insert("end", ending.elapsed_ms());
            outcome.checks.push(Check::new("every process ends cleanly on SIGTERM", problems));
            let incidents = fleet.processes().iter().flat_map(|p| p.incidents()).collect();
            outcome.checks.push(Check::new("no process dies by itself", incidents));
            outcome.logs = fleet.processes().iter().map(|p| (p.name.clone(), p.said())).collect();
            outcome.refused_late = refused_late(&outcome.logs);
        }
        Err(error) => outcome.error = Some(format!("starting: {error:#}")),
    }
    outcome.durations_ms.insert("all", clock.elapsed_ms());
    outcome.ok = outcome.error.is_none() && outcome.checks.iter().all(|check| check.ok);
    outcome
}

async fn carry_out(fleet: &Arc<Fleet>, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
    let stop = CancellationToken::new();
    let tasks = Tasks::new();
    if plan.shape.slow_reader {
        for _ in 0..3 {
            tasks.spawn(slow::read(fleet.http.address, stop.clone()));
        }
    }
    let clock = Stopwatch::start();
    let (sent, injected) =
        tokio::join!(sender::send(fleet, &plan.messages), faults::inject(fleet, &plan.faults));
    outcome.faults = injected?;
    outcome.messages = Totals::of(&sent);
    outcome.durations_ms.insert("faults", clock.elapsed_ms());

    let clock = Stopwatch::start();
    fleet.ready().await.context("after the faults")?;
    settle(fleet).await?;
    outcome.durations_ms.insert("settle", clock.elapsed_ms());

    let clock = Stopwatch::start();
    let silent = probe(fleet).await;
    outcome.durations_ms.insert("probe", clock.elapsed_ms());
    stop.cancel();
    outcome.checks.push(Check::new("every worker works, and the hub tells of it", silent));

    let snapshot = still(fleet).await?;
    let circuits = snapshot::circuits(fleet).await?;
    outcome.breakers_opened = circuits.iter().filter(|what| *what == "circuit_opened").count();
    let parked = |event: &&snapshot::Event| event.reason.as_deref() == Some("circuit_open");
    outcome.parked = snapshot.events.iter().filter(parked).count();
    let evidence = Evidence { sent, ledger: fleet.mcp.ledger(), snapshot };
    outcome.checks.extend(checks::judge(&evidence));
    outcome.outcomes = checks::outcomes(&evidence);
    outcome.calls = evidence.ledger.len();
    let (missing, without) = artifacts(fleet, &evidence);
    outcome.without_artifacts = without;
    outcome.checks.push(Check::new("artifacts that the log names are there", missing));
    for process in fleet.processes() {
        if let Some(memory) = process.memory().await {
            outcome.memory.insert(process.name.clone(), memory);
        }
    }
    let grown = outcome.memory.iter().filter_map(|(name, (before, after))| {
        let held = after.held_kb.saturating_sub(before.held_kb);
        let peak = after.peak_kb.saturating_sub(before.held_kb);
        (held > MORE_HELD_KB || peak > MORE_PEAK_KB)
            .then(|| format!("{name} holds {held} kB more than at its start, and held {peak} kB"))
    });
    outcome.checks.push(Check::new("memory is flat", grown.collect()));
    Ok(())
}

/// Waits until every message is finished; that one is not is for the checks to tell.
async fn settle(fleet: &Fleet) -> Result<()> {
    let waited = Stopwatch::start();
    while snapshot::unfinished(fleet).await? > 0 && waited.elapsed() < SETTLE_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Everything, when nothing is under way: a hub that was cut off goes on trying what nobody waits for any more, so
/// that a message may come late.
async fn still(fleet: &Fleet) -> Result<snapshot::Snapshot> {
    let waited = Stopwatch::start();
    loop {
        settle(fleet).await?;
        let snapshot = snapshot::take(fleet).await?;
        let finished = snapshot.messages.iter().all(snapshot::Message::is_finished);
        if finished || waited.elapsed() > SETTLE_WITHIN {
            return Ok(snapshot);
        }
    }
}

/// Lets every worker do one more thing, and the hub tell of it; who does not.
async fn probe(fleet: &Fleet) -> Vec<String> {
    let mut asked: Vec<_> = Vec::new();
    for number in 0..fleet.gateways.len() {
        asked.push(probe_gateway(fleet, number));
    }
    let (gateways, echo) = tokio::join!(futures_util::future::join_all(asked), probe_echo(fleet));
    let problems =
        gateways.into_iter().enumerate().map(|(n, found)| (format!("gateway{n}"), found));
    let problems = problems.chain([("echo".to_owned(), echo)]);
    problems.filter_map(|(name, found)| Some(format!("{name}: {:#}", found.err()?))).collect()
}

async fn probe_gateway(fleet: &Fleet, number: usize) -> Result<()> {
    let toolset = fleet::own_toolset(number);
    let body = json!({"toolset": toolset, "tool": "put", "params": {"n": 9000 + number}});
    let (hub, within) = (fleet.hub_address()?, PROBE_WITHIN);
    let (status, accepted) =
        http::request(hub, "POST", "/api/mcp/enqueue", &body.to_string(), within).await?;
    anyhow::ensure!(status == 202, "the hub answered {status}: {accepted}");
    let path = format!(
        "/api/messages/{}?wait={}s",
        accepted["id"].as_str().unwrap_or_default(),
        within.as_secs()
    );
    let (_, found) = http::request(hub, "GET", &path, "", within + Duration::from_secs(2)).await?;
    let status = &found["message"]["status"];
    anyhow::ensure!(status == "done", "its message is {status}: {}", found["message"]["error"]);
    Ok(())
}

async fn probe_echo(fleet: &Fleet) -> Result<()> {
    if fleet.echo.is_none() {
        return Ok(());
    }
    let bus = Bus::new(cogo::db::Options::new(fleet.owner()).pool());
    let message = NewMessage::new(&Topic::new("echo", "default")?, "echo", json!({"n": 9100}));
    let receipt = bus.publish(message).await?;
    let waited = Stopwatch::start();
    while waited.elapsed() < PROBE_WITHIN {
        if bus.message(receipt.id).await?.status.is_final() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("its message is not finished after {PROBE_WITHIN:?}")
}

/// Directories that the log names and that are not there; and how many attempts have none.
fn artifacts(fleet: &Fleet, evidence: &Evidence) -> (Vec<String>, usize) {
    let (mut missing, mut without) = (Vec::new(), 0);
    let called = |event: &&snapshot::Event| matches!(event.what(), "succeeded" | "failed");
    for event in evidence.snapshot.events.iter().filter(called) {
        let Some(gateway) = fleet
            .gateways
            .iter()
            .find(|gateway| Some(gateway.process.name.as_str()) == event.worker_id.as_deref())
        else {
            continue;
        };
        match event.payload["artifacts"].as_str() {
            Some(path) => {
                if !gateway.artifacts.join(path).join("summary.json").is_file() {
                    missing.push(format!("{}: {path}", event.message_id));
                }
            }
            None => without += 1,
        }
    }
    (missing, without)
}

/// How often workers say that they came too late.
fn refused_late(logs: &[(String, String)]) -> usize {
    let words =
        ["was settled too late", "is no longer in force; its handler", "ran out unextended"];
    let lines = logs.iter().flat_map(|(_, log)| log.lines());
    lines.filter(|line| words.iter().any(|words| line.contains(words))).count()
}
