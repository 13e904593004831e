//! `cogo migrate`: brings a database's schema up to date.

use anyhow::Result;
use clap::Args;
use cogo::bus::Bus;
use cogo::db;
use serde::Serialize;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;

use crate::connect::{self, Global, newest_migration};
use crate::exit::{Exit, Failed};
use crate::output::{Output, note};

/// Bring a database's schema up to date
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo migrate --database-url postgres://owner@db.example.com/cogo
  DATABASE_URL=postgres://… cogo migrate

Running it again changes nothing, and running it twice at once is safe. The login must be one that
may create tables and roles; workers and hubs need much less (`grant cogo_bus to …`, `grant
cogo_operator to …`). `cogo up` does this by itself.")]
pub(crate) struct Migrate {}

/// What `migrate --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Migrated {
    /// The schema before, if there was one.
    from: Option<i64>,
    /// The schema now.
    to: Option<i64>,
}

impl Migrate {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let options = global.database()?;
        let name = connect::name(&options);
        let migrated = migrate(&options).await?;
        if output.json {
            output.value(&migrated)?;
        } else {
            let version = migrated.to.unwrap_or_default();
            note(&match migrated.from {
                Some(from) if from == version => format!("{name}: up to date at {version}"),
                Some(from) => format!("{name}: brought from {from} to {version}"),
                None => format!("{name}: schema made, at {version}"),
            });
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
    Ok(Migrated { from, to })
}

/// The schema's version; none where there is no schema.
async fn version(bus: &Bus) -> Option<i64> {
    bus.schema_version().await.ok().flatten()
}
