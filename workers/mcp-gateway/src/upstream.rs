//! One MCP server: one connection, kept; calls, bounded; every failure classified.
//!
//! The connection is made at once and again after each loss, by a supervisor with backoff; a call
//! that finds none has it tried now. rmcp has neither default timeouts nor reconnection, so both are
//! here. Server-initiated requests (sampling, elicitation, roots) are refused as unknown methods:
//! nobody is there to answer them.

mod call;
mod connection;
mod error;
mod http;
mod stdio;
mod supervisor;
mod tls;
mod tools;
pub(crate) mod websocket;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cogo::clock::{Stopwatch, utc_now};
use cogo::retry::ErrorClass;
use cogo::shutdown::{Shutdown, Tasks};
use serde::Serialize;
use tokio::sync::Semaphore;

use self::connection::{Connection, plain};
use self::supervisor::Link;
use crate::config::{Error, Toolset};
use crate::environment::Environment;
use crate::secret::{Resolved, Secret};

pub use self::call::{Call, Input, Reply};
pub use self::connection::Server;
pub use self::error::CallError;
pub use self::tools::{Tool, Tools};

/// How long a sign of life may take. Nobody waits longer for a health page.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// How long closing a connection may take: a child process gets twice 1.5 s to end.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(6);

/// One MCP server.
#[derive(Debug)]
pub struct Upstream {
    link: Arc<Link>,
    slots: Semaphore,
    /// Of tools that have a limit of their own.
    tool_slots: BTreeMap<String, (Semaphore, u32)>,
    /// Which reference stands for nothing, so that it cannot be used.
    unresolved: Option<String>,
    /// It is to be looked for.
    not_yet: bool,
}

/// Where an upstream stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct State {
    /// Whether there is a connection.
    pub connected: bool,
    /// Since when that is so.
    pub since: DateTime<Utc>,
    /// Why there is no connection; none while it is being made for the first time.
    pub error: Option<String>,
    /// The server, while connected.
    pub server: Option<Server>,
}

/// What a ping found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PingReport {
    /// The server.
    #[serde(flatten)]
    pub server: Server,
    /// How long the answer took, in milliseconds; connecting not included.
    pub latency_ms: u64,
    /// The names of its tools.
    pub tools: Vec<String>,
}

impl Upstream {
    /// Starts to keep a connection to the server of `toolset`, called `name`. Must be called within
    /// a tokio runtime; ends with `shutdown`'s cancellation or by [`Upstream::close`].
    #[must_use]
    pub fn start(name: &str, toolset: Toolset, shutdown: &Shutdown) -> Arc<Self> {
        let environment = Environment::default();
        let resolved = crate::secret::resolve(name, &toolset, &|name| environment.look(name));
        Self::start_with(name, toolset, shutdown, resolved)
    }

    /// The same toolset with other settings. Until its own list of tools is there it has that of `old`, if it is the
    /// same server, so that its tools do not vanish for the moment of a change.
    #[must_use]
    pub(crate) fn in_place_of(
        old: &Self,
        toolset: Toolset,
        shutdown: &Shutdown,
        resolved: Result<Resolved, Error>,
    ) -> Arc<Self> {
        let known = old.toolset().is_same_server(&toolset).then(|| old.tools());
        let new = Self::start_with(old.name(), toolset, shutdown, resolved);
        new.link.status.send_modify(|status| {
            if status.tools.is_none() {
                status.tools = known;
            }
        });
        new
    }

    /// Closes it once its last call has ended. Calls that come later fail, unsent.
    pub(crate) async fn retire(self: Arc<Self>) {
        let all = u32::try_from(self.toolset().max_in_flight).unwrap_or(u32::MAX);
        let last = async {
            // Slots are given in the order of asking: who waits for one gets it before us; and whoever has one of a
            // tool's then asks for one of all.
            for (slots, all) in self.tool_slots.values() {
                drop(slots.acquire_many(*all).await);
            }
            drop(self.slots.acquire_many(all).await);
        };
        tokio::select! {
            () = last => {}
            () = self.link.stop.cancelled() => {}
        }
        let _first = self.link.why_closed.set("the toolset was changed or taken out");
        tracing::info!(mcp.toolset = %self.name(), "Closing the old connection of {}", self.name());
        self.close().await;
    }

