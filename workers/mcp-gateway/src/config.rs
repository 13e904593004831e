//! `configs/mcp.json`: which MCP servers there are, and how they are reached.
//!
//! Endpoints come from this file only, never from a message: a gateway that connects where a
//! message says is an SSRF machine. Secrets come from the environment, or from RemoteEnv, only; the file
//! names the variable (`{"from_env": "NAME"}`), so that it can be shown and committed.

pub mod edit;
mod literals;
mod mesh;
#[cfg(feature = "api")]
mod remote;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cogo::config::{File, Invalid};
use cogo::message::{NAME_RULE, valid_name};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::mesh::{Filter, Mesh, Pinning, SEPARATOR, ToolLimits};

/// The file's name within the configuration directory.
pub const FILE: &str = "mcp.json";
/// The toolset that the binary adds by itself; a file cannot define it.
pub const DEMO: &str = "demo";
/// The toolset of the bus itself, which the hub answers; a file cannot define it.
pub const PLATFORM: &str = "cogo";

/// `configs/mcp.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The MCP servers, by the name under which messages address them.
    #[serde(default)]
    pub toolsets: BTreeMap<String, Toolset>,
    /// The tools of all machines as one: what a hub offers of them, and how calls are made.
    #[serde(default)]
    pub mesh: Mesh,
    /// Whether the hub's API (`PUT /api/mcp/toolsets/{name}`) may add servers that are commands. Whoever has the admin
    /// token can then run any program on the hub's machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_commands_by_api: bool,
    /// The environment variables that a server which is added by the API may get: names, or how they begin, followed
    /// by `*`. Those of COGO and of the database it never gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_by_api: Vec<String>,
}

/// One MCP server: either `url`, or `command` with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Toolset {
    /// `ws://` or `wss://` for WebSocket, `http://` or `https://` for streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Headers sent with every request to `url`. All of them come from the environment, because
    /// most of them are credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, FromEnv>,
    /// Whom to trust at a `wss://` or `https://` address in place of those that the system trusts, and who we are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The program of a server that speaks over its standard input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The program's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The program's environment, beside a few variables that are passed on (`PATH`, `HOME`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// The program's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// The toolset that takes this one's calls, as they are, while their circuit breaker is not closed. Without
    /// one they wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Whether the toolset is served.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// How long connecting may take, handshake and list of tools included, in milliseconds; from 1
    /// to 600000.
    #[serde(default = "connect_timeout_ms")]
    #[schemars(range(min = 1, max = 600_000))]
    pub connect_timeout_ms: u64,
    /// A limit on one call, in milliseconds; from 1 to 86400000 (a day). The retry policy's
    /// `timeout_ms` holds as well: the shorter of the two counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub call_timeout_ms: Option<u64>,
    /// How many calls may be in flight at once; further ones wait. From 1 to 1024.
    #[serde(default = "max_in_flight")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: usize,
    /// The longest message that is accepted from the server, in bytes; from 1024 to 268435456.
    #[serde(default = "max_frame_bytes")]
    #[schemars(range(min = 1024, max = 268_435_456))]
    pub max_frame_bytes: usize,
    /// What holds for single tools, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, ToolLimits>,
}

fn enabled() -> bool {
    true
}

fn connect_timeout_ms() -> u64 {
    10_000 // npx may have to load the server from disk first
}

fn max_in_flight() -> usize {
    16 // most servers handle one call at a time; more would only wait on the other side
}

fn max_frame_bytes() -> usize {
    16 << 20 // what tungstenite and most servers take by default; a screenshot needs 1 to 5 MiB
}

/// A secret by reference: the name of the environment variable that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromEnv {
    /// The variable's name.
    pub from_env: String,
}

/// TLS with one server: files in PEM, read at each connection. Relative paths begin at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificates of which one must have signed the server's; no others are trusted.
    pub ca_file: PathBuf,
    /// Our certificate, for servers that want one; goes with `client_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// Its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// The value of an environment variable of a child process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or {\"from_env\": \"NAME\"}")]
