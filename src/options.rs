//! How a hub is configured: `hub.json`. Apart from the hub, because a worker reads it too, for where artifacts are
//! kept and for how long, and has no hub to serve.

pub(crate) mod names;
pub(crate) mod network;
mod rates;
pub mod realtime;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact;

pub use rates::{Rate, RateLimit};

/// How a hub is configured; the table in [`crate::hub`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The largest request body in bytes, from 1024 to 64 MiB.
    pub max_body_bytes: usize,
    /// How long what is finished stays.
    pub retention: Retention,
    /// Names by which clients may call the hub, without ports, beside loopback and the address that it
    /// listens on. A page on the web could otherwise reach it by pointing its own name here.
    pub allowed_hosts: Vec<String>,
    /// The longest `?wait=` in seconds, from 1 to 3600.
    pub wait_max_s: u32,
    /// How many requests may wait at once, from 1 to 1900; more are answered 429.
    pub max_waiters: usize,
    /// How long a request that does not wait may take, in seconds, from 1 to 600.
    pub request_timeout_s: u32,
    /// Pages on the web that may call `/rest/v1`, `/realtime/v1` and `/mcp`, as `https://name` or `https://name:port`;
    /// `*` for all. Whoever is no page sends no origin and needs none.
    pub allowed_origins: Vec<String>,
    /// How `/rest/v1` is served.
    pub rest: Rest,
    /// How `/realtime/v1` is served.
    pub realtime: realtime::Options,
    /// How `/api/events/stream` is served.
    pub events: Events,
    /// How `/mcp` is served.
    pub mcp: Mcp,
    /// How artifacts are kept.
    pub artifacts: artifact::Options,
    /// Whether reading needs no token. Unset: only where the hub listens on a loopback address, and not for those for
    /// whom a proxy speaks (`X-Forwarded-For`, `X-Forwarded-Proto`, `Forwarded`).
    pub open_reads: Option<bool>,
    /// Pages on the web that may call everything else as well, as `https://name` or `https://name:port`; `*` is not
    /// taken.
    pub api_origins: Vec<String>,
    /// Whether all clients reach the hub through TLS that a proxy ends, so that browsers are told to use nothing else.
    pub tls_terminated: bool,
    /// How much one address and one key may ask.
    pub rate_limit: RateLimit,
    /// How many connections one address may hold, from 1 to 2000. This machine's own and those of
    /// `rate_limit.trusted_proxies` may hold any number.
    pub max_connections_per_address: usize,
    /// Whether everything but reads needs the admin token, whatever route_policies.json says, but for `/rest/v1`,
    /// `/realtime/v1` and `/mcp`, which keys are for. The variable REQUIRE_ADMIN_FOR_NON_GET says the same.
    pub require_admin_for_non_get: bool,
}

/// How `/api/events/stream` is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// How many streams of events there may be at once, from 1 to 1900; more are answered 429.
    pub max_streams: usize,
}

/// How `/mcp` is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mcp {
    /// The largest request body in bytes, from 1024 to 64 MiB; also the largest frame of a WebSocket.
    pub max_body_bytes: usize,
    /// How many requests of one key may be waited for at once, from 1 to 100000; more are answered 429. Streams on
    /// which a client hears of changes count.
    pub max_calls_per_key: usize,
    /// How many sessions there may be, from 1 to 100000. Clients of MCP 2026-07-28 and later have none.
    pub max_sessions: usize,
    /// How many sessions one key may have, from 1 to 100000.
    pub max_sessions_per_key: usize,
    /// After how long a session that nobody uses ends, in seconds, from 10 to 86400.
    pub session_idle_s: u32,
    /// How many WebSockets there may be, from 1 to 1900, and of one key at most half as many.
    pub max_sockets: usize,
    /// The largest artifact in bytes, from 1024 to 1 GiB: a part of a tool's result that is too large for a message.
    pub max_artifact_bytes: usize,
    /// The most that one tenant's artifacts may come to in bytes, from 1 MiB to 16 TiB.
    pub artifact_tenant_bytes: u64,
}

