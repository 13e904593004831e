//! Keeps one connection to a server: connects, watches, backs off, connects again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use cogo::clock::{Stopwatch, utc_now};
use cogo::error::chain;
use cogo::retry::Backoff;
use cogo::shutdown::Tasks;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Error, Lifecycle};
use super::tools::Tools;
use super::wire::Wire;
use super::{http, stdio, tls, websocket};
use crate::config::{Toolset, Transport};
use crate::redact::Redactor;
use crate::secret::Resolved;

/// The delay between attempts while nobody needs the server.
const BACKOFF: Backoff = Backoff::Exponential { base_ms: 500, max_ms: 30_000 };
/// The least delay between attempts, however many calls wait.
const MIN_GAP: Duration = Duration::from_millis(200);
/// A connection that lived shorter than this does not count as a success: a server that accepts and
/// closes would otherwise be asked again at once, for ever.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// The least time from one reading of the list of tools to the next. It doubles while the list comes back as it was:
/// some servers say that their tools have changed whenever these are read.
const LIST_GAP: Duration = Duration::from_millis(500);
/// How often it doubles at most: until it is 32 s.
const LIST_DOUBLINGS: u32 = 6;

/// Where a connection stands. Nothing of it is persisted: a restart begins with `attempt` 0.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// How many attempts have ended, well or not.
    pub(super) attempt: u64,
    /// The connection, while there is one.
    pub(super) connection: Option<Arc<Connection>>,
    /// Why there is none, or why the last one ended.
    pub(super) error: Option<String>,
    /// Since when.
    pub(super) since: DateTime<Utc>,
    /// The tools, as last listed; they outlive the connection.
    pub(super) tools: Option<Arc<Tools>>,
}

/// What the supervisor and the callers share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) toolset: Toolset,
    pub(super) resolved: Resolved,
    pub(super) status: watch::Sender<Status>,
    /// Rung by a call that needs a connection now.
    pub(super) wanted: Notify,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Tasks,
    /// The server was silent after `server/discover`: begin with `initialize`.
    initialize_first: AtomicBool,
    /// What may not be told of the connection: see [`Link::told`].
    redactor: Redactor,
    /// Why it was stopped, unless the gateway stops.
    pub(super) why_closed: OnceLock<&'static str>,
}

impl Link {
    pub(super) fn new(
        name: String,
        toolset: Toolset,
        resolved: Resolved,
        stop: CancellationToken,
        tasks: Tasks,
    ) -> Self {
        let status =
            Status { attempt: 0, connection: None, error: None, since: utc_now(), tools: None };
        let hidden = resolved.secrets.iter().chain(&resolved.query).cloned();
        let redactor = Redactor::new(hidden);
        Self {
            name,
            toolset,
            resolved,
            redactor,
            status: watch::Sender::new(status),
            wanted: Notify::new(),
            stop,
            tasks,
            initialize_first: AtomicBool::new(false),
            why_closed: OnceLock::new(),
        }
    }

    /// What is said of the connection, as anybody may read it: without secrets, and without what the URL's query
    /// holds, which errors of the HTTP client repeat.
    pub(super) fn told(&self, text: &str) -> String {
        self.redactor.text(text)
    }

    /// Why it was stopped.
    pub(super) fn why_closed(&self) -> &'static str {
        self.why_closed.get().copied().unwrap_or("the gateway is stopping")
    }
}

/// Runs until [`Link::stop`]; then closes the connection.
pub(super) async fn run(link: Arc<Link>) {
    let mut failures = 0;
    loop {
        let attempt = Stopwatch::start();
        let outcome = tokio::select! {
            outcome = connect(&link) => outcome,
            () = link.stop.cancelled() => return,
        };
        match outcome {
            Ok(connection) => {
                let lived = Stopwatch::start();
                connected(&link, &connection);
                let stopped = attend(&link, &connection).await;
                let reason = link.told(connection.wire.reason());
                drop(connection);
                lost(&link, reason, stopped);
                if stopped {
                    return;
                }
                failures = if lived.elapsed() < STABLE_AFTER { failures + 1 } else { 1 };
            }
            Err(error) => {
                failures += 1;
                failed(&link, &error, failures);
            }
        }
        let delay = BACKOFF.delay(failures, rand::random()).max(MIN_GAP);
        let pause = async {
            tokio::time::sleep(MIN_GAP.saturating_sub(attempt.elapsed())).await;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = link.wanted.notified() => {}
            }
        };
        tokio::select! {
            () = pause => {}
            () = link.stop.cancelled() => return,
        }
    }
}

