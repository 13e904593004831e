//! The steps `database` and `migrate`: a fresh Postgres, and the schema made by `cogo migrate`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::db;
use cogo::db::embedded::{self, Embedded};
use cogo::gate::Failure;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use super::process::{Recipe, last_words};
use super::secrets::Secrets;
use super::work::Work;
use crate::migrate;

/// How long Postgres may take to be gone where nobody waits for it properly.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The server. Dropped, it is gone when the drop returns.
#[derive(Debug)]
pub(super) struct Postgres {
    server: Option<Embedded>,
    pid_file: PathBuf,
    connect: PgConnectOptions,
}

impl Postgres {
    /// Starts a fresh one in the working directory, as `cogo up` does.
    pub(super) async fn start(work: &Work, secrets: &Secrets) -> Result<(Self, String), Failure> {
        let watch = Stopwatch::start();
        let server = Embedded::start(embedded::Options::new(work.path())).await?;
        let connect = server.connect_options();
        let detail = format!("Postgres {}, {} ms", server.version(), watch.elapsed_ms());
        let pid_file = work.path().join("postgres/data/postmaster.pid");
        let this = Self { server: Some(server), pid_file, connect };
        if let Some(password) = password(&this.url()) {
            secrets.know("the database's password", password);
        }
        Ok((this, detail))
    }

    /// How to reach it as its owner.
    pub(super) fn connect(&self) -> &PgConnectOptions {
        &self.connect
    }

    /// The same as a URL, for processes.
    pub(super) fn url(&self) -> String {
        self.connect.to_url_lossy().to_string()
    }

    /// Shuts it down, and waits until it is gone.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        match self.server.take() {
            Some(server) => Ok(server.stop().await?),
            None => Ok(()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        drop(server); // begins a fast shutdown
        let watch = Stopwatch::start();
        while self.pid_file.exists() && watch.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The password of a URL, where there is one: not on a Unix socket, which has its directory's rights.
fn password(url: &str) -> Option<String> {
    let (login, _) = url.strip_prefix("postgres")?.split_once("://")?.1.split_once('@')?;
    login.split_once(':').map(|(_, password)| password.to_owned()).filter(|p| !p.is_empty())
}

/// Makes the schema: a process of its own, as in an installation.
pub(super) async fn migrate(
    recipe: Recipe,
    source: Option<&Path>,
) -> Result<((), String), Failure> {
    let recipe = match source {
        Some(dir) => recipe.args(["--source".as_ref(), dir.as_os_str()]),
        None => recipe,
    };
    let finished = recipe.run().await?;
    let said = last_words(&finished.stderr);
    if finished.is_ok() {
        return Ok(((), said));
    }
    Err(Failure::new(format!("the schema cannot be made: {said}")).remedy(
        "`cogo migrate --source DIR` tries the migrations of a directory on a database of yours.",
    ))
}

/// A directory with the built-in migrations, and one after them that no Postgres takes.
pub(super) fn broken_migrations(work: &Work) -> Result<PathBuf, Failure> {
    let dir = work.dir("migrations")?;
    let mut newest = 0;
    for migration in db::MIGRATOR.iter() {
        std::fs::write(dir.join(migrate::file_name(migration)), migration.sql.as_str())?;
        newest = newest.max(migration.version);
    }
    let mut text = String::from("-- Made by `cogo gate unified --inject broken-migration`.\n");
    let _infallible = writeln!(text, "alter table public.agent_messages add colum broken text;");
    std::fs::write(dir.join(format!("{}_broken.sql", newest + 1)), text)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_found() {
        assert_eq!(
            password("postgres://cogo:se%2Fcret@127.0.0.1:5/cogo"),
            Some("se%2Fcret".into())
        );
        assert_eq!(password("postgresql://cogo@localhost/cogo?host=/tmp"), None);
    }
}
