//! A Postgres server of the harness' own, that is killed and started again: the product's embedded one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use cogo::db::embedded::{Embedded, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::Mutex;

use crate::process::{self, Signal};

/// The migrated database that those of the runs are copies of.
const TEMPLATE: &str = "chaos_template";
/// Kept small: a run has a hundred messages.
const SETTINGS: &[(&str, &str)] = &[
    ("max_connections", "150"),
    ("shared_buffers", "32MB"),
    ("max_wal_size", "256MB"),
    // In its own directory, which is removed: what lies in /dev/shm outlives a server that was killed.
    ("dynamic_shared_memory_type", "mmap"),
];

/// What a server and the files of a few runs take, with room.
const ROOM_BYTES: u64 = 1 << 30;

/// The server. It lives in memory where there is room: a killed process loses no page of a file.
#[derive(Debug)]
pub(crate) struct Postgres {
    running: Mutex<Option<Embedded>>,
    connect: PgConnectOptions,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Starts a server with the schema in its template.
    pub(crate) async fn start() -> Result<Self> {
        let dir = temp_dir("cogo-chaos-pg-")?;
        let embedded = Embedded::start(options(dir.path())).await?;
        let connect = embedded.connect_options();
        let this = Self { running: Mutex::new(Some(embedded)), connect, dir };
        this.run(&format!("create database {TEMPLATE}")).await?;
        let pool = cogo::db::Options::new(this.database(TEMPLATE)).pool();
        cogo::db::MIGRATOR.run(&pool).await.context("migrating the template")?;
        pool.close().await;
        Ok(this)
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        let dir = self.connect.get_socket().expect("the embedded server listens on a socket");
        dir.join(format!(".s.PGSQL.{}", self.connect.get_port()))
    }

    /// How to reach a database as its owner, by no proxy.
    pub(crate) fn database(&self, name: &str) -> PgConnectOptions {
        self.connect.clone().database(name)
    }

    /// A copy of the template.
    pub(crate) async fn create(&self, name: &str) -> Result<()> {
        self.run(&format!("create database {name} template {TEMPLATE}")).await
    }

    /// Drops a database, whoever is connected to it.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        self.run(&format!("drop database if exists {name} with (force)")).await
    }

    async fn run(&self, statement: &str) -> Result<()> {
        let mut connection = self.connect.connect().await.with_context(|| statement.to_owned())?;
        connection.execute(AssertSqlSafe(statement)).await.with_context(|| statement.to_owned())?;
        Ok(connection.close().await?)
    }

    /// `kill -9`s the server and starts it again after a while.
    pub(crate) async fn kill(&self, down: Duration) -> Result<()> {
        let mut running = self.running.lock().await;
        let embedded = running.take().context("Postgres is not running")?;
        let exited = embedded.exited();
        process::signal(embedded.pid(), Signal::KILL)?;
        exited.await;
        drop(embedded);
        tokio::time::sleep(down).await;
        *running = Some(Embedded::start(options(self.dir.path())).await?);
        Ok(())
    }

    /// `kill -9`s one session of a database; the server ends all others and recovers. Gives its pid.
    pub(crate) async fn kill_session(&self, database: &str) -> Result<Option<i32>> {
        let running = self.running.lock().await;
        // It may still be recovering from the last one.
        let Ok(mut connection) = self.connect.connect().await else { return Ok(None) };
        let found: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where datname = $1 order by random() limit 1",
        )
        .bind(database)
        .fetch_optional(&mut connection)
        .await?;
        // It may have ended since.
        let pid = found.and_then(|pid| u32::try_from(pid).ok());
        let killed = pid.is_some_and(|pid| process::signal(pid, Signal::KILL).is_ok());
        drop(running);
        Ok(found.filter(|_| killed))
    }

    /// Waits until the server answers.
    pub(crate) async fn ready(&self, within: Duration) -> Result<()> {
        let waited = Stopwatch::start();
        let _not_being_restarted = self.running.lock().await;
        loop {
            match self.connect.connect().await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if waited.elapsed() > within => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Stops the server.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.running.into_inner() {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.settings =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    options.stop_deadline = Duration::from_secs(5);
    options
}

/// A directory that the server's user may pass through when we are root; in memory where there is room.
pub(crate) fn temp_dir(prefix: &str) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711));
    let memory = Path::new("/dev/shm");
    // Containers have 64 MB there by default.
    let room = rustix::fs::statvfs(memory)
        .is_ok_and(|at| at.f_bavail.saturating_mul(at.f_frsize) > ROOM_BYTES);
    let made = match room {
        true => builder.tempdir_in(memory).or_else(|_| builder.tempdir()),
        false => builder.tempdir(),
    };
    made.context("making a temporary directory")
}
