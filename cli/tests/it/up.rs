use std::path::{Path, PathBuf};

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::{Cogo, Running, http, temp_dir, until, write};

/// A directory for data and configuration, with a toolset that does not answer.
pub(crate) struct Home {
    pub(crate) cogo: Cogo,
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(cogo: Cogo) -> Self {
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).expect("a directory");
        write(&configs, "mcp.json", "{\"toolsets\": {\"sick\": {\"url\": \"ws://127.0.0.1:9\"}}}");
        let cogo = cogo
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_WORKER_LEASE_MS", "1000");
        Self { cogo, dir }
    }

    /// Writes a configuration file.
    pub(crate) fn configure(&self, name: &str, text: &str) {
        write(&self.dir.path().join("configs"), name, text);
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts everything, and waits until it is ready.
    pub(crate) fn up(&self) -> Up {
        let running = self.cogo.start(&["up", "--listen", "127.0.0.1:0"]);
        let said = running.stderr.wait("Ctrl-C stops it.");
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        let token = std::fs::read_to_string(self.data().join("admin-token")).expect("a token");
        Up { url: url.expect("a URL").to_owned(), token: token.trim().to_owned(), running }
    }

    fn status_of(&self, id: &str) -> Value {
        self.cogo.json(&["get", id])["message"]["status"].clone()
    }

    fn wait_until_claimed(&self, id: &str) {
        assert!(until(|| self.status_of(id) == "claimed"));
    }
}

pub(crate) struct Up {
    pub(crate) running: Running,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Up {
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        http("GET", &format!("{}{path}", self.url), None, "")
    }

    fn enqueue(&self, tool: &str, params: Value) -> String {
        let (url, body) = (format!("{}/api/mcp/enqueue", self.url), call(tool, params));
        let (status, accepted) = http("POST", &url, Some(&self.token), &body);
        assert_eq!((status, &accepted["ok"]), (202, &json!(true)), "{accepted}");
        accepted["id"].as_str().expect("an id").to_owned()
    }
}

impl Up {
    /// Waits until the tool has reported: what is claimed may not have come to it yet.
    fn wait_until_begun(&self, id: &str) {
        let has_reported = || {
            let (_, found) = self.get(&format!("/api/messages/{id}"));
            let events = found["events"].as_array();
            events.into_iter().flatten().any(|event| event["event_type"] == "mcp_call_progress")
        };
        assert!(until(has_reported), "{}", self.running.stderr.text());
    }
}

fn call(tool: &str, params: Value) -> String {
    json!({"toolset": "demo", "tool": tool, "params": params}).to_string()
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().expect("a file").permissions().mode() & 0o777
}

#[test]
fn up_serves_tool_calls_and_finds_them_again_after_a_stop_and_after_kill_9() {
    let home = Home::new(Cogo::new());
    let up = home.up();
    assert_eq!(mode(&home.data().join("admin-token")), 0o600);
    let said = up.running.stderr.text();
    assert!(said.contains("demo answers: 4 tools"), "{said}");
    assert!(said.contains("sick does not answer at ws://127.0.0.1:9"), "{said}");
    assert!(!said.contains(&up.token), "the token was printed");
    assert_eq!(up.get("/readyz").0, 200);

    let id = up.enqueue("echo", json!({"message": "hello"}));
    let (status, found) = up.get(&format!("/api/messages/{id}?wait=30s"));
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["message"]["status"], "done", "{found}");
    let body = call("echo", json!({"message": "hello"}));
    assert_eq!(http("POST", &format!("{}/api/mcp/enqueue", up.url), None, &body).0, 401);

    // The commands find the running server by the data directory.
    let called = home.cogo.ok(&["mcp", "call", "demo", "add", "--params", "{\"a\": 2, \"b\": 3}"]);
    assert!(called.stdout.contains('5'), "{called:?}");
    let failed =
        home.cogo.run(&["mcp", "call", "demo", "fail", "--params", "{\"message\": \"x\"}"]);
    failed.refused(1, &["tool_error", "cogo dlq requeue"]);
    let status = home.cogo.json(&["status"]);
    assert_eq!(status["hub"]["ready"], true, "{status}");
    let (_, metrics) = up.get("/metrics");
    let metrics = metrics.as_str().unwrap_or_default();
    for name in ["cogo_mcp_calls_total{", "cogo_mcp_fail_total{", "cogo_mcp_latency_ms_bucket{"] {
        assert!(metrics.contains(name), "{name} is missing: {metrics}");
    }
    let artifacts = home.data().join("artifacts/mcp/demo");
    assert_eq!(std::fs::read_dir(artifacts).expect("artifacts").count(), 3);

    // Nobody else starts on the same directory.
    let second = home.cogo.run(&["up", "--listen", "127.0.0.1:0"]);
    second.refused(1, &["already in use"]);

    let token = up.token.clone();
    up.running.stop();
    assert!(!home.data().join("up.json").exists());
    home.cogo.run(&["status"]).refused(4, &["cogo up"]);

    let mut up = home.up();
    assert_eq!(up.token, token, "the token stays");
    assert_eq!(up.get(&format!("/api/messages/{id}")).1["message"]["status"], "done");
    let ids: Vec<_> = (0..40).map(|_| up.enqueue("sleep", json!({"ms": 300}))).collect();
    up.running.signal("KILL");
    up.running.end();

    let up = home.up();
    for id in &ids {
        let (_, found) = up.get(&format!("/api/messages/{id}?wait=30s"));
        assert_eq!(found["message"]["status"], "done", "{found}");
        let events = found["events"].as_array().expect("events");
        let done = events.iter().filter(|event| event["event_type"] == "mcp_call_succeeded");
        assert_eq!(done.count(), 1, "{found}");
    }
    up.running.stop();
}

