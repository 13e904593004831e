//! `/healthz`, `/readyz` and `/metrics`.

use anyhow::{Context, Result};
use serde_json::json;

use crate::hub::{Setup, TestHub};

#[tokio::test]
async fn the_hub_is_ready_only_while_every_component_is() -> Result<()> {
    let hub = TestHub::new().await?;
    assert_eq!(hub.get("/readyz").await?.json()?, json!({"ok": true, "ready": ["database"]}));
    let gateway = hub.readiness.register("mcp-gateway");
    let answer = hub.get("/readyz").await?;
    let message = answer.error(503, "unavailable")?;
    assert_eq!(message, "not ready: mcp-gateway");
    let missing = json!([{"name": "mcp-gateway", "why": "not ready yet"}]);
    assert_eq!(answer.json()?["not_ready"], missing);
    gateway.send_replace(true);
    assert_eq!(hub.get("/readyz").await?.json()?["ready"], json!(["database", "mcp-gateway"]));
    gateway.send_replace(false);
    hub.get("/readyz").await?.error(503, "unavailable")?;
    gateway.send_replace(true);
    drop(gateway);
    let answer = hub.get("/readyz").await?;
    assert_eq!(answer.json()?["not_ready"][0]["why"], "it has ended");
    Ok(())
}

#[tokio::test]
async fn a_hub_without_its_database_is_alive_and_not_ready() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    assert_eq!(hub.get("/healthz").await?.json()?, json!({"ok": true}));
    let answer = hub.get("/readyz").await?;
    answer.error(503, "unavailable")?;
    assert_eq!(answer.json()?["not_ready"][0]["name"], "database");
    assert_eq!(hub.get("/metrics").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_database_with_an_older_schema_is_not_ready() -> Result<()> {
    let hub = TestHub::new().await?;
    let db = hub.db.as_ref().context("a database")?;
    sqlx::query(
        "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
    )
    .execute(db.pool())
    .await?;
    let answer = hub.get("/readyz").await?;
    answer.error(503, "unavailable")?;
    let why = answer.json()?["not_ready"][0]["why"].to_string();
    assert!(why.contains("its schema is at"), "{why}");
    Ok(())
}

#[tokio::test]
async fn the_metrics_show_what_waits() -> Result<()> {
    let hub = TestHub::new().await?;
    hub.publish().await?;
    hub.publish().await?;
    let answer = hub.get("/metrics").await?;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    for series in [
        r#"cogo_queue_messages{role="hub-test",service="here",status="queued"} 2"#,
        r#"cogo_queue_messages{role="hub-test",service="here",status="failed"} 0"#,
        r#"cogo_queue_oldest_seconds{role="hub-test",service="here"} "#,
    ] {
        assert!(answer.text.contains(series), "{series}:\n{}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_parked_is_shown_and_measured_by_reason() -> Result<()> {
    let hub = TestHub::new().await?;
    // Three of one key: one goes, two wait for it.
    sqlx::query(
        r#"select bus_enqueue(jsonb_agg('{"role": "hub-test", "service": "parked", "intent": "x",
            "payload": 1, "ordering_key": "k"}'::jsonb)) from generate_series(1, 3)"#,
    )
    .execute(hub.bus.pool().expect("a database"))
    .await?;
    let parked = hub.get("/api/status").await?.json()?["parked"].clone();
    assert_eq!(parked[0]["reason"], "ordering", "{parked}");
    assert_eq!(parked[0]["messages"], 2, "{parked}");
    let answer = hub.get("/metrics").await?;
    for series in [
        r#"cogo_parked_messages{role="hub-test",service="parked",reason="ordering"} 2"#,
        r#"cogo_parked_messages{role="hub-test",service="parked",reason="circuit"} 0"#,
        r#"cogo_queue_messages{role="hub-test",service="parked",status="queued"} 3"#,
    ] {
        assert!(answer.text.contains(series), "{series}:\n{}", answer.text);
    }
    Ok(())
}
