//! The servers of `mcp-servers/`, started where nobody has started them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::{Done, Failure, done};
use cogo_worker_mcp_gateway::config::Toolset;
use reqwest::Url;
use serde::Deserialize;

use super::process::Process;
use super::progress::{Screen, seconds};

/// Says which servers there are, from the directory in which the gate is run.
const FILE: &str = "mcp-servers/servers.json";
/// A first start installs packages.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How long something that listens on this machine may take to accept a connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What a server says once it answers.
const READY: &str = "ready: ";

/// How a server is started, by the toolset's name.
#[derive(Debug, Deserialize)]
struct Entry {
    /// The script that runs it in the foreground, from where the file lies.
    serve: PathBuf,
}

/// What can be started.
#[derive(Debug)]
pub(super) struct Servers {
    dir: PathBuf,
    entries: BTreeMap<String, Entry>,
    logs: PathBuf,
}

impl Servers {
    /// Reads which servers there are. What they say is kept in `logs`.
    pub(super) fn load(logs: &Path) -> Result<Self, Failure> {
        let file = Path::new(FILE);
        let bad = |what: String| {
            Failure::new(format!("--start-servers: {FILE}: {what}")).remedy(
                "Run the gate where a checkout of COGO lies, or start the servers yourself and \
                 leave --start-servers out.",
            )
        };
        let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
        let entries = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let dir = file.parent().unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).map_err(|error| bad(error.to_string()))?;
        Ok(Self { dir, entries, logs: logs.to_owned() })
    }

    /// Their names.
    pub(super) fn names(&self) -> String {
        self.entries.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The start of `toolset`, if it is one that can be started, lies on this machine, and does not answer. Else why not.
    pub(super) fn missing(&self, name: &str, toolset: &Toolset) -> Result<Start, &'static str> {
        let entry = self.entries.get(name).ok_or("mcp-servers/servers.json does not name it")?;
        let url = toolset.url.as_deref().and_then(|url| Url::parse(url).ok());
        let url = url.ok_or("the gateway starts it itself")?;
        let places = places(&url);
        if places.is_empty() || !places.iter().all(|place| place.ip().is_loopback()) {
            return Err("its address is not one of this machine's own (loopback)");
        }
        let answers = |place: &SocketAddr| TcpStream::connect_timeout(place, ANSWER_WITHIN).is_ok();
        if places.iter().any(answers) {
            return Err("something listens at its address already");
        }
        // What `localhost` is may be both; a server that listens at the first would be found at either name.
        let v4 = places.iter().find(|place| place.is_ipv4()).or(places.first());
        let place = *v4.ok_or("its address is not one of this machine's own (loopback)")?;
        let script = self.dir.join(&entry.serve);
        Ok(Start { script, place, log: self.logs.join(format!("{name}.log")) })
    }
}

/// Where a URL leads.
fn places(url: &Url) -> Vec<SocketAddr> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

/// A server that is to be started.
#[derive(Debug)]
pub(super) struct Start {
    script: PathBuf,
    place: SocketAddr,
    log: PathBuf,
}

impl Start {
    /// Starts it, and waits until it says that it answers. It ends when what this gives is dropped.
    pub(super) async fn start(
        self,
        screen: &Screen,
        stage: &str,
        step: &str,
    ) -> Result<Done<Process>, Failure> {
        let (script, log) = (self.script.display(), self.log.display());
        let mut command = Command::new(&self.script);
        command.env("PORT", self.place.port().to_string());
        command.env("HOST", self.place.ip().to_string());
        if let Some(dir) = self.log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let watch = Stopwatch::start();
        let mut process = Process::start(&command, &self.log)
            .map_err(|error| Failure::new(format!("{script} cannot be started: {error}")))?;
        loop {
            let said = process.said();
            if said.lines().any(|line| line.starts_with(READY)) {
                return Ok(done(process, format!("{script} answers at {}", self.place)));
            }
            if process.has_ended() {
                let why = format!("{script} ended before it answered: {}", process.last_words());
                return Err(Failure::new(why).remedy(format!("All that it said is in {log}.")));
            }
            if watch.elapsed() > READY_WITHIN {
                let within = seconds(READY_WITHIN);
                let last = process.last_words();
                let why = format!("{script} did not answer within {within}; it said last: {last}");
                return Err(Failure::new(why).remedy(format!("All that it said is in {log}.")));
            }
            screen.doing(stage, step, said.lines().next_back().unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
