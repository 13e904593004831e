//! What a token with the claim `operate` may besides, and what a sender's may append to the log.

use serde_json::{Value, json};

use super::{Held, prepared, worker};
use crate::caller::{Caller, everything};
use crate::fixtures::rows;
use cogo::testing::TestDb;

fn token(claims: Value) -> Caller {
    let mut all = json!({"role": "authenticated", "tenant": "acme"});
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    Caller::new("authenticated", Some(&all.to_string()))
}

/// Withdraws all that is held, so that it may be requeued; answers with what a batch names them by.
async fn withdrawn(db: &TestDb, held: &Held) {
    let all =
        held.fill("select code from bus_cancel('[{own}, {worker}, {topic}, {tenant}, {sent}]')");
    for row in rows(db, &all).await {
        assert_eq!(row["code"], json!(null));
    }
}

async fn status(db: &TestDb, secret: &str) -> Value {
    let sql =
        format!("select status, payload from agent_messages where idempotency_key = '{secret}'");
    rows(db, &sql).await.remove(0)
}

#[tokio::test]
async fn a_token_brings_back_what_is_its_own_and_learns_nothing_of_the_rest() {
    let (db, held) = prepared().await;
    withdrawn(&db, &held).await;
    let call =
        held.fill("select code from bus_requeue('[{tenant}, {own}, {topic}, {sent}]', 'why')");
    let codes: Vec<Value> =
        worker().may(&db, &call).await.into_iter().map(|row| row["code"].clone()).collect();
    assert_eq!(codes, [json!("CG404"), json!(null), json!("CG404"), json!(null)]);
    for (name, wanted) in
        [("own", "queued"), ("sent", "queued"), ("topic", "cancelled"), ("tenant", "cancelled")]
    {
        assert_eq!(status(&db, name).await["status"], wanted, "{name}");
    }
    // As what is not there at all.
    let nowhere = r#"[{"id": "00000000-0000-0000-0000-000000000000"}]"#;
    let answer = worker().may(&db, &format!("select code from bus_requeue('{nowhere}')")).await;
    assert_eq!(answer, [json!({"code": "CG404"})]);
    // And what is not finished that way.
    let answer = worker().may(&db, &held.fill("select code from bus_requeue('[{own}]')")).await;
    assert_eq!(answer, [json!({"code": "CG409"})]);
}

#[tokio::test]
async fn without_the_claim_nothing_is_brought_back() {
    let (db, held) = prepared().await;
    withdrawn(&db, &held).await;
    let before = everything(&db).await;
    for claims in [
        json!({"worker": "w", "topics": ["*"], "send": ["*"]}),
        json!({"topics": ["*"], "send": ["*"], "operate": false}),
        json!({"topics": ["*"], "send": ["*"], "operate": null}),
    ] {
        let refused = token(claims).may_not(&db, &held.fill("select bus_requeue('[{own}]')")).await;
        assert_eq!(refused.state, "CG403");
        assert!(refused.message.starts_with("operate: "), "{refused:?}");
    }
    // It opens nothing else that is the operators'.
    let all = token(json!({"topics": ["*"], "send": ["*"], "operate": true}));
    for call in ["select bus_drop('[{own}]')", "select bus_retain()", "select bus_stats()"] {
        assert_eq!(all.may_not(&db, &held.fill(call)).await.state, "42501", "{call}");
    }
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn another_payload_is_for_whoever_may_send_there() {
    let (db, held) = prepared().await;
    withdrawn(&db, &held).await;
    let before = everything(&db).await;
    let call = |field: &str| {
        held.fill(&format!(
            r#"select code from bus_requeue(jsonb_build_array('{{own}}'::jsonb || '{{"{field}": {{"x": 1}}}}'))"#
        ))
    };
    let reader = token(json!({"topics": ["r/s"], "operate": true}));
    for field in ["payload", "params"] {
        let refused = reader.may_not(&db, &call(field)).await;
        assert_eq!(refused.state, "CG403");
        assert!(refused.message.starts_with(&format!("messages[0].{field}: ")), "{refused:?}");
    }
    assert_eq!(everything(&db).await, before);
    assert_eq!(worker().may(&db, &call("payload")).await, [json!({"code": null})]);
    assert_eq!(status(&db, "own").await["payload"], json!({"x": 1}));
}

#[tokio::test]
async fn a_sender_appends_input_to_what_it_may_send_and_nothing_else() {
    let (db, held) = prepared().await;
    let append = |claim: &str, fields: &str| {
        held.fill(&format!(
            r#"select bus_append_event(jsonb_build_array('{{{claim}}}'::jsonb - 'id' || '{fields}'
                || jsonb_build_object('message_id', '{{{claim}}}'::jsonb -> 'id')))"#
        ))
    };
    let sender = token(json!({"send": ["r/out"]}));
    let input = r#"{"event_type": "mcp_call_input", "payload": {"responses": {"a": 1}}, "worker_id": "v",
        "role": "x", "attempt": 7}"#;
    sender.may(&db, &append("sent", input)).await;
    let sql = "select tenant, role, service, worker_id, attempt, payload from bus_events
        where event_type = 'mcp_call_input'";
    let wanted = json!({"tenant": "acme", "role": "r", "service": "out", "worker_id": null, "attempt": 0,
        "payload": {"responses": {"a": 1}}});
    assert_eq!(rows(&db, sql).await, [wanted]);

    let before = everything(&db).await;
    for (claim, fields, named) in [
        ("own", input, "events[0].message_id"),
        ("tenant", input, "events[0].message_id"),
        ("topic", input, "events[0].message_id"),
        ("sent", r#"{"event_type": "mcp_call_progress"}"#, "events[0].message_id"),
        ("sent", r#"{"event_type": "echo_input"}"#, "events[0].message_id"),
        ("sent", r#"{"event_type": "mcp_call_succeeded"}"#, "events[0].message_id"),
        ("sent", r#"{"event_type": "mcp_call_input", "tenant": "other"}"#, "events[0].tenant"),
    ] {
        let refused = sender.may_not(&db, &append(claim, fields)).await;
        assert_eq!(refused.state, "CG403", "{claim} {fields}");
        assert!(refused.message.starts_with(named), "{claim} {fields}: {refused:?}");
    }
    // Who may only claim has nothing to answer.
    let claimer = token(json!({"topics": ["r/s"], "worker": "w"}));
    let refused = claimer.may_not(&db, &append("own", input)).await;
    assert!(refused.message.starts_with("events[0].message_id"), "{refused:?}");
    assert_eq!(everything(&db).await, before);
}
