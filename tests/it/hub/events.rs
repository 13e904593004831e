//! The log by pages.

use std::time::Duration;

use anyhow::{Context, Result};
use cogo::bus::Bus;
use serde_json::{Value, json};

use crate::hub::TestHub;
use crate::hub::figures::{all, call, claim, hub_with_rights, settled};

fn cursors(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["cursor"].as_str().unwrap_or_default().to_owned()).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event_type"].as_str()).collect()
}

async fn progress(bus: &Bus, count: usize) -> Result<()> {
    for n in 0..count {
        bus.append_event(json!({"event_type": "test_progress", "payload": {"n": n}})).await?;
    }
    Ok(())
}

async fn logged(hub: &TestHub) -> Result<Vec<String>> {
    let sql = "select xid::text || '.' || seq from bus_events order by xid, seq";
    Ok(sqlx::query_scalar(sql).fetch_all(hub.bus.pool().context("a database")?).await?)
}

#[tokio::test]
async fn pages_in_either_direction_hold_each_event_once() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    progress(&hub.bus, 23).await?;
    settled(&db, &hub).await?;
    let mut wanted = logged(&hub).await?;
    for limit in [1, 7, 23, 24, 500] {
        let path = format!("/api/events?order=asc&limit={limit}");
        assert_eq!(cursors(&all(&hub, &path, "events").await?), wanted, "{path}");
    }
    wanted.reverse();
    for limit in [1, 7, 23, 24, 500] {
        let path = format!("/api/events?limit={limit}");
        assert_eq!(cursors(&all(&hub, &path, "events").await?), wanted, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_filter_that_fits_little_reads_on_where_it_stopped() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    hub.bus.append_event(json!({"event_type": "rare_progress"})).await?;
    // More than a page may read.
    sqlx::query(
        "insert into bus_events (event_type, tenant) select 'common_progress', 'default'
            from generate_series(1, 210000)",
    )
    .execute(db.pool())
    .await?;
    settled(&db, &hub).await?;
    let first = hub.get("/api/events?type=rare_progress").await?.json()?;
    assert_eq!((&first["events"], first["next"].is_string()), (&json!([]), true), "{first}");
    let rare = all(&hub, "/api/events?type=rare_progress", "events").await?;
    assert_eq!(types(&rare), ["rare_progress"]);
    let summary = hub.get("/api/metrics/summary").await?.json()?;
    assert_eq!(summary["truncated"], true, "more happened than is counted");
    Ok(())
}

#[tokio::test]
async fn what_is_not_yet_below_the_horizon_is_not_shown() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    progress(&hub.bus, 1).await?;
    settled(&db, &hub).await?;
    let mut open = db.pool().begin().await?;
    let insert = "select bus_append_event('[{\"event_type\": \"late_progress\"}]')";
    sqlx::query(insert).execute(&mut *open).await?;
    progress(&hub.bus, 2).await?;
    let page = hub.get("/api/events?order=asc&limit=1").await?.json()?;
    assert_eq!((page["events"].as_array().map(Vec::len), &page["next"]), (Some(1), &json!(null)));
    let newest = hub.get("/api/events").await?.json()?;
    assert_eq!(newest["events"], page["events"], "what is after the open one may not be told");
    open.commit().await?;
    settled(&db, &hub).await?;
    let after = page["events"][0]["cursor"].as_str().context("a cursor")?;
    let rest = hub.get(&format!("/api/events?order=asc&after={after}")).await?.json()?;
    let rest = rest["events"].as_array().context("events")?.clone();
    assert_eq!(types(&rest), ["late_progress", "test_progress", "test_progress"]);
    Ok(())
}

#[tokio::test]
async fn events_are_found_by_what_they_are_of() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let id = hub.bus.publish(call("browser", "click")?).await?.id;
    let trace = hub.bus.message(id).await?.trace_id;
    claim(&hub.bus, "browser").await?.complete(json!({})).await?;
    hub.bus.publish(call("browser", "type")?).await?;
    hub.bus.publish(call("figma", "export")?).await?;
    hub.publish().await?;
    hub.bus.worker_seen(&json!({"id": "w9", "role": "r"})).await?;
    settled(&db, &hub).await?;
    let life = vec!["mcp_call_succeeded", "mcp_call_scheduled"];
    for (filter, wanted) in [
        (format!("message_id={id}"), life.clone()),
        (format!("trace_id={trace}"), life.clone()),
        (format!("trace_id={trace}&message_id={id}&order=asc"), vec![life[1], life[0]]),
        (format!("trace_id={trace}&tool=type"), vec![]),
        ("tool=click".to_owned(), life.clone()),
        ("toolset=figma".to_owned(), vec!["mcp_call_scheduled"]),
        ("toolset=browser&tool=type".to_owned(), vec!["mcp_call_scheduled"]),
        (
            "type=mcp_call_succeeded,echo_say_scheduled".to_owned(),
            vec!["echo_say_scheduled", life[0]],
        ),
        ("role=hub-test&service=here".to_owned(), vec!["echo_say_scheduled"]),
        ("worker=w9".to_owned(), vec!["agent_online"]),
        ("worker=w".to_owned(), vec!["mcp_call_succeeded"]),
        ("tenant=elsewhere".to_owned(), vec![]),
        ("since=2999-01-01T00:00:00Z".to_owned(), vec![]),
        ("until=2020-01-01T00:00:00Z".to_owned(), vec![]),
        (
            "since=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z&tool=click".to_owned(),
            life.clone(),
        ),
    ] {
        for limit in [1, 100] {
            let path = format!("/api/events?limit={limit}&{filter}");
            let found = all(&hub, &path, "events").await?;
            assert_eq!(types(&found), wanted, "{path}");
        }
    }
    let calls = all(&hub, "/api/metrics/mcp/events?limit=2", "events").await?;
    assert_eq!(calls.len(), 4, "of calls alone: {calls:?}");
    Ok(())
}

#[tokio::test]
async fn events_are_found_by_when_they_happened() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let mut times = Vec::new();
    for n in 0..4 {
        progress(&hub.bus, 2).await?;
        let time: String = sqlx::query_scalar(
            "select to_char(max(created_at) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from bus_events",
        )
        .fetch_one(db.pool())
        .await?;
        times.push(time);
        // Further than the times of events may run against the order of the log.
        db.advance(Duration::from_secs(3 * 3600 + n)).await;
    }
    settled(&db, &hub).await?;
    let wanted = logged(&hub).await?;
    let since = format!("/api/events?order=asc&limit=1&since={}", times[2]);
    assert_eq!(cursors(&all(&hub, &since, "events").await?), wanted[5..]);
    let until = format!("/api/events?order=asc&limit=3&until={}", times[1]);
    assert_eq!(cursors(&all(&hub, &until, "events").await?), wanted[..3]);
    let between = format!("/api/events?order=asc&since={}&until={}", times[0], times[3]);
    assert_eq!(cursors(&all(&hub, &between, "events").await?), wanted[1..7]);
    Ok(())
}

#[tokio::test]
async fn of_a_large_payload_the_beginning_is_told() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let mut message = call("browser", "click")?;
    message.payload["params"] = json!({"text": "x".repeat(100_000)});
    hub.bus.publish(message).await?;
    settled(&db, &hub).await?;
    let page = hub.get("/api/events?tool=click").await?;
    assert!(page.text.len() < 5000, "{} bytes", page.text.len());
    let payload = page.json()?["events"][0]["payload"].clone();
    assert_eq!(payload["truncated"], true);
    assert!(payload["bytes"].as_i64().is_some_and(|bytes| bytes > 100_000), "{payload}");
    Ok(())
}
