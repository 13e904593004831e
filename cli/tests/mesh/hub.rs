//! The real `cogo up`, and workers that join it by a URL and a key.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::support::{Cogo, Running, temp_dir, write};

/// The secret that signs tokens.
const SECRET: &str = "the-secret-of-the-mesh-tests-0123456789";

/// Whoever tests something holds it to read, and whoever needs the machine for itself to write.
pub(crate) static BUSY: RwLock<()> = RwLock::new(());

/// To be held by a test while it runs.
pub(crate) fn busy() -> RwLockReadGuard<'static, ()> {
    BUSY.read().unwrap_or_else(PoisonError::into_inner)
}

/// A hub with a database of its own.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) url: String,
    pub(crate) cogo: Cogo,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Hub {
    /// Starts everything with a `hub.json` and the section `mesh` of `mcp.json`, and waits until it is ready.
    pub(crate) fn start(hub: &Value, mesh: &Value) -> Self {
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).expect("a directory");
        write(&configs, "hub.json", &hub.to_string());
        write(&configs, "mcp.json", &json!({ "mesh": mesh }).to_string());
        let cogo = Cogo::new()
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_JWT_SECRET", SECRET);
        let mut hub = Self { url: "http://127.0.0.1:0".to_owned(), running: None, cogo, dir };
        hub.start_again();
        hub
    }

    /// Starts it where it was before.
    pub(crate) fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").expect("an http:// address");
        let running = self.cogo.start(&["up", "--listen", address]);
        let said = running.stderr.wait("Ctrl-C stops it.");
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        self.url = url.expect("a URL").trim_end_matches('/').to_owned();
        self.running = Some(running);
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.signal("KILL");
        running.end();
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.running.as_ref().map(|running| running.stderr.text()).unwrap_or_default()
    }

    /// The key of a client that may call every toolset.
    pub(crate) fn client_key(&self) -> String {
        let mint = ["token", "mint", "--tenant", "default", "--send", "mcp-gateway/*"];
        self.cogo.ok(&mint).line().to_owned()
    }

    /// The key of a worker that serves `toolset`.
    pub(crate) fn worker_key(&self, worker: &str, toolset: &str) -> String {
        let topic = format!("mcp-gateway/{toolset}");
        let mint = ["token", "mint", "--tenant", "default", "--worker", worker, "--topic", &topic];
        self.cogo.ok(&mint).line().to_owned()
    }

    /// A worker of another machine, so to speak, which has `toolset` and nothing else.
    pub(crate) fn join(&self, worker: &str, toolset: &str, server: &Value) -> Running {
        let configs = self.configure(worker, toolset, server);
        let cogo = Cogo::new()
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_DATA_DIR", configs.join("data").display().to_string())
            .with("COGO_KEY", self.worker_key(worker, toolset));
        let running = cogo.start(&["worker", "mcp-gateway", "--url", &self.url]);
        running.stderr.wait("is ready");
        running
    }

    /// A worker with the fixture.
    pub(crate) fn join_with_fixture(&self, worker: &str, fixture: &Fixture) -> Running {
        self.join(worker, "fixture", &json!({"url": fixture.url}))
    }

    /// Writes a worker's configuration; its directory.
    pub(crate) fn configure(&self, worker: &str, toolset: &str, server: &Value) -> PathBuf {
        let configs = self.dir.path().join(worker);
        std::fs::create_dir_all(&configs).expect("a directory");
        let mcp = json!({"toolsets": {toolset: server}});
        write(&configs, "mcp.json", &mcp.to_string());
        configs
    }
}