    pub(crate) fn start_with(
        name: &str,
        toolset: Toolset,
        shutdown: &Shutdown,
        resolved: Result<Resolved, Error>,
    ) -> Arc<Self> {
        install_tls();
        let (resolved, missing) = match resolved {
            Ok(resolved) => (resolved, None),
            Err(error) => (Resolved::default(), Some(error)),
        };
        let unresolved = missing.as_ref().map(ToString::to_string);
        let not_yet = matches!(missing, Some(Error::SecretNotYet { .. }));
        let slots = Semaphore::new(toolset.max_in_flight);
        let limited = toolset.tools.iter().filter_map(|(name, tool)| {
            let most = tool.max_in_flight?;
            let all = u32::try_from(most).unwrap_or(u32::MAX);
            Some((name.clone(), (Semaphore::new(most), all)))
        });
        let tool_slots = limited.collect();
        let stop = shutdown.cancelled().child_token();
        let link = Arc::new(Link::new(name.to_owned(), toolset, resolved, stop, Tasks::new()));
        match missing {
            None => {
                link.tasks.spawn(supervisor::run(Arc::clone(&link)));
            }
            // Every call fails with this; other toolsets go on.
            Some(error) => {
                if not_yet {
                    tracing::debug!(mcp.toolset = %name, "Toolset {name} cannot be used yet: {error}");
                } else {
                    tracing::error!(mcp.toolset = %name, "Toolset {name} cannot be used: {error}");
                }
                link.status.send_modify(|status| status.error = Some(error.to_string()));
                link.stop.cancel();
            }
        }
        Arc::new(Self { link, slots, tool_slots, unresolved, not_yet })
    }

    /// The toolset's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// The toolset's configuration.
    #[must_use]
    pub fn toolset(&self) -> &Toolset {
        &self.link.toolset
    }

    /// Whether one of its references was not looked for yet.
    pub(crate) fn waits_for_secret(&self) -> bool {
        self.not_yet
    }

    /// Whether its references stood for the same when it was started.
    pub(crate) fn has(&self, resolved: &Result<Resolved, Error>) -> bool {
        match (&self.unresolved, resolved) {
            (None, Ok(resolved)) => self.link.resolved == *resolved,
            (Some(unresolved), Err(error)) => *unresolved == error.to_string(),
            _ => false,
        }
    }

    /// The secrets that were loaded for it.
    pub(crate) fn secrets(&self) -> &[Secret] {
        &self.link.resolved.secrets
    }

    /// What is said of the server, as anybody may read it: without its secrets, and without its URL's query.
    pub(crate) fn told(&self, text: &str) -> String {
        self.link.told(text)
    }

    /// Where it stands, without asking the server.
    #[must_use]
    pub fn state(&self) -> State {
        let status = self.link.status.borrow();
        let live = status.connection.as_ref().filter(|c| !c.wire.closed().is_cancelled());
        State {
            connected: live.is_some(),
            since: status.since,
            error: status.error.clone(),
            server: live.map(|connection| connection.server.clone()),
        }
    }

    /// The tools, as last listed; none before the first connection.
    #[must_use]
    pub fn tools(&self) -> Arc<Tools> {
        let status = self.link.status.borrow();
        match &status.connection {
            Some(connection) => connection.tools(),
            None => status.tools.clone().unwrap_or_default(),
        }
    }

