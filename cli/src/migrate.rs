//! `cogo migrate`: brings a database's schema up to date.

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::bus::Bus;
use cogo::db;
use serde::Serialize;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;

use crate::connect::{self, Global, newest_migration};
use crate::exit::{Exit, Failed};
use crate::output::{Output, note};

/// The port of Supabase's pooler that gives each transaction another session.
const TRANSACTION_POOLER: u16 = 6543;

/// Bring a database's schema up to date
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo migrate --database-url postgres://owner@db.example.com/cogo
  DATABASE_URL=postgres://… cogo migrate
  DATABASE_URL='postgresql://postgres:…@db.<project>.supabase.co:5432/postgres' cogo migrate --supabase

Running it again changes nothing, and running it twice at once is safe. The login must be one that
may create tables and roles; workers and hubs need much less (`grant cogo_bus to …`, `grant
cogo_operator to …`). `cogo up` does this by itself.

--supabase besides takes what Supabase grants to everybody by default, and lets its Realtime tell of the
tables; what the project does not allow is told line by line. docs/supabase.md has the walk-through.")]
pub(crate) struct Migrate {
    /// Set up a Supabase project, through its direct or session connection string
    #[arg(long)]
    supabase: bool,
}

/// What `migrate --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Migrated {
    /// The schema before, if there was one.
    from: Option<i64>,
    /// The schema now.
    to: Option<i64>,
    /// What a Supabase project did not allow, or lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<Vec<String>>,
}

impl Migrate {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let options = global.database()?;
        let name = connect::name(&options);
        if self.supabase && options.get_port() == TRANSACTION_POOLER {
            return Err(Failed::usage(format!(
                "{name}: port 6543 is Supabase's transaction pooler"
            ))
            .hint(
                "It gives each statement another session, which migrations cannot do with. Take \
                     the direct connection or the session pooler, both at port 5432: in the \
                     dashboard, \"Connect\".",
            )
            .into());
        }
        let mut migrated = migrate(&options).await?;
        if self.supabase {
            migrated.notes = Some(set_up_supabase(&options).await?);
        }
        if output.json {
            output.value(&migrated)?;
        } else {
            let version = migrated.to.unwrap_or_default();
            note(&match migrated.from {
                Some(from) if from == version => format!("{name}: up to date at {version}"),
                Some(from) => format!("{name}: brought from {from} to {version}"),
                None => format!("{name}: schema made, at {version}"),
            });
            for line in migrated.notes.iter().flatten() {
                note(&format!("{name}: {line}"));
            }
        }
        Ok(Exit::Done)
    }
}

/// Brings the schema up to date, as the login's own user.
pub(crate) async fn migrate(options: &PgConnectOptions) -> Result<Migrated> {
    connect::reachable(options).await?;
    // One connection migrates, one reads the version, one listens.
    let pool = db::Options { max_connections: 3, ..db::Options::new(options.clone()) }.pool();
    let bus = Bus::new(pool.clone());
    let from = version(&bus).await;
    let run = db::MIGRATOR.run(&pool).await;
    let name = connect::name(options);
    match run {
        Ok(()) => {}
        // Made by a newer program; old programs live with new schemas.
        Err(MigrateError::VersionMissing(_)) if from.is_some_and(|v| v > newest_migration()) => {}
        Err(MigrateError::VersionMismatch(version)) => {
            let text = format!("{name}: migration {version} was applied in another form");
            let hint = "The database was made by an unreleased version; make a new one.";
            return Err(Failed::new(Exit::Refused, text).hint(hint).into());
        }
        Err(error) => return Err(anyhow::Error::from(error).context(format!("{name}: migrating"))),
    }
    let to = version(&bus).await;
    Ok(Migrated { from, to, notes: None })
}

/// Gives Supabase's roles what they may and takes the rest; what could not be done.
async fn set_up_supabase(options: &PgConnectOptions) -> Result<Vec<String>> {
    let pool = db::Options { max_connections: 1, ..db::Options::new(options.clone()) }.pool();
    let name = connect::name(options);
    let done = db::set_up_supabase(&pool).await;
    let done = done.with_context(|| format!("{name}: setting up for Supabase"))?;
    if done.exposed.is_empty() {
        return Ok(done.notes);
    }
    // Said and failed: whoever has the public key could read or write what is named here.
    let text = format!("{name}: open to the public key: {}", done.exposed.join("; "));
    let hint = "These rights were given by another role than the login. Revoke them as that role, and run this again.";
    Err(Failed::new(Exit::Refused, text).hint(hint).into())
}

/// The schema's version; none where there is no schema.
async fn version(bus: &Bus) -> Option<i64> {
    bus.schema_version().await.ok().flatten()
}
