//! What must hold after a run, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::{Value, json};

use crate::mcp::{self, Called, Caller};
use crate::plan::Work;
use crate::sender::Sent;
use crate::snapshot::{Event, Message, Snapshot};

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
        Check::new("every acknowledged message is finished", lost(evidence, &by_message)),
        Check::new("every message is finished and no lease is left", waiting(evidence)),
        Check::new("a key makes one message", keys(evidence)),
        Check::new("every message ends once a life", ends(&by_message)),
        Check::new("a claim settles at most once", claims(&by_message)),
        Check::new("a claim that was taken away settles nothing", fenced(&by_message)),
        Check::new("no attempt is beyond max_attempts", attempts(&by_message)),
        Check::new("nothing goes on past its deadline", deadlines(&by_message)),
        Check::new("each attempt calls its tool at most once", calls(&by_message)),
        Check::new("messages of one ordering key go one by one, in order", order(evidence)),
        Check::new("what must not be repeated happened at most once a life", effects(&by_message)),
        Check::new("what is done was done, by whom the log says", done(&by_message)),
        Check::new("each result is that of its message", results(evidence)),
        Check::new("poison is dead", poison(evidence)),
        Check::new("nothing failed by a defect of the product", internal(evidence)),
        Check::new("the log folds to the table", evidence.snapshot.diff.clone()),
        Check::new("the hub answers as it should", answers(evidence)),
    ]
}

/// A message with all that happened to it.
struct Story<'a> {
    message: &'a Message,
    events: Vec<&'a Event>,
    calls: Vec<&'a Called>,
}

struct ByMessage<'a>(BTreeMap<&'a str, Story<'a>>);

impl<'a> ByMessage<'a> {
    fn new(evidence: &'a Evidence) -> Self {
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

    fn problems(&self, judge: impl Fn(&Story<'a>) -> Option<String>) -> Vec<String> {
        let told = |story: &Story<'a>| {
            judge(story).map(|problem| format!("{}: {problem}", told(story.message)))
        };
        self.0.values().filter_map(told).collect()
    }
}

impl Story<'_> {
    fn count(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.what() == what).count()
    }

    /// How often it was begun: once, and again by each requeue.
    fn lives(&self) -> usize {
        1 + self.count("requeued")
    }
}

fn told(message: &Message) -> String {
    let Message { id, status, attempts, max_attempts, .. } = message;
    format!("{id} {} ({status}, attempt {attempts} of {max_attempts})", message.tool())
}

fn lost(evidence: &Evidence, by_message: &ByMessage<'_>) -> Vec<String> {
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

fn waiting(evidence: &Evidence) -> Vec<String> {
    let all = evidence.snapshot.messages.iter();
    all.filter(|message| !message.is_finished()).map(told).collect()
}

fn keys(evidence: &Evidence) -> Vec<String> {
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

fn ends(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let ends = story.count("succeeded") + story.count("dead_lettered");
        let unfinished = usize::from(!story.message.is_finished());
        (ends + unfinished != story.lives())
            .then(|| format!("{ends} ends in {} lives", story.lives()))
    })
}

fn claims(by_message: &ByMessage<'_>) -> Vec<String> {
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

fn fenced(by_message: &ByMessage<'_>) -> Vec<String> {
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

fn attempts(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let limit = story.message.max_attempts;
        let most = story.events.iter().map(|event| event.attempt).max().unwrap_or_default();
        let most = most.max(story.message.attempts);
        (most > limit).then(|| format!("attempt {most}"))
    })
}

