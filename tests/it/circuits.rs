//! Circuit breakers, shared through the database: one transition, one event, one prober.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{
    broken_invariants, enqueue, raw, refusal, replay_differences, request, rows,
};

const KEY: &str = "mcp.call.browser.click.0";
const OPEN_MS: u64 = 30_000;

async fn one(db: &TestDb, query: &str) -> Value {
    let mut rows = rows(db, query).await;
    assert_eq!(rows.len(), 1, "{query}");
    rows.pop().expect("one")
}

async fn open(db: &TestDb, worker: &str, seen_version: i64) -> Value {
    one(db, &open_sql(worker, seen_version)).await
}

fn open_sql(worker: &str, seen_version: i64) -> String {
    format!(
        "select * from bus_circuit_open('default', '{KEY}', '{worker}', 'failure_rate', {seen_version},
            '{{\"open_ms\": {OPEN_MS}, \"half_open_max_calls\": 2, \"successes_to_close\": 2}}',
            '{{\"calls\": 10, \"failure_rate\": 0.9}}')"
    )
}

async fn probe(db: &TestDb, worker: &str) -> bool {
    let query = format!("select * from bus_circuit_probe('default', '{KEY}', '{worker}', 10000)");
    one(db, &query).await["granted"].as_bool().expect("a boolean")
}

async fn report(db: &TestDb, worker: &str, ok: Option<bool>) -> Value {
    let ok = ok.map_or("null".to_owned(), |ok| ok.to_string());
    one(
        db,
        &format!("select * from bus_circuit_report('default', '{KEY}', '{worker}', {ok}, 'why')"),
    )
    .await
}

async fn set(db: &TestDb, action: &str, open_ms: &str) -> Value {
    one(
        db,
        &format!(
            "select * from bus_circuit_set('default', '{KEY}', '{action}', 'ada', null, {open_ms})"
        ),
    )
    .await
}

async fn state(db: &TestDb) -> String {
    one(db, "select state from bus_circuits()").await["state"].as_str().expect("text").to_owned()
}

/// What the log says of the breaker: `opened from closed` and so on.
async fn story(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar(
        "select substring(event_type from 9) || ' from ' || (payload ->> 'from') from bus_events
            where event_type like 'circuit\\_%' order by seq",
    )
    .fetch_all(db.pool())
    .await
    .expect("read")
}

/// Claims up to ten messages and puts them back, parked by the breaker; how many.
async fn park_all(db: &TestDb, bus: &Bus) -> usize {
    let claims = bus.claim(&request("w", 10)).await.expect("claimed");
    let number = claims.len();
    let settles: Value = claims
        .into_iter()
        .map(|claim| {
            let message = claim.into_message();
            json!({"id": message.id, "claim_no": message.claim_no, "park": KEY,
                "reason": "circuit_open"})
        })
        .collect();
    sqlx::query("select * from bus_release($1)")
        .bind(settles)
        .fetch_all(db.pool())
        .await
        .expect("released");
    number
}

async fn parked(db: &TestDb) -> i64 {
    let sum = one(db, "select coalesce(sum(messages), 0)::bigint as n from bus_parked()").await;
    sum["n"].as_i64().expect("a number")
}

async fn pass(db: &TestDb, ms: u64) {
    db.advance(Duration::from_millis(ms)).await;
}

