//! Single faults, and what exactly must follow from each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Options};
use crate::mcp::{Caller, Does};
use crate::plan::{Shape, Target};
use crate::postgres::Postgres;
use crate::process::Signal;
use crate::series::alone;
use crate::snapshot::{self, Event, Snapshot};
use crate::{config, http};

/// How long something may take that must happen.
const WITHIN: Duration = Duration::from_secs(30);

/// A fleet of so many workers, and a Postgres for it.
async fn fleet(gateways: usize) -> Result<(Arc<Postgres>, Fleet)> {
    let postgres = Arc::new(Postgres::start().await?);
    let options = Options { shape: Shape { gateways, ..Shape::default() }, ..Options::default() };
    let fleet = Fleet::start(Arc::clone(&postgres), &options).await?;
    Ok((postgres, fleet))
}

async fn enqueue(fleet: &Fleet, toolset: &str, tool: &str) -> Result<String> {
    let body = json!({"toolset": toolset, "tool": tool, "params": {"n": 1}}).to_string();
    let (status, accepted) =
        http::request(fleet.hub_address()?, "POST", "/api/mcp/enqueue", &body, WITHIN).await?;
    anyhow::ensure!(status == 202, "{status}: {accepted}");
    Ok(accepted["id"].as_str().context("no id")?.to_owned())
}

/// Waits until a message is finished.
async fn finished(fleet: &Fleet, id: &str) -> Result<Value> {
    let path = format!("/api/messages/{id}?wait=30s");
    let (_, found) = http::request(fleet.hub_address()?, "GET", &path, "", WITHIN).await?;
    Ok(found["message"].clone())
}

/// Looks until there is something to see.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let waited = Stopwatch::start();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(waited.elapsed() < WITHIN, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn of<'a>(snapshot: &'a Snapshot, what: &str) -> Vec<&'a Event> {
    snapshot.events.iter().filter(|event| event.what() == what).collect()
}

