//! From claim to settle: order, fencing, leases, attempts.

use std::time::Duration;

use cogo::bus::dead_letter::Operated;
use cogo::bus::{Bus, Claim, Error, Settle, Settled};
use cogo::message::{MessageId, Status};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{echo, publish, replay_differences, request};

const LEASE: Duration = Duration::from_secs(30);

async fn claim_one(bus: &Bus, worker: &str) -> Claim {
    let mut claims = bus.claim(&request(worker, 1)).await.expect("claimed");
    claims.pop().expect("a message waits")
}

async fn types(bus: &Bus, id: MessageId) -> Vec<String> {
    let events = bus.message_events(id, 100).await.expect("events");
    events.into_iter().map(|event| event.event_type).collect()
}

fn error() -> Value {
    json!({"class": "connect", "message": "nobody answers"})
}

#[tokio::test]
async fn claims_go_by_priority_then_by_when_due_then_by_age() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let send = async |name: &str, priority, delay| {
        let message =
            echo(json!(name)).with_priority(priority).with_delay(Duration::from_millis(delay));
        bus.publish(message).await.expect("published");
    };
    send("late", 0, 200).await;
    send("early", 0, 100).await;
    send("first", 0, 0).await;
    send("second", 0, 0).await;
    send("urgent", 5, 300).await;
    send("idle", -5, 0).await;
    db.advance(Duration::from_secs(1)).await;
    bus.reap(100).await.expect("promoted");

    let claims = bus.claim(&request("w", 10)).await.expect("claimed");
    let order: Vec<_> = claims.iter().map(|claim| claim.message().payload.clone()).collect();
    assert_eq!(order, ["urgent", "first", "second", "early", "late", "idle"]);
}

#[tokio::test]
async fn a_claim_takes_only_its_topics_and_its_tenant() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let mut other_service = echo(json!("service"));
    other_service.service = "other".to_owned();
    let mut other_tenant = echo(json!("tenant"));
    other_tenant.tenant = "other".to_owned();
    bus.publish_all(&[echo(json!("mine")), other_service, other_tenant]).await.expect("published");

    let mine = bus.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(mine.len(), 1);
    assert_eq!(mine[0].message().payload, "mine");
    let mut both = request("w", 10);
    both.topics = vec!["echo/default".to_owned(), "echo/other".to_owned()];
    let rest = bus.claim(&both).await.expect("claimed");
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].message().payload, "service");
}

#[tokio::test]
async fn a_delayed_message_waits_until_it_is_due() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    bus.publish(echo(json!(1)).with_delay(Duration::from_secs(60))).await.expect("published");

    let reaped = bus.reap(100).await.expect("reaped");
    assert_eq!((reaped.promoted, reaped.next_due_ms), (0, Some(60_000)));
    assert!(bus.claim(&request("w", 1)).await.expect("claimed").is_empty());
    db.advance(Duration::from_secs(60)).await;
    assert_eq!(bus.reap(100).await.expect("reaped").promoted, 1);
    assert_eq!(bus.claim(&request("w", 1)).await.expect("claimed").len(), 1);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_expired_lease_is_claimed_by_another_worker_and_the_first_is_refused() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let lost = claim_one(&bus, "first").await;
    let id = lost.message().id;
    db.advance(LEASE + Duration::from_millis(1)).await;
    let reaped = bus.reap(100).await.expect("reaped");
    assert_eq!((reaped.expired, reaped.dead), (1, 0));

    let held = claim_one(&bus, "second").await;
    assert_eq!(held.message().id, id);
    assert_eq!(held.message().attempts, 2, "the lost attempt is burnt");
    assert!(held.message().claim_no > lost.message().claim_no);
    assert!(matches!(lost.extend(LEASE).await, Err(Error::StaleClaim { .. })));
    assert!(matches!(lost.complete(json!(1)).await, Err(Error::StaleClaim { .. })));
    held.complete(json!(2)).await.expect("settled");

    let message = bus.message(id).await.expect("found");
    assert_eq!((message.status, message.result), (Status::Done, Some(json!(2))));
    assert_eq!(types(&bus, id).await, ["echo_scheduled", "echo_lease_expired", "echo_succeeded"]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_late_settle_is_refused_even_before_anybody_claims_again() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let lost = claim_one(&bus, "w").await;
    db.advance(LEASE + Duration::from_millis(1)).await;
    bus.reap(100).await.expect("reaped");
    assert!(matches!(lost.fail(error(), Some(LEASE)).await, Err(Error::StaleClaim { .. })));
}

#[tokio::test]
async fn an_extended_lease_holds() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let claim = claim_one(&bus, "w").await;
    for _ in 0..3 {
        db.advance(Duration::from_secs(20)).await;
        claim.extend(LEASE).await.expect("still ours");
        assert_eq!(bus.reap(100).await.expect("reaped").expired, 0);
    }
    claim.complete(json!(1)).await.expect("settled");
}

