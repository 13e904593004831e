//! Work comes in: what is written, what is known already, what is refused.

use cogo::bus::Bus;
use cogo::error::Code;
use cogo::message::{MessageId, Status};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{count, echo, replay_differences};

#[tokio::test]
async fn a_published_message_waits_and_its_event_carries_it_whole() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let message =
        echo(json!({"n": 1})).with_priority(7).with_max_attempts(3).with_idempotency_key("k");

    let receipt = bus.publish(message.clone()).await.expect("published");

    assert_eq!(receipt.id, message.id);
    assert!(!receipt.duplicate);
    let stored = bus.message(receipt.id).await.expect("found");
    assert_eq!((stored.status, stored.attempts, stored.max_attempts), (Status::Queued, 0, 3));
    assert_eq!(stored.payload, json!({"n": 1}));
    let events = bus.message_events(receipt.id, 10).await.expect("events");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "echo_scheduled");
    assert_eq!(events[0].trace_id, receipt.trace_id);
    assert_eq!(events[0].payload["payload"], json!({"n": 1}));
    assert_eq!(events[0].payload["idempotency_key"], "k");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_same_key_gives_the_same_message_within_a_tenant() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let first = bus.publish(echo(json!(1)).with_idempotency_key("k")).await.expect("first");
    let again = bus.publish(echo(json!(2)).with_idempotency_key("k")).await.expect("again");
    let mut elsewhere = echo(json!(3)).with_idempotency_key("k");
    elsewhere.tenant = "other".to_owned();
    let other = bus.publish(elsewhere).await.expect("other tenant");

    assert_eq!((again.id, again.trace_id, again.duplicate), (first.id, first.trace_id, true));
    assert_ne!(other.id, first.id);
    assert!(!other.duplicate);
    assert_eq!(count(&db, "agent_messages").await, 2);
    assert_eq!(count(&db, "bus_events").await, 2);
}

#[tokio::test]
async fn fifty_concurrent_enqueues_with_one_key_make_one_message() {
    let db = TestDb::new().await;
    // Several clients, so that they really race in the database and not in one client's group.
    let buses: Vec<_> = (0..5).map(|_| Bus::new(db.pool().clone())).collect();
    let calls =
        (0..50).map(|n| {
            let bus = buses[n % buses.len()].clone();
            async move {
                bus.publish(echo(json!(n)).with_idempotency_key("once")).await.expect("published")
            }
        });
    let receipts = futures_util::future::join_all(calls).await;

    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id));
    assert_eq!(count(&db, "agent_messages").await, 1);
    assert_eq!(count(&db, "bus_events").await, 1);
}

#[tokio::test]
async fn a_key_twice_in_one_batch_makes_one_message() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let batch = [
        echo(json!(1)).with_idempotency_key("k"),
        echo(json!(2)),
        echo(json!(3)).with_idempotency_key("k"),
    ];
    let receipts = bus.publish_all(&batch).await.expect("published");
    let duplicates: Vec<_> = receipts.iter().map(|receipt| receipt.duplicate).collect();
    assert_eq!(duplicates, [false, false, true]);
    assert_eq!(receipts[2].id, receipts[0].id);
    assert_eq!(receipts[1].id, batch[1].id);
}

#[tokio::test]
async fn sending_the_same_message_again_makes_no_second_one() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let message = echo(json!(1));
    bus.publish(message.clone()).await.expect("first");
    let again = bus.publish(message.clone()).await.expect("again");
    assert_eq!((again.id, again.duplicate), (message.id, true));
    assert_eq!(count(&db, "bus_events").await, 1);
}

#[tokio::test]
async fn an_id_of_another_tenant_is_refused_and_shows_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let message = echo(json!(1));
    bus.publish(message.clone()).await.expect("first");
    let mut thief = message;
    thief.tenant = "thief".to_owned();
    let error = bus.publish(thief).await.expect_err("refused");
    assert_eq!(error.code(), Code::Conflict);
    assert_eq!(count(&db, "agent_messages").await, 1);
}

#[tokio::test]
async fn batches_with_the_same_keys_in_opposite_orders_do_not_deadlock() {
    let db = TestDb::new().await;
    for round in 0..10 {
        let batch = |reverse: bool| {
            let mut batch: Vec<_> = (0..100)
                .map(|n| echo(json!(n)).with_idempotency_key(format!("{round}-{n}")))
                .collect();
            if reverse {
                batch.reverse();
            }
            batch
        };
        let calls = (0..4).map(|n| {
            let (pool, batch) = (db.pool().clone(), batch(n % 2 == 1));
            // Straight to the function: the client would hide a deadlock behind its retry.
            async move {
                let batch = serde_json::to_value(batch).expect("serializes");
                sqlx::query("select * from bus_enqueue($1)").bind(batch).fetch_all(&pool).await
            }
        });
        for result in futures_util::future::join_all(calls).await {
            assert_eq!(result.expect("no deadlock").len(), 100);
        }
    }
    assert_eq!(count(&db, "agent_messages").await, 1000);
}

