//! A Postgres server of our own, for a machine that has none running.
//!
//! Everything lives below one data directory:
//!
//! ```text
//! <data dir>/                  ours; holds other things too (tokens, artifacts)
//!   postgres.lock              held for as long as the server runs
//!   postgres/                  the server's, and its user's when we are root
//!     data/                    the cluster
//!     run/                     the socket, unless its path would be too long
//!     server.log               what the server says; rotated at start
//!   postgres-bin/<version>/    downloaded programs (feature `download-postgres`)
//! ```
//!
//! The server listens on a Unix socket in a directory that only its user can enter (on platforms
//! without, on a loopback port with a password). It stops when we stop, and on Linux also when we are
//! killed; elsewhere the next start finds the orphan and stops it first. No durability setting is
//! weakened.
//!
//! `COGO_PG_BIN` names the directory of the Postgres programs; without it they are searched for.

mod account;
mod connect;
#[cfg(feature = "download-postgres")]
mod download;
mod error;
mod find;
mod init;
mod layout;
mod lock;
mod log;
mod parent_death;
mod pid_file;
mod previous;
mod process;
mod server;
mod signal;
mod start;
mod version;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

pub use self::error::Error;
pub use self::layout::default_data_dir;
pub use self::version::Version;
#[cfg(feature = "test-util")]
pub(crate) use self::{
    account::RunAs,
    connect::Endpoint,
    find::Binaries,
    init::{Init, cluster as initialize},
    layout::fnv1a,
    log::Log,
    pid_file::PidFile,
    start::{command, set},
};

use self::layout::Layout;
use self::lock::Lock;
use self::server::Server;
use self::signal::Halt;
use self::start::Start;

/// The superuser of the server, and the owner of [`DATABASE`].
pub const USER: &str = "cogo";
/// The database that is created at the first start.
pub const DATABASE: &str = "cogo";

/// What server to start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where everything is kept; see [`default_data_dir`].
    pub data_dir: PathBuf,
    /// The directory of the Postgres programs. Without it `COGO_PG_BIN` and then the usual places
    /// are searched.
    pub pg_bin: Option<PathBuf>,
    /// Further server settings, such as `shared_buffers`. Those on which the module's promises rest
    /// are refused.
    pub settings: Vec<(String, String)>,
    /// How long the server may take to accept connections. Long, because recovery after a crash
    /// takes what it takes and starts anew when it is cut off.
    pub start_deadline: Duration,
    /// How long a fast shutdown may take before it becomes an immediate one.
    pub stop_deadline: Duration,
    pub(crate) transport: connect::Transport,
}

impl Options {
    /// The defaults for `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            pg_bin: None,
            settings: Vec::new(),
            start_deadline: Duration::from_secs(300),
            stop_deadline: Duration::from_secs(30),
            transport: connect::Transport::default(),
        }
    }

    /// Listens on a loopback port with a password, as on platforms without Unix sockets.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn over_loopback(mut self) -> Self {
        self.transport = connect::Transport::Loopback;
        self
    }
}

/// A running server. Dropping it begins a fast shutdown and does not wait; [`Embedded::stop`] does.
#[derive(Debug)]
pub struct Embedded {
    server: Server,
    connect: PgConnectOptions,
    version: Version,
    stop_deadline: Duration,
}

impl Embedded {
    /// Starts the server on `options.data_dir`, which is initialised when it is new, and waits until
    /// it accepts connections. A server that an earlier process left behind is stopped first.
    ///
    /// # Errors
    /// When another living process has the directory, no suitable Postgres is found, or the server
    /// does not come up. Each says what to do.
    pub async fn start(options: Options) -> Result<Self, Error> {
        start::check_settings(&options.settings)?;
        let layout = Layout::create(&options.data_dir)?;
        let lock = Lock::take(&layout).await?;

        let pg_bin = options.pg_bin.clone();
        let (layout, run_as, major, found) = blocking(move || {
            let run_as = layout.prepare()?;
            let major = version::of_cluster(&layout.cluster())?;
            let found = find::binaries(&layout, pg_bin.as_deref(), major);
            Ok((layout, run_as, major, found))
        })
        .await?;
        let binaries = match found {
            #[cfg(feature = "download-postgres")]
            Err(Error::NotFound { searched, major }) => {
                download::fetch(&layout.downloads(), major, searched).await?
            }
            found => found?,
        };

        previous::clear(&layout, options.stop_deadline).await?;
        let start = Start { binaries, run_as, layout, lock };
        let start = blocking(move || {
            start.check_reach()?;
            if major.is_none() {
                start.initialize(options.transport)?;
            }
            Ok(start)
        })
        .await?;
        let version = start.version();
        let (server, connect) = start.launch(&options.settings, options.start_deadline).await?;
        connect::ensure_database(&connect).await?;
        Ok(Self { server, connect, version, stop_deadline: options.stop_deadline })
    }

    /// How to reach the database `cogo` as its superuser.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    /// The version of the server's programs.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Resolves when the server dies without having been told to, with its last words.
    pub fn exited(&self) -> impl Future<Output = Error> + Send + use<> {
        self.server.exited()
    }

    /// Shuts the server down: open transactions are rolled back, everything is written out. Past
    /// [`Options::stop_deadline`] the server is cut off, which costs a recovery at the next start.
    ///
    /// # Errors
    /// When the server is still there after that.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.halt(Halt::Fast);
        if self.server.gone_within(self.stop_deadline).await {
            return Ok(());
        }
        tracing::warn!("Postgres did not shut down in {:?}; it is cut off", self.stop_deadline);
        self.server.halt(Halt::Immediate);
        // An immediate shutdown writes nothing; ten seconds are for a machine that is swapping.
        if self.server.gone_within(Duration::from_secs(10)).await {
            return Ok(());
        }
        Err(Error::StillRunning { pid: self.server.pid() })
    }
}

/// How to reach the server that some other process runs on `data_dir`; `None` when none is ready.
#[must_use]
pub fn running(data_dir: &Path) -> Option<PgConnectOptions> {
    let layout = Layout::existing(data_dir)?;
    let pid_file = pid_file::PidFile::read(&layout.cluster()).ok()??;
    if !pid_file.ready || !process::is_server(pid_file.pid, &layout.cluster()) {
        return None;
    }
    connect::Endpoint::of(&pid_file, &layout).map(|endpoint| endpoint.options(DATABASE))
}

/// Runs what waits for files and programs where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