#[test]
fn a_kill_in_the_middle_of_a_thousand_calls_loses_nothing_and_repeats_nothing() {
    const CALLS: i64 = 1000;
    let home = Home::new(Cogo::new());
    let mut up = home.up();
    // The last take long: where sending is slower than working, the others are done by then.
    let ms = |n| if n < CALLS - 20 { 100 + n % 7 } else { 5000 };
    for n in 0..CALLS {
        up.enqueue("sleep", json!({"ms": ms(n)}));
    }
    let number = |sql: &'static str| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            use sqlx::ConnectOptions as _;
            let server = cogo::db::embedded::running(&home.data()).expect("a server runs");
            let mut connection = server.connect().await.expect("connected");
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut connection).await.expect("counted")
        })
    };
    let left = "select count(*) from agent_messages where status <> 'done'";
    assert!(until(|| number("select count(*) from agent_messages where status = 'done'") > 0));
    up.running.signal("KILL");
    up.running.end();

    let up = home.up();
    assert!(number(left) > 0, "the kill came too late to be in the middle");
    let all_done = || until(|| number(left) == 0);
    // Twice as long as for anything else: there is much to do.
    assert!(all_done() || all_done(), "{} are not done", number(left));
    let done = "select count(*) from bus_events where event_type = 'mcp_call_succeeded'";
    let distinct = "select count(distinct message_id) from bus_events
        where event_type = 'mcp_call_succeeded'";
    assert_eq!((number(done), number(distinct)), (CALLS, CALLS), "each is done once in the log");
    assert_eq!(number("select count(*) from cogo.replay_diff()"), 0, "the log folds to the table");
    up.running.stop();
}

#[test]
fn a_postgres_that_dies_ends_everything_with_an_error() {
    let home = Home::new(Cogo::new());
    let mut up = home.up();
    let pid_file = home.data().join("postgres/data/postmaster.pid");
    let pid = std::fs::read_to_string(pid_file).expect("a pid file");
    let pid = pid.lines().next().expect("a pid");
    let killed = std::process::Command::new("kill").args(["-KILL", pid]).status();
    assert!(killed.expect("kill runs").success());
    assert_eq!(up.running.end(), Some(1));
    up.running.stderr.wait("error: Postgres died");
}

#[tokio::test]
async fn ctrl_c_lets_a_running_call_finish_and_a_second_one_does_not() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db));
    let mut up = home.up();
    let id = up.enqueue("sleep", json!({"ms": 5000}));
    up.wait_until_begun(&id);
    up.running.signal("TERM");
    assert_eq!(up.running.end(), Some(0), "{}", up.running.stderr.text());
    assert_eq!(home.status_of(&id), "done");

    let mut up = home.up();
    let id = up.enqueue("sleep", json!({"ms": 60_000}));
    home.wait_until_claimed(&id);
    up.running.signal("INT");
    up.running.stderr.wait("Again to exit at once");
    up.running.signal("INT");
    assert_eq!(up.running.end(), Some(130));
}

#[tokio::test]
async fn past_the_drain_what_is_in_hand_is_put_back() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db).with("COGO_WORKER_DRAIN_MS", "50"));
    let mut up = home.up();
    let id = up.enqueue("sleep", json!({"ms": 60_000}));
    home.wait_until_claimed(&id);
    up.running.signal("INT");
    assert_eq!(up.running.end(), Some(0), "{}", up.running.stderr.text());
    let found = home.cogo.json(&["get", &id]);
    assert_eq!(found["message"]["status"], "queued", "{found}");
    assert_eq!(found["message"]["attempts"], 0, "given back");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy_or_another_is_picked() {
    let db = TestDb::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let home = Home::new(Cogo::on(&db));
    for command in ["up", "hub"] {
        let done = home.cogo.run(&[command, "--listen", &address.to_string()]);
        let port = format!("port {} of 127.0.0.1 is taken", address.port());
        done.refused(1, &[&port, "--listen", "--auto-port"]);
    }
    let hub = home.cogo.start(&["hub", "--listen", &address.to_string(), "--auto-port"]);
    let said = hub.stderr.wait("Ctrl-C stops it.");
    assert!(!said.contains(&address.to_string()), "{said}");
    hub.stop();
}

#[tokio::test]
async fn a_token_of_the_environment_is_used_and_kept_out_of_files_and_logs() {
    let db = TestDb::new().await;
    let token = "a-token-of-the-environment";
    let home = Home::new(Cogo::on(&db).with("COGO_ADMIN_TOKEN", token));
    let hub = home.cogo.start(&["hub", "--listen", "127.0.0.1:0", "--log", "debug"]);
    let said = hub.stderr.wait("Ctrl-C stops it.");
    assert!(said.contains("in COGO_ADMIN_TOKEN"), "{said}");
    assert!(!home.data().join("admin-token").exists());
    let mut words = said.split_whitespace().skip_while(|word| *word != "hub");
    let url = words.find(|word| word.starts_with("http://")).expect("a URL");
    let requeue = format!("{url}/api/dead-letters/requeue");
    assert_eq!(http("POST", &requeue, Some("another-token-than-that"), "{}").0, 401);
    assert_eq!(http("POST", &requeue, Some(token), "{}").0, 400);
    assert!(!hub.stderr.text().contains(token));
    hub.stop();
    let short = home.cogo.clone().with("COGO_ADMIN_TOKEN", "short");
    let refused = short.run(&["hub", "--listen", "127.0.0.1:0"]);
    refused.refused(2, &["COGO_ADMIN_TOKEN", "16 to 512"]);
}