#[tokio::test]
async fn bad_messages_are_refused_by_name_and_write_nothing() {
    let db = TestDb::new().await;
    let good = || json!({"role": "echo", "service": "default", "intent": "echo", "payload": {}});
    let with = |field: &str, value: Value| {
        let mut message = good();
        message[field] = value;
        json!([good(), message])
    };
    let without = |field: &str| {
        let mut message = good();
        message.as_object_mut().expect("an object").remove(field);
        json!([message])
    };
    let cases = [
        (json!({}), "CG400", "messages: must be an array"),
        (json!([1]), "CG400", "messages[0]: must be an object"),
        (with("colour", json!("red")), "CG400", "messages[1].colour: is not a field"),
        (with("role", json!("a/b")), "CG400", "messages[1].role: "),
        (with("service", json!("")), "CG400", "messages[1].service: "),
        (with("tenant", json!("a b")), "CG400", "messages[1].tenant: "),
        (with("intent", json!("Echo")), "CG400", "messages[1].intent: "),
        (with("id", json!("1")), "CG400", "messages[1].id: must be a UUID"),
        (with("trace_id", json!(7)), "CG400", "messages[1].trace_id: must be a UUID"),
        (with("parent_id", json!("x")), "CG400", "messages[1].parent_id: must be a UUID"),
        (with("priority", json!(101)), "CG400", "messages[1].priority: "),
        (with("priority", json!("high")), "CG400", "messages[1].priority: "),
        (with("shard", json!(-1)), "CG400", "messages[1].shard: "),
        (with("max_attempts", json!(0)), "CG400", "messages[1].max_attempts: "),
        (with("max_attempts", json!(1.5)), "CG400", "messages[1].max_attempts: "),
        (with("delay_ms", json!(-5)), "CG400", "messages[1].delay_ms: "),
        (with("idempotency_key", json!("")), "CG400", "messages[1].idempotency_key: "),
        (with("idempotency_key", json!(5)), "CG400", "messages[1].idempotency_key: "),
        (with("idempotency_key", json!("k".repeat(256))), "CG400", "messages[1].idempotency_key: "),
        (without("role"), "CG400", "messages[0].role: "),
        (without("service"), "CG400", "messages[0].service: "),
        (without("intent"), "CG400", "messages[0].intent: "),
        (without("payload"), "CG400", "messages[0].payload: is missing"),
        (
            with("payload", json!("x".repeat(5 << 20))),
            "CG413",
            "messages[1].payload: at most 4 MiB",
        ),
        (Value::Array(vec![good(); 10_001]), "CG413", "messages: at most 10000"),
    ];
    for (batch, state, text) in cases {
        let error = sqlx::query("select * from bus_enqueue($1)")
            .bind(&batch)
            .fetch_all(db.pool())
            .await
            .expect_err(text);
        let error = error.as_database_error().expect("the database's own").to_owned();
        assert_eq!(error.code().as_deref(), Some(state), "{text}: {error}");
        assert!(error.message().starts_with(text), "expected {text:?}, got {:?}", error.message());
    }
    assert_eq!(count(&db, "agent_messages").await, 0);
    assert_eq!(count(&db, "bus_events").await, 0);
}

#[tokio::test]
async fn the_client_refuses_what_cannot_be_stored_before_sending() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let mut bad_priority = echo(json!(1));
    bad_priority.priority = 200;
    let mut bad_role = echo(json!(1));
    bad_role.role = "a b".to_owned();
    let cases = [
        (echo(json!({"text": "a\0b"})), "payload: "),
        (echo(json!(1)).with_idempotency_key(""), "idempotency_key: "),
        (echo(json!(1)).with_max_attempts(0), "max_attempts: "),
        (bad_priority, "priority: "),
        (bad_role, "role: "),
    ];
    for (message, text) in cases {
        let error = bus.publish(message).await.expect_err(text);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().starts_with(text), "expected {text:?}, got {error}");
    }
    assert_eq!(count(&db, "agent_messages").await, 0);
}

#[tokio::test]
async fn one_bad_message_does_not_fail_those_grouped_with_it() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let taken = MessageId::new();
    let mut owner = echo(json!(0));
    owner.id = taken;
    owner.tenant = "owner".to_owned();
    bus.publish(owner).await.expect("published");
    let calls = (0..40).map(|n| {
        let bus = bus.clone();
        async move {
            let mut message = echo(json!(n));
            if n == 20 {
                message.id = taken; // refused by the database, not by the client
            }
            (n, bus.publish(message).await)
        }
    });
    for (n, result) in futures_util::future::join_all(calls).await {
        assert_eq!(result.is_err(), n == 20, "message {n}: {result:?}");
    }
    assert_eq!(count(&db, "agent_messages").await, 40);
}

#[tokio::test]
async fn a_payload_that_is_small_to_store_and_large_to_read_is_refused() {
    let db = TestDb::new().await;
    // A number of a few bytes each, of which Postgres writes out every digit.
    let refused = sqlx::query(
        "select * from bus_enqueue(jsonb_build_array(jsonb_build_object(
            'role', 'echo', 'service', 'default', 'intent', 'echo', 'payload',
            (select jsonb_agg('1e131071'::numeric) from generate_series(1, 200)))))",
    )
    .execute(db.pool())
    .await
    .expect_err("refused");
    let code = refused.as_database_error().and_then(|error| error.code()).expect("a code");
    assert_eq!(code, "CG413", "{refused}");
    assert_eq!(count(&db, "agent_messages").await, 0);
}
