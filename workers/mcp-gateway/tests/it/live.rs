//! Toolsets that come, change and go while calls run, at real servers.

use std::time::Duration;

use cogo::artifact::{Limits, Store};
use cogo::bus::{Bus, Feed};
use cogo::live::{Live, Setter};
use cogo::message::{Message, MessageId, NewMessage, Status, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::Context;
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, Mesh, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{PATIENCE, eventually};

struct Place {
    bus: Bus,
    feed: Feed,
    gateway: Gateway,
    context: Context,
    set: Setter<Config>,
    shutdown: Shutdown,
    tasks: Tasks,
    demo: Demo,
    _artifacts: tempfile::TempDir,
    _db: TestDb,
}

fn config(toolsets: &[(&str, &Toolset)]) -> Config {
    let toolsets = toolsets.iter().map(|(name, toolset)| ((*name).to_owned(), (*toolset).clone()));
    let config = Config {
        toolsets: toolsets.collect(),
        mesh: Mesh { max_result_bytes: 2048, ..Mesh::default() },
        ..Config::default()
    };
    config.validate().expect("a good configuration");
    config
}

impl Place {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let bus = Bus::new(db.pool().clone());
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let demo = Demo::start(shutdown.clone()).await.expect("a free port");
        let artifacts = tempfile::tempdir().expect("a directory");
        let (set, live) = Live::new(Config::default());
        let gateway = Gateway::start(live, None, &shutdown);
        let context = Context {
            bus: bus.clone(),
            worker_id: "gateway".to_owned(),
            tenant: "default".to_owned(),
            concurrency: 8,
            prefetch: cogo::worker::Prefetch::Auto,
            lease: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            retry: Live::default(),
            breaker: Live::default(),
            config_dir: artifacts.path().to_owned(),
            artifacts_dir: artifacts.path().to_owned(),
            artifacts: Store::folder(artifacts.path(), Limits::default()),
            reread: Live::default(),
            shutdown: shutdown.clone(),
            ready: watch::Sender::new(false),
        };
        let feed = Feed::start(bus.clone(), &tasks, &shutdown);
        let (working, running) = (gateway.clone(), context.clone());
        tasks.spawn(async move { working.work(&running).await.expect("works") });
        let _artifacts = artifacts;
        Self { bus, feed, gateway, context, set, shutdown, tasks, demo, _artifacts, _db: db }
    }

    fn at_demo(&self) -> Toolset {
        Toolset::at(&self.demo.url)
    }

    async fn publish(&self, toolset: &str, tool: &str, params: Value) -> MessageId {
        let topic = Topic::new("mcp-gateway", toolset).expect("a topic");
        let payload = json!({"toolset": toolset, "tool": tool, "params": params});
        self.bus.publish(NewMessage::new(&topic, "mcp.call", payload)).await.expect("published").id
    }

    async fn done(&self, id: MessageId) -> Message {
        let message = self.feed.wait(id, PATIENCE).await.expect("found");
        assert_eq!(message.status, Status::Done, "{:?}", message.error);
        message
    }

    async fn echo(&self, toolset: &str) -> Message {
        self.done(self.publish(toolset, "echo", json!({"message": "hi"})).await).await
    }

    async fn status(&self, id: MessageId) -> Status {
        self.bus.message(id).await.expect("found").status
    }

    /// Waits until the tool has reported: what is claimed may not have come to it yet.
    async fn begun(&self, id: MessageId) {
        let has_reported = async || {
            let events = self.bus.message_events(id, 100).await.expect("events");
            events.iter().any(|event| event.event_type == "mcp_call_progress")
        };
        let wait = async {
            while !has_reported().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it has begun");
    }

    async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(PATIENCE).await, "it stops");
        self.gateway.shutdown().await;
        self.shutdown.cancel();
        self.demo.stopped().await;
    }
}