#[tokio::test]
async fn a_settle_that_is_sent_again_is_answered_as_such_and_changes_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 3).await;
    let claims = bus.claim(&request("w", 3)).await.expect("claimed");
    let messages: Vec<_> = claims.into_iter().map(Claim::into_message).collect();
    let settles = [
        Settle::complete(&messages[0], json!(1), json!({})),
        Settle::fail(&messages[1], error(), Some(Duration::from_secs(60)), None, json!({})),
        Settle::release(&messages[2], Duration::from_secs(60), "test"),
    ];
    for settle in &settles {
        assert_eq!(bus.settle(settle.clone()).await.expect("settled"), Settled::Settled);
    }
    let events = crate::fixtures::count(&db, "bus_events").await;
    for settle in &settles {
        assert_eq!(bus.settle(settle.clone()).await.expect("answered"), Settled::Repeated);
    }
    assert_eq!(crate::fixtures::count(&db, "bus_events").await, events);
    // A different verb for the same claim is no repetition.
    let other = Settle::fail(&messages[0], error(), None, None, json!({}));
    assert_eq!(bus.settle(other).await.expect("answered"), Settled::Stale);
}

#[tokio::test]
async fn a_stale_settle_does_not_hold_back_its_batch() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 3).await;
    let claims = bus.claim(&request("w", 3)).await.expect("claimed");
    let messages: Vec<_> = claims.into_iter().map(Claim::into_message).collect();
    bus.cancel(&[messages[1].id], Some("test")).await.expect("cancelled");
    let settles: Vec<_> =
        messages.iter().map(|message| Settle::complete(message, json!(1), json!({}))).collect();
    let step = bus.step(&settles, &request("w", 0)).await.expect("stepped");
    assert_eq!(step.outcomes, [Settled::Settled, Settled::Stale, Settled::Settled]);
}

