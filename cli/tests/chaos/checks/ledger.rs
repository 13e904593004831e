//! By the ledger: what the tools did, and for whom.

use std::collections::BTreeSet;

use super::story::ByMessage;
use crate::mcp::{self, Caller};

pub(super) fn calls(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        // An attempt that was given back is made again.
        let mut left = story.count("released") + story.count("requeued");
        let mut made = BTreeSet::new();
        for call in &story.calls {
            if call.attempt > story.message.max_attempts {
                return Some(format!("attempt {} was made", call.attempt));
            }
            if !made.insert(call.attempt) {
                if left == 0 {
                    return Some(format!("attempt {} called twice", call.attempt));
                }
                left -= 1;
            }
        }
        None
    })
}

pub(super) fn effects(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let once = mcp::find(story.message.tool()).is_some_and(|tool| !tool.repeatable);
        let calls = &story.calls;
        (once && calls.len() > story.lives()).then(|| {
            let calls: Vec<_> = calls.iter().map(|c| (c.attempt, c.by, c.at_ms)).collect();
            format!("happened {} times: {calls:?}", calls.len())
        })
    })
}

pub(super) fn done(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        if story.message.role != "mcp-gateway" {
            return None;
        }
        let end = story.events.iter().find(|event| event.what() == "succeeded")?;
        let worker = end.worker_id.as_deref();
        let did = story.calls.iter().any(|call| {
            let by = match call.by {
                Caller::Hub => "hub".to_owned(),
                Caller::Gateway(number) => format!("gateway{number}"),
            };
            call.attempt == end.attempt && Some(by.as_str()) == worker
        });
        (!did).then(|| format!("{worker:?} never called the tool in attempt {}", end.attempt))
    })
}
