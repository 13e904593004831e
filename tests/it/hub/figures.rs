//! Figures of what happens, and lists of messages, traces and workers.

use std::time::Duration;

use anyhow::{Context, Result};
use cogo::breaker::{Evidence, Id, Policy};
use cogo::bus::{Bus, Claim, ClaimRequest};
use cogo::db;
use cogo::hub::Options;
use cogo::message::{MessageId, NewMessage, Topic};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::hub::{Answer, Setup, TestHub, request};

/// A hub with the rights that one has in the field, over a database whose superuser is the test.
pub(super) async fn hub_with_rights() -> Result<(TestDb, TestHub)> {
    let db = TestDb::new().await;
    let hub = another_hub(&db, Options::default())?;
    Ok((db, hub))
}

pub(super) fn another_hub(db: &TestDb, options: Options) -> Result<TestHub> {
    let connect = db.connect_options().options([("role", "cogo_operator")]);
    TestHub::over(db::Options::new(connect).pool(), None, Setup { options, ..Setup::default() })
}

pub(super) fn call(toolset: &str, tool: &str) -> Result<NewMessage> {
    let payload = json!({"toolset": toolset, "tool": tool, "params": {}});
    Ok(NewMessage::new(&Topic::new("mcp-gateway", toolset)?, "mcp.call", payload))
}

pub(super) async fn claim(bus: &Bus, toolset: &str) -> Result<Claim> {
    let request = ClaimRequest {
        worker: "w".to_owned(),
        tenant: "default".to_owned(),
        topics: vec![format!("mcp-gateway/{toolset}")],
        max: 1,
        lease: Duration::from_secs(60),
    };
    bus.claim(&request).await?.pop().context("a claim")
}

fn failure() -> Value {
    json!({"class": "tool_error", "message": "it broke"})
}

/// One call that goes well at once, one that goes well at the second attempt, one that dies, and one that waits.
async fn four_calls(db: &TestDb, hub: &TestHub) -> Result<[MessageId; 4]> {
    let bus = &hub.bus;
    let good = bus.publish(call("browser", "click")?).await?.id;
    claim(bus, "browser").await?.complete(json!({})).await?;
    let again = bus.publish(call("browser", "click")?).await?.id;
    claim(bus, "browser").await?.fail(failure(), Some(Duration::ZERO)).await?;
    claim(bus, "browser").await?.complete(json!({})).await?;
    let dead = bus.publish(call("browser", "type")?).await?.id;
    claim(bus, "browser").await?.fail(failure(), None).await?;
    let waits = bus.publish(call("figma", "export")?).await?.id;
    settled(db, hub).await?;
    Ok([good, again, dead, waits])
}

/// Waits until no transaction of another test holds back the log of this cluster.
pub(super) async fn settled(db: &TestDb, hub: &TestHub) -> Result<()> {
    let last: String = sqlx::query_scalar(
        "select xid::text || '.' || seq from bus_events order by xid desc, seq desc limit 1",
    )
    .fetch_one(db.pool())
    .await?;
    let below = async {
        loop {
            let end = hub.bus.log_end().await?;
            if end >= last.parse()? {
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::hub::DEADLINE, below).await.context("the log is held back")?
}

fn only<'a>(list: &'a Value, field: &str, is: &str) -> Result<&'a Value> {
    let list = list.as_array().context("a list")?;
    list.iter().find(|item| item[field] == is).with_context(|| format!("{field} {is}: {list:?}"))
}