    /// The tool called `name`, as last listed.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<Arc<Tool>> {
        self.tools().get(name).cloned()
    }

    /// Whether the server has been away for longer than `grace`, so that nobody should count on it.
    pub(crate) fn is_gone_for(&self, grace: Duration) -> bool {
        let status = self.link.status.borrow();
        let away = utc_now() - status.since;
        status.connection.is_none() && away.to_std().is_ok_and(|away| away > grace)
    }

    /// Tells of changes: of the connection, and of the list of tools.
    pub(crate) fn changes(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut status = self.link.status.subscribe();
        async move {
            if status.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Asks the server for a sign of life, connecting first if need be, within five seconds in all.
    /// Never runs a tool.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer; nothing was done.
    pub async fn ping(&self) -> Result<PingReport, CallError> {
        let ping = async {
            let connection = self.connection(PING_WITHIN).await?;
            let clock = Stopwatch::start();
            let answer = connection.ping().await;
            answer.map_err(|error| {
                let message =
                    format!("{}: no answer to a ping: {}", self.name(), self.told(&plain(&error)));
                CallError::unsent(ErrorClass::Closed, message)
            })?;
            Ok(PingReport {
                server: connection.server.clone(),
                latency_ms: clock.elapsed_ms(),
                tools: connection.tools().iter().map(|tool| tool.name.clone()).collect(),
            })
        };
        tokio::time::timeout(PING_WITHIN, ping).await.unwrap_or_else(|_| {
            let message = format!("{}: no answer within {PING_WITHIN:?}", self.name());
            Err(CallError::unsent(ErrorClass::Timeout, message))
        })
    }

    /// Reads the list of tools again, for servers that do not announce changes; within five seconds.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer; the old list stands.
    pub async fn refresh(&self) -> Result<Arc<Tools>, CallError> {
        let connection = self.connection(PING_WITHIN).await?;
        match tokio::time::timeout(PING_WITHIN, connection.refresh()).await {
            Ok(Ok(())) => Ok(connection.tools()),
            Ok(Err(error)) => {
                let message = format!(
                    "{}: cannot list its tools: {}",
                    self.name(),
                    self.told(&plain(&error))
                );
                Err(CallError::unsent(ErrorClass::Closed, message))
            }
            Err(_) => {
                let message = format!("{}: no list within {PING_WITHIN:?}", self.name());
                Err(CallError::unsent(ErrorClass::Timeout, message))
            }
        }
    }

    /// Closes the connection and waits until all is gone, child processes too; at most six seconds.
    pub async fn close(&self) {
        self.link.stop.cancel();
        if !self.link.tasks.join(CLOSE_WITHIN).await {
            tracing::warn!(mcp.toolset = %self.name(), "Toolset {} did not close", self.name());
        }
    }

    /// The connection; if there is none, the outcome of the next attempt, which is made now.
    async fn connection(&self, within: Duration) -> Result<Arc<Connection>, CallError> {
        let mut status = self.link.status.subscribe();
        let before = status.borrow().attempt;
        let wait = async {
            loop {
                {
                    let now = status.borrow_and_update();
                    let open = now.connection.as_ref();
                    if let Some(open) = open.filter(|c| !c.wire.retired().is_cancelled()) {
                        return Ok(Arc::clone(open));
                    }
                    let stopped = self.link.stop.is_cancelled();
                    if stopped || (now.attempt > before && now.connection.is_none()) {
                        let why = now.error.as_deref().unwrap_or(self.link.why_closed());
                        return Err(self.unreachable(why));
                    }
                }
                self.link.wanted.notify_one();
                tokio::select! {
                    _ = status.changed() => {} // the sender lives in `self`
                    () = self.link.stop.cancelled() => {}
                }
            }
        };
        tokio::time::timeout(within, wait)
            .await
            .unwrap_or_else(|_| Err(self.unreachable(&format!("no connection within {within:?}"))))
    }

    fn unreachable(&self, why: &str) -> CallError {
        let message = format!("cannot reach toolset {}: {why}", self.name());
        CallError::unsent(ErrorClass::Connect, message)
    }
}

/// Gives rustls its provider, once in a process; whoever was first, stays.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