#[tokio::test]
async fn a_gateway_without_toolsets_waits_for_one() {
    let place = Place::new().await;
    let waiting = place.publish("a", "echo", json!({"message": "hi"})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(place.status(waiting).await, Status::Queued);
    assert!(!*place.context.ready.borrow(), "there is nothing that it could do");
    place.set.set(config(&[("a", &place.at_demo())]));
    place.done(waiting).await;
    assert!(*place.context.ready.borrow());
    place.stop().await;
}

#[tokio::test]
async fn running_calls_end_where_they_began_and_new_ones_go_where_the_file_says() {
    let place = Place::new().await;
    place.set.set(config(&[("a", &place.at_demo()), ("b", &place.at_demo())]));
    place.echo("a").await;
    let [a, b] = ["a", "b"].map(|name| place.gateway.toolsets().get(name).expect("served"));
    // Longer than all that is done while it runs.
    let running = place.publish("a", "sleep", json!({"ms": 10_000})).await;
    place.begun(running).await;

    // Another server for `a`, under way; `b` is as it was.
    let other = Demo::start(place.shutdown.clone()).await.expect("a free port");
    let changed = Toolset { max_in_flight: 3, ..Toolset::at(&other.url) };
    place.set.set(config(&[("a", &changed), ("b", &place.at_demo())]));
    let now = || place.gateway.toolsets();
    eventually("the change holds", || now().get("a").is_some_and(|a| *a.toolset() == changed))
        .await;
    let same = now().get("b").expect("served");
    assert!(std::sync::Arc::ptr_eq(&same, &b), "what has not changed keeps its connection");
    place.echo("a").await;
    assert_eq!(place.status(running).await, Status::Claimed, "still at the old server");
    assert!(a.state().connected, "for as long as it runs");
    place.done(running).await;
    eventually("the old connection is closed", || !a.state().connected).await;

    // Disabled: what runs ends, what waits stays for others, with all its attempts.
    let running = place.publish("b", "sleep", json!({"ms": 3000})).await;
    place.begun(running).await;
    let disabled = Toolset { enabled: false, ..place.at_demo() };
    place.set.set(config(&[("a", &changed), ("b", &disabled)]));
    eventually("it is gone", || now().get("b").is_none()).await;
    let waiting = place.publish("b", "echo", json!({"message": "later"})).await;
    place.done(running).await;
    place.echo("a").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let message = place.bus.message(waiting).await.expect("found");
    assert_eq!((message.status, message.attempts), (Status::Queued, 0), "{:?}", message.error);
    let topics = place.gateway.topics();
    assert_eq!(topics.iter().map(Topic::to_string).collect::<Vec<_>>(), ["mcp-gateway/a"]);

    // Taken out altogether, and back again.
    place.set.set(config(&[]));
    eventually("none is left", || now().names().is_empty()).await;
    place.set.set(config(&[("b", &place.at_demo())]));
    place.done(waiting).await;
    place.stop().await;
    other.stopped().await;
}

#[tokio::test]
async fn what_is_claimed_is_what_is_shown() {
    let place = Place::new().await;
    let shown = async |wanted: &[&str]| {
        let look = async {
            loop {
                let workers = place.bus.workers(10).await.expect("workers");
                let topics = workers.first().map(|worker| worker.topics.clone());
                if topics.is_some_and(|topics| topics == wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
    };
    shown(&[]).await;
    place.set.set(config(&[("a", &place.at_demo()), ("b", &place.at_demo())]));
    shown(&["mcp-gateway/a", "mcp-gateway/b"]).await;
    place.set.set(config(&[("b", &place.at_demo())]));
    shown(&["mcp-gateway/b"]).await;
    place.stop().await;
}

#[tokio::test]
async fn a_large_result_leads_to_an_artifact_and_a_failure_too() {
    let place = Place::new().await;
    place.set.set(config(&[("a", &place.at_demo())]));
    for (tool, status) in [("echo", Status::Done), ("fail", Status::Failed)] {
        let text = "long ".repeat(2000);
        let id = place.publish("a", tool, json!({"message": text})).await;
        let message = place.feed.wait(id, PATIENCE).await.expect("found");
        assert_eq!(message.status, status, "{:?}", message.error);
        let result = match status {
            Status::Done => message.result.expect("a result"),
            _ => message.error.expect("an error")["detail"].clone(),
        };
        assert!(result.to_string().len() <= 2048, "{result}");
        let link = &result["content"][0];
        assert_eq!(link["type"], "resource_link", "{result}");
        let uri = link["uri"].as_str().expect("a URI");
        let (tenant, sha256) = cogo::artifact::parse_uri(uri).expect("ours");
        let kept = place.context.artifacts.get(tenant, sha256).await.expect("kept");
        assert_eq!(String::from_utf8(kept.bytes).expect("text"), text);
        assert_eq!(result["_meta"]["cogo/artifacts"][0]["replaced"], "/content/0");
    }
    place.stop().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_kept_is_no_unsent_call() {
    let place = Place::new().await;
    // Where the store would be there is a file.
    std::fs::write(place.context.artifacts_dir.join("blobs"), "in the way").expect("written");
    place.set.set(config(&[("a", &place.at_demo())]));
    let id = place.publish("a", "fail", json!({"message": "long ".repeat(2000)})).await;
    let message = place.feed.wait(id, PATIENCE).await.expect("found");
    assert_eq!(message.status, Status::Failed, "{:?}", message.error);
    let error = message.error.expect("an error");
    // The tool says that it is idempotent; of another it would be ambiguous, and not tried again.
    assert_eq!((&error["class"], &error["may_have_run"]), (&json!("closed"), &json!(true)));
    let told = error["message"].as_str().expect("a message");
    assert!(told.contains("ran, and its result could not be kept"), "{told}");
    place.stop().await;
}
