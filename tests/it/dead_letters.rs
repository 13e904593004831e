//! Dead letters: what they tell, which ones a filter takes, and what an operator may do to them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cogo::bus::dead_letter::{Change, DeadLetter, Filter, NewPayload, Operated, Step};
use cogo::bus::{Bus, Claim, ClaimRequest, Error, Settle};
use cogo::clock::utc_now;
use cogo::message::{MessageId, NewMessage, Status, Topic};
use cogo::testing::TestDb;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;

use crate::fixtures::{count, echo, publish, replay_differences, request};

async fn claim_of(bus: &Bus, tenant: &str, topic: &str) -> Claim {
    let (tenant, topics) = (tenant.to_owned(), vec![topic.to_owned()]);
    let request = ClaimRequest { tenant, topics, ..request("w", 1) };
    bus.claim(&request).await.expect("claimed").pop().expect("a message waits")
}

/// Fails the one message that waits, as a runner would.
async fn fail(bus: &Bus, retry: bool, reason: &str, meta: Value) -> MessageId {
    let claim = claim_of(bus, "default", "echo/default").await;
    let message = claim.into_message();
    let error = json!({"class": "connect", "message": format!("attempt {}", message.attempts)});
    let retry_in = retry.then_some(Duration::ZERO);
    bus.settle(Settle::fail(&message, error, retry_in, Some(reason), meta)).await.expect("settled");
    message.id
}

fn ids(letters: &[DeadLetter]) -> Vec<MessageId> {
    letters.iter().map(|letter| letter.message.id).collect()
}

fn params(value: Value) -> Change {
    let Value::Object(params) = value else { panic!("an object") };
    Change { payload: Some(NewPayload::Params(params)), max_attempts: None }
}