#[tokio::test]
async fn a_release_gives_the_attempt_back_but_never_the_claim_number() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let mut last = 0;
    for _ in 0..3 {
        let claim = claim_one(&bus, "w").await;
        let (attempts, claim_no) = (claim.message().attempts, claim.message().claim_no);
        assert_eq!(attempts, 1);
        assert!(claim_no > last);
        last = claim_no;
        claim.release(Duration::ZERO, "test").await.expect("released");
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_failure_is_tried_again_until_no_attempt_is_left_then_it_is_dead() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let id = bus.publish(echo(json!(1)).with_max_attempts(2)).await.expect("published").id;
    let pause = Duration::from_secs(5);

    claim_one(&bus, "w").await.fail(error(), Some(pause)).await.expect("failed");
    assert_eq!(bus.message(id).await.expect("found").status, Status::Delayed);
    db.advance(pause).await;
    bus.reap(100).await.expect("promoted");
    // Asks for another try, and gets none.
    claim_one(&bus, "w").await.fail(error(), Some(pause)).await.expect("failed");

    let dead = bus.message(id).await.expect("found");
    assert_eq!((dead.status, dead.attempts, dead.error), (Status::Failed, 2, Some(error())));
    let events = bus.message_events(id, 10).await.expect("events");
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.event_type.as_str(), event.attempt, event.reason.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("echo_scheduled", 0, None),
            ("echo_failed", 1, Some("connect")),
            ("echo_retry_scheduled", 1, Some("connect")),
            ("echo_failed", 2, Some("connect")),
            ("echo_dead_lettered", 2, Some("attempts_exhausted")),
        ]
    );
    assert_eq!(events[2].payload["delay_ms"], 5000);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_kills_its_workers_ends_in_the_dead_letter_queue() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let id = bus.publish(echo(json!(1)).with_max_attempts(3)).await.expect("published").id;
    for attempt in 1..=3 {
        let claim = claim_one(&bus, "victim").await;
        assert_eq!(claim.message().attempts, attempt);
        db.advance(LEASE + Duration::from_millis(1)).await;
        let reaped = bus.reap(100).await.expect("reaped");
        assert_eq!((reaped.expired, reaped.dead), (1, i32::from(attempt == 3)));
    }
    let dead = bus.message(id).await.expect("found");
    assert_eq!(dead.status, Status::Failed);
    assert_eq!(dead.error.expect("an error")["class"], "lease_expired");
    let last = types(&bus, id).await.pop();
    assert_eq!(last.as_deref(), Some("echo_dead_lettered"));
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_cancelled_message_refuses_its_holder() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let claim = claim_one(&bus, "w").await;
    let id = claim.message().id;
    let answer = bus.cancel(&[id], Some("changed my mind")).await.expect("cancelled");
    assert_eq!(answer, [(id, Operated::Done)]);
    assert!(matches!(claim.extend(LEASE).await, Err(Error::StaleClaim { .. })));
    assert!(matches!(claim.complete(json!(1)).await, Err(Error::StaleClaim { .. })));
    assert_eq!(bus.message(id).await.expect("found").status, Status::Cancelled);
    let again = bus.cancel(&[id], None).await.expect("answered");
    assert_eq!(again, [(id, Operated::NotAllowed)]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_dead_letter_is_requeued_with_all_its_attempts_or_dropped_for_good() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 2).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let claim = claim_one(&bus, "w").await;
        ids.push(claim.message().id);
        claim.fail(error(), None).await.expect("failed");
    }
    let unknown = MessageId::new();
    let dead =
        bus.dead_letters(&cogo::bus::dead_letter::Filter::default(), 10).await.expect("listed");
    assert_eq!(dead.len(), 2);

    let answer = bus.requeue(&[ids[0], unknown], Some("fixed")).await.expect("requeued");
    assert_eq!(answer, [(ids[0], Operated::Done), (unknown, Operated::NotFound)]);
    let message = bus.message(ids[0]).await.expect("found");
    assert_eq!((message.status, message.attempts), (Status::Queued, 0));
    let twice = bus.requeue(&[ids[0]], None).await.expect("answered");
    assert_eq!(twice, [(ids[0], Operated::NotAllowed)]);

    let dropped = bus.drop_dead_letters(&[ids[1], ids[0]], None).await.expect("answered");
    assert_eq!(dropped, [(ids[1], Operated::Done), (ids[0], Operated::NotAllowed)]);
    assert!(matches!(bus.message(ids[1]).await, Err(Error::NoMessage(_))));
    assert_eq!(types(&bus, ids[1]).await.last().map(String::as_str), Some("echo_dropped"));
    claim_one(&bus, "w").await.complete(json!(1)).await.expect("settled");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn bad_claims_and_settles_are_refused_by_name_and_change_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 1).await;
    let claim = claim_one(&bus, "w").await;
    let id = claim.message().id;
    let good = json!({"id": id, "claim_no": 1});
    let before = bus.message(id).await.expect("found");
    let cases = [
        ("select bus_claim('', '{echo/default}')", json!(null), "worker: "),
        ("select bus_claim('w', '{}')", json!(null), "topics: "),
        ("select bus_claim('w', '{echo/default}', -1)", json!(null), "max: "),
        ("select bus_claim('w', '{echo/default}', 1, 5)", json!(null), "lease_ms: "),
        ("select bus_extend('[]', 5)", json!(null), "lease_ms: "),
        ("select bus_complete($1)", json!({}), "claims: must be an array"),
        ("select bus_complete($1)", json!([5]), "claims[0]: must be an object"),
        ("select bus_complete($1)", json!([good, {"id": "x", "claim_no": 1}]), "claims[1].id: "),
        ("select bus_complete($1)", json!([{"id": id, "claim_no": -1}]), "claims[0].claim_no: "),
        ("select bus_complete($1)", json!([{"id": id}]), "claims[0].claim_no: "),
        ("select bus_complete($1)", json!([good, good]), "claims[1].id: stands twice"),
        (
            "select bus_fail($1)",
            json!([{"id": id, "claim_no": 1, "retry_in_ms": -1}]),
            "claims[0].retry_in_ms: ",
        ),
        ("select bus_fail($1)", json!([{"id": id, "claim_no": 1, "meta": 1}]), "claims[0].meta: "),
        ("select bus_step($1, 'w', '{echo/default}')", json!([good]), "settles[0].op: "),
        ("select bus_requeue($1)", json!([{"id": 1}]), "messages[0].id: "),
        ("select bus_cancel($1)", json!({}), "messages: must be an array"),
        ("select bus_reap(0)", json!(null), "max: "),
    ];
    for (sql, argument, text) in cases {
        let query = sqlx::query(sql);
        let query = if sql.contains("$1") { query.bind(&argument) } else { query };
        let error = query.fetch_all(db.pool()).await.expect_err(text);
        let error = error.as_database_error().expect("the database's own").to_owned();
        assert_eq!(error.code().as_deref(), Some("CG400"), "{text}: {error}");
        assert!(error.message().starts_with(text), "expected {text:?}, got {:?}", error.message());
    }
    assert_eq!(bus.message(id).await.expect("found"), before);
}

#[tokio::test]
async fn sixty_four_claimers_never_hold_one_message_twice() {
    const MESSAGES: usize = 10_000;
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, MESSAGES).await;
    let handled = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    let tasks = cogo::shutdown::Tasks::new();
    let mut workers = Vec::new();
    for n in 0..64 {
        let (bus, handled) = (bus.clone(), std::sync::Arc::clone(&handled));
        workers.push(tasks.spawn(async move {
            let worker = format!("w{n}");
            let mut settles = Vec::new();
            loop {
                let step = bus.step(&settles, &request(&worker, 20)).await.expect("stepped");
                assert!(step.outcomes.iter().all(|outcome| *outcome == Settled::Settled));
                if step.claims.is_empty() {
                    return;
                }
                settles.clear();
                for claim in step.claims {
                    let message = claim.into_message();
                    *handled.lock().expect("not poisoned").entry(message.id).or_insert(0) += 1;
                    settles.push(Settle::complete(&message, json!(worker), json!({})));
                }
            }
        }));
    }
    for worker in workers {
        worker.await.expect("no claimer fails");
    }
    {
        let handled = handled.lock().expect("not poisoned");
        assert_eq!(handled.len(), MESSAGES);
        assert!(handled.values().all(|times| *times == 1), "no message is handled twice");
    }
    let stats = bus.stats().await.expect("stats");
    assert_eq!(stats, [], "nothing waits and nothing is held");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}