#[tokio::test]
async fn the_summary_counts_calls_by_tool_and_over_time() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let [_, again, dead, _] = four_calls(&db, &hub).await?;
    // Of another intent: it waits, and is no call.
    hub.publish().await?;

    let summary = hub.get("/api/metrics/summary?window_s=600").await?.json()?;
    assert_eq!((&summary["ok"], &summary["truncated"]), (&json!(true), &json!(false)));
    let mcp = &summary["mcp"];
    let counts = ["calls", "succeeded", "fails", "retries", "dead_lettered", "in_flight"];
    let counted: Vec<_> = counts.iter().map(|name| mcp[*name].as_i64()).collect();
    assert_eq!(counted, [4, 2, 2, 1, 1, 0].map(Some));
    assert!(mcp["p50_ms"].is_i64() && mcp["p95_ms"].as_i64() >= mcp["p50_ms"].as_i64(), "{mcp}");
    assert_eq!(mcp["tools"].as_array().map(Vec::len), Some(3));
    let click = only(&mcp["tools"], "tool", "click")?;
    assert_eq!((&click["toolset"], &click["calls"]), (&json!("browser"), &json!(2)));
    assert_eq!((&click["succeeded"], &click["fails"]), (&json!(2), &json!(1)));
    assert_eq!(click["last_error"]["message"], "it broke");
    assert_eq!(click["last_error"]["message_id"], json!(again));
    let typed = only(&mcp["tools"], "tool", "type")?;
    assert_eq!((&typed["dead_lettered"], &typed["p50_ms"]), (&json!(1), &json!(null)));
    assert_eq!(typed["last_error"]["class"], "tool_error");
    assert_eq!(typed["last_error"]["message_id"], json!(dead));

    let queue = &summary["queue"];
    assert_eq!(
        (&queue["queued"], &queue["failed"], &queue["done"]),
        (&json!(2), &json!(1), &json!(2))
    );
    let figma = only(&queue["roles"], "service", "figma")?;
    assert_eq!((&figma["tenant"], &figma["queued"]), (&json!("default"), &json!(1)));
    assert_eq!(summary["pending_tasks"], 2);
    let points = summary["series"]["points"].as_array().context("points")?;
    assert_eq!((points.len(), &summary["series"]["step_s"]), (60, &json!(10)));
    let sum = |name: &str| points.iter().filter_map(|point| point[name].as_i64()).sum::<i64>();
    assert_eq!((sum("scheduled"), sum("succeeded"), sum("failed")), (4, 2, 2));

    let calls = hub.get("/api/metrics/mcp/summary?window_s=600").await?.json()?;
    assert_eq!(&calls["mcp"], mcp);
    // Another hub knows nothing but the database.
    let other = another_hub(&db, Options::default())?;
    assert_eq!(&other.get("/api/metrics/mcp/summary?window_s=600").await?.json()?["mcp"], mcp);
    Ok(())
}

#[tokio::test]
async fn a_call_that_began_before_the_window_is_still_one_of_its_tool() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    hub.bus.publish(call("browser", "click")?).await?;
    db.advance(Duration::from_secs(3600)).await;
    claim(&hub.bus, "browser").await?.complete(json!({})).await?;
    settled(&db, &hub).await?;
    let mcp = hub.get("/api/metrics/mcp/summary?window_s=60").await?.json()?["mcp"].clone();
    assert_eq!((&mcp["calls"], &mcp["succeeded"]), (&json!(0), &json!(1)));
    assert_eq!(mcp["tools"][0]["tool"], "click");
    let p50 = mcp["p50_ms"].as_i64().context("p50")?;
    assert!((3_600_000..3_700_000).contains(&p50), "the time in the queue counts: {p50}");
    // Long enough after, nothing of it is left.
    db.advance(Duration::from_secs(3600)).await;
    let other = another_hub(&db, Options::default())?;
    let later = other.get("/api/metrics/mcp/summary?window_s=60").await?.json()?;
    assert_eq!((&later["mcp"]["succeeded"], &later["mcp"]["tools"]), (&json!(0), &json!([])));
    Ok(())
}

