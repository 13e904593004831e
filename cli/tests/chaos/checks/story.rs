//! What happened to each message, brought together.

use std::collections::BTreeMap;

use super::Evidence;
use crate::mcp::Called;
use crate::snapshot::{Event, Message};

/// A message with all that happened to it.
pub(super) struct Story<'a> {
    pub(super) message: &'a Message,
    pub(super) events: Vec<&'a Event>,
    pub(super) calls: Vec<&'a Called>,
}

pub(super) struct ByMessage<'a>(pub(super) BTreeMap<&'a str, Story<'a>>);

impl<'a> ByMessage<'a> {
    pub(super) fn new(evidence: &'a Evidence) -> Self {
        let mut all: BTreeMap<_, _> = evidence
            .snapshot
            .messages
            .iter()
            .map(|message| {
                (message.id.as_str(), Story { message, events: Vec::new(), calls: Vec::new() })
            })
            .collect();
        for event in &evidence.snapshot.events {
            if let Some(story) = all.get_mut(event.message_id.as_str()) {
                story.events.push(event);
            }
        }
        for call in &evidence.ledger {
            if let Some(story) = all.get_mut(call.message.as_str()) {
                story.calls.push(call);
            }
        }
        Self(all)
    }

    pub(super) fn problems(&self, judge: impl Fn(&Story<'a>) -> Option<String>) -> Vec<String> {
        let told = |story: &Story<'a>| {
            judge(story).map(|problem| format!("{}: {problem}", told(story.message)))
        };
        self.0.values().filter_map(told).collect()
    }
}

impl Story<'_> {
    pub(super) fn count(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.what() == what).count()
    }

    /// How often it was begun: once, and again by each requeue.
    pub(super) fn lives(&self) -> usize {
        1 + self.count("requeued")
    }
}

pub(super) fn told(message: &Message) -> String {
    let Message { id, status, attempts, max_attempts, .. } = message;
    format!("{id} {} ({status}, attempt {attempts} of {max_attempts})", message.tool())
}
