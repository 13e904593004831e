//! Workers that come, stay, go and vanish; and many that look after the bus at once.

use std::time::Duration;

use cogo::testing::TestDb;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::caller::Caller;
use crate::fixtures::{refusal, replay_differences, rows};

async fn seen(db: &TestDb, fields: Value) -> bool {
    let mut worker = json!({"id": "w", "role": "echo", "host": "h", "topics": ["echo/default"], "info": {"tools": ["a"]}});
    for (name, value) in fields.as_object().expect("fields") {
        worker[name] = value.clone();
    }
    sqlx::query_scalar("select bus_worker_seen($1)")
        .bind(worker)
        .fetch_one(db.pool())
        .await
        .expect("seen")
}

async fn reap(db: &TestDb) {
    rows(db, "select * from bus_reap()").await;
}

/// What the log says of workers: what, who and why.
async fn told(db: &TestDb) -> Vec<String> {
    let sql = "select concat_ws(' ', event_type, worker_id, reason) as it from bus_events
        where event_type like 'agent\\_%' order by seq";
    rows(db, sql).await.iter().map(|row| row["it"].as_str().expect("text").to_owned()).collect()
}

const STATE: &str = "select id, status, in_flight, lease_ms from workers order by tenant, id";

#[tokio::test]
async fn a_worker_that_is_silent_for_its_lease_is_offline_and_back_when_it_speaks_again() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    assert!(seen(&db, json!({"lease_ms": 5000, "in_flight": 3})).await);
    db.advance(Duration::from_millis(5000)).await;
    reap(&db).await;
    assert_eq!(
        rows(&db, STATE).await,
        [json!({"id": "w", "status": "online", "in_flight": 3, "lease_ms": 5000})]
    );
    db.advance(Duration::from_millis(1)).await;
    reap(&db).await;
    reap(&db).await;
    assert_eq!(
        rows(&db, STATE).await,
        [json!({"id": "w", "status": "offline", "in_flight": 0, "lease_ms": 5000})]
    );
    let lost = rows(&db, "select payload from bus_events where reason = 'lost'").await;
    assert_eq!(
        (&lost[0]["payload"]["lease_ms"], &lost[0]["payload"]["in_flight"]),
        (&json!(5000), &json!(3))
    );
    assert!(seen(&db, json!({})).await, "it is new again");
    assert_eq!(told(&db).await, ["agent_online w", "agent_offline w lost", "agent_online w"]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_lease_is_thirty_seconds_by_default_and_from_a_second_to_an_hour() {
    let db = TestDb::new().await;
    for (asked, given) in [
        (json!(null), 30_000),
        (json!(1), 1000),
        (json!(7_200_000), 3_600_000),
        (json!(45_000), 45_000),
    ] {
        seen(&db, json!({"lease_ms": asked})).await;
        assert_eq!(rows(&db, STATE).await[0]["lease_ms"], given, "{asked}");
    }
    for bad in [json!(-1), json!("soon"), json!(1.5), json!([1]), json!(12_345_678_901_i64)] {
        for field in ["lease_ms", "in_flight"] {
            let worker = json!({"id": "w", "role": "echo", field: bad});
            let (state, message) =
                refusal(&db, &format!("select bus_worker_seen('{worker}')")).await;
            assert_eq!(state, "CG400", "{message}");
            assert!(message.starts_with(&format!("worker.{field}: ")), "{message}");
        }
    }
}

#[tokio::test]
async fn heartbeats_are_told_when_something_changed_and_else_every_five_minutes() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    seen(&db, json!({})).await;
    for n in 0..29 {
        db.advance(Duration::from_secs(10)).await;
        assert!(!seen(&db, json!({"in_flight": n})).await);
    }
    assert_eq!(told(&db).await, ["agent_online w"], "ten seconds short of five minutes");
    db.advance(Duration::from_secs(10)).await;
    seen(&db, json!({"in_flight": 7})).await;
    assert_eq!(told(&db).await, ["agent_online w", "agent_heartbeat w"]);
    seen(&db, json!({"info": {"tools": ["a", "b"]}})).await;
    seen(&db, json!({"info": {"tools": ["a", "b"]}})).await;
    seen(&db, json!({"info": {"tools": ["a", "b"]}, "topics": ["echo/default", "echo/more"]}))
        .await;
    assert_eq!(told(&db).await.len(), 4);
    let last = rows(&db, "select payload from bus_events order by seq desc limit 1").await;
    let expected = json!({"host": "h", "version": "", "topics": ["echo/default", "echo/more"],
        "info": {"tools": ["a", "b"]}, "lease_ms": 30000, "in_flight": 7});
    assert_eq!(last[0]["payload"], expected);
}

