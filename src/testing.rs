//! Support for tests, of this crate and of roles outside it (feature `test-util`).
//!
//! A [`TestDb`] is a database of the test's own, with the schema in it. All tests of a run share one
//! server, which the first of them starts and which is gone soon after the run ends, however it
//! ends. It trades durability for speed, so nothing but tests may use it.
//!
//! A [`RunningRole`] is a role at work on such a database.
//!
//! `COGO_TEST_DATABASE_URL` names a server to use instead; its user must be a superuser.
//! `COGO_PG_BIN` names the directory of the Postgres programs; without it they are searched for.

mod clock;
mod cluster;
#[cfg(all(test, feature = "hub"))]
mod follow;
mod keeper;
mod role;
mod template;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor};
use uuid::Uuid;

pub use role::RunningRole;

use crate::db::embedded;
use crate::error::chain;

/// Why a test has no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `COGO_TEST_DATABASE_URL` is not a Postgres URL.
    #[error("COGO_TEST_DATABASE_URL is not a Postgres URL")]
    Url(#[source] sqlx::Error),
    /// The programs could not be found, or the cluster not be initialised.
    #[error("cannot prepare a Postgres server for tests")]
    Embedded(#[from] embedded::Error),
    /// The server did not start.
    #[error("the Postgres server for tests does not start; its last words:\n{tail}")]
    Server {
        /// The end of its log.
        tail: String,
    },
    /// A file or process operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The migrations do not run.
    #[error("the migrations fail on an empty database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement of the test support fails.
    #[error("cannot {action}")]
    Query {
        /// What was to be done.
        action: &'static str,
        /// What the server or the connection said.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    fn query(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { action, source }
    }
}

/// A database of one test, with the schema in it.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    connect: PgConnectOptions,
    admin: PgConnectOptions,
    pool: PgPool,
}

impl TestDb {
    /// A fresh database.
    ///
    /// # Panics
    /// When there is none to be had, with the reason; see [`TestDb::try_new`].
    pub async fn new() -> Self {
        match Self::try_new().await {
            Ok(db) => db,
            Err(error) => panic!("{}", chain(&error)),
        }
    }

    /// A fresh database.
    ///
    /// # Errors
    /// When no server can be started or reached, or the migrations fail.
    pub async fn try_new() -> Result<Self, Error> {
        let admin = cluster::admin().await?;
        let name = format!("cogo_test_{}", Uuid::now_v7().simple());
        template::clone(&admin, &name).await?;
        let connect = admin.clone().database(&name);
        let pool = PgPoolOptions::new().max_connections(10).connect_lazy_with(connect.clone());
        Ok(Self { name, connect, admin, pool })
    }

    /// A pool of connections to the database, as its superuser.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How to connect to the database, as its superuser.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    /// The database as a URL, for programs under test.
    #[must_use]
    pub fn url(&self) -> String {
        self.connect.to_url_lossy().to_string()
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stops the database's time where it is: `cogo.now()` gives the same from now on.
    ///
    /// # Panics
    /// When `cogo.now()` cannot be replaced.
    pub async fn freeze_time(&self) {
        self.expect(clock::freeze(&self.connect).await);
    }

    /// Puts the database's time forward, frozen or running: what was to happen within `by` is due.
    ///
    /// # Panics
    /// When `cogo.now()` cannot be replaced.
    pub async fn advance(&self, by: Duration) {
        self.expect(clock::advance(&self.connect, by).await);
    }

    /// Ends all connections to the database, and has [`TestDb::pool`] make no new ones until [`TestDb::reconnect`]: as
    /// for whoever uses a server that is started anew.
    ///
    /// # Panics
    /// When the connections cannot be ended.
    pub async fn disconnect(&self) {
        self.pool.set_connect_options(self.connect.clone().socket("/there/is/no/socket"));
        let ended = async {
            let mut connection = self.admin.connect().await?;
            sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
            )
            .bind(&self.name)
            .execute(&mut connection)
            .await?;
            connection.close().await
        };
        self.expect(ended.await.map_err(Error::query("end the connections")));
    }

    /// Lets the pool connect again.
    pub fn reconnect(&self) {
        self.pool.set_connect_options(self.connect.clone());
    }

    fn expect(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            panic!("{} of database {}", chain(&error), self.name);
        }
    }
}

impl Drop for TestDb {
    /// Drops the database, whoever is still connected to it.
    ///
    /// It waits for that, unlike most drops: under nextest the process ends with the test, which
    /// would cut off a thread that nobody waits for, and databases would pile up in memory until the
    /// end of the run. What a crash leaves behind goes with the server.
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), std::mem::take(&mut self.name));
        let (done, finished) = mpsc::channel();
        // A runtime cannot be entered from within another one's thread.
        thread::spawn(move || {
            let _ = done.send(drop_database(&admin, &name));
        });
        // Best effort: a test that passed does not fail because its server is slow to clean up.
        let _ = finished.recv_timeout(Duration::from_secs(5));
    }
}

fn drop_database(admin: &PgConnectOptions, name: &str) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime to drop", name))?;
    runtime.block_on(async {
        let failed = Error::query("drop the database of a test");
        let result = async {
            let mut connection = admin.connect().await?;
            let statement = format!("drop database if exists {name} with (force)");
            connection.execute(sqlx::AssertSqlSafe(statement)).await?;
            connection.close().await
        };
        result.await.map_err(failed)
    })
}