#[tokio::test]
async fn workers_and_breakers_are_counted() -> Result<()> {
    let (_db, hub) = hub_with_rights().await?;
    let seen = json!({"id": "w1", "role": "r", "in_flight": 2, "info": {"capacity": 8}});
    hub.bus.worker_seen(&seen).await?;
    hub.bus.worker_seen(&json!({"id": "w2", "role": "r"})).await?;
    hub.bus.worker_gone("w2", "goodbye", "default").await?;
    let evidence =
        Evidence { calls: 8, failure_rate: 0.75, slow_rate: 0.25, reason: "failure_rate" };
    let id = Id::new("default", "mcp.call.demo.echo.0");
    hub.bus.circuit_open(&id, "w1", 0, &Policy::default(), &evidence).await?;
    let summary = hub.get("/api/metrics/summary").await?.json()?;
    let workers = json!({"online": 1, "offline": 1, "in_flight": 2, "capacity": 8});
    assert_eq!(summary["workers"], workers);
    assert_eq!(summary["circuits"], json!({"open": 1, "half_open": 0, "closed": 0}));
    assert_eq!(summary["window_s"], 900);
    let circuit = hub.get("/api/circuits").await?.json()?["circuits"][0].clone();
    assert_eq!(circuit["window"], json!({"calls": 8, "failures": 6, "slow": 2}));
    hub.post("/api/circuits/close", json!({"key": "mcp.call.demo.echo.0"}).to_string()).await?;
    let circuit = hub.get("/api/circuits").await?.json()?["circuits"][0].clone();
    assert_eq!(circuit["window"], json!(null), "nobody counted");
    Ok(())
}

#[tokio::test]
async fn a_snapshot_is_kept_and_can_be_read() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    four_calls(&db, &hub).await?;
    let refused = hub
        .send(
            request("POST", "/api/metrics/snapshot")
                .header("content-type", "application/json")
                .body("{}".into())?,
        )
        .await?;
    refused.error(401, "unauthorized")?;
    let taken = hub.post("/api/metrics/snapshot", r#"{"window_s":300}"#).await?;
    assert_eq!(taken.status, 201, "{taken:?}");
    let taken = taken.json()?;
    assert_eq!(
        (&taken["summary"]["window_s"], &taken["summary"]["mcp"]["calls"]),
        (&json!(300), &json!(4))
    );
    let href = taken["artifact"]["href"].as_str().context("href")?;
    let read = request("GET", href).header("x-admin-token", crate::hub::TOKEN).body("".into())?;
    let read = hub.send(read).await?;
    assert_eq!((read.status.as_u16(), read.header("content-type")), (200, "application/json"));
    assert_eq!(read.json()?, taken["summary"]);
    assert_eq!(taken["artifact"]["bytes"], json!(read.text.len()));
    for bad in [r#"{"window_s":5}"#, r#"{"tenant":"a/b"}"#, r#"{"x":1}"#] {
        hub.post("/api/metrics/snapshot", bad).await?.error(400, "invalid_argument")?;
    }
    Ok(())
}

/// Reads all pages of a list.
pub(super) async fn all(hub: &TestHub, path: &str, of: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let after = next.map_or(String::new(), |next| format!("&after={next}"));
        let page = hub.get(&format!("{path}{after}")).await?.json()?;
        found.extend(page[of].as_array().with_context(|| page.to_string())?.iter().cloned());
        match page["next"].as_str() {
            Some(text) => next = Some(text.to_owned()),
            None => return Ok(found),
        }
    }
}

fn ids(list: &[Value], field: &str) -> Vec<String> {
    list.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_without_what_is_large() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let [good, again, dead, waits] = four_calls(&db, &hub).await?;
    let newest_first = [waits, dead, again, good].map(|id| id.to_string());
    for limit in [1, 2, 3, 100] {
        let listed = all(&hub, &format!("/api/messages?limit={limit}"), "messages").await?;
        assert_eq!(ids(&listed, "id"), newest_first, "by {limit}");
    }
    let listed = all(&hub, "/api/messages?limit=10", "messages").await?;
    assert!(listed.iter().all(|m| m.get("payload").is_none() && m.get("result").is_none()));
    assert_eq!((&listed[1]["tool"], &listed[1]["error"]), (&json!("type"), &failure()));
    for (filter, wanted) in [
        ("status=failed", vec![dead]),
        ("status=done&tool=click", vec![again, good]),
        ("service=figma&role=mcp-gateway", vec![waits]),
        ("tenant=elsewhere", vec![]),
        ("tool=nothing", vec![]),
    ] {
        let listed = all(&hub, &format!("/api/messages?limit=1&{filter}"), "messages").await?;
        let wanted: Vec<_> = wanted.iter().map(MessageId::to_string).collect();
        assert_eq!(ids(&listed, "id"), wanted, "{filter}");
    }
    Ok(())
}

