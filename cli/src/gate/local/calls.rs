//! The steps `call`, `retry` and `dead letter`: what one message may go through.

use std::time::Duration;

use chrono::TimeDelta;
use cogo::event::Event;
use cogo::gate::Failure;
use cogo::message::Status;
use serde_json::{Value, json};

use super::config::{Configs, TOOLSET};
use super::record::Record;
use super::tool::{Called, ECHO, FAILS_TWICE, GUARDED, STRICT};
use super::world::{DONE_WITHIN, World, ensure, gave, happened, told, what};

/// What the times in the log may be off by: they are of one clock, and of microseconds.
const SLACK_MS: i64 = 2;

/// From an HTTP request to a tool's result.
pub(super) async fn call(world: &World, record: &Record<'_, '_>) -> Result<((), String), Failure> {
    let params = json!({"n": 42, "text": "ä€😀"});
    let id = world.enqueue(TOOLSET, ECHO, &params).await?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    gave(&message, &params.to_string())?;
    happened(id, &events, "scheduled, succeeded")?;
    let worker = events.last().and_then(|event| event.worker_id.clone()).unwrap_or_default();
    ensure(world.servers.iter().any(|server| server.name == worker), || {
        format!("message {id} was done by {worker:?}, which is no worker of the scenario's")
    })?;
    let calls = world.tool.calls_of(&id.to_string());
    ensure(matches!(&calls[..], [Called { attempt: 1, via, .. }] if via == GUARDED), || {
        format!("message {id}: expected one call of its tool, and the tool's journal has {calls:?}")
    })?;
    let took = message.done_at.map_or(0, |at| (at - message.created_at).num_milliseconds());
    record.figure("call_ms", took);
    Ok(((), format!("done by {worker}, {took} ms after it was enqueued")))
}

/// A tool that fails twice and then works.
pub(super) async fn retry(world: &World, record: &Record<'_, '_>) -> Result<((), String), Failure> {
    let params = json!({"n": 1});
    let id = world.enqueue(TOOLSET, FAILS_TWICE, &params).await?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    gave(&message, &params.to_string())?;
    let expected = "scheduled, failed, retry_scheduled, failed, retry_scheduled, succeeded";
    happened(id, &events, expected)?;
    let attempts = world.tool.calls_of(&id.to_string()).len();
    ensure((message.attempts, attempts) == (3, 3), || {
        let counted = message.attempts;
        format!(
            "message {id}: expected 3 attempts; it counts {counted}, and its tool was called {attempts} times"
        )
    })?;
    let policy = world.configs.retry.resolve(&Configs::key(FAILS_TWICE));
    let mut delays = Vec::new();
    for (at, event) in events.iter().enumerate().filter(|(_, e)| what(e) == "retry_scheduled") {
        let attempt = u32::try_from(event.attempt).unwrap_or_default();
        let bounds = (policy.backoff.delay(attempt, 0.0), policy.backoff.delay(attempt, 1.0));
        let bounds = (millis(bounds.0), millis(bounds.1));
        let delay = delay(event)?;
        ensure((bounds.0 - SLACK_MS..=bounds.1 + SLACK_MS).contains(&delay), || {
            let (least, most) = bounds;
            format!(
                "message {id}: attempt {attempt} is to be followed after {delay} ms, and the policy says {least} to {most}"
            )
        })?;
        // What ended the next attempt cannot have happened before that was due.
        let next =
            events.get(at + 1).map(|next| (next.created_at - event.created_at).num_milliseconds());
        ensure(next.is_some_and(|next| next >= delay), || {
            format!(
                "message {id}: attempt {} had ended after {next:?} ms, before it was due",
                attempt + 1
            )
        })?;
        delays.push(delay);
    }
    record.figure("retry_delays_ms", json!(delays));
    Ok(((), format!("3 attempts, {delays:?} ms between them, as the policy says")))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// From the event that scheduled it until it was due.
fn delay(event: &Event) -> Result<i64, Failure> {
    let at = event.payload["run_at"].as_str().and_then(|at| at.parse().ok());
    let at: chrono::DateTime<chrono::Utc> =
        at.ok_or_else(|| Failure::new(format!("{} has no run_at", event.event_type)))?;
    Ok(TimeDelta::num_milliseconds(&(at - event.created_at)))
}

/// A call that cannot succeed, and what an operator makes of it.
pub(super) async fn dead_letter(world: &World) -> Result<((), String), Failure> {
    let id = world.enqueue(TOOLSET, STRICT, &json!({"value": "bad"})).await?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    happened(id, &events, "scheduled, failed, dead_lettered")?;
    let class = message.error.as_ref().and_then(|error| error["class"].as_str());
    let reason = events.last().and_then(|event| event.reason.as_deref());
    ensure(
        message.status == Status::Failed
            && (class, reason) == (Some("tool_error"), Some("not_retried")),
        || {
            format!(
                "message {id}: expected a dead letter of class tool_error that is not retried; {}",
                told(&message)
            )
        },
    )?;
    let listed = world.hub.read(&format!("/api/dead-letters/{id}")).await?;
    ensure(listed.text.contains("value: must be"), || {
        format!("message {id}: the hub does not say what its tool said: {}", listed.text)
    })?;

    let recipe = world.command("dlq-requeue")?.args(["dlq", "requeue", &id.to_string()]);
    let recipe =
        recipe.args(["--params", "{\"value\": \"good\"}", "--reason", "mended by the gate"]);
    recipe.run().await?.ok()?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    gave(&message, "good")?;
    happened(id, &events, "scheduled, failed, dead_lettered, requeued, succeeded")?;
    let lines: Vec<Value> = events.iter().map(|event| json!(event.attempt)).collect();
    ensure(message.attempts == 1, || {
        format!("message {id}: expected its attempts to begin anew, and they are {lines:?}")
    })?;
    Ok(((), "tool_error, not_retried; requeued with other params, and done".to_owned()))
}
