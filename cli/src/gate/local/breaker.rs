//! The step `breaker`: a sick tool is left alone, and used again when it is well.

use std::time::Duration;

use cogo::breaker::State;
use cogo::bus::circuit::Circuit;
use cogo::gate::Failure;
use cogo::message::MessageId;
use serde_json::json;

use super::config::{Configs, TOOLSET};
use super::record::Record;
use super::tool::SICK;
use super::wait::Patience;
use super::world::{DONE_WITHIN, World, ensure, gave, told};

/// How long it may take to open once calls fail.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to close, once its tool is well: by the scenario's policy it stays open for one and a half seconds,
/// and on a busy machine a probe may fail.
const CLOSES_WITHIN: Duration = Duration::from_secs(30);
/// How many calls make the tool's sickness seen, and how many are asked for while it is left alone.
const FIRST: usize = 3;
const MEANWHILE: usize = 6;

/// Opens, waits, probes, closes.
pub(super) async fn breaker(
    world: &World,
    record: &Record<'_, '_>,
) -> Result<((), String), Failure> {
    let key = Configs::key(SICK);
    world.tool.be_sick(true);
    let mut ids = enqueue(world, FIRST).await?;
    let opened = opens(world, &key).await?;
    let at_hub = world.hub.read("/api/circuits").await?;
    ensure(at_hub.text.contains(&key), || {
        format!("GET /api/circuits does not tell of {key}: {}", at_hub.text)
    })?;

    let meanwhile = enqueue(world, MEANWHILE).await?;
    let parked = parks(world, &meanwhile).await?;
    ids.extend(&meanwhile);

    world.tool.be_sick(false);
    let waited = closes(world, &key).await?;
    for id in &ids {
        let (message, _) = world.finished(*id, DONE_WITHIN).await?;
        gave(&message, "{}")?;
        // An attempt is burnt only by trying.
        let calls = world.tool.calls_of(&id.to_string()).len();
        ensure(usize::try_from(message.attempts) == Ok(calls), || {
            format!(
                "message {id} counts {} attempts, and its tool was called {calls} times",
                message.attempts
            )
        })?;
    }
    let told = transitions(world, &key).await?;
    let legal = told.windows(2).all(|pair| {
        matches!(
            (pair[0].as_str(), pair[1].as_str()),
            ("circuit_opened", "circuit_half_opened")
                | ("circuit_half_opened", "circuit_opened" | "circuit_closed")
                | ("circuit_closed", "circuit_opened")
        )
    });
    ensure(legal && told.last().is_some_and(|last| last == "circuit_closed"), || {
        format!(
            "{key}: expected it to open, half-open and close, and the log has {}",
            told.join(", ")
        )
    })?;
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    record.figure("breaker_closed_after_ms", waited_ms);
    record.figure("parked", parked);
    let why = opened.reason.unwrap_or_default();
    let detail = format!(
        "opened ({why}), {parked} parked with their attempts; closed {waited_ms} ms after its tool was well, all {} done",
        ids.len()
    );
    Ok(((), detail))
}

async fn enqueue(world: &World, count: usize) -> Result<Vec<MessageId>, Failure> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(world.enqueue(TOOLSET, SICK, &json!({})).await?);
    }
    Ok(ids)
}

async fn circuit(world: &World, key: &str) -> Result<Option<Circuit>, Failure> {
    let all = world.bus.circuits("*").await?;
    Ok(all.into_iter().find(|circuit| circuit.key == key))
}

async fn opens(world: &World, key: &str) -> Result<Circuit, Failure> {
    let patience = Patience::with(format!("the breaker of {key} opens"), OPENS_WITHIN);
    loop {
        let seen = match circuit(world, key).await? {
            Some(circuit) if circuit.state != State::Closed => return Ok(circuit),
            Some(circuit) => self::seen(world, &circuit),
            None => "it has never opened".to_owned(),
        };
        patience.again(seen).await?;
    }
}

/// Waits until calls are put back unasked; how many. Not all need be at one moment, for one of them is the probe.
async fn parks(world: &World, ids: &[MessageId]) -> Result<usize, Failure> {
    let patience =
        Patience::with("what is asked of a tool whose breaker is open is parked", DONE_WITHIN);
    let least = ids.len() - 1;
    loop {
        let mut parked = 0;
        let mut last = String::new();
        for id in ids {
            let message = world.bus.message(*id).await?;
            let is_parked =
                message.parked_for.as_deref().is_some_and(|why| why.starts_with("circuit:"));
            parked += usize::from(is_parked);
            last = told(&message);
        }
        if parked >= least {
            return Ok(parked);
        }
        patience.again(format!("{parked} of {} are; of the last, {last}", ids.len())).await?;
    }
}

/// Waits until it is closed; how long that took.
async fn closes(world: &World, key: &str) -> Result<Duration, Failure> {
    let patience = Patience::with(
        format!("the breaker of {key} closes, now that its tool is well"),
        CLOSES_WITHIN,
    );
    loop {
        let seen = match circuit(world, key).await? {
            Some(circuit) if circuit.state == State::Closed => return Ok(patience.waited()),
            Some(circuit) => self::seen(world, &circuit),
            None => "there is no such breaker any more".to_owned(),
        };
        patience.again(seen).await.map_err(|failure| {
            failure.remedy(
                "See circuit_breaker.json for how long it stays open; `cogo circuit close` closes it by hand.",
            )
        })?;
    }
}

/// Where a breaker stands: since when, held by whom, and for how long it stays so.
fn seen(world: &World, circuit: &Circuit) -> String {
    let updated_at = circuit.updated_at;
    let state = match circuit.state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
    };
    let holder = match (&circuit.prober, &circuit.worker_id) {
        (Some(prober), _) => format!("{prober} probes"),
        (None, Some(worker)) if circuit.forced => format!("operator {worker} holds it"),
        (None, Some(worker)) => format!("{worker} brought it there"),
        (None, None) => "nobody is known to hold it".to_owned(),
    };
    let left = match (circuit.forced, circuit.open_for_ms) {
        (true, _) => "until an operator closes it".to_owned(),
        (false, Some(ms)) => format!("and may be probed in {ms} ms"),
        (false, None) => "and may be probed now".to_owned(),
    };
    let policy = world.configs.breaker.resolve(&circuit.key);
    let (since, why) = (updated_at.to_rfc3339(), circuit.reason.as_deref().unwrap_or("no reason"));
    format!(
        "it has been {state} since {since} ({why}), {holder}, {left}; the policy keeps it open for {} ms",
        policy.open_ms
    )
}

/// The transitions of a breaker, by the log.
async fn transitions(world: &World, key: &str) -> Result<Vec<String>, Failure> {
    let events = super::log::all(world).await?;
    Ok(events
        .into_iter()
        .filter(|event| event.event_type.starts_with("circuit_"))
        .filter(|event| event.payload["key"] == key)
        .map(|event| event.event_type)
        .collect())
}
