//! Circuit breakers over HTTP.

use anyhow::Result;
use cogo::breaker::{Evidence, Id, Policy};
use serde_json::json;

use crate::hub::TestHub;

const KEY: &str = "mcp.call.demo.echo.0";

async fn open(hub: &TestHub) -> Result<()> {
    let evidence =
        Evidence { calls: 10, failure_rate: 0.5, slow_rate: 0.0, reason: "failure_rate" };
    let id = Id::new("default", KEY);
    hub.bus.circuit_open(&id, "w1", 0, &Policy::default(), &evidence).await?;
    Ok(())
}

#[tokio::test]
async fn breakers_are_listed_with_why_and_what_comes_next() -> Result<()> {
    let hub = TestHub::new().await?;
    assert_eq!(hub.get("/api/circuits").await?.json()?["circuits"], json!([]));
    open(&hub).await?;
    let listed = hub.get("/api/circuits?state=open&tenant=default").await?.json()?;
    let circuit = &listed["circuits"][0];
    assert_eq!((&circuit["key"], &circuit["state"]), (&json!(KEY), &json!("open")));
    assert_eq!((&circuit["reason"], &circuit["worker_id"]), (&json!("failure_rate"), &json!("w1")));
    assert_eq!(circuit["evidence"]["calls"], 10);
    assert!(circuit["open_for_ms"].as_i64().is_some_and(|ms| ms > 20_000), "{circuit}");
    assert_eq!(hub.get("/api/circuits?state=closed").await?.json()?["circuits"], json!([]));
    let metrics = hub.get("/metrics").await?.text;
    assert!(
        metrics.contains(&format!("cogo_circuit_open_current{{key=\"{KEY}\"}} 1")),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn an_operator_opens_closes_and_resets() -> Result<()> {
    let hub = TestHub::new().await?;
    let set = async |action: &str, body: serde_json::Value| {
        hub.post(&format!("/api/circuits/{action}"), body.to_string()).await?.json()
    };
    let opened = set("open", json!({"key": KEY, "reason": "it is ill"})).await?;
    assert_eq!(
        (&opened["circuit"]["state"], &opened["circuit"]["forced"]),
        (&json!("open"), &json!(true))
    );
    assert_eq!(opened["circuit"]["open_for_ms"], json!(null), "until somebody closes it");
    let closed = set("close", json!({"key": KEY})).await?;
    assert_eq!(closed["circuit"]["state"], "closed");
    let again = set("open", json!({"key": KEY, "open_ms": 60_000})).await?;
    assert_eq!(again["circuit"]["forced"], json!(false));
    assert_eq!(set("reset", json!({"key": KEY})).await?["circuit"]["reason"], "reset");
    let log: Vec<(String, Option<String>)> = sqlx::query_as(
        "select event_type, payload ->> 'action' from bus_events where event_type like 'circuit%' order by seq",
    )
    .fetch_all(hub.bus.pool().expect("a database"))
    .await?;
    let said: Vec<_> =
        log.iter().map(|(what, action)| (what.as_str(), action.as_deref())).collect();
    assert_eq!(
        said,
        [
            ("circuit_opened", Some("open")),
            ("circuit_closed", Some("close")),
            ("circuit_opened", Some("open")),
            ("circuit_closed", Some("reset")),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() -> Result<()> {
    let hub = TestHub::new().await?;
    let before = hub.written().await?;
    for (path, body, words) in [
        ("open", json!({"key": ""}), "key: must be 1 to 300"),
        ("open", json!({"key": "a\u{7}b"}), "key: must be 1 to 300"),
        ("open", json!({"key": "k", "open_ms": 0}), "open_ms: must be from 1"),
        ("open", json!({"key": "k", "tenant": "a b"}), "tenant: must be"),
        ("open", json!({"key": "k", "reason": "x".repeat(201)}), "reason: must be"),
        ("open", json!({"key": "k", "for": 1}), "for"),
        ("close", json!({"key": "k", "open_ms": 5}), "open_ms: goes with open"),
        ("explode", json!({"key": "k"}), "action: must be open, close or reset"),
    ] {
        let answer = hub.post(&format!("/api/circuits/{path}"), body.to_string()).await?;
        let message = answer.error(400, "invalid_argument")?;
        assert!(message.contains(words), "{words}: {message}");
    }
    for path in ["close", "reset"] {
        let answer =
            hub.post(&format!("/api/circuits/{path}"), r#"{"key":"never.opened"}"#).await?;
        assert!(answer.error(404, "not_found")?.contains("never.opened"));
    }
    for query in ["state=ajar", "tenant=a%20b", "colour=red"] {
        hub.get(&format!("/api/circuits?{query}")).await?.error(400, "invalid_argument")?;
    }
    assert_eq!(hub.written().await?, before);
    assert_eq!(hub.bus.circuits("*").await?, []);
    Ok(())
}
