//! The role: configuration in, a worker on the bus out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cogo::config::{Reload, Source};
use cogo::live::{Live, Setter};
use cogo::message::Topic;
use cogo::remote_env::{Changes, Keyring, RemoteEnv};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::{Context, Role, RoleError, runner};
use tokio_util::sync::CancellationToken;

use crate::catalogue::announce;
use crate::config::{Config, FILE, Mesh};
use crate::environment::Environment;
use crate::handler::McpHandler;
use crate::toolsets::Toolsets;

/// How long what follows the configuration may take to end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The role's name.
const NAME: &str = "mcp-gateway";

/// The role `mcp-gateway`.
pub const ROLE: Role = Role {
    name: NAME,
    about: "Calls tools at MCP servers, over WebSocket, stdio and streamable HTTP",
    start: |context| Box::pin(start(context)),
};

async fn start(context: Context) -> Result<(), RoleError> {
    let mut reload = Reload::new(Source::new(Some(context.config_dir.clone())));
    let config = reload.watch::<Config>()?;
    let tasks = Tasks::new();
    let stop = context.shutdown.draining().clone();
    tasks.spawn(reload.run(context.reread.clone(), stop));
    let stop = CancellationToken::new();
    let (bus, keys) = (context.bus.clone(), Keyring::from_env());
    let remote_env = RemoteEnv::start(bus, &context.tenant, keys, &tasks, stop.clone());
    let gateway = Gateway::start_with(config, None, &context.shutdown, remote_env);
    let outcome = gateway.work(&context).await;
    gateway.shutdown().await;
    stop.cancel();
    outcome
}

/// The servers of one process, for its worker and its HTTP routes alike.
#[derive(Debug, Clone)]
pub struct Gateway {
    toolsets: Arc<Toolsets>,
    config: Live<Config>,
    mesh: Live<Mesh>,
    config_dir: Option<PathBuf>,
    remote_env: Option<RemoteEnv>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Gateway {
    /// Starts to connect to the servers of `config`, as it is at any moment, and, if it is given, to the demo server
    /// at `demo`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        config: impl Into<Live<Config>>,
        demo: Option<String>,
        shutdown: &Shutdown,
    ) -> Self {
        Self::start_in(Environment::default(), config.into(), demo, shutdown)
    }

    /// As [`Gateway::start`]; what the configuration refers to and this process does not have in its environment comes
    /// from `remote_env`, as it is at any moment.
    #[must_use]
    pub fn start_with(
        config: impl Into<Live<Config>>,
        demo: Option<String>,
        shutdown: &Shutdown,
        remote_env: RemoteEnv,
    ) -> Self {
        Self::start_in(Environment::over(remote_env), config.into(), demo, shutdown)
    }

    fn start_in(
        environment: Environment,
        config: Live<Config>,
        demo: Option<String>,
        shutdown: &Shutdown,
    ) -> Self {
        let remote_env = environment.remote().cloned();
        let changes = remote_env.as_ref().map(RemoteEnv::changes);
        let toolsets = Toolsets::start_in(environment, config.get(), demo, shutdown);
        let (tasks, stop) = (Tasks::new(), shutdown.draining().child_token());
        let (set_mesh, mesh) = Live::new(config.get().mesh.clone());
        let following = follow(config.clone(), Arc::clone(&toolsets), set_mesh, stop.clone());
        tasks.spawn(following);
        if let Some(changes) = changes {
            tasks.spawn(look_again(changes, Arc::clone(&toolsets), stop.clone()));
        }
        Self { toolsets, config, mesh, config_dir: None, remote_env, tasks, stop }
    }

    /// Lets the API change `mcp.json` of this directory, from which the configuration must come.
    #[must_use]
    pub fn with_config_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { config_dir: Some(dir.into()), ..self }
    }

    /// The directory whose `mcp.json` the API may change.
    #[must_use]
    pub fn config_dir(&self) -> Option<PathBuf> {
        self.config_dir.clone()
    }

    /// The servers.
    #[must_use]
    pub fn toolsets(&self) -> &Arc<Toolsets> {
        &self.toolsets
    }

    /// The configuration, as it is at any moment.
    #[must_use]
    pub fn config(&self) -> Live<Config> {
        self.config.clone()
    }

    /// The configuration's section `mesh`, as it is at any moment.
    #[must_use]
    pub fn mesh(&self) -> Live<Mesh> {
        self.mesh.clone()
    }

    /// Where messages for these servers wait, now.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.toolsets.topics().get().to_vec()
    }

    /// Claims messages and calls tools until the context's shutdown says stop. The connections stay. While there is
    /// no server it waits for one.
    ///
    /// # Errors
    /// When the worker cannot start, or stops before it was asked to.
    pub async fn work(&self, context: &Context) -> Result<(), RoleError> {
        // A message that is claimed before the values are there would fail for want of them.
        if let Some(remote_env) = &self.remote_env {
            tokio::select! {
                () = remote_env.settled() => self.toolsets.look_again(),
                () = context.shutdown.draining().cancelled() => return Ok(()),
            }
        }
        let (retry, artifacts) = (context.retry.clone(), &context.artifacts_dir);
        let handler = McpHandler::new(Arc::clone(&self.toolsets), retry, artifacts)
            .with_store(context.artifacts.clone());
        let topics = self.toolsets.topics();
        let stop = CancellationToken::new();
        let telling = tell(topics.clone(), context.config_dir.clone(), stop.clone());
        let telling = self.tasks.spawn(telling);
        let announcing = announce::run(
            Arc::clone(&self.toolsets),
            handler.announced(),
            context.bus.clone(),
            context.tenant.clone(),
            stop.clone(),
        );
        let announcing = self.tasks.spawn(announcing);
        let outcome = runner::follow(handler, NAME, topics, context).await;
        stop.cancel();
        let _they_only_tell = (telling.await, announcing.await);
        outcome
    }

    /// Closes all connections and waits until all is gone.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.toolsets.shutdown().await;
        self.tasks.join(END_WITHIN).await;
    }
}

/// Goes over to each new configuration until `stop`.
async fn follow(
    mut config: Live<Config>,
    toolsets: Arc<Toolsets>,
    mesh: Setter<Mesh>,
    stop: CancellationToken,
) {
    let mut was = config.get();
    loop {
        tokio::select! {
            () = config.changed() => {
                let now = config.get();
                if now.mesh != was.mesh {
                    mesh.set(now.mesh.clone());
                }
                was = Arc::clone(&now);
                toolsets.apply(now);
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Looks again for what the configuration refers to, each time that RemoteEnv has changed, until `stop`.
async fn look_again(mut changes: Changes, toolsets: Arc<Toolsets>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = changes.next() => toolsets.look_again(),
            () = stop.cancelled() => return,
        }
    }
}

/// Says, each time that it becomes so, that there is nothing to do, and what would help.
async fn tell(mut topics: Live<Vec<Topic>>, config_dir: impl AsRef<Path>, stop: CancellationToken) {
    let file = config_dir.as_ref().join(FILE);
    loop {
        if topics.get().is_empty() {
            tracing::warn!(
                config.file = %file.display(),
                "No toolset is enabled, so that there is nothing to do yet. Name an MCP server of this machine with \
                 `cogo mcp add browser --url ws://localhost:3004`, or in {}; it is taken up at once",
                file.display()
            );
        }
        tokio::select! {
            () = topics.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}
