//! Limits on what waits: nothing goes over them, and whoever is refused learns when to come back.

use std::time::Duration;

use cogo::bus::{Bus, Error, Limits};
use cogo::error::Code;
use cogo::hub::apply_limits;
use cogo::message::NewMessage;
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{count, echo, request};

fn limits(json: Value) -> Limits {
    let limits: Limits = serde_json::from_value(json).expect("well-formed");
    limits.validate().expect("good limits");
    limits
}

fn of(tenant: &str) -> NewMessage {
    NewMessage { tenant: tenant.to_owned(), ..echo(json!({})) }
}

#[tokio::test]
async fn a_full_queue_refuses_says_when_to_come_back_and_writes_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let few = limits(json!({"topics": {"echo/default": {"max_queued": 2}}}));
    apply_limits(&bus, &few).await.expect("set");
    assert!(!bus.set_limits(&few).await.expect("set"), "nothing new");
    let first = of("a").with_idempotency_key("k");
    let sent = bus.publish(first.clone()).await.expect("published");
    bus.publish(of("b")).await.expect("published");
    let written = (count(&db, "agent_messages").await, count(&db, "bus_events").await);
    let error = bus.publish(of("a")).await.expect_err("full");
    let Error::Full { retry_after, message } = &error else { panic!("{error:?}") };
    assert_eq!(*retry_after, Duration::from_secs(1));
    assert_eq!(message, "topic echo/default: 2 messages wait, and at most 2 may");
    assert_eq!(error.code(), Code::RateLimited);
    assert!(!error.is_transient(), "it must not be tried again by itself");
    let batch = bus.publish_all(&[of("a"), of("b")]).await;
    assert!(matches!(batch, Err(Error::Full { .. })), "{batch:?}");
    let now = (count(&db, "agent_messages").await, count(&db, "bus_events").await);
    assert_eq!(now, written);
    // What is known is answered, however full it is.
    let again = bus.publish(of("a").with_idempotency_key("k")).await.expect("answered");
    assert!(again.duplicate && again.id == sent.id);

    let shown = bus.limits().await.expect("listed");
    let [limit] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((limit.kind.as_str(), limit.name.as_str()), ("topic", "echo/default"));
    assert_eq!((limit.max_queued, limit.waiting), (Some(2), Some(2)));

    // What is claimed waits no more.
    let claims = bus
        .claim(&cogo::bus::ClaimRequest { tenant: "b".to_owned(), ..request("w", 1) })
        .await
        .expect("claimed");
    assert_eq!(claims.len(), 1);
    db.advance(Duration::from_secs(2)).await;
    bus.publish(of("b")).await.expect("there is room");
    apply_limits(&bus, &Limits::default()).await.expect("set");
    assert!(bus.limits().await.expect("listed").is_empty());
    bus.publish(of("b")).await.expect("nothing is limited");
}

#[tokio::test]
async fn one_tenants_refusal_fails_nobody_elses_publish_of_the_same_group() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let few = limits(json!({"tenants": {"small": {"max_queued": 5}}}));
    apply_limits(&bus, &few).await.expect("set");
    let sends = (0..100).map(|n| {
        let (bus, tenant) = (bus.clone(), if n % 2 == 0 { "small" } else { "large" });
        async move { (tenant, bus.publish(of(tenant)).await) }
    });
    let (mut small, mut large, mut refused) = (0, 0, 0);
    for (tenant, sent) in futures_util::future::join_all(sends).await {
        match (tenant, sent) {
            ("small", Ok(_)) => small += 1,
            ("small", Err(Error::Full { .. })) => refused += 1,
            ("large", Ok(_)) => large += 1,
            (tenant, other) => panic!("{tenant}: {other:?}"),
        }
    }
    assert_eq!((small, refused, large), (5, 45, 50));
    assert_eq!(count(&db, "agent_messages").await, 55);
}

#[tokio::test]
async fn the_database_takes_all_limits_that_the_file_may_hold() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let all = limits(json!({
        "$schema": "schema/limits.schema.json",
        "tenants": {
            "*": {"max_queued": 999_999_999_999_999_u64, "weight": 0.01},
            "a": {"weight": 1000}, "b": {"max_queued": 1}, "c": {},
        },
        "topics": {"*": {"max_queued": 7}, "r/s": {}},
    }));
    assert!(bus.set_limits(&all).await.expect("taken"));
    let shown = bus.limits().await.expect("listed");
    assert_eq!(shown.len(), 6);
    let weights: Vec<(&str, f32)> =
        shown.iter().filter(|l| l.kind == "tenant").map(|l| (&*l.name, l.weight)).collect();
    assert_eq!(weights, [("*", 0.01), ("a", 1000.0), ("b", 1.0), ("c", 1.0)]);
}
