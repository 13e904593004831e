//! Limits on what waits: never exceeded, nothing written when refused, free again when drained.

use std::time::Duration;

use cogo::bus::{Bus, Settle};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{count, enqueue, raw, refusal, request, rows};

async fn limit(db: &TestDb, limits: Value) -> bool {
    let sql = "select bus_set_limits($1)";
    sqlx::query_scalar(sql).bind(limits).fetch_one(db.pool()).await.expect("set")
}

fn for_default(max_queued: i64) -> Value {
    json!({"tenants": {"default": {"max_queued": max_queued}}})
}

async fn admitted(db: &TestDb, batch: &[Value]) -> bool {
    let answer = sqlx::query("select * from bus_enqueue($1)").bind(Value::from(batch));
    match answer.fetch_all(db.pool()).await {
        Ok(_) => true,
        Err(error) => {
            let error = error.as_database_error().expect("the database's own");
            assert_eq!(error.code().as_deref(), Some("CG429"), "{error}");
            let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
            assert_eq!(error.detail(), Some("retry_after_ms=1000"));
            false
        }
    }
}

async fn drain(bus: &Bus, max: usize) -> usize {
    let claims = bus.claim(&request("w", max)).await.expect("claimed");
    let messages: Vec<_> = claims.into_iter().map(|claim| claim.into_message()).collect();
    for message in &messages {
        bus.settle(Settle::complete(message, json!(1), json!({}))).await.expect("settled");
    }
    messages.len()
}

#[tokio::test]
async fn thirty_two_senders_never_exceed_a_limit() {
    const MAX: i64 = 500;
    let db = TestDb::new().await;
    limit(&db, for_default(MAX)).await;
    let calls = (0..32).map(|sender| {
        let db = &db;
        async move {
            let mut sent = 0;
            for n in 0..20 {
                let batch = vec![raw(&json!({"payload": [sender, n]})); 1 + (sender + n) % 4];
                if admitted(db, &batch).await {
                    sent += batch.len();
                }
            }
            sent
        }
    });
    // Meanwhile others reap, and set the limits anew.
    let bus = Bus::new(db.pool().clone());
    let besides = async {
        for n in 0..40 {
            bus.reap(100).await.expect("reaped");
            let max = if n % 2 == 0 { MAX - 1 } else { MAX };
            limit(&db, for_default(max)).await;
        }
    };
    let (sent, ()) = tokio::join!(futures_util::future::join_all(calls), besides);
    let sent: usize = sent.into_iter().sum();
    assert_eq!(i64::try_from(sent).expect("few"), count(&db, "agent_messages").await);
    assert!(i64::try_from(sent).expect("few") <= MAX, "{sent} wait");
    limit(&db, for_default(MAX)).await;
    while admitted(&db, &[raw(&json!({}))]).await {}
    assert_eq!(count(&db, "agent_messages").await, MAX, "and it is used to the last place");
}

#[tokio::test]
async fn a_refused_batch_leaves_nothing_and_a_drained_queue_takes_more() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    limit(&db, for_default(5)).await;
    assert!(admitted(&db, &vec![raw(&json!({})); 4]).await);
    let (code, message) = refusal(
        &db,
        &format!("select bus_enqueue('{}')", json!([raw(&json!({})), raw(&json!({}))])),
    )
    .await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("CG429", "tenant default: 4 messages wait, and at most 5 may")
    );
    assert_eq!(count(&db, "agent_messages").await, 4);
    assert_eq!(count(&db, "bus_events").await, 4);
    assert!(admitted(&db, &[raw(&json!({}))]).await, "one fits");
    assert!(!admitted(&db, &[raw(&json!({}))]).await);
    assert_eq!(drain(&bus, 2).await, 2);
    db.advance(Duration::from_millis(1100)).await;
    assert!(admitted(&db, &vec![raw(&json!({})); 2]).await);
    // Whether it was counted by a sender or by the reaper.
    assert_eq!(drain(&bus, 10).await, 5);
    db.advance(Duration::from_millis(1100)).await;
    bus.reap(10).await.expect("reaped");
    assert!(admitted(&db, &vec![raw(&json!({})); 5]).await);
    assert!(!admitted(&db, &[raw(&json!({}))]).await);
}

