//! From the command line to the bus: which database, as whom, and whether it can be used.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::bus::Bus;
use cogo::config::Source;
use cogo::db;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Connection as _, error::DatabaseError};

use crate::exit::Failed;
use crate::remote::Remote;

/// How long a command waits for the database at first; a person is waiting.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The database, as postgres://user:password@host:port/name. Better set in the environment, where
    /// other users of the machine do not see the password. Without it, the database of a running
    /// `cogo up` is used.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        hide_short_help = true
    )]
    pub(crate) database_url: Option<String>,
    /// Where `cogo up` keeps its database, token and artifacts
    #[arg(long, global = true, env = "COGO_DATA_DIR", value_name = "DIR", hide_short_help = true)]
    data_dir: Option<PathBuf>,
    /// Where the configuration files are; ./configs if it exists, else built-in defaults
    #[arg(
        long,
        global = true,
        env = "COGO_CONFIG_DIR",
        value_name = "DIR",
        hide_short_help = true
    )]
    config_dir: Option<PathBuf>,
    /// Where artifacts go; by default `artifacts` within the data directory
    #[arg(
        long,
        global = true,
        env = "COGO_ARTIFACTS_DIR",
        value_name = "DIR",
        hide_short_help = true
    )]
    artifacts_dir: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log on stderr, such as `debug` or `cogo=debug,warn`
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", hide_short_help = true)]
    pub(crate) log: Option<String>,
    /// How to log
    #[arg(
        long,
        global = true,
        env = "COGO_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        hide_short_help = true
    )]
    pub(crate) log_format: LogFormat,
    /// The bus over HTTPS.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whose rights a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Those of the login.
    Login,
    /// What workers need.
    Bus,
    /// What hubs need besides.
    Operator,
}

impl Rights {
    fn role(self) -> Option<&'static str> {
        match self {
            Self::Login => None,
            Self::Bus => Some("cogo_bus"),
            Self::Operator => Some("cogo_operator"),
        }
    }
}

impl Global {
    /// Where `cogo up` keeps everything.
    pub(crate) fn data_dir(&self) -> Result<PathBuf> {
        match &self.data_dir {
            Some(dir) => Ok(std::path::absolute(dir)?),
            None => Ok(db::embedded::default_data_dir()?),
        }
    }

    /// Where artifacts go.
    pub(crate) fn artifacts_dir(&self) -> Result<PathBuf> {
        match &self.artifacts_dir {
            Some(dir) => Ok(std::path::absolute(dir)?),
            None => Ok(self.data_dir()?.join("artifacts")),
        }
    }

    /// Where the configuration files are, if anywhere. One that was named must exist.
    pub(crate) fn config_dir(&self) -> Result<Option<PathBuf>> {
        match &self.config_dir {
            Some(dir) if !dir.is_dir() => {
                Err(Failed::usage(format!("--config-dir {}: is no directory", dir.display()))
                    .into())
            }
            Some(dir) => Ok(Some(dir.clone())),
            None => Ok(Some(PathBuf::from("configs")).filter(|dir| dir.is_dir())),
        }
    }

    /// Where configuration is looked for again and again: also where it is yet to be.
    pub(crate) fn watched_config(&self) -> Result<Source> {
        Ok(Source::new(Some(self.config_dir()?.unwrap_or_else(|| PathBuf::from("configs")))))
    }

    /// Where configuration comes from.
    pub(crate) fn config(&self) -> Result<Source> {
        Ok(Source::new(self.config_dir()?))
    }

    /// The URL of the bus over HTTPS, if it is to be reached that way.
    pub(crate) fn url(&self) -> Result<Option<&str>> {
        self.remote.wanted(self.database_url.as_ref().is_some_and(|url| !url.is_empty()))
    }

    /// The database that was named, or that of a running `cogo up`.
    pub(crate) fn database(&self) -> Result<PgConnectOptions> {
        if self.remote.is_flag() {
            return Err(Failed::usage("--url: this command needs a database")
                .hint("Name one by --database-url or DATABASE_URL.")
                .into());
        }
        if let Some(named) = self.named_database()? {
            return Ok(named);
        }
        let data_dir = self.data_dir()?;
        db::embedded::running(&data_dir).ok_or_else(|| {
            let text = format!("no database: `cogo up` is not running in {}", data_dir.display());
            Failed::unavailable(text)
                .hint(
                    "Start it with `cogo up` (or name its --data-dir), or name a database of your \
                     own by --database-url or DATABASE_URL.",
                )
                .into()
        })
    }

    /// The database that was named, if one was.
    pub(crate) fn named_database(&self) -> Result<Option<PgConnectOptions>> {
        let Some(url) = self.database_url.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            // Not repeated, since it may hold a password.
            return Err(Failed::usage("--database-url: must begin with postgres://").into());
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            Failed::usage(format!("--database-url: is no Postgres URL: {error}"))
        })?;
        Ok(Some(options))
    }

    /// Where the bus is, as it may be shown.
    pub(crate) fn place(&self) -> Result<String> {
        match self.url()? {
            Some(url) => Ok(url.to_owned()),
            None => Ok(name(&self.database()?)),
        }
    }

    /// The bus of [`Global::url`] or [`Global::database`], looked at: reachable, and with a schema that we know.
    pub(crate) async fn bus(&self) -> Result<Bus> {
        if let Some(url) = self.url()? {
            return self.remote.bus(url).await;
        }
        let options = self.database()?;
        open(&options, Rights::Login, db::Options::new(options.clone()).max_connections).await
    }
}

