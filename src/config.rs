//! The files of `configs/`: defaults, then the file, then `COGO_*`, then flags.
//!
//! A missing file means defaults; a bad one is an error that names the file, the line, the field and the
//! rule. Secrets have no place here: they come from the environment alone.
//!
//! | file | what | variables |
//! |---|---|---|
//! | `retry_policy.json` | [`retry::Policies`]: what is tried again | none: its keys are not fixed |
//! | `circuit_breaker.json` | [`breaker::Policies`]: when a sick target is left alone | none, likewise |
//! | `worker.json` | [`Worker`]: how workers run | `COGO_WORKER_<FIELD>`, such as `COGO_WORKER_CONCURRENCY` |
//! | `limits.json` | [`Limits`]: how much may wait, and the tenants' shares | none: its keys are not fixed |
//! | `hub.json` | `hub::Options` (feature `hub`) | `COGO_HUB_<FIELD>`, such as `COGO_HUB_WAIT_MAX_S`; `REQUIRE_ADMIN_FOR_NON_GET` |
//! | `route_policies.json` | `hub::Policies` (feature `hub`): who may call which route | none: it is a list |
//!
//! [`Reload`] reads files again while the process runs.
//!
//! Fields within fields are set by their outer field, as JSON: `COGO_HUB_RETENTION='{"done_hours": 48}'`.

mod diff;
mod locate;
mod reload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::breaker;
use crate::bus::Limits;
#[cfg(feature = "hub")]
use crate::hub;
use crate::message::ALL_TENANTS;
#[cfg(any(feature = "hub", feature = "remote"))]
use crate::options;
use crate::retry;
use crate::worker::Prefetch;

pub use crate::policy::Invalid;
pub use reload::{Reload, Reloaded};

/// A file of `configs/`.
pub trait File: Default + Serialize + DeserializeOwned + JsonSchema {
    /// The file's name.
    const NAME: &'static str;
    /// What the environment variables that override fields begin with, if any do.
    const VARIABLES: Option<&'static str>;
    /// Variables of other names, and the fields that they set.
    const OTHER_VARIABLES: &'static [(&'static str, &'static str)] = &[];

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    fn validate(&self) -> Result<(), Invalid>;
}

#[cfg(any(feature = "hub", feature = "remote"))]
impl From<options::InvalidOptions> for Invalid {
    fn from(options::InvalidOptions { field, rule }: options::InvalidOptions) -> Self {
        Self { field, rule }
    }
}

#[cfg(any(feature = "hub", feature = "remote"))]
impl File for options::Options {
    const NAME: &'static str = "hub.json";
    const VARIABLES: Option<&'static str> = Some("COGO_HUB_");
    const OTHER_VARIABLES: &'static [(&'static str, &'static str)] =
        &[("REQUIRE_ADMIN_FOR_NON_GET", "require_admin_for_non_get")];

    fn validate(&self) -> Result<(), Invalid> {
        Ok(Self::validate(self)?)
    }
}

#[cfg(feature = "hub")]
impl File for hub::Policies {
    const NAME: &'static str = "route_policies.json";
    const VARIABLES: Option<&'static str> = None;

    fn validate(&self) -> Result<(), Invalid> {
        Self::validate(self)
    }
}

impl File for retry::Policies {
    const NAME: &'static str = "retry_policy.json";
    const VARIABLES: Option<&'static str> = None;

    fn validate(&self) -> Result<(), Invalid> {
        Self::validate(self)
    }
}

impl File for breaker::Policies {
    const NAME: &'static str = "circuit_breaker.json";
    const VARIABLES: Option<&'static str> = None;

    fn validate(&self) -> Result<(), Invalid> {
        Self::validate(self)
    }
}

impl File for Limits {
    const NAME: &'static str = "limits.json";
    const VARIABLES: Option<&'static str> = None;

    fn validate(&self) -> Result<(), Invalid> {
        Self::validate(self)
    }
}

