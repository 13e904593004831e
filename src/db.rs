//! The way to Postgres: pools, migrations, and (feature `embedded-postgres`) a server of our own.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::Executor as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::error::chain;

#[cfg(feature = "embedded-postgres")]
pub mod embedded;

/// The schema, compiled in. Forward-only; see `migrations/README.md`.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| named(sqlx::migrate!()));

/// The migrations of a directory, to be run in place of those that are built in: for whoever writes one.
///
/// # Errors
/// When the directory cannot be read, or a file is not named `<number>_<name>.sql`.
pub async fn migrator_of(dir: &Path) -> Result<Migrator, MigrateError> {
    Migrator::new(dir).await.map(named)
}

fn named(mut migrator: Migrator) -> Migrator {
    // By its full name: the first place where Postgres looks for a bare one is a schema called like the
    // user, and for a user `cogo` there is such a schema once the first migration has run.
    migrator.dangerous_set_table_name("public._sqlx_migrations");
    migrator
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to.
    pub connect: PgConnectOptions,
    /// The most connections that are held at once.
    pub max_connections: u32,
    /// How long to wait for a free connection before giving up.
    pub acquire_timeout: Duration,
}

impl Options {
    /// The defaults for `connect`.
    #[must_use]
    pub fn new(connect: PgConnectOptions) -> Self {
        Self {
            connect: connect.application_name("cogo"),
            // A worker needs one connection for claims and settles, one for leases, one for LISTEN;
            // the rest serves reads. Past ten, Postgres on two cores only queues them itself.
            max_connections: 10,
            // A call is tried four times, so a database that is away is told of within twelve seconds and
            // before the hub's own limit of thirty: as "try again", not as a timeout.
            acquire_timeout: Duration::from_secs(3),
        }
    }

    /// Opens a pool. Connections are made when they are first needed.
    #[must_use]
    pub fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.acquire_timeout)
            // A ping at each acquire would double the round trips; a broken connection shows itself
            // at its next use, and every caller retries.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(async move {
                // Whoever gives up waiting closes the connection, and the server is to notice while it still
                // waits for a lock: a claim that it made afterwards would lie with nobody until its lease has
                // run out, and burn an attempt. Not a startup parameter, since poolers refuse those; and not
                // every platform can.
                let set = "set client_connection_check_interval = '1s'";
                if let Err(error) = connection.execute(set).await {
                    tracing::debug!(error = %chain(&error), "Connections are not checked by the server");
                }
                // No statement of ours runs for long enough to be worth compiling, and the planner thinks
                // otherwise wherever it cannot know how few rows a page takes.
                connection.execute("set jit = off").await?;
                Ok(())
            }))
            .connect_lazy_with(self.connect.clone())
    }
}

/// What came of [`set_up_supabase`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupabaseSetUp {
    /// What the project lacks, or its login may not do, a line each.
    pub notes: Vec<String>,
    /// What is open to those who should have nothing; none, if all is well.
    pub exposed: Vec<String>,
}

/// Gives the roles of a Supabase project what they may, takes from them what Supabase gives by default, and
/// lets its Realtime tell of the bus's tables. To be called by the owner, after the migrations, as often as wanted.
///
/// # Errors
/// When the database does not answer, or the login is not the owner.
pub async fn set_up_supabase(pool: &PgPool) -> sqlx::Result<SupabaseSetUp> {
    let mut transaction = pool.begin().await?;
    let notes = sqlx::query_scalar(
        "select note from cogo.grant_rights() note union all select note from cogo.join_supabase() note",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let exposed =
        sqlx::query_scalar("select * from cogo.exposed()").fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(SupabaseSetUp { notes, exposed })
}