#[tokio::test]
async fn what_a_worker_leaves_out_stays_until_it_was_away() {
    let db = TestDb::new().await;
    seen(&db, json!({"version": "1", "lease_ms": 60000})).await;
    let least = r#"select bus_worker_seen('{"id": "w", "role": "echo", "in_flight": 2}')"#;
    rows(&db, least).await;
    let state = "select host, version, topics, info, lease_ms, in_flight from workers";
    let kept = json!({"host": "h", "version": "1", "topics": ["echo/default"], "info": {"tools": ["a"]},
        "lease_ms": 60000, "in_flight": 2});
    assert_eq!(rows(&db, state).await, [kept]);
    assert_eq!(
        rows(&db, "select bus_worker_gone('w', 'stopped')").await,
        [json!({"bus_worker_gone": true})]
    );
    rows(&db, least).await;
    let fresh = json!({"host": "", "version": "", "topics": [], "info": {}, "lease_ms": 30000, "in_flight": 2});
    assert_eq!(rows(&db, state).await, [fresh]);
    assert_eq!(told(&db).await, ["agent_online w", "agent_offline w stopped", "agent_online w"]);
}

#[tokio::test]
async fn a_heartbeat_touches_no_index() {
    let db = TestDb::new().await;
    let mut connection =
        PgConnection::connect_with(&db.connect_options()).await.expect("connected");
    for n in 0..50 {
        let worker = json!({"id": "w", "role": "echo", "in_flight": n});
        sqlx::query("select bus_worker_seen($1)")
            .bind(worker)
            .execute(&mut connection)
            .await
            .expect("seen");
    }
    connection.execute("select pg_stat_force_next_flush()").await.expect("flushed");
    let sql = "select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables where relname = 'workers'";
    let stat = &rows(&db, sql).await[0];
    // The first one puts it online, which one index is about.
    assert_eq!((stat["all"].as_i64(), stat["hot"].as_i64()), (Some(50), Some(49)));
}

#[tokio::test]
async fn two_that_say_at_once_that_a_worker_is_there_tell_it_once() {
    let db = TestDb::new().await;
    let all = futures_util::future::join_all((0..8).map(|_| seen(&db, json!({})))).await;
    assert_eq!(all.iter().filter(|new| **new).count(), 1);
    assert_eq!(told(&db).await, ["agent_online w"]);
}

#[tokio::test]
async fn a_lost_prober_s_probe_ends_and_another_worker_s_begins_at_once() {
    const OPEN: &str = r#"select bus_circuit_open('default', 'k', 'w', 'x', 0,
        '{"open_ms": 1000, "half_open_max_calls": 1, "successes_to_close": 1}')"#;
    let probe = |worker: &str| {
        format!("select granted from bus_circuit_probe('default', 'k', '{worker}', 3600000)")
    };
    for gone in [false, true] {
        let db = TestDb::new().await;
        db.freeze_time().await;
        for id in ["w", "v"] {
            seen(&db, json!({"id": id})).await;
        }
        rows(&db, OPEN).await;
        db.advance(Duration::from_millis(1000)).await;
        assert_eq!(rows(&db, &probe("w")).await, [json!({"granted": true})]);
        assert_eq!(
            rows(&db, &probe("v")).await,
            [json!({"granted": false})],
            "its prober has an hour"
        );
        if gone {
            rows(&db, "select bus_worker_gone('w')").await;
        } else {
            db.advance(Duration::from_millis(29_001)).await;
            seen(&db, json!({"id": "v"})).await;
            db.advance(Duration::from_millis(1000)).await;
            reap(&db).await;
        }
        assert_eq!(rows(&db, &probe("v")).await, [json!({"granted": true})], "gone: {gone}");
        // And the lost one, back, is not its prober any more.
        assert_eq!(rows(&db, &probe("w")).await, [json!({"granted": false})], "gone: {gone}");
    }
}