/// `configs/worker.json`: how workers run, whatever their role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Whose messages it handles; `*` for those of all tenants, each of which gets its fair share of the
    /// places (see `limits.json` for weights).
    pub tenant: String,
    /// How many messages one worker handles at once; from 1 to 1024.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: usize,
    /// How many claimed messages may wait in the worker until one of these is done: `auto`, or from 0 to 1000.
    /// `auto` means as many as it begins within a tenth of a second at the pace that it has, at most 2000, and
    /// none where handlers take that long, so that other workers get them.
    pub prefetch: Prefetch,
    /// How long a claim is held without being extended, in milliseconds; from 1000 to 3600000 (an
    /// hour). After a crash a message waits that long before another worker gets it.
    #[schemars(range(min = 1000, max = 3_600_000))]
    pub lease_ms: u64,
    /// How long running handlers may take to finish when the worker stops, in milliseconds; at most
    /// 3600000 (an hour). What has not finished by then is put back.
    #[schemars(range(max = 3_600_000))]
    pub drain_ms: u64,
    /// The most database connections that one process holds; from 3 to 1000. A worker needs one for
    /// claims and settles, one for leases and one to listen.
    #[schemars(range(min = 3, max = 1000))]
    pub max_connections: u32,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            schema: None,
            tenant: crate::message::DEFAULT_TENANT.to_owned(),
            // Calls mostly wait for somebody else; sixteen keep two cores far from busy.
            concurrency: 16,
            prefetch: Prefetch::Auto,
            lease_ms: 30_000,
            // Under the 30 s that container platforms give between SIGTERM and SIGKILL.
            drain_ms: 20_000,
            max_connections: 10,
        }
    }
}

impl Worker {
    /// How long a claim is held without being extended.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How long running handlers may take to finish when the worker stops.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

impl File for Worker {
    const NAME: &'static str = "worker.json";
    const VARIABLES: Option<&'static str> = Some("COGO_WORKER_");

    fn validate(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, rule: &str| Err(Invalid::new(field, rule));
        if self.tenant != ALL_TENANTS && !crate::message::valid_name(&self.tenant) {
            return refuse("tenant", &format!("must be `*` or {}", crate::message::NAME_RULE));
        }
        if !(1..=1024).contains(&self.concurrency) {
            return refuse("concurrency", "must be from 1 to 1024");
        }
        if !(1000..=3_600_000).contains(&self.lease_ms) {
            return refuse("lease_ms", "must be from 1000 to 3600000 (an hour)");
        }
        if self.drain_ms > 3_600_000 {
            return refuse("drain_ms", "must be at most 3600000 (an hour)");
        }
        if !(3..=1000).contains(&self.max_connections) {
            return refuse("max_connections", "must be from 3 to 1000");
        }
        Ok(())
    }
}

/// Where configuration comes from: a directory, if there is one, and the environment.
#[derive(Debug, Clone)]
pub struct Source {
    dir: Option<PathBuf>,
    variables: Vec<(String, String)>,
}

impl Source {
    /// Files of `dir`, and the variables of this process.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::with_variables(dir, std::env::vars_os().filter_map(text))
    }

