//! By the log: lives, claims, attempts, deadlines, order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Evidence;
use super::story::{ByMessage, Story, told};
use crate::snapshot::{Event, Message};

pub(super) fn ends(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let ends = story.count("succeeded") + story.count("dead_lettered");
        let unfinished = usize::from(!story.message.is_finished());
        (ends + unfinished != story.lives())
            .then(|| format!("{ends} ends in {} lives", story.lives()))
    })
}

pub(super) fn claims(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let mut settled = BTreeSet::new();
        let settles = story.events.iter().filter(|event| settles(event));
        let twice = settles.filter_map(|event| event.claim_no()).find(|no| !settled.insert(*no));
        twice.map(|no| format!("claim {no} settled twice"))
    })
}

fn settles(event: &Event) -> bool {
    matches!(event.what(), "succeeded" | "failed" | "released")
}

pub(super) fn fenced(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let late = story.events.iter().filter(|event| settles(event));
        let late = late.filter_map(|event| Some((event.what(), event.claim_no()?)));
        let mut late = late.filter(|(_, claim_no)| expired(story, *claim_no));
        late.next().map(|(what, no)| format!("claim {no} had expired and {what}"))
    })
}

/// Whether the lease of a claim ran out; that raises the message's number by one.
fn expired(story: &Story<'_>, claim_no: i64) -> bool {
    let mut expiries = story.events.iter().filter(|event| event.what() == "lease_expired");
    expiries.any(|event| event.claim_no() == Some(claim_no + 1))
}

pub(super) fn attempts(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let limit = story.message.max_attempts;
        let most = story.events.iter().map(|event| event.attempt).max().unwrap_or_default();
        let most = most.max(story.message.attempts);
        (most > limit).then(|| format!("attempt {most}"))
    })
}

/// By the log, whose times are the database's: after its deadline a message may be settled by the worker that
/// had it, but it is not to be tried again. A release is put back as it was, and ended by the next reap.
pub(super) fn deadlines(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let deadline = story.message.deadline_at?;
        if let Some(retry) = story.events.iter().find(|event| {
            event.what() == "retry_scheduled"
                && event.payload["run_at"].as_str().and_then(|at| at.parse().ok()) >= Some(deadline)
        }) {
            return Some(format!("a retry is due {}, after {deadline}", retry.payload["run_at"]));
        }
        let lost = |event: &Event| event.what() == "lease_expired" && event.created_at >= deadline;
        let at = story.events.iter().position(|event| lost(event))?;
        let next = story.events.get(at + 1).map(|event| event.what());
        (next != Some("dead_lettered")).then(|| format!("lost at its end, and then {next:?}"))
    })
}

/// By the log: nothing is settled of a message before the one before it has ended. Not by the ledger, where a
/// worker that was stopped calls late for a claim that it has lost.
pub(super) fn order(evidence: &Evidence) -> Vec<String> {
    let mut by_key: BTreeMap<(&str, &str, &str), Vec<&Message>> = BTreeMap::new();
    for message in &evidence.snapshot.messages {
        if let Some(key) = &message.ordering_key {
            by_key.entry((&message.role, &message.service, key)).or_default().push(message);
        }
    }
    let mut problems = Vec::new();
    for messages in by_key.values_mut() {
        messages.sort_by_key(|message| message.ordering_no);
        for pair in messages.windows(2) {
            let happened = |message: &Message, what: fn(&str) -> bool| {
                let events = evidence.snapshot.events.iter().enumerate();
                let mut its = events.filter(|(_, e)| e.message_id == message.id && what(e.what()));
                its.next().map(|(at, _)| at)
            };
            let ended = happened(pair[0], |what| matches!(what, "succeeded" | "dead_lettered"));
            let begun = happened(pair[1], |what| {
                matches!(what, "succeeded" | "failed" | "released" | "lease_expired")
            });
            if begun.is_some_and(|begun| ended.is_none_or(|ended| begun < ended)) {
                problems.push(format!("{} before the end of {}", told(pair[1]), told(pair[0])));
            }
        }
    }
    problems
}

pub(super) fn internal(evidence: &Evidence) -> Vec<String> {
    let of_error =
        |error: Option<&Value>| error.and_then(|error| error["class"].as_str()).map(str::to_owned);
    evidence
        .snapshot
        .events
        .iter()
        .filter(|event| of_error(event.payload.get("error")).as_deref() == Some("internal"))
        .map(|event| format!("{}: {}", event.message_id, event.payload["error"]))
        .collect()
}
