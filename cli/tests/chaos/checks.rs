//! What must hold after a run, whatever happened in it.

mod ledger;
mod log;
mod sent;
mod story;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use self::story::ByMessage;
use crate::mcp::Called;
use crate::plan::Work;
use crate::sender::Sent;
use crate::snapshot::Snapshot;

/// How many problems of one kind are told.
const TOLD: usize = 8;

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
}

impl Check {
    pub(crate) fn new(name: &'static str, mut problems: Vec<String>) -> Self {
        let (ok, more) = (problems.is_empty(), problems.len().saturating_sub(TOLD));
        problems.truncate(TOLD);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        Self { name, ok, problems }
    }
}

/// Everything that is known of a run when it is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) sent: Vec<Sent>,
    pub(crate) ledger: Vec<Called>,
    pub(crate) snapshot: Snapshot,
}

/// Judges messages, log and ledger.
pub(crate) fn judge(evidence: &Evidence) -> Vec<Check> {
    let by_message = ByMessage::new(evidence);
    vec![
        Check::new("every acknowledged message is finished", sent::lost(evidence, &by_message)),
        Check::new("every message is finished and no lease is left", table::waiting(evidence)),
        Check::new("a key makes one message", sent::keys(evidence)),
        Check::new("every message ends once a life", log::ends(&by_message)),
        Check::new("a claim settles at most once", log::claims(&by_message)),
        Check::new("a claim that was taken away settles nothing", log::fenced(&by_message)),
        Check::new("no attempt is beyond max_attempts", log::attempts(&by_message)),
        Check::new("nothing goes on past its deadline", log::deadlines(&by_message)),
        Check::new("each attempt calls its tool at most once", ledger::calls(&by_message)),
        Check::new("messages of one ordering key go one by one, in order", log::order(evidence)),
        Check::new(
            "what must not be repeated happened at most once a life",
            ledger::effects(&by_message),
        ),
        Check::new("what is done was done, by whom the log says", ledger::done(&by_message)),
        Check::new("each result is that of its message", table::results(evidence)),
        Check::new("poison is dead", table::poison(evidence)),
        Check::new("nothing failed by a defect of the product", log::internal(evidence)),
        Check::new("the log folds to the table", evidence.snapshot.diff.clone()),
        Check::new("the hub answers as it should", sent::answers(evidence)),
    ]
}

/// What became of the messages, by status and class of error.
pub(crate) fn outcomes(evidence: &Evidence) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in &evidence.snapshot.messages {
        let outcome = match message.status.as_str() {
            "failed" => format!("failed: {}", message.class()),
            other => other.to_owned(),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    let unknown = evidence.sent.iter().filter(|sent| sent.acknowledged.is_empty()).count();
    if unknown > 0 {
        counts.insert("never acknowledged".to_owned(), unknown);
    }
    let echoes = evidence.sent.iter().filter(|sent| sent.work == Work::Echo).count();
    counts.insert("of these echo".to_owned(), echoes);
    counts
}
