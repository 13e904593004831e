//! Where it is measured: a server, and on it databases that are made for the run and go with it.
//!
//! The server is named, or started for the run. Of a named one nothing is touched but databases called
//! `cogo_bench_<random>_<n>`. Roles belong to a whole server, and the migrations need some: those that were not there
//! before are dropped at the end as well.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::db::embedded::{self, Embedded};
use cogo::shutdown::Tasks;
use rand::RngExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::bench::database::Database;
use crate::bench::server::{self, Server};
use crate::connect;
use crate::exit::Failed;
use crate::migrate::migrate;
use crate::output::note;

/// How all databases of all runs begin.
pub(super) const PREFIX: &str = "cogo_bench_";
/// How long what a scenario started may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Connections for sixteen workers, for a hub and for us.
const CONNECTIONS: &str = "250";

/// A server, and what was made on it.
#[derive(Debug)]
pub(crate) struct Place {
    embedded: Option<Embedded>,
    dir: PathBuf,
    /// The database that was named, from which others are made.
    admin: PgConnectOptions,
    name: String,
    made: AtomicU32,
    /// Those roles of this server's that the migrations would make.
    roles: Vec<String>,
    /// What runs for the scenario that is under way, and the databases that it has.
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    tasks: Tasks,
    databases: Vec<Database>,
}

impl Place {
    /// On the server that was named, or on one that is started here; with a database of the bus's schema, from which the
    /// others are copied.
    pub(super) async fn open(
        named: Option<PgConnectOptions>,
        settings: Vec<(String, String)>,
    ) -> Result<Self> {
        let dir = make_dir()?;
        let (embedded, admin) = match named {
            Some(named) => (None, named),
            None => {
                note("Starting a Postgres for the run");
                let mut options = embedded::Options::new(dir.join("postgres"));
                options.settings = vec![("max_connections".to_owned(), CONNECTIONS.to_owned())];
                options.settings.extend(settings);
                let started = Embedded::start(options).await;
                if started.is_err() {
                    let _what_is_left_is_small = std::fs::remove_dir_all(&dir);
                }
                let embedded = started?;
                let connect = embedded.connect_options();
                (Some(embedded), connect)
            }
        };
        let random: u32 = rand::rng().random();
        let mut place = Self {
            embedded,
            dir,
            admin,
            name: format!("{PREFIX}{random:08x}"),
            made: AtomicU32::new(0),
            roles: Vec::new(),
            under_way: Mutex::default(),
        };
        match place.prepare().await {
            Ok(()) => Ok(place),
            Err(error) => {
                let _what_went_wrong_first_matters = place.close().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self) -> Result<()> {
        connect::reachable(&self.admin).await?;
        let mut admin = self.admin().await?;
        server::check_rights(&mut admin, &connect::name(&self.admin)).await?;
        self.roles = server::missing_roles(&mut admin).await?;
        let like = format!("{}%", PREFIX.replace('_', "\\_"));
        let rows = sqlx::query("select datname::text from pg_database where datname like $1")
            .bind(like)
            .fetch_all(&mut admin)
            .await?;
        for row in rows {
            let name: String = row.get(0);
            note(&format!(
                "The database {name} is there already: of another run, or left behind by one that was killed. If \
                 nobody uses it: drop database {name} with (force)"
            ));
        }
        let template = self.template();
        // The name is ours: letters, digits and underscores.
        let create = format!("create database {template}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await?;
        migrate(&self.admin.clone().database(&template)).await?;
        Ok(())
    }

    /// How the databases of this run begin.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn template(&self) -> String {
        format!("{}_template", self.name)
    }

    async fn admin(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.admin).await;
        connecting.with_context(|| connect::name(&self.admin))
    }

    /// What the server is, as far as it matters.
    pub(super) async fn look(&self) -> Result<Server> {
        let mut admin = self.admin().await?;
        Server::look(&mut admin, &self.admin, (self.name(), self.embedded.is_some())).await
    }

    /// A new database, empty but for the bus's schema.
    pub(super) async fn database(&self) -> Result<Database> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}_{number}", self.name);
        let create = format!("create database {name} template {}", self.template());
        let (admin, tasks) = (self.admin.clone(), self.under_way().tasks.clone());
        // A task of its own: the server goes on with it when nobody waits any more, and who cleans up waits for tasks.
        let creating = tasks.spawn(async move { copy(&admin, &create).await });
        creating.await.context("a task broke down")??;
        let mut under_way = self.under_way();
        let connect = self.admin.clone().database(&name);
        let database = Database::new(connect, name, under_way.tasks.clone());
        under_way.databases.push(database.clone());
        Ok(database)
    }

    /// Drops a database, whoever is still connected.
    pub(super) async fn drop_database(&self, database: Database) -> Result<()> {
        database.close().await;
        self.under_way().databases.retain(|other| other.name() != database.name());
        let mut admin = self.admin().await?;
        drop_by_name(&mut admin, database.name()).await
    }

    /// A directory for a process, within one that goes at the end.
    pub(super) fn dir(&self, name: &str) -> Result<PathBuf> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("{name}-{number}"));
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what a scenario has left to run, and drops its databases.
    pub(super) async fn clear(&self) {
        // Whoever waited for them is gone, and with it they are cut off.
        let UnderWay { tasks, databases } = std::mem::take(&mut *self.under_way());
        // What they started in turn goes when their connections do.
        futures_util::future::join_all(databases.iter().map(Database::close)).await;
        if !tasks.join(END_WITHIN).await {
            tracing::warn!("{} tasks of a scenario are still running", tasks.len());
        }
        if let Err(error) = self.drop_all(false).await {
            note(&format!("warning: databases {}_* are still there: {error:#}", self.name));
        }
    }

    async fn drop_all(&self, template: bool) -> Result<()> {
        let mut admin = self.admin().await?;
        let like = format!("{}\\_%", self.name.replace('_', "\\_"));
        let rows = sqlx::query("select datname::text from pg_database where datname like $1")
            .bind(like)
            .fetch_all(&mut admin)
            .await?;
        for row in rows {
            let name: String = row.get(0);
            if template || name != self.template() {
                drop_by_name(&mut admin, &name).await?;
            }
        }
        Ok(())
    }

    /// Drops all that was made, and ends the server where it was started here.
    pub(super) async fn close(self) -> Result<()> {
        self.clear().await;
        let mut left = Ok(());
        match self.embedded {
            // It goes as a whole.
            Some(embedded) => embedded.stop().await?,
            None => {
                left = self.drop_all(true).await;
                if !self.roles.is_empty()
                    && let Ok(mut admin) = self.admin().await
                {
                    // All or none: where another database has come to use one of them meanwhile, this is refused, and
                    // those stay as well that nothing but a membership shows to be in use.
                    let drop = format!("drop role if exists {}", self.roles.join(", "));
                    let _have_to_stay = sqlx::query(AssertSqlSafe(drop)).execute(&mut admin).await;
                }
            }
        }
        remove(&self.dir)?;
        left.with_context(|| format!("databases {}_* are left behind", self.name))
    }
}