    /// Files of `dir`, and these variables.
    pub fn with_variables(
        dir: Option<PathBuf>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        // No value of another variable is kept: some are other programs' secrets.
        let ours = |name: &str| name.starts_with("COGO_") || name == "REQUIRE_ADMIN_FOR_NON_GET";
        let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| ours(name)).collect();
        variables.sort(); // so that of several errors always the same one is told
        Self { dir, variables }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether the file is there.
    #[must_use]
    pub fn has<T: File>(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.join(T::NAME).exists())
    }

    /// Loads one file: its fields, those of the environment over them, and the defaults under them.
    ///
    /// # Errors
    /// When the file cannot be read or breaks a rule, or a variable does.
    pub fn load<T: File>(&self) -> Result<T, Error> {
        let text = self.read::<T>().map_err(|source| self.unreadable::<T>(source))?;
        self.interpret(text.as_deref())
    }

    /// Where the file is, or its bare name.
    fn path<T: File>(&self) -> PathBuf {
        self.dir.as_ref().map_or_else(|| PathBuf::from(T::NAME), |dir| dir.join(T::NAME))
    }

    /// The file's text, if there is one.
    fn read<T: File>(&self) -> io::Result<Option<String>> {
        if self.dir.is_none() {
            return Ok(None);
        }
        match std::fs::read_to_string(self.path::<T>()) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unreadable<T: File>(&self, source: io::Error) -> Error {
        Error::Read { path: self.path::<T>(), source }
    }

    /// What a text, or none, means with the defaults below it and the environment over it.
    fn interpret<T: File>(&self, text: Option<&str>) -> Result<T, Error> {
        let mut loaded = match text {
            Some(text) => self.parse(text)?,
            None => T::default(),
        };
        for (name, value) in &self.variables {
            let ours = T::VARIABLES.and_then(|prefix| name.strip_prefix(prefix));
            let other = T::OTHER_VARIABLES.iter().find(|(other, _)| other == name);
            let Some(field) = ours.or(other.map(|(_, field)| *field)) else { continue };
            loaded = overlay(&loaded, name, &field.to_lowercase(), value)?;
        }
        Ok(loaded)
    }

    fn parse<T: File>(&self, text: &str) -> Result<T, Error> {
        let parsed: T = parse(text).map_err(|error| {
            let inner = error.inner();
            let (line, column) = (inner.line(), inner.column());
            Error::Parse {
                path: self.path::<T>(),
                line,
                column,
                field: field(&error),
                rule: rule(inner),
            }
        })?;
        parsed.validate().map_err(|Invalid { field, rule }| Error::Invalid {
            path: self.path::<T>(),
            line: locate::line_of(text, &field),
            field,
            rule,
        })?;
        Ok(parsed)
    }
}

fn parse<T: DeserializeOwned>(
    text: &str,
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let parsed = T::deserialize(serde_path_to_error::Deserializer::new(&mut reader, &mut track));
    // What follows the value is checked too: half a file pasted twice is no good file.
    parsed
        .and_then(|parsed| reader.end().map(|()| parsed))
        .map_err(|error| serde_path_to_error::Error::new(track.path(), error))
}

/// Puts a variable's value over the field that it names.
fn overlay<T: File>(loaded: &T, name: &str, key: &str, value: &str) -> Result<T, Error> {
    let refuse = |rule: String| Error::Variable { name: name.to_owned(), rule };
    let mut fields = serde_json::to_value(loaded).map_err(|error| refuse(error.to_string()))?;
    // Numbers and booleans read as such; everything else is a string, with or without quotes.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
    let changed: T = T::deserialize(fields).map_err(|error| refuse(rule(&error)))?;
    changed.validate().map_err(|Invalid { rule, .. }| refuse(rule))?;
    Ok(changed)
}

/// The path of a field; empty for the file as a whole.
fn field(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    if path == "." || path.contains('?') { String::new() } else { path }
}

/// What a JSON error says, without the place, which is told apart from it.
fn rule(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is there, but cannot be read.
    #[error("{}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is no JSON, or a field is unknown, missing or of the wrong type.
    #[error("{}:{line}:{column}: {}{rule}", .path.display(), Prefix(.field))]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The path of the field; empty when it is the file as a whole.
        field: String,
        /// What is wrong with it.
        rule: String,
    },
    /// A field breaks a rule.
    #[error("{}:{line}: {}{rule}", .path.display(), Prefix(.field))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line of the field, or of the nearest one around it, from 1.
        line: usize,
        /// The path of the field.
        field: String,
        /// What it must be.
        rule: String,
    },
    /// An environment variable breaks a rule.
    #[error("{name}: {rule}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong with it.
        rule: String,
    },
}

/// `field: `, or nothing.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// The JSON Schemas of all files here, by the file that each lies in below `configs/schema/`.
#[must_use]
pub fn schemas() -> Vec<(String, Schema)> {
    vec![
        schema::<retry::Policies>(),
        schema::<breaker::Policies>(),
        schema::<Worker>(),
        schema::<Limits>(),
        #[cfg(any(feature = "hub", feature = "remote"))]
        schema::<options::Options>(),
        #[cfg(feature = "hub")]
        schema::<hub::Policies>(),
    ]
}

fn schema<T: File>() -> (String, Schema) {
    (schema_file(T::NAME), schema_for!(T))
}

/// Where the schema of a configuration file lies below `configs/schema/`.
#[must_use]
pub fn schema_file(name: &str) -> String {
    format!("{}.schema.json", name.strip_suffix(".json").unwrap_or(name))
}