/// Ends everything; it must end cleanly, with nothing amiss.
async fn end(postgres: Arc<Postgres>, fleet: Fleet) -> Result<()> {
    let diff = snapshot::take(&fleet).await?.diff;
    let incidents: Vec<_> = fleet.processes().iter().flat_map(|p| p.incidents()).collect();
    let problems = [diff, incidents, fleet.end().await].concat();
    drop(fleet);
    anyhow::ensure!(problems.is_empty(), "{problems:?}");
    Arc::into_inner(postgres).context("somebody still uses Postgres")?.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_past_its_lease_settles_nothing_any_more() -> Result<()> {
    let _alone = alone().await;
    let (postgres, fleet) = fleet(2).await?;
    let id = enqueue(&fleet, "good", "wait").await?;
    let first = until("a call", async || Ok(fleet.mcp.ledger().first().cloned())).await?;
    let Caller::Gateway(number) = first.by else { anyhow::bail!("the hub called a tool") };
    let stopped = fleet.process(Target::Gateway(number)).context("no such worker")?;
    stopped.signal(Signal::STOP).await;
    // The other one gets the message, and its answer; the stopped one's waits for it.
    until("a second call", async || Ok(fleet.mcp.ledger().get(1).cloned())).await?;
    fleet.mcp.let_go();
    let message = finished(&fleet, &id).await?;
    assert_eq!((&message["status"], &message["attempts"]), (&json!("done"), &json!(2)));
    stopped.signal(Signal::CONT).await;
    until("a refusal", async || {
        let said = stopped.said();
        let refused = ["was settled too late", "no longer in force", "ran out unextended"];
        Ok(refused.iter().any(|words| said.contains(words)).then_some(()))
    })
    .await?;

    let snapshot = snapshot::take(&fleet).await?;
    let succeeded = of(&snapshot, "succeeded");
    assert_eq!(succeeded.len(), 1, "{succeeded:?}");
    let other = format!("gateway{}", 1 - number);
    assert_eq!(succeeded[0].worker_id.as_deref(), Some(other.as_str()));
    let expired = of(&snapshot, "lease_expired");
    assert_eq!(expired.len(), 1, "{expired:?}");
    assert_eq!(expired[0].worker_id.as_deref(), Some(stopped.name.as_str()));
    end(postgres, fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_its_worker_each_time_is_dead_after_its_last_attempt() -> Result<()> {
    let _alone = alone().await;
    let (postgres, fleet) = fleet(2).await?;
    let id = enqueue(&fleet, "sick", "poison").await?;
    let message = finished(&fleet, &id).await?;
    assert_eq!((&message["status"], &message["attempts"]), (&json!("failed"), &json!(2)));
    assert_eq!(message["error"]["class"], "lease_expired", "{message}");
    assert_eq!(fleet.mcp.ledger().len(), 2, "each attempt killed a worker");
    let snapshot = snapshot::take(&fleet).await?;
    assert_eq!(of(&snapshot, "lease_expired").len(), 2);
    let dead = of(&snapshot, "dead_lettered");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason.as_deref(), Some("attempts_exhausted"));
    // The killed ones are back, and work.
    fleet.ready().await?;
    let id = enqueue(&fleet, "good", "put").await?;
    assert_eq!(finished(&fleet, &id).await?["status"], "done");
    end(postgres, fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_by_a_worker_that_was_killed_is_not_done_again() -> Result<()> {
    let _alone = alone().await;
    let (postgres, fleet) = fleet(2).await?;
    let id = enqueue(&fleet, "good", "wait_pay").await?;
    let call = until("a call", async || Ok(fleet.mcp.ledger().first().cloned())).await?;
    let Caller::Gateway(number) = call.by else { anyhow::bail!("the hub called a tool") };
    let killed = fleet.process(Target::Gateway(number)).context("no such worker")?;
    killed.kill().await;
    let message = finished(&fleet, &id).await?;
    assert_eq!(
        (&message["status"], &message["error"]["class"]),
        (&json!("failed"), &json!("ambiguous"))
    );
    assert_eq!(fleet.mcp.ledger().len(), 1, "it was paid once");
    killed.revive().await;
    fleet.ready().await?;
    end(postgres, fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_50_mb_leave_no_memory_behind() -> Result<()> {
    // Sixteen answers lie between the two looks; kept, what is gathered of them (16 MiB each) would be 256 MiB. A
    // buffer or two the allocator may keep in one more of its arenas, as the threads happen to meet.
    const MORE_KB: u64 = 64 << 10;
    let _alone = alone().await;
    let (postgres, fleet) = fleet(1).await?;
    let round = async || -> Result<u64> {
        for tool in ["huge", "huge_put"].into_iter().cycle().take(8) {
            let id = enqueue(&fleet, "sick", tool).await?;
            let message = finished(&fleet, &id).await?;
            assert_eq!(message["error"]["class"], "protocol", "{message}");
        }
        let memory = fleet.gateways[0].process.memory().await;
        Ok(memory.context("the worker is gone")?.1.held_kb)
    };
    // What the first answers take, the allocator keeps for the next.
    let (first, _, last) = (round().await?, round().await?, round().await?);
    assert!(last < first + MORE_KB, "{first} kB grew to {last} kB");
    end(postgres, fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_tool_opens_one_breaker_for_all_workers_and_one_probe_closes_it() -> Result<()> {
    const MESSAGES: usize = 60;
    let _alone = alone().await;
    let postgres = Arc::new(Postgres::start().await?);
    let breakers = json!({"policies": {"default": {
        "window": {"kind": "count", "calls": 6}, "min_requests": 4, "failure_rate": 0.5,
        "open_ms": 2000, "half_open_max_calls": 1, "successes_to_close": 1,
    }}});
    let retry = json!({"policies": {"default": {
        "max_attempts": 20, "backoff": {"kind": "fixed", "delay_ms": 50}, "timeout_ms": 3000,
    }}});
    let options = Options {
        shape: Shape { gateways: 3, ..Shape::default() },
        files: vec![
            ("circuit_breaker.json".to_owned(), breakers),
            ("retry_policy.json".to_owned(), retry),
        ],
    };
    let fleet = Fleet::start(Arc::clone(&postgres), &options).await?;
    fleet.mcp.change("put", Does::Dies);
    let mut ids = Vec::new();
    for _ in 0..MESSAGES {
        ids.push(enqueue(&fleet, "good", "put").await?);
    }
    until("the breaker opens", async || {
        Ok((!snapshot::circuits(&fleet).await?.is_empty()).then_some(()))
    })
    .await?;
    let opened = Stopwatch::start();
    // Whoever calls now waits to be let go, so that it is seen who else calls meanwhile.
    fleet.mcp.change("put", Does::Waits);
    for gateway in &fleet.gateways {
        let words = "The circuit breaker mcp.call.good.put.0 is open";
        until("every worker knows", async || {
            Ok(gateway.process.said().contains(words).then_some(()))
        })
        .await?;
    }
    assert!(opened.elapsed() < Duration::from_secs(2), "{} ms", opened.elapsed_ms());
    until("the breaker lets somebody probe", async || {
        let circuits = snapshot::circuits(&fleet).await?;
        Ok(circuits.iter().any(|what| what == "circuit_half_opened").then_some(()))
    })
    .await?;
    // What came late before the breaker opened may wait as well; the probe came just now.
    let before = opened.elapsed_ms().saturating_sub(400);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = fleet.mcp.elapsed_ms() - opened.elapsed_ms();
    let probes = fleet.mcp.ledger().into_iter().filter(|call| call.at_ms > began + before);
    let probes: Vec<_> = probes.map(|call| (call.by, call.at_ms)).collect();
    assert_eq!(probes.len(), 1, "one call at a time tests the water: {probes:?}");
    fleet.mcp.change("put", Does::Answers(10));
    fleet.mcp.let_go();
    for id in &ids {
        let message = finished(&fleet, id).await?;
        assert_eq!(message["status"], "done", "{message}");
    }
    let snapshot = snapshot::take(&fleet).await?;
    for message in &snapshot.messages {
        let its = snapshot.events.iter().filter(|event| event.message_id == message.id);
        let tried = its.filter(|event| matches!(event.what(), "succeeded" | "failed")).count();
        assert_eq!(message.attempts, tried as i64, "an attempt is burnt only by trying");
    }
    let circuits = snapshot::circuits(&fleet).await?;
    assert_eq!(circuits, ["circuit_opened", "circuit_half_opened", "circuit_closed"]);
    assert!(!of(&snapshot, "released").is_empty(), "nothing was parked");
    end(postgres, fleet).await
}

#[test]
fn a_stopped_worker_loses_its_lease_within_the_shortest_stop_of_a_plan() {
    let plans = (0..200).map(crate::plan::Plan::draw);
    let stops = plans.flat_map(|plan| plan.faults);
    let stops = stops.filter(|fault| matches!(fault.kind, crate::plan::Kind::Stop(_)));
    assert!(stops.map(|fault| fault.for_ms).min() > Some(config::LEASE_MS));
}