/// How long what is finished stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Hours that done and cancelled messages stay, from 0 to 87600. Their events stay longer.
    pub done_hours: u32,
    /// Hours that a message with an idempotency key stays when it is done, from 0 to 87600, if that is more than
    /// `done_hours`: for so long at least, the same key gives the same message.
    pub idempotency_hours: u32,
    /// Days that dead letters stay, from 1 to 3650; unset: until someone drops them.
    pub failed_days: Option<u32>,
    /// Days that events stay at least, from 1 to 3650; they go by whole weeks.
    pub log_days: u32,
    /// Days that artifacts stay which no result has led to since, from 1 to 3650. A tool's result that led to one
    /// leads nowhere afterwards.
    pub artifact_days: u32,
}

/// How `/rest/v1` is served, to remote workers and other clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rest {
    /// The largest request body in bytes, from 1024 to 64 MiB.
    pub max_body_bytes: usize,
    /// The largest answer in bytes, from 1024 to 256 MiB.
    pub max_answer_bytes: usize,
    /// How many rows of a table are given at once, from 1 to 100000; further ones with `offset`.
    pub max_rows: u32,
    /// How long the database may take over one request, in milliseconds, from 100 to 600000.
    pub statement_timeout_ms: u32,
    /// How many requests the database works on at once, from 1 to 1000; further ones wait.
    pub max_connections: u32,
}

/// A field of [`Options`] that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct InvalidOptions {
    /// The field.
    pub field: String,
    /// What it must be.
    pub rule: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: None,
            max_body_bytes: 1024 * 1024,
            retention: Retention::default(),
            allowed_hosts: Vec::new(),
            // What proxies commonly allow a silent request.
            wait_max_s: 60,
            // Each is a connection and a few kilobytes; more want the feed itself.
            max_waiters: 1000,
            request_timeout_s: 30,
            allowed_origins: Vec::new(),
            rest: Rest::default(),
            realtime: realtime::Options::default(),
            events: Events::default(),
            mcp: Mcp::default(),
            artifacts: artifact::Options::default(),
            open_reads: None,
            api_origins: Vec::new(),
            tls_terminated: false,
            rate_limit: RateLimit::default(),
            // Of some 2000 in all. Sockets that have become WebSockets do not count.
            max_connections_per_address: 500,
            require_admin_for_non_get: true,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        // Each holds at most two megabytes, and that only for a client that does not take them.
        Self { max_streams: 256 }
    }
}

impl Default for Mcp {
    fn default() -> Self {
        // An argument may be an image, in base64; the bus takes as much of a payload.
        let artifact::Limits { max_bytes, tenant_bytes } = artifact::Limits::default();
        Self {
            max_body_bytes: 4 * 1024 * 1024,
            max_calls_per_key: 1000,
            max_sessions: 10_000, // some 50 KiB each
            max_sessions_per_key: 1000,
            session_idle_s: 1800, // a person's pause; a client whose session has ended opens another
            max_sockets: 1000,
            max_artifact_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            artifact_tenant_bytes: tenant_bytes,
        }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            // A batch of results of the largest size that the bus takes.
            max_body_bytes: 16 * 1024 * 1024,
            // A claim of thirty payloads of the largest size.
            max_answer_bytes: 32 * 1024 * 1024,
            max_rows: 1000,
            // Below the limit for a request, so that what took too long is told as such.
            statement_timeout_ms: 15_000,
            max_connections: 10,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            done_hours: 24,
            idempotency_hours: 24,
            failed_days: None,
            log_days: 35,
            artifact_days: 35,
        }
    }
}

impl Retention {
    /// How long done and cancelled messages stay.
    #[must_use]
    pub fn done_for(&self) -> Duration {
        hours(self.done_hours)
    }

    /// How long they stay that have an idempotency key.
    #[must_use]
    pub fn keyed_for(&self) -> Duration {
        hours(self.done_hours.max(self.idempotency_hours))
    }

    /// How long dead letters stay, unless for ever.
    #[must_use]
    pub fn failed_for(&self) -> Option<Duration> {
        self.failed_days.map(days)
    }

    /// How long artifacts stay.
    #[must_use]
    pub fn artifacts_for(&self) -> Duration {
        days(self.artifact_days)
    }

    /// How long events stay at least.
    #[must_use]
    pub fn log_for(&self) -> Duration {
        days(self.log_days)
    }
}

fn hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 3600)
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