#[tokio::test]
async fn a_worker_of_another_tenant_with_the_same_id_does_not_end_a_probe() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    rows(
        &db,
        r#"select bus_circuit_open('acme', 'k', 'w', 'x', 0,
        '{"open_ms": 1, "half_open_max_calls": 1, "successes_to_close": 1}')"#,
    )
    .await;
    db.advance(Duration::from_millis(1)).await;
    rows(&db, "select bus_circuit_probe('acme', 'k', 'w', 60000)").await;
    seen(&db, json!({"tenant": "other"})).await;
    rows(&db, "select bus_worker_gone('w', null, 'other')").await;
    let probe = "select granted from bus_circuit_probe('acme', 'k', 'v')";
    assert_eq!(rows(&db, probe).await, [json!({"granted": false})]);
    // One that works for all tenants is shown as of '*', and probes for each.
    seen(&db, json!({"tenant": "*"})).await;
    rows(&db, "select bus_worker_gone('w', null, '*')").await;
    assert_eq!(rows(&db, probe).await, [json!({"granted": true})]);
}

#[tokio::test]
async fn where_nothing_is_foreseen_nobody_is_told_to_hurry() {
    let db = TestDb::new().await;
    let reaped = rows(&db, "select promoted, expired, dead, next_due_ms from bus_reap()").await;
    assert_eq!(reaped, [json!({"promoted": 0, "expired": 0, "dead": 0, "next_due_ms": null})]);
}

#[tokio::test]
async fn of_many_that_reap_one_works_and_the_others_learn_when_to_look_again() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    // To the beginning of a second as the lock counts them, which rounds: what is "at once" here stays within it.
    let until = "select 1500 - extract(milliseconds from cogo.now())::integer % 1000 as ms";
    let ms = rows(&db, until).await[0]["ms"].as_u64().expect("a number");
    db.advance(Duration::from_millis(ms + 1)).await;
    rows(&db, r#"select * from bus_enqueue('[{"role":"r","service":"s","intent":"i","payload":1,"delay_ms":5000}]')"#).await;
    let reap = "select promoted, next_due_ms from bus_reap()";
    let mut first = PgConnection::connect_with(&db.connect_options()).await.expect("connected");
    first.execute("begin; select bus_reap()").await.expect("at work");
    assert_eq!(rows(&db, reap).await, [json!({"promoted": 0, "next_due_ms": 5000})]);
    db.advance(Duration::from_secs(6)).await;
    // A second later whoever is still at it does not stand in the way.
    assert_eq!(rows(&db, reap).await, [json!({"promoted": 1, "next_due_ms": null})]);
    first.execute("rollback; begin; select bus_reap()").await.expect("at work");
    rows(&db, r#"select * from bus_enqueue('[{"role":"r","service":"s","intent":"i","payload":1,"delay_ms":1}]')"#).await;
    db.advance(Duration::from_millis(10)).await;
    assert_eq!(
        rows(&db, reap).await,
        [json!({"promoted": 0, "next_due_ms": 100})],
        "due, and somebody is at it"
    );
    first.execute("commit").await.expect("done");
    assert_eq!(rows(&db, reap).await, [json!({"promoted": 1, "next_due_ms": null})]);
}

#[tokio::test]
async fn a_month_after_they_were_last_seen_workers_make_room() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    for n in 0..12 {
        seen(&db, json!({"id": format!("old-{n}")})).await;
    }
    db.advance(Duration::from_secs(31 * 24 * 3600)).await;
    reap(&db).await;
    assert_eq!(told(&db).await.len(), 24);
    seen(&db, json!({"id": "new-1"})).await;
    assert_eq!(rows(&db, STATE).await.len(), 3, "ten at a time");
    seen(&db, json!({"id": "new-2"})).await;
    assert_eq!(rows(&db, STATE).await.len(), 2);
}

#[tokio::test]
async fn a_token_reaps_at_most_a_hundred_of_each_kind_at_once() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let batch: Vec<_> = (0..150)
        .map(|_| json!({"role": "r", "service": "s", "intent": "i", "payload": 1, "delay_ms": 5}))
        .collect();
    rows(&db, &format!("select * from bus_enqueue('{}')", Value::from(batch))).await;
    db.advance(Duration::from_secs(1)).await;
    let token = Caller::token("acme", "w", &[], &[]);
    let reaped = token.may(&db, "select promoted from bus_reap(10000)").await;
    assert_eq!(reaped, [json!({"promoted": 100})]);
}