#[tokio::test]
async fn what_is_delayed_or_parked_waits_too() {
    let db = TestDb::new().await;
    limit(&db, json!({"topics": {"echo/default": {"max_queued": 4}}})).await;
    enqueue(
        &db,
        &[
            raw(&json!({"delay_ms": 60_000})),
            raw(&json!({"ordering_key": "k"})),
            raw(&json!({"ordering_key": "k"})),
        ],
    )
    .await;
    sqlx::query("delete from cogo.backlog").execute(db.pool()).await.expect("forgotten");
    assert!(admitted(&db, &[raw(&json!({}))]).await);
    assert!(!admitted(&db, &[raw(&json!({}))]).await);
}

#[tokio::test]
async fn who_asks_for_what_is_known_is_answered_when_all_is_full() {
    let db = TestDb::new().await;
    limit(&db, for_default(2)).await;
    let id = uuid::Uuid::now_v7();
    let known = [raw(&json!({"id": id})), raw(&json!({"idempotency_key": "k"}))];
    // Three that are two: neither counts twice.
    let batch = [known[0].clone(), known[1].clone(), known[1].clone()];
    assert!(admitted(&db, &batch).await);
    assert!(admitted(&db, &batch).await);
    assert!(!admitted(&db, &[known[0].clone(), raw(&json!({}))]).await);
    assert_eq!(count(&db, "agent_messages").await, 2);
}

#[tokio::test]
async fn limits_are_of_a_tenant_a_topic_or_all_that_are_not_named() {
    let db = TestDb::new().await;
    let of = |tenant: &str, service: &str| raw(&json!({"tenant": tenant, "service": service}));
    assert!(
        limit(
            &db,
            json!({"tenants": {"*": {"max_queued": 1}, "big": {"max_queued": 3}, "free": {"weight": 2}},
                "topics": {"echo/small": {"max_queued": 2}}}),
        )
        .await
    );
    assert!(admitted(&db, &[of("a", "s"), of("b", "s")]).await, "one each");
    assert!(!admitted(&db, &[of("a", "s")]).await);
    assert!(!admitted(&db, &[of("c", "s"), of("a", "s")]).await, "all or nothing");
    assert!(admitted(&db, &vec![of("big", "s"); 3]).await);
    assert!(!admitted(&db, &[of("big", "s")]).await);
    assert!(admitted(&db, &vec![of("free", "s"); 50]).await, "named, and without a limit");
    assert!(admitted(&db, &[of("free", "small"), of("free", "small")]).await);
    assert!(!admitted(&db, &[of("free", "small")]).await);

    assert!(limit(&db, json!({"tenants": {"a": {"max_queued": 2}}})).await);
    assert!(admitted(&db, &[of("a", "s"), of("b", "small")]).await, "as the new limits say");
    assert!(!admitted(&db, &[of("a", "s")]).await);
    assert!(!limit(&db, json!({"tenants": {"a": {"max_queued": 2}}})).await, "nothing changed");
    let limits = rows(&db, "select * from bus_limits()").await;
    assert_eq!(limits.len(), 1);
    assert_eq!((&limits[0]["max_queued"], &limits[0]["waiting"]), (&json!(2), &json!(2)));
    assert!(limit(&db, json!({})).await);
    assert!(admitted(&db, &vec![of("a", "s"); 20]).await, "no limits");
}

#[tokio::test]
async fn bad_limits_are_refused_by_name_and_change_nothing() {
    let db = TestDb::new().await;
    limit(&db, for_default(1)).await;
    for (limits, text) in [
        (json!([]), "limits: "),
        (json!({"queues": {}}), "limits: "),
        (json!({"tenants": []}), "limits: "),
        (json!({"tenants": {"a b": {}}}), "limits.tenants.a b: "),
        (json!({"topics": {"echo": {}}}), "limits.topics.echo: "),
        (json!({"tenants": {"a": 5}}), "limits.tenants.a: "),
        (json!({"tenants": {"a": {"max": 5}}}), "limits.tenants.a: "),
        (json!({"topics": {"a/b": {"weight": 5}}}), "limits.topics.a/b: "),
        (json!({"tenants": {"a": {"max_queued": 0}}}), "limits.tenants.a.max_queued: "),
        (json!({"tenants": {"a": {"max_queued": "5"}}}), "limits.tenants.a.max_queued: "),
        (json!({"tenants": {"a": {"weight": 0}}}), "limits.tenants.a.weight: "),
        (json!({"tenants": {"a": {"weight": 1001}}}), "limits.tenants.a.weight: "),
    ] {
        let (code, message) = refusal(&db, &format!("select bus_set_limits('{limits}')")).await;
        assert_eq!(code, "CG400");
        assert!(message.starts_with(text), "expected {text:?}, got {message:?}");
    }
    assert_eq!(rows(&db, "select * from bus_limits()").await.len(), 1);
}