/// Makes a database from another.
async fn copy(admin: &PgConnectOptions, create: &str) -> Result<()> {
    let mut admin = PgConnection::connect_with(admin).await?;
    let mut tried = 0;
    // A worker of autovacuum may be looking at the template just now.
    while let Err(error) = sqlx::query(AssertSqlSafe(create.to_owned())).execute(&mut admin).await {
        let in_use = error.as_database_error().and_then(|e| e.code()).is_some_and(|c| c == "55006");
        tried += 1;
        if !in_use || tried > 50 {
            return Err(error).context("making a database");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Drops a database by a name that is ours.
async fn drop_by_name(admin: &mut PgConnection, name: &str) -> Result<()> {
    if !name.starts_with(PREFIX) {
        return Err(Failed::usage(format!("{name}: is no database of a benchmark")).into());
    }
    let drop = format!("drop database if exists {name} with (force)");
    let mut dropped = Ok(());
    // Whoever was cut off may be dropping it at this moment.
    for _ in 0..3 {
        dropped = sqlx::query(AssertSqlSafe(drop.clone())).execute(&mut *admin).await.map(|_| ());
        if dropped.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    dropped.with_context(|| format!("dropping {name}"))
}

/// A new directory. The name is short, for a database's socket lies in it.
fn make_dir() -> Result<PathBuf> {
    let random: u32 = rand::rng().random();
    let path = std::env::temp_dir().join(format!("cogo-bench-{random:08x}"));
    let mut builder = std::fs::DirBuilder::new();
    // Entered, though not read, by the database's user where we are root.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o711);
    builder.create(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn remove(dir: &Path) -> Result<()> {
    let mut removed = std::fs::remove_dir_all(dir);
    // Who has just ended may have written something meanwhile.
    for _ in 0..20 {
        if removed.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        removed = std::fs::remove_dir_all(dir);
    }
    removed.with_context(|| format!("removing {}", dir.display()))
}
