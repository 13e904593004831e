//! The step `killed worker`: a worker dies in the middle of a call, and another finishes the work.

use cogo::gate::Failure;
use cogo::message::MessageId;
use serde_json::json;

use super::config::TOOLSET;
use super::process::Process;
use super::record::Record;
use super::tool::HOLD;
use super::wait::Patience;
use super::world::{DONE_WITHIN, World, ensure, gave, story, told, what};

/// Kills whoever holds the call; `spare` is a second worker for the same work.
pub(super) async fn killed(
    world: &mut World,
    record: &Record<'_, '_>,
    spare: Process,
) -> Result<((), String), Failure> {
    world.servers.push(spare);
    let id = world.enqueue(TOOLSET, HOLD, &json!({})).await?;
    let holder = held(world, id).await?;
    let at = world.servers.iter().position(|server| server.name == holder);
    let at = at.ok_or_else(|| {
        Failure::new(format!(
            "message {id} is held by {holder}, which is no worker of the scenario's"
        ))
    })?;
    world.servers.remove(at).kill().await?;

    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    gave(&message, "held")?;
    let by = |name: &str| {
        let found = events.iter().filter(|event| what(event) == name);
        found.map(|event| event.worker_id.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    let (lost, done) = (by("lease_expired"), by("succeeded"));
    ensure(lost == [holder.clone()] && done.len() == 1 && done[0] != holder, || {
        let story = story(&events);
        format!(
            "message {id}: expected the lease of {holder} to expire and one other worker to succeed; the log has {story}, by {done:?}"
        )
    })?;
    // What the tool saw: the call that died, and the one that was answered.
    let calls = world.tool.calls_of(&id.to_string());
    let seen: Vec<_> = calls.iter().map(|call| (call.attempt, call.answered)).collect();
    ensure(seen == [(1, false), (2, true)], || {
        format!(
            "message {id}: the log has two attempts, of which the second was answered; the tool's journal has {calls:?}"
        )
    })?;
    let claimed = events.iter().find(|event| what(event) == "lease_expired");
    let late =
        claimed.map_or(0, |event| (event.created_at - message.created_at).num_milliseconds());
    record.figure("taken_over_after_ms", late);
    Ok(((), format!("{holder} was killed in mid-call; {} did it again, {late} ms later", done[0])))
}

/// Who holds the message, once its tool has been called.
async fn held(world: &World, id: MessageId) -> Result<String, Failure> {
    let patience = Patience::with(format!("message {id} is at its tool"), DONE_WITHIN);
    loop {
        let message = world.bus.message(id).await?;
        let is_called = !world.tool.calls_of(&id.to_string()).is_empty();
        match &message.claimed_by {
            Some(worker) if is_called => return Ok(worker.clone()),
            _ => patience.again(told(&message)).await?,
        }
    }
}