pub enum EnvValue {
    /// As it stands; for what is no secret.
    Plain(String),
    /// A secret by reference.
    FromEnv(FromEnv),
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    #[serde(rename = "websocket")]
    /// One JSON-RPC message per text frame; no transport of the specification, but widely served.
    WebSocket,
    /// Streamable HTTP (MCP 2025-03-26 and later, "Transports").
    Http,
    /// A child process's standard input and output (MCP, "Transports", stdio).
    Stdio,
}

impl Default for Toolset {
    fn default() -> Self {
        Self {
            url: None,
            headers: BTreeMap::new(),
            tls: None,
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            fallback: None,
            enabled: enabled(),
            connect_timeout_ms: connect_timeout_ms(),
            call_timeout_ms: None,
            max_in_flight: max_in_flight(),
            max_frame_bytes: max_frame_bytes(),
            tools: BTreeMap::new(),
        }
    }
}

impl Toolset {
    /// A server at `url`, with the defaults for everything else.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// A server that is a child process, with the defaults for everything else.
    #[must_use]
    pub fn command<I: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = I>,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { command: Some(program.into()), args, ..Self::default() }
    }

    /// How the server is reached, by the scheme of its URL.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.url {
            None => Transport::Stdio,
            Some(url) if url.starts_with("ws:") || url.starts_with("wss:") => Transport::WebSocket,
            Some(_) => Transport::Http,
        }
    }

    /// Where the server is, for people: the URL without its query, or the program's name.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match (&self.url, &self.command) {
            (Some(url), _) => url.split('?').next().unwrap_or_default().to_owned(),
            (None, Some(command)) => command.clone(),
            (None, None) => String::new(),
        }
    }

    /// Whether it is the same server, at most reached with other headers or limits.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        (&self.url, &self.command, &self.args, &self.cwd)
            == (&other.url, &other.command, &other.args, &other.cwd)
    }

    /// The names of the variables that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        let of_env = self.env.values().filter_map(|value| match value {
            EnvValue::FromEnv(reference) => Some(reference),
            EnvValue::Plain(_) => None,
        });
        self.headers.values().chain(of_env).map(|reference| reference.from_env.as_str())
    }

    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.url, &self.command) {
            (Some(_), Some(_)) => return Err(("command", "must not stand beside url")),
            (None, None) => return Err(("url", "is required, unless there is a command")),
            (Some(url), None) => self.check_url(url)?,
            (None, Some(command)) if command.is_empty() => {
                return Err(("command", "must name a program"));
            }
            (None, Some(_)) if !self.headers.is_empty() => {
                return Err(("headers", "only go with url; a command takes env"));
            }
            (None, Some(_)) if self.tls.is_some() => {
                return Err(("tls", "only goes with url"));
            }
            (None, Some(_)) => {}
        }
        for name in self.references().chain(self.env.keys().map(String::as_str)) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(("env", "must name environment variables"));
            }
        }
        if !(1..=600_000).contains(&self.connect_timeout_ms) {
            return Err(("connect_timeout_ms", "must be from 1 to 600000"));
        }
        if self.call_timeout_ms.is_some_and(|ms| !(1..=86_400_000).contains(&ms)) {
            return Err(("call_timeout_ms", "must be from 1 to 86400000 (a day)"));
        }
        if !(1..=1024).contains(&self.max_in_flight) {
            return Err(("max_in_flight", "must be from 1 to 1024"));
        }
        if !(1024..=256 << 20).contains(&self.max_frame_bytes) {
            return Err(("max_frame_bytes", "must be from 1024 to 268435456"));
        }
        let most = self.tools.values().filter_map(|tool| tool.max_in_flight);
        if most.into_iter().any(|most| !(1..=1024).contains(&most)) {
            return Err(("tools", "must have a max_in_flight from 1 to 1024"));
        }
        Ok(())
    }

    fn check_url(&self, url: &str) -> Result<(), (&'static str, &'static str)> {
        if !self.args.is_empty() || !self.env.is_empty() || self.cwd.is_some() {
            return Err(("url", "takes no args, env or cwd; those go with command"));
        }
        let parsed = Url::parse(url).map_err(|_| ("url", "must be a URL"))?;
        if !matches!(parsed.scheme(), "ws" | "wss" | "http" | "https") {
            return Err(("url", "must begin with ws://, wss://, http:// or https://"));
        }
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(("url", "must name a host"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(("url", "must hold no credentials; use headers"));
        }
        if parsed.fragment().is_some() {
            return Err(("url", "must have no fragment"));
        }
        if let Some(tls) = &self.tls {
            if !matches!(parsed.scheme(), "wss" | "https") {
                return Err(("tls", "only goes with wss:// and https://"));
            }
            if tls.client_cert.is_some() != tls.client_key.is_some() {
                return Err(("tls", "must have client_cert and client_key, or neither"));
            }
        }
        let header = |name: &String| reqwest::header::HeaderName::try_from(name).is_ok();
        if !self.headers.keys().all(header) {
            return Err(("headers", "must be named as HTTP headers are"));
        }
        Ok(())
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is no JSON, or has an unknown field or a value of the wrong type.
    #[error("{file}: {field}")]
    Parse {
        /// The file, or what stands for it.
        file: String,
        /// The path of the field within the file; `.` is the whole.
        field: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value breaks a rule.
    #[error("{field}: {rule}")]
    Invalid {
        /// The path of the field within the file.
        field: String,
        /// What it must be.
        rule: &'static str,
    },
    /// A variable that the file refers to is not set.
    #[error("{field}: {variable} is not set in the environment of this process{where_else}")]
    MissingSecret {
        /// The path of the field that refers to it.
        field: String,
        /// The variable.
        variable: String,
        /// Where else was looked, and what was found there.
        where_else: String,
    },
    /// A variable that the file refers to is not set, and RemoteEnv was not asked for it yet.
    #[error(
        "{field}: {variable} is not set in the environment of this process, and RemoteEnv was not read yet"
    )]
    SecretNotYet {
        /// The path of the field that refers to it.
        field: String,
        /// The variable.
        variable: String,
    },
}

