//! The bus over HTTPS, as the command line names it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use cogo::bus::rest::{self, Key};
use cogo::bus::{Bus, Error};
use cogo::identity::{Claims, Pattern, Role};
use cogo::message::{ALL_TENANTS, DEFAULT_TENANT};
use cogo::net;
use rand::RngExt as _;

use crate::connect::newest_migration;
use crate::exit::{Exit, Failed};
use crate::output::note;

/// How long to wait before asking again whether the hub is there.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Options for the bus over HTTPS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Remote {
    /// The hub or the Supabase project to join over HTTPS, without a database, such as
    /// https://hub.example.com
    #[arg(long, global = true, env = "COGO_URL", value_name = "URL", hide_short_help = true)]
    url: Option<String>,
    /// The key for --url: a token from `cogo token mint`. Better set in the environment or in a file, where
    /// other users of the machine do not see it
    #[arg(
        long,
        global = true,
        env = "COGO_KEY",
        hide_env_values = true,
        value_name = "KEY",
        hide_short_help = true
    )]
    key: Option<String>,
    /// A file that holds the key. It may be replaced while a worker runs
    #[arg(long, global = true, env = "COGO_KEY_FILE", value_name = "FILE", hide_short_help = true)]
    key_file: Option<PathBuf>,
    /// What hosted Supabase wants to see beside the key: the project's publishable or `anon` key, which is
    /// public. A hub needs none
    #[arg(long, global = true, env = "COGO_API_KEY", value_name = "KEY", hide_short_help = true)]
    api_key: Option<String>,
    /// A PEM file of root certificates to trust beside the system's
    #[arg(long, global = true, env = "COGO_CA_FILE", value_name = "FILE", hide_short_help = true)]
    ca_file: Option<PathBuf>,
    #[arg(skip)]
    from: From,
}

/// Which of the options that exclude each other were written out as flags.
#[derive(Debug, Clone, Copy, Default)]
struct From {
    url: bool,
    database_url: bool,
    key: bool,
    key_file: bool,
}

impl Remote {
    /// Notes which options were given as flags: those go over the environment.
    pub(crate) fn look_at(&mut self, matches: &ArgMatches) {
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.from = From {
            url: is_flag("url"),
            database_url: is_flag("database_url"),
            key: is_flag("key"),
            key_file: is_flag("key_file"),
        };
    }

    /// The URL, if the bus is to be reached by it. `database` says whether one is named as well.
    pub(crate) fn wanted(&self, database: bool) -> Result<Option<&str>> {
        let Some(url) = self.url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        match (database, self.from.url, self.from.database_url) {
            (false, ..) | (true, true, false) => Ok(Some(url)),
            (true, false, true) => Ok(None),
            (true, true, true) => {
                let text = "--url and --database-url: only one of them can be used";
                Err(Failed::usage(text).into())
            }
            (true, false, false) => {
                let text = "COGO_URL and DATABASE_URL are both set: only one of them can be used";
                Err(Failed::usage(text).hint("Unset one, or give the other as a flag.").into())
            }
        }
    }

    /// Whether a command that needs a database was asked to do without.
    pub(crate) fn is_flag(&self) -> bool {
        self.from.url
    }

    /// Whether the database was named by a flag, and not by the environment.
    #[cfg(feature = "full")]
    pub(crate) fn is_database_flag(&self) -> bool {
        self.from.database_url
    }

    /// The same ways and certificates, to another bus.
    pub(crate) fn at(&self, url: &str, key: String) -> Self {
        let from = From::default();
        Self { url: Some(url.to_owned()), key: Some(key), key_file: None, from, ..self.clone() }
    }

    fn key(&self) -> Result<Key> {
        let text = self.key.as_deref().filter(|key| !key.is_empty());
        let file = self.key_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        match (text, file) {
            (Some(text), None) => Ok(Key::Text(text.into())),
            (None, Some(file)) => Ok(Key::File(file.clone())),
            (Some(text), Some(_)) if self.from.key && !self.from.key_file => {
                Ok(Key::Text(text.into()))
            }
            (Some(_), Some(file)) if self.from.key_file && !self.from.key => {
                Ok(Key::File(file.clone()))
            }
            (Some(_), Some(_)) => {
                Err(Failed::usage("--key and --key-file: only one of them can be used").into())
            }
            (None, None) => Err(Failed::usage("--url: needs a key")
                .hint("Name a file by --key-file or COGO_KEY_FILE, or set COGO_KEY. `cogo token mint` makes keys.")
                .into()),
        }
    }

    /// How to reach the outside.
    pub(crate) fn net(&self) -> net::Options {
        net::Options { ca_file: self.ca_file.clone(), ..net::Options::default() }
    }

