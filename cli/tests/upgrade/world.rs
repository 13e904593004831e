//! A database, a toolset, and both builds of `cogo` on them.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::previous;
use crate::support::{Cogo, Running, temp_dir, until, write};
use crate::tls::Terminator;

const SECRET: &str = "the-secret-of-the-upgrade-tests-0123456789";
/// What a killed worker held is free again after this.
const LEASE_MS: &str = "2000";

/// What both builds share.
pub(crate) struct World {
    pub(crate) db: TestDb,
    dir: tempfile::TempDir,
}

/// A hub that runs.
pub(crate) struct Hub {
    pub(crate) running: Running,
    pub(crate) url: String,
}

/// How many messages are in each state; a parked one is `queued, parked`.
pub(crate) type States = Vec<(String, i64)>;

impl World {
    /// With today's schema.
    pub(crate) async fn new() -> Self {
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).expect("a directory");
        let toolset = previous::files().join("toolset.py");
        let tools = json!({"command": "python3", "args": [toolset],
            "env": {"TOOLSET_DIR": dir.path()}});
        let retry = |delay_ms: u32| {
            json!({"max_attempts": 3, "timeout_ms": 60_000,
            "backoff": {"kind": "fixed", "delay_ms": delay_ms}, "retry_on": ["connect", "timeout", "closed"]})
        };
        let policies = json!({"default": retry(100), "mcp.call.tools.stumbles": retry(3000)});
        for (name, content) in [
            ("mcp.json", json!({"toolsets": {"tools": tools}})),
            ("retry_policy.json", json!({"policies": policies})),
            // None opens but by hand.
            ("circuit_breaker.json", json!({"policies": {"default": {"min_requests": 1000}}})),
        ] {
            write(&configs, name, &content.to_string());
        }
        Self { db: TestDb::new().await, dir }
    }

    /// Without a schema.
    pub(crate) async fn empty() -> Self {
        let world = Self::new().await;
        let sql = "drop schema cogo, cogo_unscoped, public cascade;
            create schema public; grant usage on schema public to public";
        sqlx::raw_sql(sql).execute(world.db.pool()).await.expect("emptied");
        world
    }

    /// Today's `cogo`, with the database.
    pub(crate) fn today(&self) -> Cogo {
        self.configured("today").with("DATABASE_URL", self.db.url())
    }

    /// `cogo` of the release before, with the database.
    pub(crate) fn before(&self) -> Cogo {
        let before = self.configured("before").of(previous::program());
        before.with("DATABASE_URL", self.db.url())
    }

    fn configured(&self, whose: &str) -> Cogo {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        Cogo::new()
            .with("COGO_DATA_DIR", file(whose))
            .with("COGO_ARTIFACTS_DIR", file("artifacts"))
            .with("COGO_CONFIG_DIR", file("configs"))
            .with("COGO_JWT_SECRET", SECRET)
            .with("COGO_WORKER_LEASE_MS", LEASE_MS)
    }

    /// A key for all topics, of this worker.
    pub(crate) fn key(&self, worker: &str) -> String {
        let mint = ["token", "mint", "--tenant", "default", "--worker", worker, "--topic", "*"];
        self.today().ok(&[&mint[..], &["--send", "*"]].concat()).line().to_owned()
    }

    /// The same builds without the database: by a URL and a key, over TLS.
    pub(crate) fn by_url(&self, is_before: bool, tls: &Terminator, worker: &str) -> Cogo {
        let (url, authority) = tls.way();
        let cogo = self.configured(worker);
        let cogo = if is_before { cogo.of(previous::program()) } else { cogo };
        cogo.with("COGO_URL", url)
            .with("COGO_KEY", self.key(worker))
            .with("COGO_CA_FILE", authority)
    }

    /// Lets the tool `waits` answer.
    pub(crate) fn go(&self) {
        write(self.dir.path(), "go", "");
    }

    /// How many messages are in which state.
    pub(crate) async fn states(&self) -> States {
        sqlx::query_as(
            "select status || case when parked_for is null then '' else ', parked' end, count(*)
                from agent_messages group by 1 order by 1",
        )
        .fetch_all(self.db.pool())
        .await
        .expect("read")
    }

    /// The messages are what the log says, and none is on its way.
    pub(crate) async fn ends_exact(&self) {
        self.is_exact();
        let states = self.states().await;
        let ended =
            |(state, _): &&(String, i64)| !["done", "failed", "cancelled"].contains(&&**state);
        assert_eq!(states.iter().find(ended), None, "{states:?}");
    }

    /// The messages are what the log says.
    pub(crate) fn is_exact(&self) {
        let verified = self.today().json(&["replay", "verify"]);
        assert_eq!(verified["exact"], true, "{verified}");
    }
}

/// Starts a hub on a free port.
pub(crate) fn hub(cogo: &Cogo) -> Hub {
    serve(cogo, "hub")
}

/// Starts a hub with a gateway within.
pub(crate) fn up(cogo: &Cogo) -> Hub {
    serve(cogo, "up")
}

fn serve(cogo: &Cogo, what: &str) -> Hub {
    let running = cogo.start(&[what, "--listen", "127.0.0.1:0"]);
    // Making a Postgres writes much, and others may be writing as well.
    let ready = || running.stderr.text().contains("Ctrl-C stops it.");
    assert!((0..3).any(|_| until(ready)), "{}", running.stderr.text());
    let said = running.stderr.text();
    let url = said.split_whitespace().find(|word| word.starts_with("http://"));
    let url = url.expect("a URL").trim_end_matches(['/', '.', ',']).to_owned();
    Hub { running, url }
}

/// Starts a worker of this role.
pub(crate) fn worker(cogo: &Cogo, role: &str) -> Running {
    let running = cogo.start(&["worker", role]);
    running.stderr.wait("is ready");
    if role == "mcp-gateway" {
        running.stderr.wait("Connected to toolset tools");
    }
    running
}

/// Puts a call on the bus; its id.
pub(crate) fn call(cogo: &Cogo, tool: &str, key: &str) -> String {
    let params = json!({"key": key}).to_string();
    let called = cogo.ok(&["mcp", "call", "tools", tool, "--params", &params, "--no-wait"]);
    called.line().to_owned()
}

/// Puts a message for the role `echo` on the bus; its id.
pub(crate) fn echo(cogo: &Cogo, options: &[&str]) -> String {
    let args = [&["enqueue", "echo/default", "echo", "{\"n\": 1}"], options].concat();
    cogo.ok(&args).line().to_owned()
}

/// A message as it is now.
pub(crate) fn message(cogo: &Cogo, id: &str) -> Value {
    cogo.json(&["get", id])["message"].clone()
}

/// Waits until a message has ended, as it must; with this many attempts.
#[track_caller]
pub(crate) fn ends(cogo: &Cogo, id: &str, status: &str, attempts: i64) {
    let done = cogo.run(&["get", id, "--wait", "50s", "--json"]);
    let found: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let message = &found["message"];
    let ended = (&message["status"], &message["attempts"]);
    assert_eq!(ended, (&json!(status), &json!(attempts)), "{found}");
}
