//! `/api/pending-tasks`: what waits for a worker and for nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::hub::{Setup, TestHub};

/// Enqueues one message of the tenant to `role/service`, with these fields besides.
async fn enqueue(
    hub: &TestHub,
    tenant: &str,
    topic: &str,
    fields: serde_json::Value,
) -> Result<()> {
    let (role, service) = topic.split_once('/').context("a topic")?;
    let mut message = json!({
        "tenant": tenant, "role": role, "service": service, "intent": "x", "payload": 1,
    });
    let fields = fields.as_object().context("fields")?.clone();
    message.as_object_mut().context("a message")?.extend(fields);
    sqlx::query("select bus_enqueue(jsonb_build_array($1::jsonb))")
        .bind(message)
        .execute(hub.bus.pool().context("a database")?)
        .await?;
    Ok(())
}

#[tokio::test]
async fn what_waits_for_a_worker_is_counted_and_nothing_else() -> Result<()> {
    let hub = TestHub::new().await?;
    let pool = hub.bus.pool().context("a database")?;
    for _ in 0..2 {
        enqueue(&hub, "default", "a/one", json!({})).await?;
    }
    enqueue(&hub, "acme", "a/two", json!({})).await?;
    // One of the key goes, two wait for it.
    for _ in 0..3 {
        enqueue(&hub, "default", "b/ordered", json!({"ordering_key": "k"})).await?;
    }
    enqueue(&hub, "default", "b/later", json!({"delay_ms": 3_600_000})).await?;
    enqueue(&hub, "default", "b/due", json!({"delay_ms": 3_600_000})).await?;
    // Due, and nobody was there to promote it.
    sqlx::query("update agent_messages set run_at = now() - interval '5 s' where service = 'due'")
        .execute(pool)
        .await?;
    // One held by a worker that lives, one by a worker that was lost.
    hub.publish().await?;
    hub.publish().await?;
    anyhow::ensure!(hub.claim(2).await?.len() == 2);
    sqlx::query(
        "update agent_messages set lease_until = now() - interval '3 s' where id = (
            select id from agent_messages where role = 'hub-test' order by id limit 1)",
    )
    .execute(pool)
    .await?;

    let answer = hub.get("/api/pending-tasks").await?.json()?;
    let wanted = json!([
        {"role": "a", "service": "one", "pending": 2},
        {"role": "a", "service": "two", "pending": 1},
        {"role": "b", "service": "due", "pending": 1},
        {"role": "b", "service": "ordered", "pending": 1},
        {"role": "hub-test", "service": "here", "pending": 1},
    ]);
    assert_eq!((&answer["ok"], &answer["pending_tasks"]), (&json!(true), &json!(6)), "{answer}");
    assert_eq!(answer["by"], wanted);
    assert!(answer["oldest_ms"].as_u64().is_some_and(|ms| ms >= 5000), "{answer}");

    let count = async |query: &str| -> Result<serde_json::Value> {
        Ok(hub.get(&format!("/api/pending-tasks?{query}")).await?.json()?["pending_tasks"].clone())
    };
    assert_eq!(count("role=a").await?, 3);
    assert_eq!(count("role=a&service=two").await?, 1);
    assert_eq!(count("tenant=acme").await?, 1);
    assert_eq!(count("tenant=acme&role=b").await?, 0);
    assert_eq!(count("role=nobody").await?, 0);
    for (query, field) in [("role=a%20b", "role"), ("tenant=*", "tenant"), ("queue=a", "queue")] {
        let answer = hub.get(&format!("/api/pending-tasks?{query}")).await?;
        assert!(answer.error(400, "invalid_argument")?.contains(field), "{}", answer.text);
    }
    let metrics = hub.get("/metrics").await?.text;
    for series in [
        "cogo_pending_tasks{role=\"a\",service=\"one\"} 2",
        "cogo_pending_tasks{role=\"b\",service=\"ordered\"} 1",
        "cogo_pending_tasks{role=\"b\",service=\"later\"} 0",
    ] {
        assert!(metrics.contains(series), "{series}:\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_database_nobody_says_that_nothing_waits() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let answer = hub.get("/api/pending-tasks").await?;
    answer.error(503, "unavailable")?;
    assert!(answer.json()?["pending_tasks"].is_null(), "{}", answer.text);
    Ok(())
}

#[tokio::test]
async fn the_answer_for_all_is_kept_for_a_moment() -> Result<()> {
    let hub = TestHub::new().await?;
    assert_eq!(hub.get("/api/pending-tasks").await?.json()?["pending_tasks"], 0);
    hub.publish().await?;
    let deadline = tokio::time::timeout(Duration::from_secs(30), async {
        while hub.get("/api/pending-tasks").await?.json()?["pending_tasks"] != 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    deadline.await??;
    // Of one tenant it is counted anew each time.
    hub.publish().await?;
    let of = hub.get("/api/pending-tasks?tenant=default").await?.json()?;
    assert_eq!(of["pending_tasks"], 2);
    Ok(())
}