#[tokio::test]
async fn a_dead_letter_tells_all_that_led_to_it_across_a_requeue() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let payload = json!({"tool": "t", "params": {"a": 1}});
    let sent = bus.publish(echo(payload).with_max_attempts(2)).await.expect("published");
    fail(&bus, true, "x", json!({"artifacts": "mcp/t/1", "duration_ms": 12})).await;
    let id = fail(&bus, true, "attempts_exhausted", json!({"artifacts": "mcp/t/2"})).await;
    let first = bus.dead_letter(id).await.expect("found");
    assert_eq!(first.letter.reason.as_deref(), Some("attempts_exhausted"));
    assert_eq!(first.letter.class.as_deref(), Some("connect"));
    assert_eq!(first.letter.artifacts, ["mcp/t/1", "mcp/t/2"]);
    assert_eq!(first.letter.message.error.as_ref().expect("an error")["message"], "attempt 2");
    let [Step::Attempt(one), Step::Attempt(two), Step::DeadLettered(end)] = &first.history[..]
    else {
        panic!("{:?}", first.history)
    };
    assert_eq!((one.attempt, two.attempt), (1, 2));
    assert_eq!((one.duration_ms, two.duration_ms), (Some(12), None));
    assert_eq!(one.message.as_deref(), Some("attempt 1"));
    assert_eq!(one.worker_id.as_deref(), Some("w"));
    assert_eq!(one.artifacts.as_deref(), Some("mcp/t/1"));

    let change = Change { max_attempts: Some(1), ..params(json!({"a": 2})) };
    let done = bus.requeue_with(&[id], &change, Some("mended")).await.expect("answered");
    assert_eq!(done, [(id, Operated::Done)]);
    let waiting = bus.message(id).await.expect("found");
    assert_eq!(waiting.payload, json!({"tool": "t", "params": {"a": 2}}));
    assert_eq!((waiting.attempts, waiting.max_attempts), (0, 1));
    assert_eq!((waiting.status, waiting.trace_id), (Status::Queued, sent.trace_id));
    let error = bus.dead_letter(id).await.expect_err("none now").to_string();
    assert!(error.contains("is queued, and not in the dead-letter queue"), "{error}");

    fail(&bus, false, "not_retried", json!({"artifacts": "mcp/t/3"})).await;
    let again = bus.dead_letter(id).await.expect("found");
    assert_eq!(again.letter.reason.as_deref(), Some("not_retried"));
    assert_eq!(again.letter.artifacts.len(), 3);
    assert_eq!(again.history[..3], first.history[..], "nothing is forgotten");
    let [Step::Requeued(requeued), Step::Attempt(third), Step::DeadLettered(_)] =
        &again.history[3..]
    else {
        panic!("{:?}", again.history)
    };
    assert_eq!(third.attempt, 1);
    assert_eq!(requeued.reason.as_deref(), Some("mended"));
    assert!(requeued.changed && requeued.max_attempts == Some(1));
    let previous = requeued.previous.as_ref().expect("a link");
    assert_eq!((&previous["attempts"], &previous["max_attempts"]), (&json!(2), &json!(2)));
    assert_eq!(previous["event"], json!(end.event));
    assert_eq!(previous["error"]["message"], "attempt 2");
    assert_eq!(ids(&bus.dead_letters(&Filter::default(), 10).await.expect("listed")), [id]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn each_filter_takes_what_it_names() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    db.freeze_time().await;
    let mut died: Vec<(MessageId, DateTime<Utc>)> = Vec::new();
    for (tenant, topic, intent, class, reason) in [
        ("default", "r1/s1", "one", "timeout", "not_retried"),
        ("t2", "r1/s1", "one", "timeout", "not_retried"),
        ("default", "r2/s1", "one", "timeout", "not_retried"),
        ("default", "r1/s2", "one", "timeout", "not_retried"),
        ("default", "r1/s1", "two.a", "timeout", "not_retried"),
        ("default", "r1/s1", "one", "connect", "not_retried"),
        ("default", "r1/s1", "one", "timeout", "unreadable"),
    ] {
        let mut message =
            NewMessage::new(&topic.parse::<Topic>().expect("a topic"), intent, json!({}));
        message.tenant = tenant.to_owned();
        bus.publish(message).await.expect("published");
        let message = claim_of(&bus, tenant, topic).await.into_message();
        let error = json!({"class": class, "message": "no"});
        let end = Settle::fail(&message, error, None, Some(reason), json!({}));
        bus.settle(end).await.expect("settled");
        let at = bus.message(message.id).await.expect("found").done_at.expect("an end");
        died.push((message.id, at));
        db.advance(Duration::from_secs(60)).await;
    }
    let trace_of = bus.message(died[3].0).await.expect("found").trace_id;
    let some = |text: &str| Some(text.to_owned());
    let any = Filter::default;
    for (filter, wanted) in [
        (any(), vec![6, 5, 4, 3, 2, 1, 0]),
        (Filter { tenant: some("t2"), ..any() }, vec![1]),
        (Filter { role: some("r2"), ..any() }, vec![2]),
        (Filter { service: some("s2"), ..any() }, vec![3]),
        (Filter { intent: some("two.a"), ..any() }, vec![4]),
        (Filter { class: some("connect"), ..any() }, vec![5]),
        (Filter { reason: some("unreadable"), ..any() }, vec![6]),
        (Filter { trace_id: Some(trace_of), ..any() }, vec![3]),
        (Filter { since: Some(died[5].1), ..any() }, vec![6, 5]),
        (Filter { until: Some(died[2].1), ..any() }, vec![1, 0]),
        (Filter { since: Some(died[2].1), until: Some(died[4].1), ..any() }, vec![3, 2]),
        (Filter { role: some("r1"), class: some("timeout"), ..any() }, vec![6, 4, 3, 1, 0]),
        (Filter { role: some("r3"), ..any() }, vec![]),
    ] {
        let found = ids(&bus.dead_letters(&filter, 10).await.expect("listed"));
        let wanted: Vec<MessageId> = wanted.iter().map(|at| died[*at].0).collect();
        assert_eq!(found, wanted, "{filter:?}");
    }
    let dropped = bus
        .drop_fitting(&Filter { role: some("r2"), ..any() }, None, Some("old"))
        .await
        .expect("dropped");
    assert_eq!((dropped.results, dropped.more), (vec![(died[2].0, Operated::Done)], false));
    assert_eq!(bus.dead_letters(&any(), 10).await.expect("listed").len(), 6);
}