#[tokio::test]
async fn many_who_open_at_once_open_it_once() {
    let db = TestDb::new().await;
    let calls = (0..16).map(|n| {
        let db = &db;
        async move { open(db, &format!("w{n}"), 0).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|its| its["state"] == "open"));
    assert!(answers.iter().all(|its| its["version"] == answers[0]["version"]));
    assert_eq!(story(&db).await, ["opened from closed"]);
    let event = one(&db, "select * from bus_events where event_type = 'circuit_opened'").await;
    assert_eq!(event["payload"]["key"], KEY);
    assert_eq!(event["payload"]["version"], answers[0]["version"]);
    assert_eq!(event["payload"]["failure_rate"], 0.9);
    assert_eq!(event["reason"], "failure_rate");
}

#[tokio::test]
async fn it_opens_probes_and_closes_one_transition_an_event() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let first = open(&db, "a", 0).await;
    assert_eq!(first["open_for_ms"], OPEN_MS);
    pass(&db, OPEN_MS - 1).await;
    assert!(!probe(&db, "a").await, "not yet");
    pass(&db, 1).await;
    assert!(probe(&db, "b").await);
    assert!(!probe(&db, "a").await, "one prober in the fleet");
    assert!(probe(&db, "b").await, "who may make two calls");
    assert!(!probe(&db, "b").await, "and not three");
    report(&db, "a", Some(false)).await;
    assert_eq!(state(&db).await, "half_open", "who is not the prober says nothing");
    assert_eq!(report(&db, "b", Some(true)).await["state"], "half_open", "two must be well");
    let closed = report(&db, "b", Some(true)).await;
    assert_eq!(closed["state"], "closed");
    let version = closed["version"].as_i64().expect("a number");
    report(&db, "b", Some(false)).await;

    let seen = first["version"].as_i64().expect("a number");
    assert_eq!(open(&db, "c", seen).await["state"], "closed", "what was seen before is stale");
    assert_eq!(open(&db, "c", 0).await["state"], "closed");
    assert_eq!(open(&db, "c", version).await["state"], "open");
    pass(&db, OPEN_MS).await;
    assert!(probe(&db, "c").await);
    report(&db, "c", Some(false)).await;
    assert!(!probe(&db, "c").await, "open again, for as long");
    assert_eq!(
        story(&db).await,
        [
            "opened from closed",
            "half_opened from open",
            "closed from half_open",
            "opened from closed",
            "half_opened from open",
            "opened from half_open",
        ]
    );
}

#[tokio::test]
async fn of_many_who_would_probe_at_once_one_may() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    open(&db, "w", 0).await;
    pass(&db, OPEN_MS).await;
    let calls = (0..16).map(|n| {
        let db = &db;
        async move { probe(db, &format!("w{n}")).await }
    });
    let granted = futures_util::future::join_all(calls).await;
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
    assert_eq!(story(&db).await.len(), 2);
}

#[tokio::test]
async fn a_prober_that_is_lost_is_followed_by_another() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    open(&db, "w", 0).await;
    pass(&db, OPEN_MS).await;
    assert!(probe(&db, "lost").await);
    pass(&db, 9999).await;
    assert!(!probe(&db, "next").await, "to the last moment of its lease");
    pass(&db, 1).await;
    assert!(probe(&db, "next").await);
    report(&db, "lost", Some(false)).await;
    assert_eq!(state(&db).await, "half_open", "the lost one is not listened to");
    // A prober that did not come to make its call is not waited for as long.
    assert_eq!(report(&db, "next", None).await["open_for_ms"], 2000);
    assert!(!probe(&db, "third").await);
    pass(&db, 2000).await;
    assert!(probe(&db, "third").await);
    report(&db, "third", Some(true)).await;
    assert_eq!(report(&db, "third", Some(true)).await["state"], "closed");
}

