//! A hub with something to look at, and the scenarios run against it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::thread;

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::driver;
use crate::support::{Cogo, Running, temp_dir, write};

const TOKEN: &str = "the-admin-token-of-the-console-test";

/// A database, a hub on it, and the files of both.
pub(crate) struct World {
    db: TestDb,
    cogo: Cogo,
    hub: Option<Running>,
    address: String,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDb::new().await;
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).expect("a folder");
        let toolset = driver::scripts().join("toolset.mjs");
        let mcp = json!({"toolsets": {"shop": {"command": "node", "args": [toolset]}}});
        write(&configs, "mcp.json", &mcp.to_string());
        // Few attempts and short pauses, so that what fails has failed soon; and a breaker that three failures open,
        // and that stays open while it is looked at.
        let retries = json!({"policies": {"default": {
            "max_attempts": 2, "backoff": {"kind": "fixed", "delay_ms": 50}, "timeout_ms": 20_000,
            "retry_on": ["connect", "timeout", "closed", "circuit_open"]
        }}});
        write(&configs, "retry_policy.json", &retries.to_string());
        let breakers = json!({"policies": {"default": {
            "window": {"kind": "count", "calls": 10}, "min_requests": 3, "failure_rate": 0.5, "open_ms": 600_000,
        }}});
        write(&configs, "circuit_breaker.json", &breakers.to_string());
        let cogo = Cogo::on(&db)
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_ADMIN_TOKEN", TOKEN)
            .with("PATH", std::env::var("PATH").unwrap_or_default());
        let mut world = Self { db, cogo, hub: None, address: "127.0.0.1:0".to_owned(), _dir: dir };
        world.start();
        world
    }

    /// Starts the hub, after the first time at the same address.
    fn start(&mut self) {
        let hub = self.cogo.start(&["up", "--listen", &self.address]);
        let said = hub.stderr.wait("Ctrl-C stops it.");
        let at = said.find("http://").expect("an address") + "http://".len();
        self.address = said[at..].split_whitespace().next().expect("an address").to_owned();
        self.hub = Some(hub);
    }

    /// Runs scenarios of `tests/console`, one after the other; the first that fails ends it.
    pub(crate) async fn run(mut self, scenarios: &[&str]) {
        let mut child = driver::script("run.mjs")
            .args(scenarios)
            .env("HUB", format!("http://{}", self.address))
            .env("TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node starts");
        let mut stderr = child.stderr.take().expect("a pipe");
        let said = thread::spawn(move || {
            let mut said = String::new();
            let _what_there_is = stderr.read_to_string(&mut said);
            said
        });
        let (mut stdin, stdout) =
            (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = tokio::task::block_in_place(|| lines.next()) {
            let line = line.expect("text");
            let Some(asked) = line.strip_prefix("? ") else { continue };
            let answer = self.answer(asked).await;
            writeln!(stdin, "{answer}").expect("it listens");
        }
        let status = child.wait().expect("a child");
        let said = said.join().expect("text");
        let log = self.hub.as_ref().map(|hub| hub.stderr.text()).unwrap_or_default();
        assert!(status.success(), "{said}\nThe hub said:\n{log}");
    }

    /// What a scenario cannot do, or should not believe the hub about.
    async fn answer(&mut self, asked: &str) -> Value {
        match asked.split_once(' ') {
            None if asked == "kill" => {
                let mut hub = self.hub.take().expect("it runs");
                hub.signal("KILL");
                assert_eq!(hub.end(), None, "a signal ends it");
                json!({})
            }
            None if asked == "start" => {
                tokio::task::block_in_place(|| self.start());
                json!({})
            }
            Some(("requeued", id)) => {
                let row: (i64, Option<String>) = sqlx::query_as(
                    "select (select count(*) from bus_events e
                             where e.message_id = m.id and e.event_type = 'mcp_call_requeued'),
                            m.payload -> 'params' ->> 'order'
                     from agent_messages m where m.id = $1::uuid",
                )
                .bind(id.to_owned())
                .fetch_one(self.db.pool())
                .await
                .expect("the message");
                json!({"requeued": row.0, "order": row.1})
            }
            _ => panic!("what is {asked:?}?"),
        }
    }
}
