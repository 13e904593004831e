//! The Postgres of a run: one cluster, a database for each piece of work.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cogo::clock::Stopwatch;
use cogo::db::embedded::{Embedded, Options};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

/// What a file system in memory says that it is.
const TMPFS: i64 = 0x0102_1994;
/// How long the last sessions of a driver that has ended may stay.
const GONE: Duration = Duration::from_secs(10);

/// A cluster that runs, and goes with this.
pub(crate) struct Cluster {
    server: Embedded,
    admin: PgPool,
    // Dropped last.
    _dir: Option<TempDir>,
}

impl Cluster {
    /// Makes a cluster with the defaults of Postgres, below `data_dir` or in a directory of its own.
    pub(crate) async fn start(data_dir: Option<&Path>) -> Result<Self> {
        let (path, dir) = match data_dir {
            Some(path) => (path.to_owned(), None),
            None => {
                let dir = tempfile::Builder::new().prefix("bench-peers-").tempdir()?;
                // Postgres runs as another user where we are root, and has to get in.
                std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        on_a_disk(&path)?;
        if data_dir.is_some() && std::fs::read_dir(&path)?.next().is_some() {
            bail!(
                "--data-dir {}: must be empty; a cluster that is there may be somebody's",
                path.display()
            );
        }
        let server =
            Embedded::start(Options::new(&path)).await.context("Postgres does not start")?;
        let admin =
            PgPoolOptions::new().max_connections(1).connect_with(server.connect_options()).await?;
        Ok(Self { server, admin, _dir: dir })
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.admin.close().await;
        Ok(self.server.stop().await?)
    }

    /// The address of a database, as each of the clients understands it.
    pub(crate) fn url(&self, database: &str) -> String {
        let options = self.server.connect_options();
        let host =
            options.get_socket().map_or_else(|| PathBuf::from(options.get_host()), Clone::clone);
        let host = host.display().to_string().replace('/', "%2F");
        format!("postgresql://{}@{host}:{}/{database}", options.get_username(), options.get_port(),)
    }

    /// Makes an empty database.
    pub(crate) async fn create(&self, database: &str) -> Result<()> {
        self.run(format!("create database {database}")).await
    }

    /// Makes a database like another one, into which nobody may be connected any more.
    pub(crate) async fn clone_database(&self, database: &str, template: &str) -> Result<()> {
        let since = Stopwatch::start();
        loop {
            match self.run(format!("create database {database} template {template}")).await {
                Err(_) if since.elapsed() < GONE => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                done => return done,
            }
        }
    }

    pub(crate) async fn drop(&self, database: &str) -> Result<()> {
        self.run(format!("drop database if exists {database} with (force)")).await
    }

    /// Leaves nothing to do that belongs to what came before: no vacuum, no checkpoint.
    pub(crate) async fn settle(&self, database: &str) -> Result<()> {
        let mut connection = self.options(database).connect().await?;
        let tables: Option<String> = sqlx::query_scalar(
            "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables
             where schemaname not in ('pg_catalog', 'information_schema')",
        )
        .fetch_one(&mut connection)
        .await?;
        if let Some(tables) = tables {
            sqlx::raw_sql(AssertSqlSafe(format!("vacuum analyze {tables}")))
                .execute(&mut connection)
                .await?;
        }
        sqlx::raw_sql("checkpoint").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// What a query for a number says.
    pub(crate) async fn count(&self, database: &str, sql: &'static str) -> Result<i64> {
        let mut connection = self.options(database).connect().await?;
        let count = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(count)
    }

    /// The version, and the settings that bear on what is measured or are not the defaults.
    pub(crate) async fn settings(&self) -> Result<Value> {
        let version: String = sqlx::query_scalar("select version()").fetch_one(&self.admin).await?;
        let settings: Value = sqlx::query_scalar(
            "select jsonb_object_agg(name, setting || coalesce(unit, '') order by name) from pg_settings
             where source not in ('default', 'override') and name !~ '(_file|_directories|cluster_name)$'
                or name in ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'wal_sync_method',
                    'shared_buffers', 'max_connections', 'max_wal_size', 'checkpoint_timeout', 'autovacuum', 'jit',
                    'work_mem', 'commit_delay')",
        )
        .fetch_one(&self.admin)
        .await?;
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            if settings[name] != "on" {
                bail!(
                    "{name} is {} and not on: what is measured would not be durable",
                    settings[name]
                );
            }
        }
        Ok(json!({"version": version, "settings": settings}))
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        self.server.connect_options().database(database)
    }

    async fn run(&self, sql: String) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&self.admin)
            .await
            .with_context(|| sql)?;
        Ok(())
    }
}

/// A flush to memory costs nothing, and most of what is measured is flushes.
fn on_a_disk(path: &Path) -> Result<()> {
    let kind = rustix::fs::statfs(path)?.f_type;
    if kind == TMPFS {
        bail!("{} lies in memory: give a directory on a disk with --data-dir", path.display());
    }
    Ok(())
}