#[tokio::test]
async fn an_operator_opens_closes_and_resets() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let forced = set(&db, "open", "null").await;
    assert_eq!((&forced["state"], &forced["forced"]), (&json!("open"), &json!(true)));
    assert_eq!(forced["open_for_ms"], Value::Null);
    enqueue(&db, &[raw(&json!({})), raw(&json!({}))]).await;
    assert_eq!(park_all(&db, &bus).await, 2);
    // Time alone never ends it, nor does a worker.
    for _ in 0..5 {
        pass(&db, 3_600_000).await;
        bus.reap(100).await.expect("reaped");
        assert!(!probe(&db, "w").await);
    }
    assert_eq!(parked(&db).await, 2);
    assert_eq!(set(&db, "close", "null").await["state"], "closed");
    bus.reap(100).await.expect("reaped");
    assert_eq!(parked(&db).await, 0);
    let before = set(&db, "close", "null").await["version"].clone();
    let reset = set(&db, "reset", "null").await;
    assert_eq!(reset["state"], "closed");
    assert!(reset["version"].as_i64() > before.as_i64(), "every worker hears of it");
    let open = set(&db, "open", "5000").await;
    assert_eq!((&open["forced"], &open["open_for_ms"]), (&json!(false), &json!(5000)));
    pass(&db, 5000).await;
    assert!(probe(&db, "w").await);
    set(&db, "open", "null").await;
    report(&db, "w", Some(true)).await;
    assert_eq!(state(&db).await, "open", "who probed before says nothing now");
    assert_eq!(
        story(&db).await,
        [
            "opened from closed",
            "closed from open",
            "closed from closed",
            "opened from closed",
            "half_opened from open",
            "opened from half_open",
        ]
    );
}

