//! A toolset whose secret is in RemoteEnv, and changes while the gateway runs.

use std::time::Duration;

use cogo::artifact::{Limits, Store as Artifacts};
use cogo::bus::{Bus, Feed};
use cogo::event::{Cursor, Event};
use cogo::live::Live;
use cogo::message::{Message, MessageId, NewMessage, Status, Topic};
use cogo::remote_env::{Keyring, RemoteEnv, Store, generate};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::Context;
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, Toolset};
use serde_json::json;
use tokio::sync::watch;

use crate::support::teller::{digest, toolset};
use crate::support::{PATIENCE, eventually, text};

struct Place {
    bus: Bus,
    feed: Feed,
    gateway: Gateway,
    shutdown: Shutdown,
    tasks: Tasks,
    dir: tempfile::TempDir,
    _db: TestDb,
}

/// A gateway whose toolset `teller` refers to `reference`; `first` is set before it starts.
async fn place(reference: &str, first: Option<&str>) -> (Place, Store) {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let keys = Keyring::parse(&generate().expect("randomness")).expect("a key");
    let store = Store::new(bus.clone(), "default", keys.clone());
    if let Some(value) = first {
        store.set(reference, &value.into(), "a test").await.expect("set");
    }
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let dir = tempfile::tempdir().expect("a directory");
    let teller: Toolset = toolset(dir.path(), reference);
    let config = Config { toolsets: [("teller".to_owned(), teller)].into(), ..Config::default() };
    let stop = shutdown.cancelled().clone();
    let remote_env = RemoteEnv::start(bus.clone(), "default", Ok(keys), &tasks, stop);
    let gateway = Gateway::start_with(config, None, &shutdown, remote_env);
    let artifacts = dir.path().join("artifacts");
    let context = Context {
        bus: bus.clone(),
        worker_id: "gateway".to_owned(),
        tenant: "default".to_owned(),
        concurrency: 8,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(30),
        drain: Duration::from_secs(5),
        retry: Live::default(),
        breaker: Live::default(),
        config_dir: dir.path().to_owned(),
        artifacts_dir: artifacts.clone(),
        artifacts: Artifacts::folder(&artifacts, Limits::default()),
        reread: Live::default(),
        shutdown: shutdown.clone(),
        ready: watch::Sender::new(false),
    };
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let working = gateway.clone();
    tasks.spawn(async move { working.work(&context).await.expect("works") });
    (Place { bus, feed, gateway, shutdown, tasks, dir, _db: db }, store)
}

impl Place {
    async fn publish(&self, tool: &str) -> MessageId {
        let topic = Topic::new("mcp-gateway", "teller").expect("a topic");
        let payload = json!({"toolset": "teller", "tool": tool, "params": {}});
        self.bus.publish(NewMessage::new(&topic, "mcp.call", payload)).await.expect("published").id
    }

    async fn ended(&self, id: MessageId) -> Message {
        self.feed.wait(id, PATIENCE).await.expect("found")
    }

    /// What a tool answers.
    async fn told(&self, tool: &str) -> String {
        let message = self.ended(self.publish(tool).await).await;
        assert_eq!(message.status, Status::Done, "{:?}", message.error);
        text(&message.result.expect("a result")).to_owned()
    }

    /// The log once the ends of so many calls are in it: it ends below the oldest transaction of the whole server, so other
    /// tests hold it up.
    async fn log_of(&self, calls: usize) -> Vec<Event> {
        let reading = async {
            loop {
                let log = self.bus.read_events(Cursor::START, 1000, &json!({})).await;
                let log = log.expect("read");
                let ends = log.iter().filter(|event| event.event_type == "mcp_call_succeeded");
                if ends.count() >= calls {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the log is read to its end")
    }

    fn error(&self) -> Option<String> {
        self.gateway.toolsets().get("teller").and_then(|teller| teller.state().error)
    }

    async fn stop(self) {
        self.shutdown.drain();
        self.gateway.shutdown().await;
        self.shutdown.cancel();
        assert!(self.tasks.join(PATIENCE).await, "it stops");
    }
}

#[tokio::test]
async fn a_server_gets_the_new_value_and_a_call_under_way_ends_at_the_old_one() {
    let (old, new) = ("hunter2-the-first", "hunter2-the-second");
    let (place, store) = place("TELLERS_SECRET", Some(old)).await;
    assert_eq!(place.told("which").await, digest(old));
    let under_way = place.publish("wait").await;
    eventually("it has begun", || place.dir.path().join("begun").exists()).await;
    let before = place.gateway.toolsets().get("teller").expect("there");

    store.set("TELLERS_SECRET", &new.into(), "a test").await.expect("set");
    eventually("another connection", || {
        let now = place.gateway.toolsets().get("teller").expect("there");
        !std::sync::Arc::ptr_eq(&now, &before) && now.state().connected
    })
    .await;
    assert_eq!(place.told("which").await, digest(new));
    assert_eq!(place.bus.message(under_way).await.expect("found").status, Status::Claimed);
    std::fs::write(place.dir.path().join("go"), "").expect("written");
    let ended = place.ended(under_way).await;
    assert_eq!(text(&ended.result.expect("a result")), digest(old));

    // Both are hidden wherever they come up: in results, artifacts and the log.
    assert_eq!(place.told("tell").await, "it is [redacted]");
    let mut dirs = vec![place.dir.path().join("artifacts")];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).expect("read")).into_owned();
            assert!(!text.contains("hunter2"), "{}: {text}", path.display());
            files += 1;
        }
    }
    assert!(files > 0, "there are artifacts");
    let log = place.log_of(4).await;
    assert!(log.iter().any(|event| event.event_type == "env_set"));
    let log = serde_json::to_string(&log).expect("JSON");
    assert!(log.contains("TELLERS_SECRET") && !log.contains("hunter2"), "{log}");
    place.stop().await;
}

#[tokio::test]
async fn a_value_that_is_nowhere_is_missed_by_name_until_it_is_set() {
    let (place, store) = place("TELLERS_SECRET", None).await;
    eventually("it is told", || {
        place.error().is_some_and(|error| {
            error.contains("TELLERS_SECRET is not set in the environment of this process")
                && error.contains("nor in the RemoteEnv of tenant default")
        })
    })
    .await;
    store.set("TELLERS_SECRET", &"hunter2-at-last".into(), "a test").await.expect("set");
    eventually("it is taken up", || place.error().is_none()).await;
    assert_eq!(place.told("which").await, digest("hunter2-at-last"));
    place.bus.env_unset("default", &["TELLERS_SECRET".to_owned()], None).await.expect("unset");
    eventually("it is missed", || place.error().is_some_and(|why| why.contains("nor in"))).await;
    place.stop().await;
}

#[tokio::test]
async fn the_environment_of_the_process_goes_before() {
    // Cargo sets it for every test.
    let here = std::env::var("CARGO_PKG_NAME").expect("cargo sets it");
    let (place, store) = place("CARGO_PKG_NAME", Some("hunter2-below")).await;
    assert_eq!(place.told("which").await, digest(&here));
    store.set("CARGO_PKG_NAME", &"hunter2-again".into(), "a test").await.expect("set");
    assert_eq!(place.told("which").await, digest(&here));
    place.stop().await;
}
