//! The bus as a principal: what SQL allows, and nothing else.

use anyhow::Result;
use cogo::bus::Error;
use cogo::bus::dead_letter::{Filter, Operated};
use cogo::error::Code;
use cogo::hub::Principal;
use cogo::message::{MessageId, NewMessage, Status, Topic, TraceId};
use serde_json::{Value, json};

use super::{key, of, principal};
use crate::hub::{TOKEN, TestHub, topic};

fn message(payload: Value) -> NewMessage {
    NewMessage::new(&topic().expect("a topic"), "echo.say", payload)
}

fn elsewhere() -> Topic {
    Topic::new("other", "here").expect("a topic")
}

/// A dead letter of a tenant.
async fn dead(hub: &TestHub, tenant: &str) -> Result<MessageId> {
    let mut message = message(json!({"of": tenant}));
    message.tenant = tenant.to_owned();
    let id = hub.bus.publish(message).await?.id;
    // The message of this id, whatever else of its tenant waits.
    let sql = "with claimed as materialized (
            select c.id, c.claim_no from bus_claim('v', '{hub-test/here}', 100, 60000, $1) c
        ) select bus_fail(jsonb_build_array(jsonb_build_object('id', c.id, 'claim_no', c.claim_no,
            'error', '{\"class\": \"connect\", \"message\": \"nobody there\"}'::jsonb)))
        from claimed c where c.id = $2";
    let pool = hub.bus.pool().expect("a database");
    sqlx::query(sql).bind(tenant).bind(id.0).execute(pool).await?;
    assert_eq!(hub.bus.message(id).await?.status, Status::Failed);
    Ok(id)
}

fn is_nobody(error: &Error) -> bool {
    matches!(error, Error::NoMessage(_))
}