/// By the log, whose times are the database's: after its deadline a message may be settled by the worker that
/// had it, but it is not to be tried again. A release is put back as it was, and ended by the next reap.
fn deadlines(by_message: &ByMessage<'_>) -> Vec<String> {
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
fn order(evidence: &Evidence) -> Vec<String> {
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

fn calls(by_message: &ByMessage<'_>) -> Vec<String> {
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

fn effects(by_message: &ByMessage<'_>) -> Vec<String> {
    by_message.problems(|story| {
        let once = mcp::find(story.message.tool()).is_some_and(|tool| !tool.repeatable);
        let calls = &story.calls;
        (once && calls.len() > story.lives()).then(|| {
            let calls: Vec<_> = calls.iter().map(|c| (c.attempt, c.by, c.at_ms)).collect();
            format!("happened {} times: {calls:?}", calls.len())
        })
    })
}

fn done(by_message: &ByMessage<'_>) -> Vec<String> {
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

fn results(evidence: &Evidence) -> Vec<String> {
    let done = evidence.snapshot.messages.iter().filter(|message| message.status == "done");
    done.filter_map(|message| {
        let found = message.result.clone().unwrap_or_default();
        let expected = match message.role.as_str() {
            "mcp-gateway" => {
                let text = message.payload["params"]["n"].to_string();
                json!({"content": [{"type": "text", "text": text}]})
            }
            _ => message.payload.clone(),
        };
        (found != expected).then(|| format!("{} has {found}", told(message)))
    })
    .collect()
}

fn poison(evidence: &Evidence) -> Vec<String> {
    let all = evidence.snapshot.messages.iter();
    all.filter(|message| message.tool() == "poison" && message.status != "failed")
        .map(told)
        .collect()
}

fn internal(evidence: &Evidence) -> Vec<String> {
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

fn answers(evidence: &Evidence) -> Vec<String> {
    let known = |answer: &str| {
        matches!(answer, "202" | "503" | "504" | "published" | "not published")
            || answer.starts_with("none ")
    };
    let all = evidence.sent.iter();
    all.flat_map(|sent| &sent.answers).filter(|answer| !known(answer)).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which one payment succeeded.
    fn evidence() -> Evidence {
        let message = json!({"id": "m", "status": "done", "role": "mcp-gateway", "service": "good", "attempts": 1,
            "max_attempts": 5, "idempotency_key": "k", "error": null,
            "payload": {"tool": "pay", "params": {"n": 7}},
            "result": {"content": [{"type": "text", "text": "7"}]}});
        let event = |what: &str, payload: Value| {
            json!({"message_id": "m", "event_type": format!("mcp_call_{what}"), "attempt": 1,
                "created_at": "2026-01-01T00:00:01Z", "worker_id": "gateway0", "reason": null, "payload": payload})
        };
        let read = |value: Value| serde_json::from_value(value).expect("an event");
        Evidence {
            sent: vec![Sent {
                work: Work::Tool { toolset: "good", tool: "pay" },
                key: Some("k".to_owned()),
                acknowledged: vec!["m".to_owned()],
                tries: 1,
                answers: vec!["202".to_owned()],
            }],
            ledger: vec![call()],
            snapshot: Snapshot {
                messages: vec![serde_json::from_value(message).expect("a message")],
                events: vec![
                    read(event("scheduled", json!({"intent": "mcp.call"}))),
                    read(event("succeeded", json!({"claim_no": 11}))),
                ],
                diff: Vec::new(),
            },
        }
    }

    fn call() -> Called {
        Called {
            tool: "pay".to_owned(),
            message: "m".to_owned(),
            attempt: 1,
            by: Caller::Gateway(0),
            at_ms: 1,
        }
    }

    fn failed(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
        let mut evidence = evidence();
        change(&mut evidence);
        judge(&evidence).into_iter().filter(|check| !check.ok).map(|check| check.name).collect()
    }

    fn again(evidence: &mut Evidence, what: &str, claim_no: i64) {
        let mut event = evidence.snapshot.events[1].clone();
        event.event_type = format!("mcp_call_{what}");
        event.payload = json!({ "claim_no": claim_no });
        evidence.snapshot.events.push(event);
    }

    #[test]
    fn each_check_sees_what_it_is_there_for_and_nothing_else() {
        assert_eq!(failed(|_| {}), Vec::<&str>::new());
        let lost = failed(|evidence| evidence.snapshot.messages.clear());
        assert_eq!(lost, ["every acknowledged message is finished"]);
        let waiting = failed(|evidence| {
            evidence.snapshot.messages[0].status = "claimed".to_owned();
            evidence.snapshot.events.pop();
        });
        assert_eq!(
            waiting,
            [
                "every acknowledged message is finished",
                "every message is finished and no lease is left"
            ]
        );
        let doubled = failed(|evidence| evidence.sent[0].acknowledged.push("n".to_owned()));
        assert_eq!(doubled, ["every acknowledged message is finished", "a key makes one message"]);
        assert_eq!(
            failed(|evidence| again(evidence, "succeeded", 12)),
            ["every message ends once a life"]
        );
        assert_eq!(
            failed(|evidence| again(evidence, "failed", 11)),
            ["a claim settles at most once"]
        );
        assert_eq!(
            failed(|evidence| again(evidence, "lease_expired", 12)),
            ["a claim that was taken away settles nothing"]
        );
        assert_eq!(
            failed(|evidence| evidence.snapshot.messages[0].attempts = 6),
            ["no attempt is beyond max_attempts"]
        );
        let twice = failed(|evidence| evidence.ledger.push(call()));
        assert_eq!(
            twice,
            [
                "each attempt calls its tool at most once",
                "what must not be repeated happened at most once a life"
            ]
        );
        let other = failed(|evidence| evidence.ledger.push(Called { attempt: 2, ..call() }));
        assert_eq!(other, ["what must not be repeated happened at most once a life"]);
        assert_eq!(
            failed(|evidence| evidence.ledger[0].by = Caller::Gateway(1)),
            ["what is done was done, by whom the log says"]
        );
        assert_eq!(
            failed(|evidence| evidence.snapshot.messages[0].result = Some(json!("late"))),
            ["each result is that of its message"]
        );
        assert_eq!(
            failed(|evidence| evidence.snapshot.diff.push("m".to_owned())),
            ["the log folds to the table"]
        );
        assert_eq!(
            failed(|evidence| evidence.sent[0].answers.push("500: oh".to_owned())),
            ["the hub answers as it should"]
        );
        let alive = failed(|evidence| {
            evidence.snapshot.messages[0].payload["tool"] = json!("poison");
        });
        assert_eq!(alive, ["poison is dead"]);
        let defect = json!({"claim_no": 11, "error": {"class": "internal"}});
        assert_eq!(
            failed(|evidence| evidence.snapshot.events[1].payload = defect),
            ["nothing failed by a defect of the product"]
        );
    }

    #[test]
    fn what_is_tried_again_after_its_deadline_is_seen() {
        let late = |change: fn(&mut Event)| {
            failed(|evidence| {
                evidence.snapshot.messages[0].deadline_at = "2026-01-01T00:00:01Z".parse().ok();
                let mut event = evidence.snapshot.events[1].clone();
                change(&mut event);
                evidence.snapshot.events.insert(1, event);
            })
        };
        let retry = |event: &mut Event| {
            event.event_type = "mcp_call_retry_scheduled".to_owned();
            event.payload = json!({ "run_at": "2026-01-01T00:00:01Z" });
        };
        let in_time = |event: &mut Event| {
            event.event_type = "mcp_call_retry_scheduled".to_owned();
            event.payload = json!({ "run_at": "2026-01-01T00:00:00.9Z" });
        };
        const NAME: &[&str] = &["nothing goes on past its deadline"];
        assert_eq!(late(retry), NAME);
        assert!(late(in_time).is_empty());
        let lost = |event: &mut Event| event.event_type = "mcp_call_lease_expired".to_owned();
        let lost = late(lost);
        assert!(lost.contains(&NAME[0]), "{lost:?}");
    }

    #[test]
    fn a_requeue_gives_another_life_and_another_effect() {
        let fine = failed(|evidence| {
            again(evidence, "requeued", 12);
            again(evidence, "succeeded", 13);
            evidence.ledger.push(call());
        });
        assert_eq!(fine, Vec::<&str>::new());
    }
}
