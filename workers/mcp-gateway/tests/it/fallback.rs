//! A toolset whose breaker is open, and the one that takes its calls.

use std::collections::BTreeMap;
use std::time::Duration;

use cogo::bus::{Bus, Feed};
use cogo::live::Live;
use cogo::message::{NewMessage, Status, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::Context;
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::PATIENCE;

fn policies<T: serde::de::DeserializeOwned>(rule: Value) -> T {
    serde_json::from_value(json!({"policies": {"default": rule}})).expect("good policies")
}

#[tokio::test]
async fn calls_go_to_the_fallback_while_the_breaker_is_open() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let demo = Demo::start(shutdown.clone()).await.expect("a free port");
    let browser = Toolset {
        fallback: Some("browser2".to_owned()),
        connect_timeout_ms: 500,
        ..Toolset::at("ws://127.0.0.1:1") // nobody listens there
    };
    let toolsets = [("browser", browser), ("browser2", Toolset::at(&demo.url))];
    let toolsets = toolsets.map(|(name, toolset)| (name.to_owned(), toolset));
    let config = Config { toolsets: BTreeMap::from(toolsets), ..Config::default() };
    config.validate().expect("a good configuration");
    let artifacts = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::start(config, None, &shutdown);
    let context = Context {
        bus: bus.clone(),
        worker_id: "gateway".to_owned(),
        tenant: "default".to_owned(),
        concurrency: 4,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(10),
        drain: Duration::from_secs(5),
        retry: policies::<cogo::retry::Policies>(json!({
            "backoff": {"kind": "fixed", "delay_ms": 10}, "timeout_ms": 5000,
        }))
        .into(),
        breaker: Live::from(policies::<cogo::breaker::Policies>(json!({
            "window": {"kind": "count", "calls": 3}, "min_requests": 3, "open_ms": 600_000,
        }))),
        config_dir: artifacts.path().to_owned(),
        artifacts_dir: artifacts.path().to_owned(),
        artifacts: cogo::artifact::Store::folder(artifacts.path(), Default::default()),
        reread: Live::default(),
        shutdown: shutdown.clone(),
        ready: watch::Sender::new(false),
    };
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let (working, running) = (gateway.clone(), context.clone());
    tasks.spawn(async move { working.work(&running).await.expect("works") });

    let topic = Topic::new("mcp-gateway", "browser").expect("a topic");
    for number in 0..6 {
        let payload = json!({
            "toolset": "browser", "tool": "add", "params": {"a": number, "b": 1},
        });
        let message = NewMessage::new(&topic, "mcp.call", payload).with_max_attempts(20);
        let id = bus.publish(message).await.expect("published").id;
        let message = feed.wait(id, PATIENCE * 3).await.expect("found");
        assert_eq!(message.status, Status::Done, "{:?}", message.error);
        let result = message.result.expect("a result");
        assert_eq!(result["structuredContent"]["sum"], f64::from(number) + 1.0);
        let events = bus.message_events(id, 100).await.expect("events");
        let said = &events.last().expect("an event").payload;
        assert_eq!(said["fallback"], "browser2");
        assert_eq!(said["circuit"], "mcp.call.browser.add.0");
        let dir = artifacts.path().join(said["artifacts"].as_str().expect("a path"));
        let summary = std::fs::read_to_string(dir.join("summary.json")).expect("a summary");
        let summary: Value = serde_json::from_str(&summary).expect("it is JSON");
        assert_eq!(summary["fallback_of"], "browser");
    }
    shutdown.drain();
    assert!(tasks.join(PATIENCE).await, "it stops");
    gateway.shutdown().await;
    shutdown.cancel();
    demo.stopped().await;
}
