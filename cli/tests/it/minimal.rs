//! `cogo hub --minimal`, as a process.

use cogo::testing::TestDb;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::support::{Cogo, Running, http, temp_dir, until};

struct Minimal {
    running: Running,
    url: String,
    dir: tempfile::TempDir,
}

impl Minimal {
    fn start(cogo: Cogo) -> Self {
        let dir = temp_dir();
        let cogo = cogo.with("COGO_DATA_DIR", dir.path().display().to_string());
        let running = cogo.start(&["hub", "--minimal", "--listen", "127.0.0.1:0"]);
        let said = running.stderr.wait("Ctrl-C stops it.");
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("a URL").trim_end_matches('.').to_owned();
        Self { running, url, dir }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        http("GET", &format!("{}{path}", self.url), None, "")
    }
}

#[tokio::test]
async fn a_minimal_hub_serves_what_monitors_ask_for_and_nothing_else() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let hub = Minimal::start(cogo.clone());
    assert_eq!(hub.get("/healthz"), (200, json!({"ok": true})));
    assert_eq!(hub.get("/readyz"), (200, json!({"ok": true, "ready": ["database", "hub"]})));

    cogo.ok(&["enqueue", "echo/default", "echo"]);
    cogo.ok(&["enqueue", "echo/other", "echo"]);
    let mut answer = Value::Null;
    let told = until(|| {
        answer = hub.get("/api/pending-tasks?role=echo&service=other").1;
        answer["pending_tasks"] == 1
    });
    assert!(told, "{answer}");
    assert_eq!(answer["by"], json!([{"role": "echo", "service": "other", "pending": 1}]));
    let (_, metrics) = hub.get("/metrics");
    let metrics = metrics.as_str().expect("text");
    for line in [
        "cogo_pending_tasks{role=\"echo\",service=\"default\"} 1",
        "cogo_hub_ready 1",
        "cogo_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    assert!(!metrics.contains("\ncogo_feed_age_seconds "), "it follows no log:\n{metrics}");

    std::fs::create_dir_all(hub.dir.path().join("artifacts/mcp")).expect("a directory");
    std::fs::write(hub.dir.path().join("artifacts/mcp/a.json"), "{\"a\": 1}").expect("a file");
    assert_eq!(hub.get("/artifacts/mcp/a.json"), (200, json!({"a": 1})));
    assert_eq!(hub.get("/artifacts/../admin-token").0, 404);

    for path in ["/", "/api/status", "/api/mcp/tools", "/mcp", "/rest/v1/agent_messages"] {
        let (status, error) = hub.get(path);
        assert_eq!(status, 404, "{path}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("this is the minimal hub"), "{path}: {error}");
    }
    assert_eq!(http("POST", &format!("{}/api/pending-tasks", hub.url), None, "{}").0, 401);
    hub.running.stop();
}

#[tokio::test]
async fn a_minimal_hub_starts_without_its_database_and_finds_it_when_it_comes_back() {
    let db = TestDb::new().await;
    let elsewhere = db.connect_options().database("postgres");
    let mut admin = PgConnection::connect_with(&elsewhere).await.expect("a connection");
    let mut let_in = async |allowed: bool| {
        let sql = format!("alter database \"{}\" allow_connections {allowed}", db.name());
        admin.execute(AssertSqlSafe(sql)).await.expect("a changed database");
    };
    let_in(false).await;
    let hub = Minimal::start(Cogo::on(&db));
    assert_eq!(hub.get("/healthz"), (200, json!({"ok": true})));
    let (status, answer) = hub.get("/readyz");
    assert_eq!((status, &answer["not_ready"][0]["name"]), (503, &json!("database")), "{answer}");
    // Not 0: whoever scales by it would stop the last worker.
    let (status, answer) = hub.get("/api/pending-tasks");
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    let (status, metrics) = hub.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.as_str().expect("text").contains("\ncogo_hub_ready 0\n"), "{metrics}");
    let_in(true).await;
    assert!(until(|| hub.get("/readyz").0 == 200));
    assert!(until(|| hub.get("/api/pending-tasks").0 == 200));
    hub.running.stop();
}

/// The figure that `docs/operations.md` gives is of a release build; one for tests holds more code, so what is
/// held to a bound here is what the process has asked for, and not the program's own pages.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_minimal_hub_needs_a_few_megabytes() {
    let db = TestDb::new().await;
    let hub = Minimal::start(Cogo::on(&db));
    for _ in 0..50 {
        assert_eq!(hub.get("/readyz").0, 200);
        assert_eq!(hub.get("/metrics").0, 200);
        assert_eq!(hub.get("/api/pending-tasks").0, 200);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.running.id()));
    let status = status.expect("a process");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    };
    assert!(kib("RssAnon:") <= 10 * 1024, "{status}");
    // One for the work, and those that read files or dialled and have not ended yet.
    assert!(kib("Threads:") <= 4, "{status}");
    hub.running.stop();
}
