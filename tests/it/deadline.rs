//! Total deadlines and ranks: what is too late ends, and what waits gets its turn.

use std::time::Duration;

use cogo::bus::{Bus, Settle};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{broken_invariants, enqueue, raw, refusal, request, rows};

async fn claim_payloads(bus: &Bus, max: usize) -> Vec<Value> {
    let claims = bus.claim(&request("w", max)).await.expect("claimed");
    claims.iter().map(|claim| claim.message().payload.clone()).collect()
}

/// The last event's type and reason.
async fn last_event(db: &TestDb) -> (Value, Value) {
    let mut event = rows(db, "select * from bus_events order by seq desc limit 1").await;
    let event = event.pop().expect("an event");
    (event["event_type"].clone(), event["reason"].clone())
}

fn dead() -> (Value, Value) {
    (json!("echo_dead_lettered"), json!("deadline_exceeded"))
}

#[tokio::test]
async fn what_waits_past_its_deadline_is_not_claimed_and_ends() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    enqueue(
        &db,
        &[
            raw(&json!({"deadline_ms": 1000})),
            raw(&json!({"deadline_ms": 1000, "delay_ms": 5000})),
            raw(&json!({"payload": "other"})),
        ],
    )
    .await;
    db.advance(Duration::from_millis(999)).await;
    assert_eq!(bus.reap(100).await.expect("reaped").next_due_ms, Some(1));
    db.advance(Duration::from_millis(1)).await;
    assert_eq!(claim_payloads(&bus, 10).await, ["other"], "even before it is reaped");
    assert_eq!(bus.reap(100).await.expect("reaped").dead, 2);
    assert_eq!(last_event(&db).await, dead());
    let ended = rows(&db, "select * from agent_messages where status = 'failed'").await;
    assert!(ended.iter().all(|message| message["error"]["class"] == "deadline_exceeded"));
    assert!(ended.iter().all(|message| message["attempts"] == 0));
}

#[tokio::test]
async fn a_retry_that_would_be_too_late_and_a_lease_that_ran_out_too_late_end() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    enqueue(&db, &[raw(&json!({"deadline_ms": 60_000}))]).await;
    let claim = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    let message = claim.into_message();
    let error = json!({"class": "timeout"});
    let fail = |ms| {
        let pause = Some(Duration::from_millis(ms));
        Settle::fail(&message, error.clone(), pause, None, json!({}))
    };
    bus.settle(fail(60_000)).await.expect("settled");
    assert_eq!(last_event(&db).await, dead());
    // Requeued, it has its whole deadline before it.
    bus.requeue(&[message.id], None).await.expect("requeued");
    db.advance(Duration::from_secs(59)).await;
    let held = bus.claim(&request("w", 1)).await.expect("claimed");
    assert_eq!(held.len(), 1);
    db.advance(Duration::from_secs(31)).await;
    let reaped = bus.reap(100).await.expect("reaped");
    assert_eq!((reaped.expired, reaped.dead), (1, 1));
    assert_eq!(last_event(&db).await, dead());
}

#[tokio::test]
async fn parked_messages_of_a_key_end_at_their_deadline_and_let_the_others_go() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let keyed = |payload: &str, deadline: Value| {
        raw(&json!({"ordering_key": "k", "payload": payload, "deadline_ms": deadline}))
    };
    enqueue(
        &db,
        &[
            keyed("a", json!(1000)),
            keyed("b", json!(1000)),
            keyed("c", json!(null)),
            keyed("d", json!(500)),
        ],
    )
    .await;
    db.advance(Duration::from_secs(1)).await;
    assert_eq!(bus.reap(100).await.expect("reaped").dead, 3);
    assert_eq!(claim_payloads(&bus, 10).await, ["c"]);
    assert_eq!(broken_invariants(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_higher_priority_goes_first_and_a_lower_one_waits_its_minutes_at_most() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let batch = |priority: i32| raw(&json!({"payload": priority, "priority": priority}));
    enqueue(&db, &[batch(0), batch(-3), batch(5), batch(1)]).await;
    assert_eq!(claim_payloads(&bus, 3).await, [5, 1, 0]);
    // A flood of priority 0 overtakes what has -3 for three minutes, and no longer.
    for _minute in 0..3 {
        enqueue(&db, &[batch(0), batch(0)]).await;
        assert_eq!(claim_payloads(&bus, 2).await, [0, 0]);
        db.advance(Duration::from_secs(60)).await;
    }
    db.advance(Duration::from_millis(1)).await;
    enqueue(&db, &[batch(0), batch(0)]).await;
    assert_eq!(claim_payloads(&bus, 1).await, [-3]);
}

#[tokio::test]
async fn a_bad_deadline_is_refused_by_name() {
    let db = TestDb::new().await;
    for bad in [json!(0), json!(-1), json!(1.5), json!("soon"), json!(31_536_000_001_i64)] {
        let batch = json!([raw(&json!({"deadline_ms": bad}))]);
        let (code, message) = refusal(&db, &format!("select bus_enqueue('{batch}')")).await;
        assert_eq!(code, "CG400");
        assert!(message.starts_with("messages[0].deadline_ms: "), "{message}");
    }
}
