//! The stage `ping`: each configured toolset gives a sign of life. No tool is run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::{Done, Failure, Stage, Steps, Stopped, done};
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, FILE, Toolset};
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;

use super::process::Process;
use super::progress::{Screen, seconds};
use super::servers::Servers;
use crate::connect::Global;
use crate::mcp;

/// Its name.
const NAME: &str = "ping";

/// The stage.
#[derive(Debug)]
pub(super) struct Ping {
    global: Global,
    screen: Arc<Screen>,
    /// Where the logs of servers go that are to be started; none where nothing is.
    start_servers: Option<PathBuf>,
    /// Those that were started. They go on until the whole gate has ended.
    started: Mutex<Vec<Process>>,
}

impl Ping {
    pub(super) fn new(global: Global, screen: Arc<Screen>, start_servers: Option<PathBuf>) -> Self {
        Self { global, screen, start_servers, started: Mutex::default() }
    }

    /// Reads `configs/mcp.json`. Without a toolset there is nothing to look at, and what looked at nothing does not
    /// let anything pass.
    fn config(&self) -> Result<Done<Config>, Failure> {
        let remedy =
            "`cogo config check` checks all files; `cogo mcp add` and `enable` change this one.";
        let config = mcp::load(&self.global)
            .map_err(|error| Failure::new(format!("{error:#}")).remedy(remedy))?;
        let all = config.toolsets.len();
        let enabled = enabled(&config).count();
        let dir = self.global.config_dir().ok().flatten();
        let file = dir.map_or_else(|| PathBuf::from("configs").join(FILE), |dir| dir.join(FILE));
        let (is_there, file) = (file.exists(), file.display());
        if enabled == 0 {
            let why = match all {
                0 if !is_there => format!("{file} is not there"),
                0 => format!("{file} names no toolset"),
                _ => format!("{file} names toolsets, and all are disabled"),
            };
            let remedy = "Name one (`cogo mcp add`) or enable one (`cogo mcp enable`); or leave this stage out, by \
                          --stage local --stage docker.";
            return Err(
                Failure::new(format!("there is no toolset to look at: {why}")).remedy(remedy)
            );
        }
        let disabled = match all - enabled {
            0 => String::new(),
            disabled => format!(", {disabled} disabled"),
        };
        Ok(done(config, format!("{file}: {enabled} enabled{disabled}")))
    }

    /// Starts the servers that do not answer, side by side. Gives the toolsets whose start failed.
    async fn start_servers(
        &self,
        steps: &Steps<'_>,
        config: &Config,
        logs: &Path,
    ) -> Result<Vec<String>, Stopped> {
        let load = async {
            let servers = Servers::load(logs)?;
            let names = servers.names();
            Ok(done(servers, names))
        };
        let servers = steps.step("mcp-servers", load).await?;
        let starts = enabled(config).map(|(name, toolset)| {
            let servers = &servers;
            async move {
                let step = format!("start {name}");
                let start = match servers.missing(name, toolset) {
                    Ok(start) => start,
                    Err(why) => {
                        steps.skip(step, why);
                        return None;
                    }
                };
                let started = start.start(&self.screen, NAME, &step);
                match steps.step(step.clone(), started).await {
                    Ok(process) => {
                        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(process);
                        None
                    }
                    Err(Stopped) => Some(name.clone()),
                }
            }
        });
        Ok(join_all(starts).await.into_iter().flatten().collect())
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        // All at once; then each is waited for.
        let started = self.started.get_mut().unwrap_or_else(PoisonError::into_inner);
        started.iter_mut().for_each(Process::ask_to_end);
    }
}

fn enabled(config: &Config) -> impl Iterator<Item = (&String, &Toolset)> {
    config.toolsets.iter().filter(|(_, toolset)| toolset.enabled)
}

impl Stage for Ping {
    fn name(&self) -> &'static str {
        NAME
    }

    fn at_most(&self) -> Duration {
        // A server may be given five minutes to start; a sign of life takes seconds.
        Duration::from_secs(if self.start_servers.is_some() { 420 } else { 120 })
    }

    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let config = steps.step("config", async { self.config() }).await?;
            let failed = match &self.start_servers {
                Some(logs) => {
                    steps.artifacts(logs);
                    self.start_servers(steps, &config, logs).await?
                }
                None => Vec::new(),
            };
            // What `cogo mcp ping` does, with a step for each.
            let shutdown = Shutdown::new();
            let started = self.start_servers.is_some();
            let gateway = Gateway::start(config.clone(), None, &shutdown);
            let (gateway_ref, failed) = (&gateway, &failed);
            let looks = enabled(&config).map(|(name, toolset)| async move {
                if failed.contains(name) {
                    steps.skip(name, "it could not be started");
                    return Err(Stopped);
                }
                steps.step(name, look(gateway_ref, name, toolset, started, steps)).await
            });
            let looked: Vec<_> = join_all(looks).await;
            gateway.shutdown().await;
            looked.into_iter().collect()
        })
    }
}

/// Connects, shakes hands and lists the tools.
async fn look(
    gateway: &Gateway,
    name: &str,
    toolset: &Toolset,
    started: bool,
    steps: &Steps<'_>,
) -> Result<Done<()>, Failure> {
    let watch = Stopwatch::start();
    let upstream = gateway.toolsets().get(name);
    let upstream = upstream.ok_or_else(|| Failure::new(format!("{name} is not served")))?;
    let report = upstream.ping().await.map_err(|error| {
        let (endpoint, said) = (toolset.endpoint(), error.message);
        let why = match said.contains(&endpoint) {
            true => said,
            false => format!("{endpoint}: {said}"),
        };
        Failure::new(why).remedy(remedy(name, toolset, started))
    })?;
    let (server, tools) = (&report.server, report.tools.len());
    steps.fact(name, json!(report));
    let said_name = format!("{} {}", server.name, server.version);
    let (took, protocol) = (seconds(watch.elapsed()), &server.protocol);
    let text = format!("{tools} tools, {took}, {}, MCP {protocol}", said_name.trim());
    if tools == 0 {
        let why = format!("{}: answers, and lists no tools", toolset.endpoint());
        return Err(Failure::new(why).remedy(format!("Look at the server {}.", said_name.trim())));
    }
    Ok(done((), text))
}

/// How the server is started, or done without.
fn remedy(name: &str, toolset: &Toolset, started: bool) -> String {
    let disable = format!("or do without it: `cogo mcp disable {name}`");
    if toolset.url.is_none() {
        return format!("See that `{}` runs by itself, {disable}.", toolset.endpoint());
    }
    match (name, started) {
        ("figma" | "browser", false) => format!(
            "Start it: by --start-servers, by `docker compose -f docker-compose.local.yml up -d {name}-mcp`, {disable}."
        ),
        _ => format!("Start what should listen at {}, {disable}.", toolset.endpoint()),
    }
}
