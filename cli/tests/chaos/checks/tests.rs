//! Each check on a run that went well, and on the same run with one thing wrong.

use serde_json::{Value, json};

use super::*;
use crate::mcp::Caller;
use crate::snapshot::Event;

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
    assert_eq!(failed(|evidence| again(evidence, "failed", 11)), ["a claim settles at most once"]);
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
