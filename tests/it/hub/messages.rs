//! Reading messages and traces, and retention.

use std::time::Duration;

use anyhow::{Context, Result};
use cogo::bus;
use cogo::hub::{Retention, maintenance};
use cogo::message::NewMessage;
use serde_json::json;
use uuid::Uuid;

use crate::hub::{DEADLINE, TestHub, topic};

#[tokio::test]
async fn a_message_is_answered_with_what_happened_to_it() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let claim = hub.claim(1).await?.pop().context("a claim")?;
    claim.complete(json!({"text": "hello"})).await?;

    let answer = hub.get(&format!("/api/messages/{id}")).await?.json()?;
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["message"]["status"], "done");
    assert_eq!(answer["message"]["attempts"], 1);
    assert_eq!(answer["message"]["result"], json!({"text": "hello"}));
    let types: Vec<_> = answer["events"].as_array().context("events")?.iter().collect();
    assert_eq!(types[0]["event_type"], "echo_say_scheduled");
    assert_eq!(types.last().context("an event")?["event_type"], "echo_say_succeeded");

    let trace = answer["message"]["trace_id"].as_str().context("a trace")?;
    let traced = hub.get(&format!("/api/traces/{trace}")).await?.json()?;
    assert_eq!(traced["events"], answer["events"]);
    Ok(())
}