impl Options {
    /// How much may be kept that is too large for a message.
    #[must_use]
    pub fn artifact_limits(&self) -> artifact::Limits {
        artifact::Limits {
            max_bytes: self.mcp.max_artifact_bytes as u64,
            tenant_bytes: self.mcp.artifact_tenant_bytes,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field that breaks its rule, and the rule.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        let Retention { done_hours, idempotency_hours, failed_days, log_days, artifact_days } =
            &self.retention;
        within("max_body_bytes", self.max_body_bytes as u64, 1024, 64 * 1024 * 1024)?;
        within("retention.done_hours", (*done_hours).into(), 0, 87_600)?;
        within("retention.idempotency_hours", (*idempotency_hours).into(), 0, 87_600)?;
        within("retention.failed_days", failed_days.unwrap_or(1).into(), 1, 3650)?;
        within("retention.log_days", (*log_days).into(), 1, 3650)?;
        within("retention.artifact_days", (*artifact_days).into(), 1, 3650)?;
        within("wait_max_s", self.wait_max_s.into(), 1, 3600)?;
        // Below what `serve` accepts in connections, so that waiters cannot shut out everybody else.
        within("max_waiters", self.max_waiters as u64, 1, 1900)?;
        within("request_timeout_s", self.request_timeout_s.into(), 1, 600)?;
        let Rest { max_body_bytes, max_answer_bytes, max_rows, .. } = self.rest;
        within("rest.max_body_bytes", max_body_bytes as u64, 1024, 64 * 1024 * 1024)?;
        within("rest.max_answer_bytes", max_answer_bytes as u64, 1024, 256 * 1024 * 1024)?;
        within("rest.max_rows", max_rows.into(), 1, 100_000)?;
        let Rest { statement_timeout_ms, max_connections, .. } = self.rest;
        within("rest.statement_timeout_ms", statement_timeout_ms.into(), 100, 600_000)?;
        within("rest.max_connections", max_connections.into(), 1, 1000)?;
        within("events.max_streams", self.events.max_streams as u64, 1, 1900)?;
        let mcp = &self.mcp;
        within("mcp.max_body_bytes", mcp.max_body_bytes as u64, 1024, 64 * 1024 * 1024)?;
        within("mcp.max_calls_per_key", mcp.max_calls_per_key as u64, 1, 100_000)?;
        within("mcp.max_sessions", mcp.max_sessions as u64, 1, 100_000)?;
        within("mcp.max_sessions_per_key", mcp.max_sessions_per_key as u64, 1, 100_000)?;
        within("mcp.session_idle_s", mcp.session_idle_s.into(), 10, 86_400)?;
        within("mcp.max_sockets", mcp.max_sockets as u64, 1, 1900)?;
        let Mcp { max_artifact_bytes, artifact_tenant_bytes, .. } = self.mcp;
        within("mcp.max_artifact_bytes", max_artifact_bytes as u64, 1024, 1 << 30)?;
        within("mcp.artifact_tenant_bytes", artifact_tenant_bytes, 1 << 20, 16 << 40)?;
        self.realtime.validate()?;
        self.artifacts.validate().map_err(|broken| InvalidOptions {
            field: broken.field.to_owned(),
            rule: broken.rule.to_owned(),
        })?;
        self.rate_limit.validate()?;
        within("max_connections_per_address", self.max_connections_per_address as u64, 1, 2000)?;
        let all = "`*`, or as `https://name:port` without a path";
        all_origins("allowed_origins", &self.allowed_origins, all, names::is_origin)?;
        let each = "as `https://name:port` without a path; each page must be named here";
        let is_one = |text: &str| text != "*" && names::is_origin(text);
        all_origins("api_origins", &self.api_origins, each, is_one)?;
        for (at, name) in self.allowed_hosts.iter().enumerate() {
            if !names::is_name(name) {
                return Err(InvalidOptions {
                    field: format!("allowed_hosts[{at}]"),
                    rule: format!("{name:?} must be a host name or an address, without a port"),
                });
            }
        }
        Ok(())
    }
}

fn all_origins(
    field: &str,
    origins: &[String],
    rule: &str,
    is_good: impl Fn(&str) -> bool,
) -> Result<(), InvalidOptions> {
    match origins.iter().position(|origin| !is_good(origin)) {
        None => Ok(()),
        Some(at) => Err(InvalidOptions {
            field: format!("{field}[{at}]"),
            rule: format!("{:?} must be {rule}", origins[at]),
        }),
    }
}

pub(crate) fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), InvalidOptions> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let rule = format!("must be from {least} to {most}, not {value}");
    Err(InvalidOptions { field: field.to_owned(), rule })
}

#[cfg(test)]
mod tests;