/// Keeps the list of tools fresh until the connection ends; whether we are to stop.
async fn attend(link: &Link, connection: &Connection) -> bool {
    let ended = async {
        tokio::select! {
            () = link.stop.cancelled() => true,
            () = connection.wire.retired().cancelled() => false,
        }
    };
    tokio::select! {
        stopped = ended => stopped,
        () = keep_fresh(link, connection) => unreachable!("it has no end"),
    }
}

async fn keep_fresh(link: &Link, connection: &Connection) {
    let mut in_vain = 0;
    loop {
        connection.tools_changed().await;
        in_vain = if reread(link, connection).await { 0 } else { in_vain + 1 };
        // What changes meanwhile is remembered by the connection.
        tokio::time::sleep(list_gap(in_vain)).await;
    }
}

/// How long the list is not read again, after so many readings in a row that found nothing new.
fn list_gap(in_vain: u32) -> Duration {
    LIST_GAP * (1 << in_vain.min(LIST_DOUBLINGS))
}

/// Reads the list of tools again; whether it is another than before.
async fn reread(link: &Link, connection: &Connection) -> bool {
    let within = Duration::from_millis(link.toolset.connect_timeout_ms);
    match tokio::time::timeout(within, connection.refresh()).await {
        Ok(Ok(())) => {
            let now = connection.tools();
            // What callers looked up is news to those who watch.
            let known = link.status.borrow().tools.clone();
            let hashes =
                |tools: &Tools| tools.iter().map(|tool| tool.hash.clone()).collect::<Vec<_>>();
            let is_new = known.is_none_or(|known| hashes(&known) != hashes(&now));
            if is_new {
                link.status.send_modify(|status| status.tools = Some(now));
            }
            return is_new;
        }
        Ok(Err(error)) => tracing::warn!(
            mcp.toolset = %link.name, error = %link.told(&chain(&error).to_string()),
            "Keeping the old list of tools of {}", link.name
        ),
        Err(_) => tracing::warn!(
            mcp.toolset = %link.name,
            "Keeping the old list of tools of {}: no answer", link.name
        ),
    }
    false
}

fn connected(link: &Link, connection: &Arc<Connection>) {
    let (server, tools) = (&connection.server, connection.tools());
    tracing::info!(
        mcp.toolset = %link.name, mcp.protocol = %server.protocol, mcp.tools = tools.len(),
        "Connected to toolset {} ({} {})", link.name, server.name, server.version
    );
    link.status.send_modify(|status| {
        status.attempt += 1;
        status.connection = Some(Arc::clone(connection));
        status.error = None;
        status.since = utc_now();
        status.tools = Some(tools);
    });
}

fn lost(link: &Link, reason: String, stopped: bool) {
    if !stopped {
        tracing::warn!(mcp.toolset = %link.name, "Lost toolset {}: {reason}", link.name);
    }
    link.status.send_modify(|status| {
        status.connection = None;
        status.error = Some(if stopped { link.why_closed().to_owned() } else { reason });
        status.since = utc_now();
    });
}

