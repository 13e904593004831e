//! `cogo migrate`: brings a database's schema up to date.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::bus::Bus;
use cogo::db;
use cogo::error::chain;
use serde::Serialize;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgErrorPosition};

use crate::connect::{self, Global};
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
tables; what the project does not allow is told line by line. docs/supabase.md has the walk-through.

--source is for writing a migration: of one that fails it tells the file, the line and what Postgres says.
Each migration is done as a whole or not at all.")]
pub(crate) struct Migrate {
    /// Set up a Supabase project, through its direct or session connection string
    #[arg(long)]
    supabase: bool,
    /// Run the migrations of this directory in place of those that are built in: for writing one
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
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
        let mut migrated = match &self.source {
            None => migrate(&options).await?,
            Some(dir) => {
                let migrator = db::migrator_of(dir).await.map_err(|error| {
                    Failed::usage(format!("--source {}: {}", dir.display(), chain(&error)))
                        .hint("Files of a directory are called <number>_<name>.sql.")
                })?;
                run(&options, &migrator, dir).await?
            }
        };
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
    run(options, &db::MIGRATOR, Path::new("migrations")).await
}

/// Runs migrations that come from `dir`.
async fn run(options: &PgConnectOptions, migrator: &Migrator, dir: &Path) -> Result<Migrated> {
    connect::reachable(options).await?;
    // One connection migrates, one reads the version, one listens.
    let pool = db::Options { max_connections: 3, ..db::Options::new(options.clone()) }.pool();
    let bus = Bus::new(pool.clone());
    let from = version(&bus).await;
    let run = migrator.run(&pool).await;
    let name = connect::name(options);
    let newest = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    match run {
        Ok(()) => {}
        // Made by a newer program; old programs live with new schemas.
        Err(MigrateError::VersionMissing(_)) if from.is_some_and(|v| v > newest) => {}
        Err(MigrateError::VersionMismatch(version)) => {
            let text = format!("{name}: migration {version} was applied in another form");
            let hint = "The database was made by an unreleased version; make a new one.";
            return Err(Failed::new(Exit::Refused, text).hint(hint).into());
        }
        Err(MigrateError::ExecuteMigration(sqlx::Error::Database(error), version)) => {
            let place = place(migrator, dir, version, error.as_ref());
            let text = format!("{name}: migrating: {place}: {}", error.message());
            let hint = "Nothing of that migration was done; those before it stand.";
            return Err(Failed::new(Exit::Failed, text).hint(hint).into());
        }
        Err(error) => return Err(anyhow::Error::from(error).context(format!("{name}: migrating"))),
    }
    let to = version(&bus).await;
    Ok(Migrated { from, to, notes: None })
}

/// Where a migration went wrong: its file and, where Postgres says it, the line and the column.
fn place(migrator: &Migrator, dir: &Path, version: i64, error: &dyn DatabaseError) -> String {
    let Some(failed) = migrator.iter().find(|migration| migration.version == version) else {
        return format!("migration {version}");
    };
    let file = dir.join(file_name(failed));
    let at = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::position);
    match at {
        Some(PgErrorPosition::Original(at)) => {
            let (line, column) = line_and_column(failed.sql.as_str(), at);
            format!("{}:{line}:{column}", file.display())
        }
        Some(PgErrorPosition::Internal { .. }) | None => file.display().to_string(),
    }
}

/// The name of a migration's file, from which sqlx makes number and description.
pub(crate) fn file_name(migration: &Migration) -> String {
    format!("{}_{}.sql", migration.version, migration.description.replace(' ', "_"))
}

/// Line and column, from 1, of a character, from 1 as Postgres counts.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before: Vec<char> = text.chars().take(at.saturating_sub(1)).collect();
    let line = before.iter().filter(|c| **c == '\n').count() + 1;
    let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
    (line, column)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters_from_one() {
        let text = "ä\nselect 1\n frm";
        assert_eq!(line_and_column(text, 1), (1, 1));
        assert_eq!(line_and_column(text, 3), (2, 1));
        assert_eq!(line_and_column(text, 13), (3, 2));
    }

    #[test]
    fn the_built_in_migrations_have_their_files_names() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        for migration in db::MIGRATOR.iter() {
            let file = dir.join(file_name(migration));
            assert!(file.exists(), "{}", file.display());
        }
    }
}
