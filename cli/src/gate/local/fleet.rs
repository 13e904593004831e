//! The steps `hub` and `workers`: the processes, from their start until they are there for each other.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::gate::Failure;

use super::config::{Configs, OUTBOUND, TOKEN_VARIABLE, TOOLSET, write_mcp};
use super::database::Postgres;
use super::hub::Hub;
use super::process::{Process, Recipe};
use super::secrets::Secrets;
use super::tool::{GUARDED, OPEN, Tool};
use super::wait::Patience;
use super::world::Places;
use crate::private_file;
use crate::up_file::UpFile;

/// How long a process may take until it is ready; a debug build on a busy machine takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Whose worker the outbound one is, as its key says.
const OUTBOUND_WORKER: &str = "gate-outbound";
/// How many workers an answer may list.
const WORKERS_MAX: u32 = 100;

/// What the processes need to know.
pub(super) struct Plan<'a> {
    pub(super) places: &'a Places,
    pub(super) postgres: &'a Postgres,
    pub(super) configs: &'a Configs,
    pub(super) secrets: &'a Secrets,
    pub(super) tool: &'a Tool,
    pub(super) tool_token: &'a str,
}

/// A hub, with what gets one past its guards.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) hub: Hub,
    jwt_secret: String,
}

impl Plan<'_> {
    /// A process beside the database.
    fn beside(&self, name: &str) -> Result<Recipe, Failure> {
        let recipe = self.places.recipe(name)?;
        Ok(recipe
            .env("DATABASE_URL", self.postgres.url())
            .env("COGO_CONFIG_DIR", &self.configs.dir)
            .env("COGO_ARTIFACTS_DIR", &self.places.artifacts)
            .env(TOKEN_VARIABLE, self.tool_token))
    }

    /// Starts the hub, and waits until it says that it is ready.
    pub(super) async fn hub(&self) -> Result<(Started, String), Failure> {
        let watch = Stopwatch::start();
        write_mcp(&self.configs.dir, TOOLSET, &self.tool.url(GUARDED), true)?;
        let token = self.secrets.admin_token();
        let jwt_secret = self.secrets.make("the secret of tokens");
        let recipe = self.beside("hub")?.args(["hub", "--listen", "127.0.0.1:0"]);
        let recipe = recipe.env("COGO_ADMIN_TOKEN", &token).env("COGO_JWT_SECRET", &jwt_secret);
        let data_dir = recipe.cwd.join("data");
        let mut process = recipe.start()?;
        let patience = Patience::with("the hub answers /readyz with 200", READY_WITHIN);
        let url = loop {
            process.still_runs()?;
            let seen = match UpFile::read(&data_dir) {
                None => "it does not listen yet".to_owned(),
                Some(up) => match up.ready().await {
                    Ok(()) => break up.url,
                    Err(error) => format!("{error:#}"),
                },
            };
            patience.again(seen).await?;
        };
        let detail = format!("ready at {url}, {} ms", watch.elapsed_ms());
        let hub = Hub::new(url, token)?;
        Ok((Started { process, hub, jwt_secret }, detail))
    }

    /// Starts a worker beside the database, and waits until it claims.
    pub(super) async fn server(&self, id: &str) -> Result<Process, Failure> {
        let args = ["worker", "mcp-gateway", "--worker-id", id, "--metrics-listen", "127.0.0.1:0"];
        let mut process = self.beside(id)?.args(args).start()?;
        process.says("is ready. Ctrl-C", READY_WITHIN).await?;
        Ok(process)
    }

    /// Starts the worker from far away, with a URL and a key file alone: its configuration lies where it runs, and of
    /// the environment it gets only where its data go, which for root would be everybody's.
    pub(super) async fn outbound(&self, started: &Started) -> Result<Process, Failure> {
        let mut recipe = self.places.recipe("outbound")?;
        recipe.bare = true;
        let key_file = recipe.cwd.join("key");
        private_file::replace(&key_file, self.mint(&started.jwt_secret).await?)
            .map_err(|error| Failure::new(format!("{error:#}")))?;
        let configs = recipe.cwd.join("configs");
        self.configs.copy_to(&configs)?;
        write_mcp(&configs, OUTBOUND, &self.tool.url(OPEN), false)?;
        let url = started.hub.url.as_str();
        let recipe = recipe.args(["worker", "mcp-gateway", "--url", url, "--key-file"]);
        let mut process = recipe.args([key_file]).start()?;
        process.says("is ready. Ctrl-C", READY_WITHIN).await?;
        Ok(process)
    }

    /// A key for the outbound worker, as an operator makes one.
    async fn mint(&self, jwt_secret: &str) -> Result<String, Failure> {
        let topic = format!("mcp-gateway/{OUTBOUND}");
        let args = ["token", "mint", "--tenant", "default", "--worker", OUTBOUND_WORKER];
        let recipe = self.places.recipe("token-mint")?.args(args).args(["--topic", &topic]);
        let recipe = recipe.args(["--expires", "1h"]).env("COGO_JWT_SECRET", jwt_secret);
        let key = recipe.run().await?.ok()?.trim().to_owned();
        Ok(self.secrets.know("the outbound worker's key", key))
    }

    /// Waits until the bus knows so many workers, and the hub the tools of those from far away: it takes no call for
    /// what nobody offers.
    pub(super) async fn known(
        &self,
        bus: &Bus,
        hub: &Hub,
        count: usize,
    ) -> Result<String, Failure> {
        let patience = Patience::with("the hub offers the tools of all workers", READY_WITHIN);
        loop {
            let workers = bus.workers(WORKERS_MAX).await?;
            let mut online: Vec<&str> = workers
                .iter()
                .filter(|worker| worker.status == "online")
                .map(|worker| worker.id.as_str())
                .collect();
            online.sort_unstable();
            let answer = hub.get("/api/mcp/tools").await?;
            if online.len() == count && answer.status == 200 && answer.text.contains(OUTBOUND) {
                return Ok(online.join(", "));
            }
            let (online, status) = (online.join(", "), answer.status);
            patience.again(format!("online: {online}; its tools: {status}")).await?;
        }
    }
}

/// Whether a worker's name is that of the worker from far away.
pub(super) fn is_outbound(worker: &str) -> bool {
    worker.strip_prefix(OUTBOUND_WORKER).is_some_and(|rest| rest.starts_with('.'))
}