    /// The bus at `url`; nothing is asked there yet.
    fn open(&self, url: &str) -> Result<Bus> {
        if let Some(rest) = url.strip_prefix("http://")
            && !["127.", "localhost", "[::1]"].iter().any(|here| rest.starts_with(here))
        {
            tracing::warn!(
                "--url is http://, so that the key can be read on the way; use https://"
            );
        }
        let net = self.net();
        let api_key = self.api_key.as_deref().filter(|key| !key.is_empty()).map(Into::into);
        Ok(Bus::remote(rest::Options { url: url.to_owned(), key: self.key()?, api_key, net })?)
    }

    /// The bus at `url`, looked at: it is one, takes the key, and has a schema that we know.
    pub(crate) async fn bus(&self, url: &str) -> Result<Bus> {
        let bus = self.open(url)?;
        check(&bus, url).await?;
        Ok(bus)
    }

    /// As [`Remote::bus`], for who has time: waits until the hub answers.
    pub(crate) async fn bus_when_there(&self, url: &str) -> Result<Bus> {
        let bus = self.open(url)?;
        let mut said = false;
        loop {
            match check(&bus, url).await {
                Err(error) if is_transient(&error) => {
                    if !std::mem::replace(&mut said, true) {
                        note(&format!("{error:#}"));
                        note("Trying again until it answers; Ctrl-C gives up.");
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                checked => return checked.map(|()| bus),
            }
        }
    }

    /// What an external role gets in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut variables = Vec::new();
        let mut add = |name, value: Option<std::ffi::OsString>| {
            variables.extend(value.map(|value| (name, value)));
        };
        add("COGO_URL", self.url.clone().map(Into::into));
        match self.key() {
            Ok(Key::Text(key)) => add("COGO_KEY", Some(key.expose().into())),
            Ok(Key::File(file)) => add("COGO_KEY_FILE", Some(file.into())),
            Err(_) => {}
        }
        add("COGO_API_KEY", self.api_key.clone().map(Into::into));
        add("COGO_CA_FILE", self.ca_file.clone().map(Into::into));
        variables
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Error>().is_some_and(Error::is_transient))
}

/// Whether there is a bus that takes the key and has a schema that this program can work with.
async fn check(bus: &Bus, url: &str) -> Result<()> {
    let found = match bus.schema_version().await {
        Ok(found) => found,
        Err(error @ (Error::NotThere { .. } | Error::Unauthorized { .. })) => {
            return Err(Failed::unavailable(format!("{url}: {error}")).into());
        }
        Err(error) => return Err(anyhow::Error::from(error).context(url.to_owned())),
    };
    match found {
        Some(found) if found < newest_migration() => {
            let text =
                format!("{url}: its schema is of {found}, and {} is needed", newest_migration());
            Err(Failed::unavailable(text)
                .hint("Update the hub, or run `cogo migrate` on its database.")
                .into())
        }
        _ => Ok(()),
    }
}

/// Whose work a worker does: what the key is for, which a configured tenant must not contradict.
pub(crate) fn tenant(bus: &Bus, configured: &str) -> Result<String> {
    let of_key = bus.claims().and_then(|claims| claims.tenant);
    match of_key {
        Some(tenant) if configured != tenant && configured != DEFAULT_TENANT => {
            let text =
                format!("tenant: worker.json says {configured:?}, and the key is for {tenant:?}");
            Err(Failed::new(Exit::Unavailable, text)
                .hint("Change the one or get another key.")
                .into())
        }
        Some(tenant) => Ok(tenant),
        None => Ok(configured.to_owned()),
    }
}

/// Who a worker is: as the key says, or else as `otherwise` makes it up.
pub(crate) fn worker_id(bus: &Bus, role: &str, otherwise: impl Fn() -> String) -> String {
    match bus.claims().and_then(|claims| claims.worker) {
        Some(worker) => format!("{worker}.{role}-{:08x}", rand::rng().random::<u32>()),
        None => otherwise(),
    }
}

/// Says where a worker has joined, and what it may do there.
pub(crate) fn greet(bus: &Bus, url: &str, worker: &str, tenant: &str) {
    let whose = match tenant {
        ALL_TENANTS => "all tenants".to_owned(),
        tenant => format!("tenant {tenant}"),
    };
    note(&format!("Joined {url} as {worker}, for {whose}."));
    if let Some(claims) = bus.claims() {
        note(&allows(&claims));
    }
}

fn allows(claims: &Claims) -> String {
    let list = |patterns: &[Pattern]| match patterns {
        [] => "nothing".to_owned(),
        some => some.iter().map(Pattern::to_string).collect::<Vec<_>>().join(", "),
    };
    let what = match claims.role {
        Role::ServiceRole => "may do everything".to_owned(),
        _ => format!("may claim {} and send to {}", list(&claims.topics), list(&claims.send)),
    };
    let until = DateTime::<Utc>::from_timestamp(claims.exp, 0).map_or_else(String::new, |until| {
        format!(", until {}", until.format("%Y-%m-%d %H:%M UTC"))
    });
    format!("Its key {what}{until}.")
}
