//! All MCP servers of a gateway, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use cogo::shutdown::Shutdown;
use futures_util::future::join_all;

use crate::config::{Config, DEMO, Toolset};
use crate::redact::Redactor;
use crate::upstream::{CallError, PingReport, Upstream};

/// The enabled MCP servers of a configuration.
#[derive(Debug)]
pub struct Toolsets {
    config: Config,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    redactor: Arc<Redactor>,
}

impl Toolsets {
    /// Starts to keep connections to all enabled servers of `config` and, if it is given, to the
    /// demo server at `demo`. Must be called within a tokio runtime. A server that cannot be reached
    /// or lacks a secret fails by itself, at its calls.
    #[must_use]
    pub fn start(config: Config, demo: Option<String>, shutdown: &Shutdown) -> Arc<Self> {
        let demo = demo.map(|url| (DEMO.to_owned(), Toolset::at(url)));
        let enabled = config.toolsets.iter().filter(|(_, toolset)| toolset.enabled);
        let upstreams: BTreeMap<_, _> = enabled
            .map(|(name, toolset)| (name.clone(), toolset.clone()))
            .chain(demo)
            .map(|(name, toolset)| {
                let upstream = Upstream::start(&name, toolset, shutdown);
                (name, upstream)
            })
            .collect();
        let secrets = upstreams.values().flat_map(|upstream| upstream.secrets().iter().cloned());
        let redactor = Arc::new(Redactor::new(secrets));
        Arc::new(Self { config, upstreams, redactor })
    }

    /// The server called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// The names of all servers.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.upstreams.keys().map(String::as_str).collect()
    }

    /// The configuration they were started from; secrets are in it by reference only.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What hides the secrets of all servers.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Pings all servers, side by side; at most five seconds in all.
    pub async fn ping_all(&self) -> BTreeMap<String, Result<PingReport, CallError>> {
        let pings = self
            .upstreams
            .iter()
            .map(|(name, upstream)| async move { (name.clone(), upstream.ping().await) });
        join_all(pings).await.into_iter().collect()
    }

    /// Closes all connections, side by side, and waits until all is gone.
    pub async fn shutdown(&self) {
        join_all(self.upstreams.values().map(|upstream| upstream.close())).await;
    }
}