/// The bus of a database, looked at: reachable, and with a schema that we know.
pub(crate) async fn open(
    options: &PgConnectOptions,
    rights: Rights,
    max_connections: u32,
) -> Result<Bus> {
    let bus = Bus::new(pool(options, rights, max_connections).await?);
    check_schema(&bus, options).await?;
    Ok(bus)
}

/// A pool with these rights, once the database has been reached with them.
pub(crate) async fn pool(
    options: &PgConnectOptions,
    rights: Rights,
    max_connections: u32,
) -> Result<PgPool> {
    let connect = reach(options, rights).await?;
    Ok(db::Options { max_connections, ..db::Options::new(connect) }.pool())
}

/// Connects once, so that what is wrong shows at once and clearly, and not as a pool's timeout. Gives the
/// options that worked, with as few rights as can be had.
async fn reach(options: &PgConnectOptions, rights: Rights) -> Result<PgConnectOptions> {
    if let Some(role) = rights.role() {
        let limited = options.clone().options([("role", role)]);
        match try_connect(&limited).await {
            Ok(()) => return Ok(limited),
            Err(Unreached::Database(error)) if error.role_refused() => {
                tracing::warn!(
                    "Working with all rights of {:?}, since it cannot act as {role}: {error}. \
                     `grant {role} to` it, and connect directly or through a pooler in session mode",
                    options.get_username()
                );
            }
            Err(Unreached::Database(error)) => return Err(error.explain(options)),
            Err(Unreached::Other(error)) => return Err(error),
        }
    }
    reachable(options).await?;
    Ok(options.clone())
}

/// Connects once, with the rights of the login.
pub(crate) async fn reachable(options: &PgConnectOptions) -> Result<()> {
    match try_connect(options).await {
        Ok(()) => Ok(()),
        Err(Unreached::Database(error)) => Err(error.explain(options)),
        Err(Unreached::Other(error)) => Err(error),
    }
}

enum Unreached {
    Database(Refusal),
    Other(anyhow::Error),
}

/// A server's refusal of a connection.
struct Refusal {
    state: String,
    message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    fn of(error: &dyn DatabaseError) -> Self {
        let state = error.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
        Self { state, message: error.message().to_owned() }
    }

    /// The role is not there (22023), may not be taken (42501), or a pooler does not take options (08P01).
    fn role_refused(&self) -> bool {
        matches!(self.state.as_str(), "22023" | "42501" | "08P01")
    }

    fn explain(self, options: &PgConnectOptions) -> anyhow::Error {
        let failed = Failed::unavailable(format!("{}: {}", name(options), self.message));
        match self.state.as_str() {
            "3D000" => failed.hint("Create the database first, or check the name in the URL."),
            "28P01" | "28000" => failed.hint("Check the user and the password in the URL."),
            "53300" => failed.hint("The server has no connection left; lower max_connections."),
            _ => failed,
        }
        .into()
    }
}

async fn try_connect(options: &PgConnectOptions) -> Result<(), Unreached> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
        Ok(Ok(connection)) => {
            let _only_politeness = connection.close().await;
            Ok(())
        }
        Ok(Err(sqlx::Error::Database(error))) => {
            Err(Unreached::Database(Refusal::of(error.as_ref())))
        }
        Ok(Err(error)) => {
            let failed =
                Failed::unavailable(format!("{}: cannot be reached: {error}", name(options)));
            Err(Unreached::Other(failed.hint("Check that the server runs, and the URL.").into()))
        }
        Err(_) => {
            let within = CONNECT_WITHIN.as_secs();
            let text = format!("{}: did not answer within {within} s", name(options));
            Err(Unreached::Other(Failed::unavailable(text).into()))
        }
    }
}

/// Whether the database has a schema that this program can work with.
async fn check_schema(bus: &Bus, options: &PgConnectOptions) -> Result<()> {
    let ours = newest_migration();
    let found = match bus.schema_version().await {
        Ok(found) => found,
        // A server that is just going down or coming up says that by such an error, too.
        Err(error) if error.is_transient() => return Err(error).context("looking at the schema"),
        Err(cogo::bus::Error::Database { source: sqlx::Error::Database(error), .. }) => {
            let failed = match error.code().as_deref() {
                Some("42883" | "42P01" | "3F000") => {
                    Failed::unavailable(format!("{}: has no COGO schema", name(options)))
                        .hint("Run `cogo migrate` with a login that may create tables.")
                }
                Some("42501") => {
                    let text = format!("{}: {}", name(options), error.message());
                    Failed::unavailable(text).hint(
                        "Ask its owner to `grant cogo_operator to` this login (workers: cogo_bus).",
                    )
                }
                _ => return Err(sqlx::Error::Database(error)).context("looking at the schema"),
            };
            return Err(failed.into());
        }
        Err(error) => return Err(error.into()),
    };
    match found {
        Some(found) if found < ours => {
            let text = format!("{}: its schema is of {found}, and {ours} is needed", name(options));
            Err(Failed::unavailable(text).hint("Run `cogo migrate`.").into())
        }
        // A newer schema lives with older programs (migrations expand before they contract), and none
        // means that it was loaded by other means.
        _ => Ok(()),
    }
}

/// The newest migration that this program knows.
pub(crate) fn newest_migration() -> i64 {
    db::MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// A database as it may be shown: no password, no options.
pub(crate) fn name(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("database {database} at {}", socket.display()),
        None => format!("database {database} at {}:{}", options.get_host(), options.get_port()),
    }
}
