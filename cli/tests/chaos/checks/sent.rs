//! By what was sent and how it was answered.

use std::collections::HashMap;

use super::Evidence;
use super::story::{ByMessage, told};

pub(super) fn lost(evidence: &Evidence, by_message: &ByMessage<'_>) -> Vec<String> {
    let acknowledged = evidence.sent.iter().flat_map(|sent| &sent.acknowledged);
    acknowledged
        .filter_map(|id| match by_message.0.get(id.as_str()) {
            None => Some(format!("{id} is not there")),
            Some(story) if !matches!(story.message.status.as_str(), "done" | "failed") => {
                Some(told(story.message))
            }
            Some(_) => None,
        })
        .collect()
}

pub(super) fn keys(evidence: &Evidence) -> Vec<String> {
    let mut problems = Vec::new();
    for sent in &evidence.sent {
        if sent.acknowledged.len() > 1 {
            let (key, ids) = (&sent.key, &sent.acknowledged);
            problems.push(format!("{key:?} was acknowledged as {ids:?}"));
        }
    }
    let mut by_key: HashMap<&str, Vec<&str>> = HashMap::new();
    for message in &evidence.snapshot.messages {
        if let Some(key) = &message.idempotency_key {
            by_key.entry(key).or_default().push(&message.id);
        }
    }
    for (key, ids) in by_key {
        if ids.len() > 1 {
            problems.push(format!("{key} has {ids:?}"));
        }
    }
    problems
}

pub(super) fn answers(evidence: &Evidence) -> Vec<String> {
    let known = |answer: &str| {
        matches!(answer, "202" | "503" | "504" | "published" | "not published")
            || answer.starts_with("none ")
    };
    let all = evidence.sent.iter();
    all.flat_map(|sent| &sent.answers).filter(|answer| !known(answer)).cloned().collect()
}
