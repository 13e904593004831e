//! Workers are woken.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Client, Served, token_for};

async fn worker(hub: &Served, tenant: &str, service: &str) -> Result<Client> {
    let mut client = hub.client("2.0.0", &token_for(tenant, &[&format!("r/{service}")])).await?;
    let config = json!({"private": true, "presence": {"enabled": false}});
    client.joined(&format!("cogo:work:{tenant}:r:{service}"), config).await?;
    Ok(client)
}

#[tokio::test]
async fn new_work_wakes_the_workers_of_its_topic_once_a_burst() -> Result<()> {
    let hub = Served::new().await?;
    let mut worker_a = worker(&hub, "acme", "a").await?;
    let mut worker_b = worker(&hub, "acme", "b").await?;
    let mut stranger = worker(&hub, "globex", "a").await?;
    for _ in 0..100 {
        hub.publish_to("acme", "r/a").await?;
    }
    let heard = worker_a.hear().await?;
    assert_eq!(heard.topic, "realtime:cogo:work:acme:r:a");
    assert_eq!(heard.payload, json!({"type": "broadcast", "event": "work", "payload": {}}));
    worker_b.hears_nothing().await?;
    stranger.hears_nothing().await
}

#[tokio::test]
async fn a_promoted_message_wakes_although_no_event_tells_of_it() -> Result<()> {
    let hub = Served::new().await?;
    let db = hub.hub.db.as_ref().context("a database")?;
    db.freeze_time().await;
    let topic = "r/a".parse()?;
    let mut message = cogo::message::NewMessage::new(&topic, "echo.say", json!({}));
    message.tenant = "acme".to_owned();
    message.delay = Duration::from_secs(60);
    hub.hub.bus.publish(message).await?;
    let mut worker = worker(&hub, "acme", "a").await?;
    db.advance(Duration::from_secs(61)).await;
    assert_eq!(hub.hub.bus.reap(100).await?.promoted, 1);
    assert_eq!(worker.hear_of("broadcast").await?["event"], "work");
    Ok(())
}
