//! All MCP servers of a gateway, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use cogo::shutdown::Shutdown;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::config::{Config, DEMO, Toolset};
use crate::redact::Redactor;
use crate::upstream::{CallError, PingReport, Upstream};

/// How many bytes of names are offered: a row of `workers` and each event that tells of a change hold them.
const OFFER_BYTES: usize = 16 * 1024;

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

    /// What the servers offer, for whoever looks at the workers: `{"toolsets": {"<name>": {"tools": [...]}}}`, and
    /// with `more` how many tools did not fit.
    #[must_use]
    pub fn offer(&self) -> Value {
        let tools = |upstream: &Arc<Upstream>| {
            let tools = upstream.tools();
            tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>()
        };
        offer(self.upstreams.iter().map(|(name, upstream)| (name.as_str(), tools(upstream))))
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

fn offer<'a>(servers: impl Iterator<Item = (&'a str, Vec<String>)>) -> Value {
    let mut left = OFFER_BYTES;
    let mut toolsets = Map::new();
    for (name, tools) in servers {
        // The quotes and commas, and what is around the tools.
        left = left.saturating_sub(name.len() + 40);
        if left == 0 {
            break;
        }
        let count = tools.len();
        let fits = |tool: &String| {
            left = left.saturating_sub(tool.len() + 4);
            left > 0
        };
        let shown: Vec<_> = tools.into_iter().take_while(fits).collect();
        let more = count - shown.len();
        let entry =
            if more == 0 { json!({"tools": shown}) } else { json!({"tools": shown, "more": more}) };
        toolsets.insert(name.to_owned(), entry);
    }
    json!({"toolsets": toolsets})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_named_and_bounded() {
        let two = [("demo", vec!["add".to_owned(), "echo".to_owned()]), ("none", Vec::new())];
        assert_eq!(
            offer(two.into_iter()),
            json!({"toolsets": {"demo": {"tools": ["add", "echo"]}, "none": {"tools": []}}})
        );
        let many: Vec<String> = (0..10_000).map(|n| format!("tool_{n:05}")).collect();
        let offered = offer([("a", many.clone()), ("b", many)].into_iter());
        assert!(offered.to_string().len() < OFFER_BYTES + 100, "{}", offered.to_string().len());
        let shown = offered["toolsets"]["a"]["tools"].as_array().expect("tools").len();
        assert_eq!(offered["toolsets"]["a"]["more"], 10_000 - shown);
    }
}