fn failed(link: &Link, error: &Error, failures: u32) {
    let text = link.told(&chain(error).to_string());
    // Once per outage; a desktop that is switched off is no news every 30 seconds.
    let never = link.status.borrow().tools.is_none();
    if failures == 1 && never {
        // Nothing is lost yet; whoever starts the gateway shows where each toolset stands.
        tracing::debug!(mcp.toolset = %link.name, error = %text, "Toolset {} is not there", link.name);
    } else if failures == 1 {
        tracing::warn!(mcp.toolset = %link.name, error = %text, "Cannot reach toolset {}", link.name);
    } else {
        tracing::debug!(mcp.toolset = %link.name, error = %text, failures, "Still cannot reach it");
    }
    link.status.send_modify(|status| {
        status.attempt += 1;
        if status.error.is_none() {
            status.since = utc_now();
        }
        status.error = Some(text);
    });
}

/// Connects by the way that the toolset names, within its `connect_timeout_ms` in all.
async fn connect(link: &Link) -> Result<Arc<Connection>, Error> {
    let within = Duration::from_millis(link.toolset.connect_timeout_ms);
    if link.initialize_first.load(Ordering::Relaxed) {
        let outcome = open(link, Lifecycle::Initialize, within).await;
        // Another server may be there now.
        link.initialize_first.store(outcome.is_ok(), Ordering::Relaxed);
        return outcome;
    }
    // Most servers answer the probe at once, those that do not know it with an error. Some say
    // nothing or hang up; for these some time is kept.
    match open(link, Lifecycle::Probe, within * 3 / 5).await {
        Ok(connection) => {
            link.initialize_first.store(connection.is_legacy(), Ordering::Relaxed);
            Ok(connection)
        }
        Err(error) if error.of_handshake() => {
            match open(link, Lifecycle::Initialize, within * 2 / 5).await {
                Ok(connection) => {
                    link.initialize_first.store(true, Ordering::Relaxed);
                    Ok(connection)
                }
                Err(second) if second.of_handshake() => Err(error),
                Err(second) => Err(second),
            }
        }
        Err(error) => Err(error),
    }
}

async fn open(
    link: &Link,
    lifecycle: Lifecycle,
    within: Duration,
) -> Result<Arc<Connection>, Error> {
    let (toolset, resolved, wire) = (&link.toolset, &link.resolved, Arc::new(Wire::default()));
    let clock = Stopwatch::start();
    let limit = toolset.max_frame_bytes;
    let (tasks, shared) = (&link.tasks, Arc::clone(&wire));
    let left = |clock: Stopwatch| within.saturating_sub(clock.elapsed());
    let tls = match &toolset.tls {
        Some(tls) => Some(tls::config(tls).map_err(|error| Error::Connect(error.into()))?),
        None => None,
    };
    match (toolset.transport(), &toolset.url) {
        (Transport::WebSocket, Some(url)) => {
            let connecting = websocket::connect(url, &resolved.headers, tls, limit, shared, tasks);
            let transport = tokio::time::timeout(within, connecting)
                .await
                .map_err(|elapsed| Error::Connect(elapsed.into()))?
                .map_err(|error| Error::Connect(error))?;
            Connection::establish(transport, lifecycle, wire, left(clock), tasks).await
        }
        (Transport::Http, Some(url)) => {
            let most = toolset.max_in_flight;
            let transport = http::transport(url, &resolved.headers, tls, limit, most, shared)
                .map_err(Error::Connect)?;
            Connection::establish(transport, lifecycle, wire, left(clock), tasks).await
        }
        _ => {
            let program = stdio::Program {
                name: &link.name,
                command: toolset.command.as_deref().unwrap_or_default(),
                args: &toolset.args,
                env: &resolved.env,
                secrets: &resolved.secrets,
                cwd: toolset.cwd.as_deref(),
                limit,
            };
            let transport = stdio::start(program, shared, tasks)
                .map_err(|error| Error::Connect(error.into()))?;
            Connection::establish(transport, lifecycle, wire, left(clock), tasks).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_ever_less_often_while_nothing_in_it_changes() {
        let gaps = [0, 1, 2, 6, 7, u32::MAX].map(|in_vain| list_gap(in_vain).as_millis());
        assert_eq!(gaps, [500, 1000, 2000, 32_000, 32_000, 32_000]);
    }
}
