//! All MCP servers of a gateway, by name, as the configuration says at any moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cogo::live::{Live, Setter};
use cogo::message::Topic;
use cogo::shutdown::{Shutdown, Tasks};
use futures_util::future::join_all;
use serde_json::Value;

use crate::catalogue::announce::Offering;
use crate::config::{Config, DEMO, Error, Toolset};
use crate::environment::Environment;
use crate::gateway::ROLE;
use crate::redact::Redactor;
use crate::secret::{self, Secret};
use crate::upstream::{CLOSE_WITHIN, CallError, PingReport, Upstream};

/// The enabled MCP servers of a configuration that may change.
#[derive(Debug)]
pub struct Toolsets {
    now: Live<Set>,
    topics: Live<Vec<Topic>>,
    demo: Option<String>,
    environment: Environment,
    shutdown: Shutdown,
    state: Mutex<State>,
    /// Those that were changed or taken out, until their last call has ended.
    retiring: Tasks,
}

/// What applying a configuration replaces, under one lock, so that two never mix.
#[derive(Debug)]
struct State {
    now: Setter<Set>,
    topics: Setter<Vec<Topic>>,
    /// Every secret that was ever loaded: a server may give one back when its toolset is long gone.
    secrets: Vec<Secret>,
}

/// The enabled MCP servers at one moment.
#[derive(Debug, Default)]
pub struct Set {
    config: Arc<Config>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    redactor: Arc<Redactor>,
}

impl Set {
    /// The server called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// All servers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.upstreams.iter().map(|(name, upstream)| (name.as_str(), upstream))
    }

    /// The names of all servers.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.upstreams.keys().map(String::as_str).collect()
    }

    /// The configuration they were started from; secrets are in it by reference only.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What hides the secrets of all servers, and of those that are gone.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }
}

impl Toolsets {
    /// Starts to keep connections to all enabled servers of `config` and, if it is given, to the
    /// demo server at `demo`. Must be called within a tokio runtime. A server that cannot be reached
    /// or lacks a secret fails by itself, at its calls.
    #[must_use]
    pub fn start(
        config: impl Into<Arc<Config>>,
        demo: Option<String>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        Self::start_in(Environment::default(), config, demo, shutdown)
    }

    /// As [`Toolsets::start`], with what is referred to looked up in `environment`.
    pub(crate) fn start_in(
        environment: Environment,
        config: impl Into<Arc<Config>>,
        demo: Option<String>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let (set_now, now) = Live::new(Set::default());
        let (set_topics, topics) = Live::new(Vec::new());
        let toolsets = Self {
            now,
            topics,
            demo,
            environment,
            shutdown: shutdown.clone(),
            state: Mutex::new(State { now: set_now, topics: set_topics, secrets: Vec::new() }),
            retiring: Tasks::new(),
        };
        toolsets.apply(config.into());
        Arc::new(toolsets)
    }

    /// Goes over to another configuration. A server whose entry has not changed keeps its connection. One whose
    /// entry has changed gets a new one, and the old one ends with the last call that runs on it; so does that of
    /// a server which is not there or not enabled any more.
    pub fn apply(&self, config: Arc<Config>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.go_over(&mut state, config);
    }

    /// Looks again for what the configuration refers to. A server for which something else is found now is one whose
    /// entry has changed.
    pub(crate) fn look_again(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.config();
        self.go_over(&mut state, config);
    }

    fn go_over(&self, state: &mut State, config: Arc<Config>) {
        self.environment.want(&config);
        let before = self.now();
        let demo = self.demo.clone().map(|url| (DEMO.to_owned(), Toolset::at(url)));
        let enabled = config.toolsets.iter().filter(|(_, toolset)| toolset.enabled);
        let wanted = enabled.map(|(name, toolset)| (name.clone(), toolset.clone())).chain(demo);
        let upstreams: BTreeMap<_, _> = wanted
            .map(|(name, toolset)| {
                let look = |variable: &str| self.environment.look(variable);
                let found = secret::resolve(&name, &toolset, &look);
                let upstream = match before.get(&name) {
                    Some(same) if *same.toolset() == toolset && same.has(&found) => {
                        Arc::clone(same)
                    }
                    // It is looked for now. Until then what was there goes on.
                    Some(old) if matches!(found, Err(Error::SecretNotYet { .. })) => {
                        Arc::clone(old)
                    }
                    Some(old) => Upstream::in_place_of(old, toolset, &self.shutdown, found),
                    None => Upstream::start_with(&name, toolset, &self.shutdown, found),
                };
                (name, upstream)
            })
            .collect();
        for (name, old) in before.iter() {
            let kept = upstreams.get(name).is_some_and(|now| Arc::ptr_eq(now, old));
            if !kept {
                self.retiring.spawn(Arc::clone(old).retire());
            }
        }
        for secret in upstreams.values().flat_map(|upstream| upstream.secrets()) {
            if !state.secrets.contains(secret) {
                state.secrets.push(secret.clone());
            }
        }
        let redactor = Arc::new(Redactor::new(state.secrets.iter().cloned()));
        let topic =
            |name: &str| Topic::new(ROLE.name, name).expect("names were checked at loading");
        // One that waits for a secret claims nothing: its calls would fail for want of it.
        let usable = upstreams.iter().filter(|(_, upstream)| !upstream.waits_for_secret());
        let topics = usable.map(|(name, _)| topic(name)).collect();
        // In this order: what is claimed is there to be called.
        state.now.set(Set { config, upstreams, redactor });
        if *self.topics.get() != topics {
            state.topics.set(topics);
        }
    }

    /// All servers, as they are now. Who needs several of them, or one and its secrets, takes them together.
    #[must_use]
    pub fn now(&self) -> Arc<Set> {
        self.now.get()
    }

    /// All servers, as they are at any moment.
    #[must_use]
    pub fn live(&self) -> Live<Set> {
        self.now.clone()
    }

    /// Where messages for them wait, at any moment.
    #[must_use]
    pub fn topics(&self) -> Live<Vec<Topic>> {
        self.topics.clone()
    }

    /// The server called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Upstream>> {
        self.now().get(name).cloned()
    }

    /// The names of all servers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.now().names().into_iter().map(str::to_owned).collect()
    }

    /// What the servers offer, for whoever looks at the workers: see [`Offering`].
    #[must_use]
    pub fn offer(&self) -> Value {
        Offering::of(&self.now()).info
    }

    /// The configuration they were started from; secrets are in it by reference only.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(self.now().config())
    }

    /// What hides the secrets of all servers.
    #[must_use]
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(self.now().redactor())
    }

    /// Pings all servers, side by side; at most five seconds in all.
    pub async fn ping_all(&self) -> BTreeMap<String, Result<PingReport, CallError>> {
        let now = self.now();
        let pings = now
            .iter()
            .map(|(name, upstream)| async move { (name.to_owned(), upstream.ping().await) });
        join_all(pings).await.into_iter().collect()
    }

    /// Closes all connections, side by side, and waits until all is gone.
    pub async fn shutdown(&self) {
        let now = self.now();
        let retired = async {
            // Those end with the process' shutdown.
            self.retiring.join(CLOSE_WITHIN).await;
        };
        let close = join_all(now.iter().map(|(_, upstream)| upstream.close()));
        futures_util::future::join(close, retired).await;
    }
}