impl Config {
    /// Reads `mcp.json` in `dir`.
    ///
    /// # Errors
    /// When the file cannot be read, is no JSON, or breaks a rule; the field is named.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a configuration from `text`; `file` is named in errors.
    ///
    /// # Errors
    /// When the text is no JSON or breaks a rule; the field is named.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            Error::Parse { file: file.to_owned(), field, source: error.into_inner() }
        })?;
        json.end().map_err(|source| Error::Parse {
            file: file.to_owned(),
            field: ".".to_owned(),
            source,
        })?;
        parsed.validate()?;
        Ok(parsed)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Error> {
        let of_mesh = |(field, rule)| Error::Invalid { field: format!("mesh.{field}"), rule };
        self.mesh.check().map_err(of_mesh)?;
        for (name, toolset) in &self.toolsets {
            let at = format!("toolsets.{name}");
            if !valid_name(name) {
                return Err(Error::Invalid { field: at, rule: NAME_RULE });
            }
            let reserved = match name.as_str() {
                DEMO => Some("is reserved for the toolset that the binary brings along"),
                PLATFORM => Some("is reserved for the tools of the bus itself; name it otherwise"),
                // Where `a__b__c` begins, nobody could say.
                name if name.contains(SEPARATOR) || name.ends_with('_') => Some(
                    "must hold no __ and not end with _: <toolset>__<tool> is how clients name a tool",
                ),
                _ => None,
            };
            if let Some(rule) = reserved {
                return Err(Error::Invalid { field: at, rule });
            }
            toolset
                .check()
                .map_err(|(field, rule)| Error::Invalid { field: format!("{at}.{field}"), rule })?;
            let refuse = |rule| Err(Error::Invalid { field: format!("{at}.fallback"), rule });
            match &toolset.fallback {
                Some(fallback) if fallback == name => return refuse("must be another toolset"),
                Some(fallback) if !self.toolsets.get(fallback).is_some_and(|t| t.enabled) => {
                    return refuse("must name an enabled toolset of this file");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl File for Config {
    const NAME: &'static str = FILE;
    const VARIABLES: Option<&'static str> = None;

    fn validate(&self) -> Result<(), Invalid> {
        match Self::validate(self) {
            Err(Error::Invalid { field, rule }) => Err(Invalid { field, rule: rule.to_owned() }),
            Err(error) => Err(Invalid { field: String::new(), rule: error.to_string() }),
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