/// A thousand events may be answered, each of megabytes.
#[tokio::test]
async fn large_events_are_told_whole_up_to_a_bound_and_by_their_beginning_after_it() -> Result<()> {
    let hub = TestHub::new().await?;
    let large = json!({"text": "x".repeat(3 << 20)});
    let first = hub.bus.publish(NewMessage::new(&topic()?, "echo.say", large.clone())).await?;
    // As large as the error of an attempt may be, without the attempts.
    sqlx::query(
        "insert into bus_events (event_type, tenant, message_id, trace_id, payload)
            select 'echo_say_progress', 'default', $1, $2, $3 from generate_series(1, 6)",
    )
    .bind(first.id)
    .bind(first.trace_id)
    .bind(&large)
    .execute(hub.db.as_ref().context("a database")?.pool())
    .await?;
    hub.claim(1).await?.pop().context("a claim")?.complete(json!({"text": "done"})).await?;

    for path in [format!("/api/messages/{}", first.id), format!("/api/traces/{}", first.trace_id)] {
        let answer = hub.get(&path).await?;
        // Six whole ones, and for a message its row.
        assert!(answer.text.len() < 23 << 20, "{path}: {} bytes", answer.text.len());
        let answer = answer.json()?;
        let events = answer["events"].as_array().context("events")?;
        let types: Vec<_> =
            events.iter().filter_map(|event| event["event_type"].as_str()).collect();
        assert_eq!((types.len(), types[7]), (8, "echo_say_succeeded"), "{path}");
        assert_eq!(events[0]["payload"]["payload"], large, "{path}");
        assert_eq!(events[5]["payload"], large, "{path}");
        let cut = &events[6]["payload"];
        assert_eq!(cut["truncated"], true, "{path}");
        assert!(cut["bytes"].as_i64() > Some(3 << 20) && cut["beginning"].is_string(), "{path}");
        assert!(events[7]["payload"].get("truncated").is_none(), "what is small is whole: {path}");
        assert_eq!(answer["truncated"], false, "all events are told: {path}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_message_or_trace_is_not_found() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = Uuid::now_v7();
    for path in [
        format!("/api/messages/{id}"),
        format!("/api/messages/{id}?wait=30s"),
        format!("/api/traces/{id}"),
    ] {
        let message = hub.get(&path).await?.error(404, "not_found")?;
        assert!(message.contains(&id.to_string()), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn the_status_shows_what_waits_and_who_works() -> Result<()> {
    let hub = TestHub::new().await?;
    hub.publish().await?;
    hub.bus.worker_seen(&json!({"id": "w", "role": "hub-test"})).await?;
    let status = hub.get("/api/status").await?.json()?;
    assert_eq!(status["queue"][0]["status"], "queued");
    assert_eq!(status["queue"][0]["messages"], 1);
    assert_eq!(status["workers"][0]["id"], "w");
    assert_eq!(status["parked"], json!([]));
    assert_eq!(status["commit"], "c0ffee1");
    assert!(status["schema_version"].is_i64() && status["version"].is_string());
    Ok(())
}

#[tokio::test]
async fn retention_lets_old_messages_go_and_logs_it() -> Result<()> {
    let hub = TestHub::new().await?;
    let db = hub.db.as_ref().context("a database")?;
    let (done, dead, waiting) = (hub.publish().await?, hub.publish().await?, hub.publish().await?);
    for claim in hub.claim(3).await? {
        let id = claim.message().id;
        if id == done {
            claim.complete(json!({})).await?;
        } else if id == dead {
            claim.fail(json!({"class": "permanent", "message": "no"}), None).await?;
        } else {
            claim.release(Duration::ZERO, "not now").await?;
        }
    }
    let forever = Retention { failed_days: None, ..Retention::default() };
    assert_eq!(maintenance::retain(&hub.bus, &forever).await?, 0);
    db.advance(Duration::from_secs(25 * 3600)).await;
    assert_eq!(maintenance::retain(&hub.bus, &forever).await?, 1);
    hub.get(&format!("/api/messages/{done}")).await?.error(404, "not_found")?;
    let purged: serde_json::Value = sqlx::query_scalar(
        "select payload -> 'ids' from bus_events where event_type = 'messages_purged'",
    )
    .fetch_one(db.pool())
    .await?;
    assert_eq!(purged, json!([done]));

    let short = Retention { failed_days: Some(1), ..forever };
    assert_eq!(maintenance::retain(&hub.bus, &short).await?, 1);
    hub.get(&format!("/api/messages/{dead}")).await?.error(404, "not_found")?;
    assert_eq!(hub.get(&format!("/api/messages/{waiting}")).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_idempotency_key_answers_for_its_window_and_is_free_after_it() -> Result<()> {
    let hub = TestHub::new().await?;
    let db = hub.db.as_ref().context("a database")?;
    let send = async || {
        let message = NewMessage::new(&topic()?, "echo.say", json!({})).with_idempotency_key("k");
        anyhow::Ok(hub.bus.publish(message).await?)
    };
    let first = send().await?;
    hub.publish().await?;
    for claim in hub.claim(2).await? {
        claim.complete(json!({})).await?;
    }
    let retention = Retention { done_hours: 1, idempotency_hours: 48, ..Retention::default() };
    db.advance(Duration::from_secs(47 * 3600)).await;
    assert_eq!(maintenance::retain(&hub.bus, &retention).await?, 1, "the one without a key");
    let again = send().await?;
    assert!(again.duplicate && again.id == first.id, "within the window: {again:?}");
    assert!(hub.claim(1).await?.is_empty(), "nothing is done again");
    db.advance(Duration::from_secs(3600 + 1)).await;
    assert_eq!(maintenance::retain(&hub.bus, &retention).await?, 1);
    let fresh = send().await?;
    assert!(!fresh.duplicate && fresh.id != first.id, "after the window: {fresh:?}");
    assert_eq!(hub.claim(1).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn maintenance_runs_by_itself_and_stops_with_the_drain() -> Result<()> {
    let hub = TestHub::new().await?;
    let db = hub.db.as_ref().context("a database")?;
    let id = hub.publish().await?;
    hub.claim(1).await?.pop().context("a claim")?.complete(json!({})).await?;
    db.advance(Duration::from_secs(40 * 24 * 3600)).await;
    let weeks = || async {
        let sql = "select array_agg(relname::text order by relname) from pg_class
            where relname ~ '^bus_events_[0-9]{8}$'";
        sqlx::query_scalar::<_, Vec<String>>(sql).fetch_one(db.pool()).await
    };
    let before = weeks().await?;
    maintenance::start(hub.bus.clone(), Retention::default(), &hub.tasks, &hub.shutdown);
    let done = async {
        loop {
            let gone = matches!(hub.bus.message(id).await, Err(bus::Error::NoMessage(_)));
            if gone && weeks().await? != before {
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, done).await.context("maintenance did not run")??;
    assert!(weeks().await?.last() > before.last());
    hub.shutdown.drain();
    assert!(hub.tasks.join(DEADLINE).await, "a task did not stop");
    Ok(())
}