/// Whoever may enqueue chooses the name of a tool; the pages that everybody looks at hold hundreds.
#[tokio::test]
async fn a_tools_name_of_megabytes_is_cut_wherever_it_is_told() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let (long, told) = ("x".repeat(1 << 20), "x".repeat(255));
    for _ in 0..3 {
        hub.bus.publish(call("browser", &long)?).await?;
    }
    claim(&hub.bus, "browser").await?.fail(failure(), None).await?;
    settled(&db, &hub).await?;
    for (path, tool) in [
        ("/api/messages", "/messages/0/tool"),
        ("/api/traces", "/traces/0/tool"),
        ("/api/metrics/summary", "/mcp/tools/0/tool"),
        ("/api/metrics/mcp/summary", "/mcp/tools/0/tool"),
    ] {
        let answer = hub.get(path).await?;
        assert!(answer.text.len() < 100_000, "{path}: {} bytes", answer.text.len());
        assert_eq!(answer.json()?.pointer(tool), Some(&json!(told)), "{path}");
    }
    // By what is told of it, its events are found.
    let found =
        all(&hub, &format!("/api/events?type=mcp_call_scheduled&tool={told}"), "events").await?;
    assert_eq!(found.len(), 3);
    Ok(())
}

#[tokio::test]
async fn traces_tell_what_has_become_of_them() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let [good, again, dead, waits] = four_calls(&db, &hub).await?;
    // A second message within the first one's trace: it is one trace still, and its newest.
    let trace = hub.bus.message(good).await?.trace_id;
    let second = hub.bus.publish(call("browser", "click")?.with_trace(trace)).await?.id;
    settled(&db, &hub).await?;
    let mut wanted = Vec::new();
    for id in [second, waits, dead, again] {
        wanted.push(hub.bus.message(id).await?.trace_id.to_string());
    }
    for limit in [1, 3, 100] {
        let listed = all(&hub, &format!("/api/traces?limit={limit}"), "traces").await?;
        assert_eq!(ids(&listed, "trace_id"), wanted, "by {limit}");
    }
    let listed = all(&hub, "/api/traces?limit=2", "traces").await?;
    let first = &listed[0];
    assert_eq!((&first["messages"], &first["status"]), (&json!(2), &json!("waiting")));
    assert_eq!(first["message_id"], json!(second));
    let failed = &listed[2];
    assert_eq!((&failed["status"], &failed["attempts"]), (&json!("failed"), &json!(1)));
    assert_eq!(failed["error"], failure());
    assert_eq!((&failed["toolset"], &failed["tool"]), (&json!("browser"), &json!("type")));
    let retried = &listed[3];
    assert_eq!((&retried["status"], &retried["attempts"]), (&json!("done"), &json!(2)));
    assert_eq!((&retried["error"], &retried["events"]), (&json!(null), &json!(4)));
    for (filter, wanted) in [
        ("status=failed", vec![&wanted[2]]),
        ("status=done", vec![&wanted[3]]),
        ("status=waiting", vec![&wanted[0], &wanted[1]]),
        ("toolset=figma", vec![&wanted[1]]),
        ("tool=type", vec![&wanted[2]]),
        ("since=2999-01-01T00:00:00Z", vec![]),
        ("since=2020-01-01T00:00:00Z&status=done", vec![&wanted[3]]),
    ] {
        let listed = all(&hub, &format!("/api/traces?limit=1&{filter}"), "traces").await?;
        assert_eq!(ids(&listed, "trace_id").iter().collect::<Vec<_>>(), wanted, "{filter}");
    }
    // Requeued, it waits again.
    hub.post("/api/dead-letters/requeue", json!({"ids": [dead]}).to_string()).await?;
    settled(&db, &hub).await?;
    assert_eq!(all(&hub, "/api/traces?status=failed", "traces").await?, [] as [Value; 0]);
    Ok(())
}

