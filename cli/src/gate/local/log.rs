//! The step `events`: what happened to each message is what may happen to one. And `events.jsonl`, the log as it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cogo::event::{Cursor, Event};
use cogo::gate::Failure;
use cogo::message::MessageId;
use serde_json::json;

use super::record::Record;
use super::world::{World, ensure, story, what};

/// How many events are read at once.
const PAGE: u32 = 5000;
/// How many messages are told of that went wrong.
const TOLD: usize = 3;

/// The whole log, oldest first.
pub(super) async fn all(world: &World) -> Result<Vec<Event>, Failure> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(Cursor::START, |event| event.cursor);
        let page = world.bus.read_events(after, PAGE, &json!({})).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}

/// Writes the log, an event a line. Secrets that senders put into their messages are in the log; they are hidden here.
pub(super) async fn write(world: &World) -> Result<usize, Failure> {
    let events = all(world).await?;
    let mut text = String::new();
    for event in &events {
        let _infallible = writeln!(text, "{}", serde_json::to_string(event)?);
    }
    std::fs::write(world.places.dir.join("events.jsonl"), world.secrets.hide(&text))?;
    Ok(events.len())
}

/// Judges all messages.
pub(super) async fn events(
    world: &World,
    record: &Record<'_, '_>,
) -> Result<((), String), Failure> {
    let events = all(world).await?;
    let mut by_message: BTreeMap<MessageId, Vec<Event>> = BTreeMap::new();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &events {
        if let Some(id) = event.message_id {
            by_message.entry(id).or_default().push(event.clone());
            *counted.entry(what(event)).or_default() += 1;
        }
    }
    record.figure("messages", by_message.len());
    record.figure("happened", json!(counted));
    ensure(!by_message.is_empty(), || "the log has no message".to_owned())?;
    let wrong: Vec<String> = by_message
        .iter()
        .filter_map(|(id, events)| {
            let why = legal(events).err()?;
            Some(format!("message {id}: {why}, in {}", story(events)))
        })
        .collect();
    ensure(wrong.is_empty(), || {
        let told = wrong[..wrong.len().min(TOLD)].join("; ");
        format!("{} messages have gone a way that is none: {told}", wrong.len())
    })?;
    let counted: Vec<String> =
        counted.iter().map(|(what, count)| format!("{count} {what}")).collect();
    Ok(((), format!("{} messages went legal ways: {}", by_message.len(), counted.join(", "))))
}

/// Where a message stands by its events so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun.
    Nothing,
    /// It waits, or is held: a claim is no event.
    Waiting,
    /// An attempt failed, and what follows must come next.
    Failed,
    /// In the dead-letter queue.
    Dead,
    /// Finished for good.
    Ended,
}

/// Goes through a message's events; the first that may not stand where it does.
fn legal(events: &[Event]) -> Result<(), String> {
    let mut state = State::Nothing;
    // The number of the attempt that comes next, and of the last claim that was settled.
    let (mut next, mut claim) = (1, 0);
    let mut last = None;
    for event in events {
        let what = what(event);
        if matches!(what, "progress" | "input") {
            continue;
        }
        if last.is_some_and(|last| last > event.created_at) {
            return Err(format!("{what} is older than what stands before it"));
        }
        last = Some(event.created_at);
        if matches!(what, "succeeded" | "failed" | "released" | "lease_expired") {
            if event.attempt != next {
                return Err(format!("{what} is of attempt {}, and {next} was next", event.attempt));
            }
            let claim_no = event.payload["claim_no"].as_i64().unwrap_or_default();
            if claim_no <= claim {
                return Err(format!(
                    "{what} is of claim {claim_no}, and {claim} was settled before"
                ));
            }
            claim = claim_no;
        }
        state = match (state, what) {
            (State::Nothing, "scheduled")
            | (State::Failed, "retry_scheduled")
            | (State::Waiting, "released") => State::Waiting,
            (State::Waiting, "lease_expired") => State::Waiting,
            (State::Waiting, "failed") => State::Failed,
            (State::Waiting | State::Failed, "dead_lettered") => State::Dead,
            (State::Dead, "requeued") => State::Waiting,
            (State::Waiting, "succeeded" | "cancelled") | (State::Dead, "dropped") => State::Ended,
            (state, what) => return Err(format!("{what} may not come while it is {state:?}")),
        };
        match what {
            "failed" | "lease_expired" => next += 1,
            "requeued" => next = 1,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events by `what:attempt:claim_no`.
    fn events(told: &str) -> Vec<Event> {
        let events = told.split_whitespace().enumerate().map(|(at, told)| {
            let mut parts = told.split(':');
            let what = parts.next().expect("a word");
            let mut number =
                || parts.next().map_or(0, |text| text.parse::<i64>().expect("a number"));
            serde_json::from_value(json!({
                "cursor": format!("1.{at}"), "id": "019ab1c2-0000-7000-8000-000000000000",
                "event_type": format!("mcp_call_{what}"), "message_id": null,
                "trace_id": "019ab1c2-0000-7000-8000-000000000000", "tenant": "default",
                "service": "gate", "role": "mcp-gateway", "shard": 0, "attempt": number(),
                "worker_id": null, "reason": null, "payload": {"claim_no": number()},
                "created_at": format!("2026-11-22T00:00:{at:02}Z"),
            }))
            .expect("an event")
        });
        events.collect()
    }

    #[test]
    fn ways_that_a_message_may_go() {
        for good in [
            "scheduled",
            "scheduled progress:1 succeeded:1:1",
            "scheduled released:1:1 released:1:2 succeeded:1:3",
            "scheduled failed:1:1 retry_scheduled:1 lease_expired:2:3 succeeded:3:4",
            "scheduled failed:1:1 dead_lettered:1 requeued succeeded:1:2",
            "scheduled lease_expired:1:2 dead_lettered:1 dropped",
        ] {
            assert_eq!(legal(&events(good)), Ok(()), "{good}");
        }
    }

    #[test]
    fn ways_that_none_may_go() {
        for (bad, why) in [
            ("succeeded:1:1", "may not come"),
            ("scheduled scheduled", "may not come"),
            ("scheduled succeeded:1:1 succeeded:1:2", "may not come"),
            ("scheduled failed:1:1 succeeded:2:2", "may not come"),
            ("scheduled failed:1:1 retry_scheduled:1 succeeded:1:2", "attempt 1, and 2"),
            ("scheduled released:1:1 succeeded:2:2", "attempt 2, and 1"),
            ("scheduled lease_expired:1:2 succeeded:2:2", "claim 2"),
            ("scheduled requeued", "may not come"),
        ] {
            let told = legal(&events(bad)).expect_err(bad);
            assert!(told.contains(why), "{bad}: {told}");
        }
        let mut back = events("scheduled succeeded:1:1");
        back.reverse();
        back[0].event_type = "mcp_call_scheduled".to_owned();
        back[1].event_type = "mcp_call_succeeded".to_owned();
        assert!(legal(&back).expect_err("older").contains("older"));
    }
}