#[tokio::test]
async fn the_list_reads_dead_letters_alone_whatever_the_filter() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 2000).await;
    for claim in bus.claim(&request("w", 10)).await.expect("claimed") {
        claim.fail(json!({"class": "timeout", "message": "no"}), None).await.expect("failed");
    }
    loop {
        let claims = bus.claim(&request("w", 500)).await.expect("claimed");
        if claims.is_empty() {
            break;
        }
        let done: Vec<Settle> =
            claims.iter().map(|c| Settle::complete(c.message(), json!(1), json!({}))).collect();
        let nothing = ClaimRequest { max: 0, ..request("w", 0) };
        bus.step(&done, &nothing).await.expect("settled");
    }
    sqlx::query("analyze agent_messages, bus_events").execute(db.pool()).await.expect("analyzed");

    // One connection in one transaction, which counts what it reads.
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(db.connect_options());
    let one = bus.beside(pool);
    sqlx::query("begin").execute(one.pool().expect("a database")).await.expect("a transaction");
    let read = async || -> (i64, i64) {
        sqlx::query_as(
            "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables
                where relname = 'agent_messages'",
        )
        .fetch_one(one.pool().expect("a database"))
        .await
        .expect("counted")
    };
    let some = |text: &str| Some(text.to_owned());
    for filter in [
        Filter::default(),
        Filter { role: some("echo"), class: some("connect"), ..Filter::default() },
        Filter { reason: some("nothing"), since: Some(utc_now()), ..Filter::default() },
        Filter { tenant: some("nobody"), until: Some(utc_now()), ..Filter::default() },
    ] {
        // Often enough that the plan is one for all parameters.
        for _ in 0..8 {
            let (scanned, fetched) = read().await;
            one.dead_letters(&filter, 100).await.expect("listed");
            let (scanned, fetched) = (read().await.0 - scanned, read().await.1 - fetched);
            assert!(scanned == 0 && fetched <= 10, "{filter:?}: {scanned} and {fetched} rows");
        }
    }
}

