//! The role: configuration in, a worker on the bus out.

use std::sync::Arc;

use cogo::message::Topic;
use cogo::shutdown::Shutdown;
use cogo::worker::{Context, Role, RoleError, runner};

use crate::config::Config;
use crate::handler::McpHandler;
use crate::toolsets::Toolsets;

/// The role `mcp-gateway`.
pub const ROLE: Role = Role {
    name: "mcp-gateway",
    about: "Calls tools at MCP servers, over WebSocket, stdio and streamable HTTP",
    start: |context| Box::pin(start(context)),
};

async fn start(context: Context) -> Result<(), RoleError> {
    let config = Config::load(&context.config_dir)?;
    let gateway = Gateway::start(config, None, &context.shutdown);
    let outcome = gateway.work(&context).await;
    gateway.shutdown().await;
    outcome
}

/// The servers of one process, for its worker and its HTTP routes alike.
#[derive(Debug, Clone)]
pub struct Gateway {
    toolsets: Arc<Toolsets>,
}

impl Gateway {
    /// Starts to connect to the servers of `config` and, if it is given, to the demo server at
    /// `demo`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(config: Config, demo: Option<String>, shutdown: &Shutdown) -> Self {
        Self { toolsets: Toolsets::start(config, demo, shutdown) }
    }

    /// The servers.
    #[must_use]
    pub fn toolsets(&self) -> &Arc<Toolsets> {
        &self.toolsets
    }

    /// Where messages for these servers wait.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        let topic = |name| Topic::new(ROLE.name, name).expect("names were checked at loading");
        self.toolsets.names().into_iter().map(topic).collect()
    }

    /// Claims messages and calls tools until the context's shutdown says stop. The connections stay.
    ///
    /// # Errors
    /// When the worker cannot start, or stops before it was asked to.
    pub async fn work(&self, context: &Context) -> Result<(), RoleError> {
        if self.topics().is_empty() {
            let file = context.config_dir.join(crate::config::FILE);
            let text = format!(
                "no toolset is enabled: name the MCP servers of this machine in {}, such as \
                 {{\"toolsets\": {{\"browser\": {{\"url\": \"ws://localhost:3004\"}}}}}}",
                file.display()
            );
            return Err(text.into());
        }
        let (retry, artifacts) = (context.retry.clone(), &context.artifacts_dir);
        let handler = McpHandler::new(Arc::clone(&self.toolsets), retry, artifacts);
        runner::run(handler, self.topics(), context).await
    }

    /// Closes all connections and waits until all is gone.
    pub async fn shutdown(&self) {
        self.toolsets.shutdown().await;
    }
}
