//! What the server is: its version, the settings that matter, and whether it keeps what it acknowledges.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::connect;
use crate::exit::Failed;

/// What a figure cannot be read without.
const SETTINGS: [&str; 27] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_sync_method",
    "wal_compression",
    "wal_buffers",
    "max_wal_size",
    "min_wal_size",
    "commit_delay",
    "checkpoint_timeout",
    "checkpoint_completion_target",
    "shared_buffers",
    "work_mem",
    "maintenance_work_mem",
    "effective_cache_size",
    "random_page_cost",
    "huge_pages",
    "max_connections",
    "synchronous_standby_names",
    "jit",
    "autovacuum",
    "autovacuum_naptime",
    "autovacuum_max_workers",
    "autovacuum_vacuum_cost_delay",
    "autovacuum_vacuum_cost_limit",
    "shared_preload_libraries",
];

/// The roles that the migrations make where they are not there.
const ROLES: [&str; 6] =
    ["cogo_bus", "cogo_operator", "cogo_hub", "anon", "authenticated", "service_role"];

/// The server, as the report tells of it.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    version: String,
    /// Where it is; without user and password.
    place: String,
    /// Whether it was started for the run.
    started_for_the_run: bool,
    /// How the databases that were made on it begin.
    databases: String,
    /// Whether what it acknowledges survives a crash of the machine.
    pub(super) durable: bool,
    settings: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

impl Server {
    pub(super) async fn look(
        admin: &mut PgConnection,
        options: &PgConnectOptions,
        (databases, started): (&str, bool),
    ) -> Result<Self> {
        let version = sqlx::query_scalar("select version()").fetch_one(&mut *admin).await?;
        let names: Vec<String> = SETTINGS.iter().map(|name| (*name).to_owned()).collect();
        let rows = sqlx::query(
            "select name, current_setting(name, true) from pg_settings where name = any($1)",
        )
        .bind(names)
        .fetch_all(&mut *admin)
        .await?;
        let settings: BTreeMap<String, String> = rows
            .iter()
            .map(|row| (row.get(0), row.get::<Option<String>, _>(1).unwrap_or_default()))
            .collect();
        let mut warnings = Vec::new();
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            if settings.get(name).is_some_and(|value| value == "off") {
                warnings.push(format!(
                    "NOT DURABLE: {name} is off, so what is acknowledged may be lost. The figures say nothing about a \
                     server that keeps it"
                ));
            }
        }
        let durable = warnings.is_empty();
        Ok(Self {
            version,
            place: connect::name(options),
            started_for_the_run: started,
            databases: databases.to_owned(),
            durable,
            settings,
            warnings,
        })
    }

    /// The version, as the table tells of it.
    pub(super) fn version(&self) -> &str {
        self.version.split(" on ").next().unwrap_or(&self.version)
    }
}

/// Refuses a login that may not make what is needed, and says what to grant.
pub(super) async fn check_rights(admin: &mut PgConnection, server: &str) -> Result<()> {
    let row = sqlx::query(
        "select rolname::text, rolsuper, rolcreatedb, rolcreaterole, pg_is_in_recovery()
        from pg_roles where rolname = current_user",
    )
    .fetch_one(&mut *admin)
    .await?;
    let name: String = row.get(0);
    let (all, databases, roles): (bool, bool, bool) = (row.get(1), row.get(2), row.get(3));
    if row.get(4) {
        let text = format!("{server}: is a standby, which takes no writes");
        return Err(Failed::unavailable(text).hint("Name the primary.").into());
    }
    if !all && !databases {
        let text = format!("{server}: the login {name:?} may not create databases");
        return Err(Failed::unavailable(text)
            .hint(format!("Ask for: alter role {name:?} createdb; or name another login."))
            .into());
    }
    let missing = missing_roles(admin).await?;
    if !all && !roles && !missing.is_empty() {
        let text = format!(
            "{server}: the roles {} are missing, and the login {name:?} may not create them",
            missing.join(", ")
        );
        return Err(Failed::unavailable(text)
            .hint(format!(
                "Ask for: alter role {name:?} createrole; or run `cogo migrate` once with a login that may."
            ))
            .into());
    }
    Ok(())
}

/// Those roles that the migrations would make.
pub(super) async fn missing_roles(admin: &mut PgConnection) -> Result<Vec<String>> {
    let wanted: Vec<String> = ROLES.iter().map(|role| (*role).to_owned()).collect();
    let missing = sqlx::query_scalar(
        "select wanted from unnest($1) wanted where not exists (select from pg_roles where rolname = wanted)",
    )
    .bind(wanted)
    .fetch_all(admin)
    .await?;
    Ok(missing)
}