#[tokio::test]
async fn a_sweep_takes_each_once_the_latest_first_and_says_whether_there_are_more() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // More than two pages.
    publish(&bus, 1100).await;
    let claims = bus.claim(&request("w", 1100)).await.expect("claimed");
    let failed: Vec<Settle> = claims
        .iter()
        .map(|claim| Settle::fail(claim.message(), json!({"class": "a"}), None, None, json!({})))
        .collect();
    bus.step(&failed, &ClaimRequest { max: 0, ..request("w", 0) }).await.expect("settled");
    let latest = ids(&bus.dead_letters(&Filter::default(), 3).await.expect("listed"));
    let (any, same) = (Filter::default(), Change::default());
    let swept = bus.requeue_fitting(&any, Some(3), &same, None).await.expect("requeued");
    assert!(swept.more);
    assert_eq!(swept.results.iter().map(|(id, _)| *id).collect::<Vec<_>>(), latest);
    let swept = bus.drop_fitting(&any, None, None).await.expect("dropped");
    assert!(!swept.more && swept.results.iter().all(|(_, op)| *op == Operated::Done));
    let mut dropped: Vec<MessageId> = swept.results.into_iter().map(|(id, _)| id).collect();
    dropped.sort();
    dropped.dedup();
    assert_eq!(dropped.len(), 1097);
    assert_eq!(count(&db, "agent_messages").await, 3);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn params_go_into_payloads_that_have_a_place_for_them() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let mut dead = Vec::new();
    for payload in [json!({"x": 1}), json!([1]), json!(null)] {
        bus.publish(echo(payload)).await.expect("published");
        dead.push(fail(&bus, false, "not_retried", json!({})).await);
    }
    let change = params(json!({"a": 1}));
    let swept =
        bus.requeue_fitting(&Filter::default(), None, &change, None).await.expect("answered");
    let wanted = [
        (dead[2], Operated::NoPlaceForParams),
        (dead[1], Operated::NoPlaceForParams),
        (dead[0], Operated::Done),
    ];
    assert_eq!(swept.results, wanted);
    let message = bus.message(dead[0]).await.expect("found");
    assert_eq!(message.payload, json!({"x": 1, "params": {"a": 1}}));
    for id in &dead[1..] {
        assert_eq!(bus.message(*id).await.expect("found").status, Status::Failed);
    }
    // Another payload needs no place.
    let whole = Change { payload: Some(NewPayload::Whole(json!(null))), max_attempts: Some(7) };
    let done = bus.requeue_with(&dead[1..2], &whole, None).await.expect("answered");
    assert_eq!(done, [(dead[1], Operated::Done)]);
    let message = bus.message(dead[1]).await.expect("found");
    assert_eq!((message.payload, message.max_attempts), (json!(null), 7));
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bad_requeue_names_its_field_and_changes_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    bus.publish(echo(json!({}))).await.expect("published");
    let id = fail(&bus, false, "not_retried", json!({})).await;
    let before = count(&db, "bus_events").await;
    let large = Change {
        payload: Some(NewPayload::Whole(json!("x".repeat(17 << 20)))),
        ..Change::default()
    };
    let nul = params(json!({"a": "\0"}));
    let attempts = |n| Change { max_attempts: Some(n), ..Change::default() };
    for (change, field) in [
        (nul, "params: "),
        (attempts(0), "max_attempts: "),
        (attempts(1001), "max_attempts: "),
        (large, "messages[0].payload: at most 4 MiB"),
    ] {
        let error = bus.requeue_with(&[id], &change, None).await.expect_err(field).to_string();
        assert!(error.starts_with(field), "{error}");
        let error = bus.requeue_fitting(&Filter::default(), None, &change, None).await;
        assert!(error.expect_err(field).to_string().starts_with(field));
    }
    let long = "x".repeat(201);
    for reason in [long.as_str(), "\0"] {
        for refused in [
            bus.requeue(&[id], Some(reason)).await.map(drop),
            bus.drop_dead_letters(&[id], Some(reason)).await.map(drop),
            bus.drop_fitting(&Filter::default(), None, Some(reason)).await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Field { field: "reason", .. })), "{refused:?}");
        }
    }
    let bad = Filter { role: Some("a b".to_owned()), ..Filter::default() };
    for refused in [
        bus.dead_letters(&bad, 1).await.map(drop),
        bus.requeue_fitting(&bad, None, &Change::default(), None).await.map(drop),
        bus.drop_fitting(&bad, None, None).await.map(drop),
    ] {
        assert!(matches!(&refused, Err(Error::Name(bad)) if bad.field == "role"), "{refused:?}");
    }
    assert_eq!(count(&db, "bus_events").await, before);
    assert_eq!(bus.message(id).await.expect("found").status, Status::Failed);
    let unknown = MessageId::new();
    assert!(matches!(bus.dead_letter(unknown).await, Err(Error::NoMessage(_))));
}

#[tokio::test]
async fn what_kills_its_worker_each_time_ends_as_a_dead_letter() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let id = bus.publish(echo(json!({})).with_max_attempts(3)).await.expect("published").id;
    for attempt in 1..=3 {
        // A worker of its own for each, which never speaks again.
        let claim = bus.claim(&request(&format!("w{attempt}"), 1)).await.expect("claimed");
        assert_eq!(claim.first().map(|claim| claim.message().attempts), Some(attempt));
        db.advance(Duration::from_secs(31)).await;
        let reaped = bus.reap(10).await.expect("reaped");
        assert_eq!((reaped.expired, reaped.dead), (1, i32::from(attempt == 3)));
    }
    let dead = bus.dead_letter(id).await.expect("a dead letter");
    assert_eq!(dead.letter.class.as_deref(), Some("lease_expired"));
    assert_eq!(dead.letter.reason.as_deref(), Some("attempts_exhausted"));
    let told: Vec<(i32, Option<&str>, Option<&str>)> = dead
        .history
        .iter()
        .filter_map(|step| match step {
            Step::Attempt(a) => Some((a.attempt, a.class.as_deref(), a.worker_id.as_deref())),
            _ => None,
        })
        .collect();
    let class = Some("lease_expired");
    assert_eq!(told, [(1, class, Some("w1")), (2, class, Some("w2")), (3, class, Some("w3"))]);
    let by_class = Filter { class: Some("lease_expired".to_owned()), ..Filter::default() };
    assert_eq!(ids(&bus.dead_letters(&by_class, 10).await.expect("listed")), [id]);
    assert!(bus.claim(&request("w4", 1)).await.expect("answered").is_empty());
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}
