//! `cogo gate e2e`, against a hub and its database.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixture::{Home, stage, step};
use crate::support::{Cogo, Running, temp_dir};

const SECRET: &str = "a secret of this test alone and long enough";

/// A hub that runs, its database, and where the gate is run.
struct World {
    home: Home,
    hub: Cogo,
    url: String,
    db: TestDb,
    _up: Running,
    _data: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (db, data) = (TestDb::new().await, temp_dir());
        let hub = Cogo::on(&db)
            .with("COGO_DATA_DIR", data.path().display().to_string())
            .with("COGO_JWT_SECRET", SECRET);
        let up = hub.start(&["up", "--listen", "127.0.0.1:0"]);
        let said = up.stderr.wait("Ctrl-C stops it.");
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("a URL").to_owned();
        Self { home: Home::new("{}"), hub, url, db, _up: up, _data: data }
    }

    fn key(&self, topic: &str) -> String {
        let mint =
            format!("token mint --tenant default --worker e2e --topic {topic} --send {topic}");
        self.hub.ok(&mint.split_whitespace().collect::<Vec<_>>()).line().to_owned()
    }

    fn with(&mut self, name: &str, value: &str) {
        self.home.cogo = self.home.cogo.clone().with(name, value);
    }

    fn dead(&self) -> Value {
        self.hub.json(&["dlq", "list"])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_over_both_ways_and_nothing_is_left() {
    let mut world = World::new().await;
    let (url, key, database) = (world.url.clone(), world.key("mcp-gateway/*"), world.db.url());
    // Another's work, which it must not take.
    let other = world.hub.ok(&["enqueue", "mcp-gateway/others", "mcp.call", "{}"]);
    for (name, value) in [("URL", &url), ("KEY", &key), ("DATABASE_URL", &database)] {
        world.with(&format!("COGO_E2E_{name}"), value);
    }
    let done = world.home.gate(&["e2e", "--require"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = world.home.report();
    assert_eq!((&report["name"], &report["verdict"]), (&json!("mcp:verify:e2e"), &json!("passed")));
    for way in ["https", "postgres"] {
        let stage = stage(&report, way);
        for name in ["reach", "join", "call", "events", "claim", "dead letter", "clean up", "leave"]
        {
            assert_eq!(step(stage, name)["outcome"], "passed", "{stage}");
        }
    }
    assert_eq!(world.dead(), json!([]), "{report}");
    let found = world.hub.json(&["get", other.line()]);
    assert_eq!(found["message"]["status"], "queued", "{found}");
    let online: Vec<_> = world
        .hub
        .json(&["workers"])
        .as_array()
        .expect("workers")
        .iter()
        .filter(|worker| worker["status"] == "online")
        .map(|worker| worker["id"].clone())
        .collect();
    assert_eq!(online.len(), 1, "the hub's own: {online:?}");
    let everything =
        std::fs::read_to_string(world.home.run_dir().join("report.json")).expect("read");
    assert!(!everything.contains(&key) && !done.stderr.contains(&key), "a key is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workers_key_may_not_drop_is_told() {
    let mut world = World::new().await;
    let (url, key) = (world.url.clone(), world.key("mcp-gateway/*"));
    world.with("COGO_E2E_URL", &url);
    world.with("COGO_E2E_KEY", &key);
    let done = world.home.gate(&["e2e"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = world.home.report();
    assert_eq!(stage(&report, "postgres")["outcome"], "skipped", "{report}");
    let dead = world.dead();
    assert_eq!(dead.as_array().map(Vec::len), Some(1), "{dead}");
    let id = dead[0]["id"].as_str().expect("an id").to_owned();
    let left = step(stage(&report, "https"), "clean up")["detail"].as_str().expect("a detail");
    assert!(left.contains(&id) && left.contains("bus_drop"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_something_else_fails_where_the_worker_joins() {
    let mut world = World::new().await;
    let (url, key) = (world.url.clone(), world.key("echo/*"));
    world.with("COGO_E2E_URL", &url);
    world.with("COGO_E2E_KEY", &key);
    assert_eq!(world.home.gate(&["e2e"]).code, Some(1));
    let report = world.home.report();
    let https = stage(&report, "https");
    assert_eq!(https["failed_step"], "join", "{https}");
    assert!(https["reason"].as_str().is_some_and(|text| text.contains("may not claim")), "{https}");
}

#[test]
fn without_secrets_it_is_skipped_and_says_which_are_missing() {
    for (require, code, verdict, words) in [
        (false, 0, "skipped", "COGO_E2E_URL and COGO_E2E_KEY are not set"),
        (true, 1, "failed", "COGO_E2E_DATABASE_URL is not set"),
    ] {
        let mut home = Home::new("{}");
        // As CI sets those of which it has no secret.
        home.cogo = home.cogo.with("COGO_E2E_DATABASE_URL", "").with("COGO_E2E_KEY", "");
        let done = home.gate(if require { &["e2e", "--require"] } else { &["e2e"] });
        assert_eq!(done.code, Some(code), "{done:?}");
        assert_eq!(home.report()["verdict"], verdict);
        assert!(done.stdout.contains(words), "{words:?}: {done:?}");
        let summary = std::fs::read_to_string(home.run_dir().join("summary.md")).expect("read");
        assert!(summary.starts_with(&format!("## mcp:verify:e2e {verdict}")), "{summary}");
    }
}

#[test]
fn half_of_the_secrets_is_a_mistake_and_nothing_is_run() {
    for (set, missing) in [("COGO_E2E_URL", "COGO_E2E_KEY"), ("COGO_E2E_KEY", "COGO_E2E_URL")] {
        let mut home = Home::new("{}");
        home.cogo = home.cogo.with(set, "http://127.0.0.1:9").with(missing, "");
        let done = home.gate(&["e2e"]);
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains(&format!("{missing}: is not set")), "{done:?}");
    }
}

#[test]
fn a_hub_that_is_away_and_a_url_of_something_else_are_failures() {
    for (name, value, code, words) in [
        ("COGO_E2E_DATABASE_URL", "mysql://x:geheim@h/x", 2, "must begin with postgres://"),
        ("COGO_E2E_DATABASE_URL", "postgres://x:geheim@127.0.0.1:9/x", 1, "127.0.0.1:9"),
        ("COGO_E2E_URL", "http://127.0.0.1:9", 1, "is no JSON Web Token"),
    ] {
        let mut home = Home::new("{}");
        home.cogo = home.cogo.with(name, value);
        if name == "COGO_E2E_URL" {
            home.cogo = home.cogo.with("COGO_E2E_KEY", "geheim");
        }
        let done = home.gate(&["e2e"]);
        assert_eq!(done.code, Some(code), "{done:?}");
        let told = format!("{}{}", done.stdout, done.stderr);
        assert!(told.contains(words) && !told.contains("geheim"), "{told}");
    }
}
