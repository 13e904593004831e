//! The worker runtime: handlers that succeed, fail, panic, hang, and are cut off.

mod adversity;
mod at_once;
mod breakers;
mod finding;
mod prefetch;
mod running;
mod scripted;
mod tenants;
mod turns;

use std::time::Duration;

use cogo::bus::Bus;
use cogo::live::Live;
use cogo::message::Status;
use cogo::testing::TestDb;
use serde_json::{Value, json};

use self::running::{LEASE, Running, finished, policies_of, types, until};
use self::scripted::Scripted;
use crate::fixtures::{SOON, echo, eventually, publish, replay_differences};

#[tokio::test]
async fn a_thousand_messages_are_each_handled_once() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 32).await;
    publish(&bus, 1000).await;
    eventually("all is done", async || bus.stats().await.expect("stats").is_empty().then_some(()))
        .await;
    running.stop().await;
    let done: i64 = sqlx::query_scalar(
        "select count(*) from bus_events where event_type = 'echo_succeeded' and payload ->> 'note' = 'kept'",
    )
    .fetch_one(db.pool())
    .await
    .expect("counted");
    assert_eq!(done, 1000);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_failure_is_retried_by_policy_and_then_dead() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let policies =
        json!({"echo": {"backoff": {"kind": "fixed", "delay_ms": 5}, "retry_on": ["connect"]}});
    let running = Running::start(&bus, policies, LEASE, 4).await;
    let send = async |class: &str| {
        let payload = json!({"do": "fail", "class": class});
        bus.publish(echo(payload).with_max_attempts(3)).await.expect("published").id
    };
    let (retried, hopeless) = (send("connect").await, send("invalid_params").await);

    let dead = finished(&bus, retried).await;
    assert_eq!((dead.status, dead.attempts), (Status::Failed, 3));
    let error = dead.error.expect("an error");
    assert_eq!((&error["class"], &error["detail"]["why"]), (&json!("connect"), &json!("a test")));
    let failed = types(&bus, retried).await.iter().filter(|t| *t == "echo_failed").count();
    assert_eq!(failed, 3);
    let dead = finished(&bus, hopeless).await;
    assert_eq!((dead.status, dead.attempts), (Status::Failed, 1));
    let last = bus.message_events(hopeless, 10).await.expect("events").pop().expect("one");
    assert_eq!(last.reason.as_deref(), Some("not_retried"));
    running.stop().await;
}

#[tokio::test]
async fn what_was_never_sent_has_not_run() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    let late = json!({"do": "fail", "class": "timeout"});
    let unsent = json!({"do": "fail", "class": "timeout", "unsent": true});
    for (payload, may_have_run) in [(late, json!(true)), (unsent, Value::Null)] {
        let message = echo(payload).with_max_attempts(1);
        let dead = finished(&bus, bus.publish(message).await.expect("published").id).await;
        let error = dead.error.expect("an error");
        assert_eq!((&error["class"], &error["may_have_run"]), (&json!("timeout"), &may_have_run));
    }
    running.stop().await;
}

#[tokio::test]
async fn an_attempt_is_cut_to_what_is_left_of_the_deadline_and_none_follows_it() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let backoff = json!({"kind": "fixed", "delay_ms": 60_000});
    let policies = json!({"echo": {"backoff": backoff, "retry_on": ["connect", "timeout"]}});
    let running = Running::start(&bus, policies, LEASE, 4).await;
    let send = async |payload: Value, deadline: Duration| {
        bus.publish(echo(payload).with_deadline(deadline)).await.expect("published").id
    };
    // Begun before it, and still running then.
    let cut = send(json!({"do": "forever"}), Duration::from_secs(2)).await;
    let failing = json!({"do": "fail", "class": "connect"});
    let hopeless = send(failing.clone(), Duration::from_secs(59)).await;
    let waiting = send(failing, Duration::from_secs(120)).await;

    for (id, class) in [(cut, "timeout"), (hopeless, "connect")] {
        let dead = finished(&bus, id).await;
        assert_eq!((dead.status, dead.attempts), (Status::Failed, 1));
        assert_eq!(dead.error.expect("an error")["class"], class);
        let last = bus.message_events(id, 10).await.expect("events").pop().expect("one");
        assert_eq!(last.reason.as_deref(), Some("deadline_exceeded"), "{last:?}");
    }
    let delayed = until(&bus, waiting, |message| message.status == Status::Delayed).await;
    assert!(delayed.deadline_at > Some(delayed.run_at));
    running.stop().await;
}

#[tokio::test]
async fn a_policy_that_is_replaced_holds_for_the_next_delivery() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (setter, policies) = Live::new(policies_of(json!({"echo": {"retry_on": []}})));
    let running = Running::start_live(Scripted::new(), &bus, policies, LEASE, 1).await;
    let send = async || {
        let payload = json!({"do": "fail", "class": "connect"});
        let id = bus.publish(echo(payload).with_max_attempts(2)).await.expect("published").id;
        finished(&bus, id).await.attempts
    };
    assert_eq!(send().await, 1, "not retried");
    let backoff = json!({"kind": "fixed", "delay_ms": 1});
    setter.set(policies_of(json!({"echo": {"retry_on": ["connect"], "backoff": backoff}})));
    assert_eq!(send().await, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_and_the_worker_goes_on() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 1).await;
    let bad = bus.publish(echo(json!({"do": "panic"}))).await.expect("published").id;
    let good = bus.publish(echo(json!({}))).await.expect("published").id;
    let dead = finished(&bus, bad).await;
    assert_eq!(dead.status, Status::Failed);
    let error = dead.error.expect("an error");
    assert_eq!(error["class"], "internal");
    assert!(error["message"].as_str().expect("text").contains("on purpose"), "{error}");
    assert_eq!(finished(&bus, good).await.status, Status::Done);
    running.stop().await;
}