#[tokio::test]
async fn what_a_key_publishes_is_its_tenants_and_seen_by_nobody_elses() -> Result<()> {
    let hub = TestHub::new().await?;
    let [acme, globex] = ["acme", "globex"].map(|tenant| principal(&hub, &of(tenant, json!({}))));
    let admin = principal(&hub, TOKEN);
    let mut forged = message(json!(1));
    forged.tenant = "globex".to_owned();
    let receipt = acme.publish(forged.clone()).await?;
    assert_eq!((receipt.id, receipt.duplicate), (forged.id, false));
    let seen = acme.message(receipt.id).await?;
    assert_eq!((seen.tenant.as_str(), &seen.payload), ("acme", &json!(1)));
    assert_eq!(acme.message_events(receipt.id, 10).await?.len(), 1);
    assert_eq!(acme.trace_events(receipt.trace_id, 10).await?.len(), 1);
    // The same again is the same message.
    assert!(acme.publish(forged).await?.duplicate);

    assert!(is_nobody(&globex.message(receipt.id).await.expect_err("another tenant's")));
    assert_eq!(globex.message_events(receipt.id, 10).await?, []);
    assert_eq!(globex.trace_events(receipt.trace_id, 10).await?, []);
    assert!(is_nobody(&globex.cancel(receipt.id, None).await.expect_err("another tenant's")));
    assert!(is_nobody(&globex.message(MessageId::new()).await.expect_err("nobody's")));
    assert_eq!(admin.message(receipt.id).await?.status, Status::Queued);
    assert_eq!(admin.trace_events(TraceId::new(), 10).await?, []);

    // A topic that its key does not name.
    assert!(!acme.may_send(&elsewhere()) && acme.may_send(&topic()?));
    assert!(admin.may_send(&elsewhere()));
    let beyond = NewMessage::new(&elsewhere(), "echo.say", json!(1));
    let refused = acme.publish(beyond).await.expect_err("beyond its key");
    assert_eq!(refused.code(), Code::Forbidden, "{refused}");
    // And data that the bus does not take.
    let mut bad = message(json!(1));
    bad.priority = 1000;
    assert_eq!(acme.publish(bad).await.expect_err("refused").code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test]
async fn a_sender_withdraws_its_own_and_an_operator_of_its_tenant_brings_it_back() -> Result<()> {
    let hub = TestHub::new().await?;
    let sender = principal(&hub, &of("acme", json!({})));
    let operator = principal(&hub, &of("acme", json!({"operate": true})));
    let id = sender.publish(message(json!(1))).await?.id;
    assert_eq!(sender.cancel(id, Some("no longer wanted")).await?, Operated::Done);
    assert_eq!(sender.cancel(id, None).await?, Operated::NotAllowed, "it is finished");
    let events = sender.message_events(id, 10).await?;
    assert_eq!(events[1].reason.as_deref(), Some("no longer wanted"));

    let refused = sender.requeue(id, None).await.expect_err("no claim operate");
    assert_eq!(refused.code(), Code::Forbidden);
    assert!(refused.to_string().starts_with("operate: "), "{refused}");
    assert_eq!(operator.requeue(id, Some("again")).await?, Operated::Done);
    assert_eq!(sender.message(id).await?.status, Status::Queued);
    let long = operator.requeue(id, Some(&"x".repeat(300))).await.expect_err("too long");
    assert_eq!(long.code(), Code::InvalidArgument);

    // The dead letters of two tenants.
    let (own, other) = (dead(&hub, "acme").await?, dead(&hub, "globex").await?);
    let listed = sender.dead_letters(&Filter::default(), 10).await?;
    assert_eq!(listed.iter().map(|letter| letter.message.id).collect::<Vec<_>>(), [own]);
    assert_eq!(listed[0].class.as_deref(), Some("connect"));
    let filter = Filter { tenant: Some("globex".to_owned()), ..Filter::default() };
    assert_eq!(sender.dead_letters(&filter, 10).await?, []);
    let bad = Filter { role: Some("a b".to_owned()), ..Filter::default() };
    let refused = sender.dead_letters(&bad, 10).await.expect_err("no name");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(is_nobody(&operator.requeue(other, None).await.expect_err("another tenant's")));
    assert_eq!(hub.bus.message(other).await?.status, Status::Failed);
    assert_eq!(operator.requeue(own, None).await?, Operated::Done);
    let admin = principal(&hub, TOKEN);
    assert_eq!(admin.requeue(other, None).await?, Operated::Done);
    assert!(is_nobody(&admin.requeue(MessageId::new(), None).await.expect_err("nobody's")));
    Ok(())
}

#[tokio::test]
async fn workers_breakers_and_answers_are_of_its_tenant() -> Result<()> {
    let hub = TestHub::new().await?;
    let sender = principal(&hub, &of("acme", json!({})));
    let other = principal(&hub, &of("globex", json!({})));
    for tenant in ["acme", "globex"] {
        let worker =
            json!({"id": "w", "tenant": tenant, "role": "hub-test", "topics": ["hub-test/here"]});
        hub.bus.worker_seen(&worker).await?;
        let open = "select bus_circuit_open($1, 'echo.say', 'w', 'why', 0,
            '{\"open_ms\": 1, \"half_open_max_calls\": 1, \"successes_to_close\": 1}')";
        sqlx::query(open).bind(tenant).execute(hub.bus.pool().expect("a database")).await?;
    }
    let tenants = async |who: &Principal| {
        let workers = who.workers(10).await?.into_iter().map(|worker| worker.tenant);
        let circuits = who.circuits().await?.into_iter().map(|circuit| circuit.tenant);
        anyhow::Ok((workers.collect::<Vec<_>>(), circuits.collect::<Vec<_>>()))
    };
    let own = || vec!["acme".to_owned()];
    assert_eq!(tenants(&sender).await?, (own(), own()));
    assert_eq!(tenants(&principal(&hub, TOKEN)).await?.0.len(), 2, "an operator sees all");

    let id = sender.publish(message(json!(1))).await?.id;
    let input = |kind: &str| json!({"event_type": kind, "message_id": id, "payload": {"a": 1}});
    sender.append_event(input("echo_say_input")).await?;
    for (who, kind) in [(&sender, "echo_say_progress"), (&other, "echo_say_input")] {
        let refused = who.append_event(input(kind)).await.expect_err(kind);
        assert_eq!(refused.code(), Code::Forbidden, "{refused}");
    }
    let events = sender.message_events(id, 10).await?;
    assert_eq!(events.last().map(|event| event.event_type.as_str()), Some("echo_say_input"));
    Ok(())
}

#[tokio::test]
async fn nothing_is_done_for_a_key_that_has_expired_meanwhile() -> Result<()> {
    let hub = TestHub::new().await?;
    // Good for some seconds more: it is taken for half a minute after its end.
    let claims = json!({"role": "authenticated", "tenant": "acme", "send": ["*"]});
    let who = principal(&hub, &key(claims, -26));
    let expires = who.expires().expect("an end");
    let id = who.publish(message(json!(1))).await?.id;
    while cogo::clock::utc_now() <= expires {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refused = who.message(id).await.expect_err("expired");
    assert_eq!(refused.code(), Code::Unauthorized);
    assert!(refused.to_string().contains("expired"), "{refused}");
    Ok(())
}
