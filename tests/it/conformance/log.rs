//! Reading the log, breakers, what waits.

use std::collections::HashSet;
use std::time::Duration;

use cogo::breaker::{Evidence, Id, Policy, State};
use cogo::bus::{Feed, Settle};
use cogo::error::Code;
use cogo::event::Cursor;
use cogo::message::Status;
use cogo::shutdown::{Shutdown, Tasks};
use serde_json::json;

use super::setting::{Setting, Way};
use crate::fixtures::{SOON, echo, eventually, publish, request};

pub(super) async fn what_happened_is_read_alike(s: Setting) {
    let receipt = s.bus.publish(echo(json!({"text": "hé"}))).await.expect("published");
    let claim = s.bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    let error = json!({"class": "unavailable", "message": "not now"});
    claim.fail(error, Some(Duration::ZERO)).await.expect("settled");
    let claim = s.bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    claim.complete(json!([1, "zwei", {"drei": 3.5}])).await.expect("settled");
    let ours = s.bus.message_events(receipt.id, 100).await.expect("read");
    assert_eq!(ours, s.admin.message_events(receipt.id, 100).await.expect("read"));
    assert_eq!(ours.last().expect("some").event_type, "echo_succeeded");
    assert_eq!(s.bus.message_events(receipt.id, 2).await.expect("read"), ours[..2]);
    let ours = s.bus.trace_events(receipt.trace_id, 100).await.expect("read");
    assert_eq!(ours, s.admin.trace_events(receipt.trace_id, 100).await.expect("read"));
    let message = s.bus.message(receipt.id).await.expect("found");
    assert_eq!(message, s.admin.message(receipt.id).await.expect("found"));
}

pub(super) async fn the_log_is_read_on_from_a_cursor_without_a_gap(s: Setting) {
    publish(&s.bus, 30).await;
    let end = eventually("the end is past what was written", async || {
        let all = s.bus.read_events(Cursor::START, 100, &json!({})).await.expect("read");
        // After the look: what one look shows, the end of a later one is past, and not the other way round, since
        // whatever held the log back may go between the two.
        let end = s.bus.log_end().await.expect("the end");
        (all.len() >= 30).then_some(end)
    })
    .await;
    let (mut cursor, mut seen) = (Cursor::START, Vec::new());
    loop {
        let some = s.bus.read_events(cursor, 7, &json!({})).await.expect("read");
        let Some(last) = some.last() else { break };
        cursor = last.cursor;
        seen.extend(some);
    }
    assert_eq!(seen, s.admin.read_events(Cursor::START, 1000, &json!({})).await.expect("read"));
    assert!(end >= cursor);
    let types = json!({"types": ["echo_scheduled"], "tenant": "default"});
    let some = s.bus.read_events(Cursor::START, 100, &types).await.expect("read");
    assert_eq!(some.len(), 30);
    let distinct: HashSet<_> = some.iter().map(|event| event.id).collect();
    assert_eq!(distinct.len(), 30);
}

pub(super) async fn a_filter_that_is_none_is_refused_by_name(s: Setting) {
    let filter = json!({"bogus": 1});
    let error = s.bus.read_events(Cursor::START, 10, &filter).await.expect_err("refused");
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.to_string().contains("bogus"), "{error}");
}

pub(super) async fn progress_is_appended_and_a_transition_is_not(s: Setting) {
    let receipt = s.bus.publish(echo(json!(1))).await.expect("published");
    let claim = s.bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    let event = |event_type: &str| {
        json!({
            "event_type": event_type, "message_id": receipt.id, "trace_id": receipt.trace_id,
            "tenant": "default", "role": "echo", "service": "default", "attempt": 1,
            "worker_id": "w", "payload": {"done": 0.5, "nul": "a\0b"},
        })
    };
    s.bus.append_event(event("echo_progress")).await.expect("appended");
    let events = s.bus.message_events(receipt.id, 10).await.expect("read");
    assert_eq!(events.last().expect("some").payload["done"], 0.5);
    let error = s.bus.append_event(event("echo_succeeded")).await.expect_err("refused");
    assert!(matches!(error.code(), Code::InvalidArgument | Code::Forbidden), "{error:?}");
    assert!(error.to_string().contains("event_type"), "{error}");
    drop(claim);
}

pub(super) async fn whoever_waits_for_a_message_is_told(s: Setting) {
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let feed = Feed::start(s.bus.clone(), &tasks, &shutdown);
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let claim = s.bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    let waits = feed.wait(id, SOON);
    let works = claim.complete(json!("done"));
    let (waited, worked) = tokio::join!(waits, works);
    worked.expect("settled");
    assert_eq!(waited.expect("told").status, Status::Done);
    shutdown.cancel();
    assert!(tasks.join(SOON).await);
}

pub(super) async fn breakers_are_opened_probed_and_read_alike(s: Setting) {
    s.db.freeze_time().await;
    let id = Id::new("default", "echo.default.0");
    let policy = Policy { open_ms: 1000, half_open_max_calls: 1, ..Policy::default() };
    let evidence =
        Evidence { reason: "failure_rate", calls: 10, failure_rate: 0.9, slow_rate: 0.0 };
    let opened = s.bus.circuit_open(&id, "w", 0, &policy, &evidence).await.expect("opened");
    assert_eq!((opened.state, opened.open_for_ms), (State::Open, Some(1000)));
    let ours = s.bus.circuits("default").await.expect("read");
    assert_eq!(ours, s.admin.circuits("default").await.expect("read"));
    assert_eq!(ours.len(), 1);
    let lease = Duration::from_secs(10);
    let (granted, _) = s.bus.circuit_probe(&id, "w", lease).await.expect("told");
    assert!(!granted, "it is not over");
    s.db.advance(Duration::from_secs(2)).await;
    let (granted, circuit) = s.bus.circuit_probe(&id, "w", lease).await.expect("told");
    assert!(granted, "{circuit:?}");
    assert_eq!((circuit.state, circuit.prober.as_deref()), (State::HalfOpen, Some("w")));
    let told = s.bus.circuit_report(&id, "w", Some(false), Some("slow")).await.expect("told");
    assert_eq!(told.expect("there is one").state, State::Open);
    let nothing = Id::new("default", "never.opened");
    assert_eq!(s.bus.circuit_report(&nothing, "w", None, None).await.expect("told"), None);
}

pub(super) async fn the_schema_has_a_version_and_what_waits_is_counted_alike(s: Setting) {
    s.db.freeze_time().await;
    let version = s.bus.schema_version().await.expect("told");
    assert_eq!(version, s.admin.schema_version().await.expect("told"));
    if s.way != Way::Token {
        let claim = async || s.bus.claim(&request("w", 1)).await.expect("claimed");
        s.bus.publish(echo(json!(1))).await.expect("published");
        s.bus.publish(echo(json!(2))).await.expect("published");
        let claimed = claim().await.pop().expect("one").into_message();
        assert_eq!(s.bus.stats().await.expect("told"), s.admin.stats().await.expect("told"));
        assert_eq!(s.bus.parked().await.expect("told"), []);
        assert_eq!(s.bus.limits().await.expect("told"), s.admin.limits().await.expect("told"));
        s.bus.settle(Settle::release(&claimed, Duration::ZERO, "enough")).await.expect("settled");
    }
}