#[tokio::test]
async fn a_handler_that_hangs_is_timed_out() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running =
        Running::start(&bus, json!({"echo": {"timeout_ms": 50, "retry_on": []}}), LEASE, 1).await;
    for (payload, class) in [
        (json!({"do": "forever"}), "timeout"),
        (json!({"do": "forever", "once": true}), "ambiguous"),
    ] {
        let id = bus.publish(echo(payload)).await.expect("published").id;
        assert_eq!(finished(&bus, id).await.error.expect("an error")["class"], class);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_lease_is_kept_alive_while_its_handler_runs() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // It is extended three times a lease: what holds one call up for less than two thirds of it does no harm.
    let lease = Duration::from_secs(2);
    let running = Running::start(&bus, json!({}), lease, 1).await;
    let id = bus.publish(echo(json!({"do": "wait"}))).await.expect("published").id;
    let first = until(&bus, id, |message| message.status == Status::Claimed).await;
    // Three leases later it is still the same claim.
    let late = first.claimed_at.expect("claimed") + 3 * lease;
    let held =
        until(&bus, id, |message| message.lease_until.is_some_and(|until| until > late)).await;
    assert_eq!(held.claim_no, first.claim_no);
    running.script.gate.add_permits(1);
    let done = finished(&bus, id).await;
    assert_eq!((done.status, done.attempts), (Status::Done, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_handler_whose_claim_is_taken_away_is_cancelled() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), Duration::from_millis(300), 1).await;
    let id = bus.publish(echo(json!({"do": "forever"}))).await.expect("published").id;
    until(&bus, id, |message| message.status == Status::Claimed).await;
    bus.cancel(&[id], None).await.expect("cancelled");
    // Its only place is free again, so another message is handled.
    let next = bus.publish(echo(json!({}))).await.expect("published").id;
    assert_eq!(finished(&bus, next).await.status, Status::Done);
    assert_eq!(bus.message(id).await.expect("found").status, Status::Cancelled);
    running.stop().await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 1).await;
    let id = bus.publish(echo(json!({"do": "wait"}))).await.expect("published").id;
    running.script.have_begun(1).await;
    running.shutdown.drain();
    let waiting = bus.publish(echo(json!({}))).await.expect("published").id;
    running.script.gate.add_permits(1);
    assert!(running.tasks.join(SOON).await, "the runner ends");
    assert_eq!(bus.message(id).await.expect("found").status, Status::Done);
    assert_eq!(bus.message(waiting).await.expect("found").status, Status::Queued);
    assert_eq!(bus.workers(10).await.expect("listed")[0].status, "offline");
}

#[tokio::test]
async fn when_the_drain_is_over_messages_are_released_with_their_attempts() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    let send = async |payload| bus.publish(echo(payload)).await.expect("published").id;
    let fragile = send(json!({"do": "forever", "once": true})).await;
    let deaf = send(json!({"do": "forever"})).await;
    let polite = send(json!({"do": "polite", "class": "closed"})).await;
    let ambiguous = send(json!({"do": "polite", "class": "ambiguous"})).await;
    running.script.have_begun(4).await;
    running.shutdown.cancel();
    assert!(running.tasks.join(SOON).await, "the runner ends");
    for id in [deaf, polite] {
        let message = bus.message(id).await.expect("found");
        assert_eq!((message.status, message.attempts), (Status::Queued, 0));
        assert_eq!(types(&bus, id).await, ["echo_scheduled", "echo_released"]);
    }
    // Whether these were done is unknown, and a second try might do it twice.
    for id in [ambiguous, fragile] {
        let message = bus.message(id).await.expect("found");
        assert_eq!(message.status, Status::Failed);
        assert_eq!(message.error.expect("an error")["class"], "ambiguous");
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn progress_is_recorded() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 1).await;
    let id = bus.publish(echo(json!({"do": "progress"}))).await.expect("published").id;
    let event = eventually("the report is in the log", async || {
        let events = bus.message_events(id, 10).await.expect("events");
        events.into_iter().find(|event| event.event_type == "echo_progress")
    })
    .await;
    assert_eq!(event.payload, json!({"progress": {"done": 0.5}}));
    assert_eq!((event.attempt, event.worker_id.as_deref()), (1, Some("w1")));
    running.script.gate.add_permits(1);
    finished(&bus, id).await;
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_result_that_jsonb_cannot_hold_is_kept_as_far_as_it_can() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 1).await;
    let id = bus.publish(echo(json!({"do": "nul"}))).await.expect("published").id;
    assert_eq!(finished(&bus, id).await.result, Some(json!("a\u{fffd}b")));
    running.stop().await;
}

#[tokio::test]
async fn a_result_over_the_limit_is_a_dead_letter_that_says_so_and_harms_no_other() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    let huge = bus.publish(echo(json!({"do": "huge"}))).await.expect("published").id;
    let small = bus.publish(echo(json!({}))).await.expect("published").id;
    assert_eq!(finished(&bus, small).await.status, Status::Done);
    let dead = finished(&bus, huge).await;
    assert_eq!(dead.status, Status::Failed);
    let error = dead.error.expect("an error")["message"].to_string();
    assert!(error.contains("16 MiB"), "{error}");
    running.stop().await;
}