#[tokio::test]
async fn a_message_is_parked_only_while_the_breaker_is_not_closed() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    enqueue(&db, &[raw(&json!({}))]).await;
    assert_eq!(park_all(&db, &bus).await, 1, "nobody knows this breaker");
    open(&db, "w", 0).await;
    set(&db, "close", "null").await;
    assert_eq!(park_all(&db, &bus).await, 1, "it is closed");
    set(&db, "open", "null").await;
    assert_eq!(park_all(&db, &bus).await, 1);
    assert_eq!(park_all(&db, &bus).await, 0, "now it is parked");
    let message = one(&db, "select attempts, parked_for from agent_messages").await;
    assert_eq!(message, json!({"attempts": 0, "parked_for": format!("circuit:{KEY}")}));
    let events = rows(
        &db,
        "select payload -> 'circuit' as key from bus_events where event_type = 'echo_released'
            order by seq",
    )
    .await;
    assert_eq!(events.last().expect("released")["key"], KEY);
    assert_eq!(events[0]["key"], Value::Null);
    assert_eq!(broken_invariants(&db).await, Vec::<String>::new());
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn as_many_messages_are_let_go_as_may_probe_and_all_when_it_has_closed() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    open(&db, "w", 0).await;
    enqueue(&db, &vec![raw(&json!({})); 30]).await;
    while park_all(&db, &bus).await > 0 {}
    assert_eq!(parked(&db).await, 30);
    bus.reap(100).await.expect("reaped");
    assert_eq!(parked(&db).await, 30);
    pass(&db, OPEN_MS).await;
    for _ in 0..3 {
        bus.reap(100).await.expect("reaped");
    }
    assert_eq!(parked(&db).await, 28, "half_open_max_calls, whoever and how often reaps");
    assert!(probe(&db, "w").await);
    assert!(probe(&db, "w").await);
    pass(&db, 5000).await;
    bus.reap(100).await.expect("reaped");
    assert_eq!(parked(&db).await, 28, "both probes are under way");
    report(&db, "w", Some(true)).await;
    bus.reap(100).await.expect("reaped");
    assert_eq!(parked(&db).await, 27, "one place is free");
    report(&db, "w", Some(true)).await;
    for left in [17, 7, 0] {
        bus.reap(10).await.expect("reaped");
        assert_eq!(parked(&db).await, left);
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_parked_comes_back_even_when_its_breaker_was_forgotten() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    open(&db, "w", 0).await;
    enqueue(&db, &[raw(&json!({}))]).await;
    assert_eq!(park_all(&db, &bus).await, 1);
    set(&db, "close", "null").await;
    let version = one(&db, "select version from bus_circuits()").await["version"].clone();
    pass(&db, 86_400_001).await;
    bus.retain(Duration::from_secs(1), None, 10).await.expect("retained");
    assert!(rows(&db, "select * from bus_circuits()").await.is_empty(), "closed for a day");
    bus.reap(100).await.expect("reaped");
    assert_eq!(parked(&db).await, 0);
    let again = open(&db, "w", version.as_i64().expect("a number")).await;
    assert_eq!(again["state"], "open");
    assert!(again["version"].as_i64() > version.as_i64(), "versions go on from where they were");
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let db = TestDb::new().await;
    let open = |tenant: &str, key: &str, worker: &str, seen: &str, policy: &str, evidence: &str| {
        format!(
            "select bus_circuit_open('{tenant}', '{key}', '{worker}', 'x', {seen}, '{policy}', '{evidence}')"
        )
    };
    let policy = r#"{"open_ms": 1, "half_open_max_calls": 1, "successes_to_close": 1}"#;
    let long = "x".repeat(301);
    let huge = format!(r#"{{"n": "{}"}}"#, "x".repeat(5000));
    // Few bytes to store, and five thousand to read.
    let unwritable = r#"{"n": 1e5000}"#;
    let cases = [
        (open("", "k", "w", "0", policy, "{}"), "CG400", "tenant: "),
        (open("t", "", "w", "0", policy, "{}"), "CG400", "key: "),
        (open("t", &long, "w", "0", policy, "{}"), "CG400", "key: "),
        (open("t", "a\nb", "w", "0", policy, "{}"), "CG400", "key: "),
        (open("t", "k", "", "0", policy, "{}"), "CG400", "worker: "),
        (open("t", "k", "w", "-1", policy, "{}"), "CG400", "seen_version: "),
        (open("t", "k", "w", "9223372036854775807", policy, "{}"), "CG400", "seen_version: "),
        (open("t", "k", "w", "0", "{}", "{}"), "CG400", "policy: "),
        (open("t", "k", "w", "0", "[]", "{}"), "CG400", "policy: "),
        (open("t", "k", "w", "0", &policy.replace('1', "0"), "{}"), "CG400", "policy: "),
        (open("t", "k", "w", "0", policy, "[]"), "CG400", "evidence: "),
        (open("t", "k", "w", "0", policy, &huge), "CG400", "evidence: "),
        (open("t", "k", "w", "0", policy, unwritable), "CG400", "evidence: "),
        ("select bus_circuit_probe('t', 'k', '')".to_owned(), "CG400", "worker: "),
        ("select bus_circuit_probe('t', 'k', 'w', 5)".to_owned(), "CG400", "lease_ms: "),
        ("select bus_circuit_probe('t', 'k', 'w')".to_owned(), "CG404", "key: "),
        ("select bus_circuit_report('', 'k', 'w', true)".to_owned(), "CG400", "tenant: "),
        ("select bus_circuit_set('t', 'k', 'halve')".to_owned(), "CG400", "action: "),
        ("select bus_circuit_set('t', 'k', null)".to_owned(), "CG400", "action: "),
        (
            "select bus_circuit_set('t', 'k', 'close', open_ms => 5)".to_owned(),
            "CG400",
            "open_ms: ",
        ),
        ("select bus_circuit_set('t', 'k', 'open', open_ms => 0)".to_owned(), "CG400", "open_ms: "),
        ("select bus_circuit_set('t', 'k', 'close')".to_owned(), "CG404", "key: "),
        ("select bus_circuit_set('t', 'k', 'reset')".to_owned(), "CG404", "key: "),
        (
            r#"select bus_append_event('[{"event_type": "circuit_opened"}]')"#.to_owned(),
            "CG403",
            "events[0].event_type: ",
        ),
    ];
    for (query, code, text) in cases {
        let (state, message) = refusal(&db, &query).await;
        assert_eq!(state, code, "{query}: {message}");
        assert!(message.starts_with(text), "expected {text:?}, got {message:?}");
    }
    assert!(rows(&db, "select * from circuits").await.is_empty());
    assert!(rows(&db, "select bus_circuit_report('t', 'k', 'w', true)").await.is_empty());
}