#[tokio::test]
async fn workers_are_listed_a_page_at_a_time_with_their_tools() -> Result<()> {
    let (_db, hub) = hub_with_rights().await?;
    for id in ["c d/é", "a", "b"] {
        let tools = json!({"browser": {"tools": {"click": "h1", "type": "h2"}}});
        let seen = json!({"id": id, "role": "mcp-gateway", "topics": ["mcp-gateway/browser"],
            "info": {"toolsets": tools}});
        hub.bus.worker_seen(&seen).await?;
    }
    hub.bus.worker_gone("a", "goodbye", "default").await?;
    for limit in [1, 2, 10] {
        let listed = all(&hub, &format!("/api/workers?limit={limit}"), "workers").await?;
        assert_eq!(ids(&listed, "id"), ["b", "c d/é", "a"], "by {limit}");
    }
    let online = all(&hub, "/api/workers?state=online&limit=1", "workers").await?;
    assert_eq!(ids(&online, "id"), ["b", "c d/é"]);
    assert_eq!(online[0]["toolsets"], json!({"browser": ["click", "type"]}));
    assert_eq!(online[0]["last_seen"], online[0]["last_seen_at"]);
    assert_eq!(ids(&all(&hub, "/api/workers?state=offline", "workers").await?, "id"), ["a"]);
    Ok(())
}

#[tokio::test]
async fn a_message_is_cancelled_once() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let [good, _, _, waits] = four_calls(&db, &hub).await?;
    let path = format!("/api/messages/{waits}/cancel");
    let unsigned = request("POST", &path).header("content-type", "application/json");
    hub.send(unsigned.body("{}".into())?).await?.error(401, "unauthorized")?;
    let cancelled = hub.post(&path, r#"{"reason":"not needed"}"#).await?.json()?;
    assert_eq!(cancelled, json!({"ok": true, "id": waits, "status": "cancelled"}));
    let before = hub.written().await?;
    let message = hub.post(&path, "{}").await?.error(409, "conflict")?;
    assert!(message.contains("cancelled"), "{message}");
    hub.post(&format!("/api/messages/{good}/cancel"), "{}").await?.error(409, "conflict")?;
    let nowhere = format!("/api/messages/{}/cancel", MessageId::new());
    hub.post(&nowhere, "{}").await?.error(404, "not_found")?;
    hub.post("/api/messages/x/cancel", "{}").await?.error(400, "invalid_argument")?;
    hub.post(&path, json!({"reason": "x".repeat(201)}).to_string())
        .await?
        .error(400, "invalid_argument")?;
    assert_eq!(hub.written().await?, before, "a refusal changes nothing");
    Ok(())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_by_name() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    for (path, field) in [
        ("/api/metrics/summary?window_s=59", "window_s"),
        ("/api/metrics/summary?window_s=86401", "window_s"),
        ("/api/metrics/mcp/summary?window=60", "window"),
        ("/api/messages?limit=0", "limit"),
        ("/api/messages?limit=501", "limit"),
        ("/api/messages?after=1.-1", "after"),
        ("/api/messages?status=odd", "odd"),
        ("/api/messages?tenant=a/b", "tenant"),
        ("/api/traces?after=x", "after"),
        ("/api/traces?since=yesterday", "query"),
        ("/api/workers?after=x", "after"),
        ("/api/workers?state=asleep", "asleep"),
        ("/api/events?type=A", "type"),
        ("/api/events?trace_id=x", "trace_id"),
        ("/api/events?order=up", "up"),
        ("/api/events?tool=", "tool"),
        ("/api/events?toolset=a&service=b", "service"),
        ("/api/events?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("/api/metrics/mcp/events?role=x", "role"),
        // Times that we cannot reckon with, and one that the database cannot.
        ("/api/events?since=-262143-01-01T00:00:00Z", "since"),
        ("/api/events?since=-5000-01-01T00:00:00Z", "since"),
        ("/api/events?until=%2B262142-12-31T23:59:59Z", "until"),
        ("/api/metrics/mcp/events?since=-262143-01-01T00:00:00Z", "since"),
        ("/api/metrics/mcp/events?until=%2B262142-12-31T23:59:59Z", "until"),
        ("/api/traces?since=-262143-01-01T00:00:00Z", "since"),
        ("/api/events/stream?after=x", "after"),
        ("/api/events/stream?limit=3", "limit"),
    ] {
        let refused: Answer = hub.get(path).await?;
        let message = refused.error(400, "invalid_argument").with_context(|| path.to_owned())?;
        assert!(message.contains(field), "{path}: {message}");
    }
    Ok(())
}
