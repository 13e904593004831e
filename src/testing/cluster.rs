//! One server for all tests of a run, in whichever processes they are.
//!
//! The first test to come takes a lock in the run's directory, starts the server there and leaves a
//! file that says where; the others wait for the lock and read the file. Under nextest each test is
//! a process, and the run is that of their parent; under `cargo test` it is the process itself.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::{Error, keeper};
use crate::clock::Stopwatch;
use crate::db::embedded::{
    Binaries, Endpoint, Init, Log, PidFile, RunAs, command, initialize, set,
};

/// Fast, and nothing survives a crash of the machine.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    // Databases of tests are short-lived, and a worker in the template would block copies of it.
    ("autovacuum", "off"),
    // Every test process has a pool or two, and there are as many processes as cores.
    ("max_connections", "300"),
    ("shared_buffers", "128MB"),
    // Two-phase and logical decoding cost little and let every test use them.
    ("wal_level", "logical"),
    ("max_wal_size", "1GB"),
    // In its own directory, which is removed: what lies in /dev/shm outlives a server that was killed.
    ("dynamic_shared_memory_type", "mmap"),
];

/// For tests that count what statements cost. Nothing is counted but where a test says so, in its own database.
const COUNTING: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "none"),
    ("pg_stat_statements.save", "off"),
];

/// What a cluster with a few dozen databases takes, with room.
#[cfg(target_os = "linux")]
const ROOM_BYTES: u64 = 1 << 30;

/// How to reach the server's maintenance database as superuser.
pub(super) async fn admin() -> Result<PgConnectOptions, Error> {
    if let Ok(url) = env::var("COGO_TEST_DATABASE_URL") {
        return url.parse().map_err(Error::Url);
    }
    match tokio::task::spawn_blocking(ready).await {
        Ok(socket_dir) => Ok(Endpoint::Socket(socket_dir?).options("postgres")),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The test run that this process belongs to.
struct Run {
    id: String,
    /// The run is over when this process is.
    runner: u32,
}

static RUN: LazyLock<Run> = LazyLock::new(|| match (env::var("NEXTEST_RUN_ID"), nextest()) {
    (Ok(id), Some(runner)) => Run { id: id.replace('-', ""), runner },
    _ => Run { id: Uuid::new_v4().simple().to_string(), runner: std::process::id() },
});

/// The pid of our parent, if that is nextest: when it was killed we are somebody else's child, whose
/// end the keeper would wait for in vain.
fn nextest() -> Option<u32> {
    #[cfg(unix)]
    let parent = Some(std::os::unix::process::parent_id()).filter(|parent| *parent != 1);
    #[cfg(not(unix))]
    let parent = None;
    #[cfg(target_os = "linux")]
    let parent = parent.filter(|parent| {
        fs::read_to_string(format!("/proc/{parent}/comm"))
            .is_ok_and(|name| name.contains("nextest"))
    });
    parent
}

/// The directory of the running server's socket.
fn ready() -> Result<PathBuf, Error> {
    let dir = run_dir()?;
    let ready = dir.join("ready");
    if let Ok(socket_dir) = fs::read_to_string(&ready) {
        return Ok(PathBuf::from(socket_dir));
    }
    let lock = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(Error::io("lock", lock))?;
    if let Ok(socket_dir) = fs::read_to_string(&ready) {
        return Ok(PathBuf::from(socket_dir));
    }
    keeper::start(RUN.runner, &dir)?;
    let socket_dir = match start(&dir, COUNTING) {
        // Some distributions of Postgres lack the library; only those who count need it.
        Err(Error::Server { .. }) => start(&dir, &[])?,
        started => started?,
    };
    // By rename, so that nobody reads half of it.
    let half = dir.join("ready.new");
    fs::write(&half, socket_dir.as_os_str().as_encoded_bytes())
        .and_then(|()| fs::rename(&half, &ready))
        .map_err(Error::io("write", ready))?;
    drop(lock);
    Ok(socket_dir)
}

/// The run's directory, in memory where there is room.
fn run_dir() -> Result<PathBuf, Error> {
    let name = format!("cogo-test-{}", RUN.id);
    #[cfg(target_os = "linux")]
    {
        let dir = Path::new("/dev/shm").join(&name);
        // Room may be short by now because of what we have put there ourselves.
        let room = || {
            rustix::fs::statvfs("/dev/shm")
                .is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >= ROOM_BYTES)
        };
        if dir.is_dir() || (room() && create_dir(&dir).is_ok()) {
            return Ok(dir);
        }
    }
    let dir = env::temp_dir().join(name);
    create_dir(&dir).map_err(Error::io("create the directory", &dir))?;
    Ok(dir)
}

/// Creates a directory into which only we may write, and the server's user may go.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        #[cfg(unix)]
        Ok(()) => fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711)),
        #[cfg(not(unix))]
        Ok(()) => Ok(()),
    }
}

/// Starts a server below `dir`. Each try has a directory of its own: the one before may have been
/// killed in the middle, and whatever it left is the keeper's to remove.
fn start(dir: &Path, more: &[(&str, &str)]) -> Result<PathBuf, Error> {
    let root = dir.join(&Uuid::new_v4().simple().to_string()[..8]);
    let binaries = Binaries::find(&root)?;
    let run_as = RunAs::choose(&root)?;
    let (cluster, socket_dir) = (root.join("data"), root.join("run"));
    run_as.create_private_dir(&root)?;
    run_as.create_private_dir(&socket_dir)?;
    run_as.check_reach(&binaries.program("postgres"), &socket_dir)?;
    initialize(&binaries, &run_as, &root, Init { no_sync: true, ..Init::default() })?;

    let (log, file) = Log::open(&root.join("server.log"), &run_as)?;
    let mut command = command(&binaries, &run_as, &cluster, &Endpoint::Socket(socket_dir.clone()));
    for (name, value) in SETTINGS.iter().chain(more) {
        set(&mut command, name, value);
    }
    let stderr = File::try_clone(&file).map_err(Error::io("share", log.path()))?;
    command.stdout(file).stderr(stderr);
    // It is not tied to us: under nextest we are only the first test of many.
    let server = command.spawn().map_err(Error::io("run", binaries.program("postgres")))?;
    wait_until_ready(server, &cluster, &log)?;
    Ok(socket_dir)
}

fn wait_until_ready(mut server: Child, cluster: &Path, log: &Log) -> Result<(), Error> {
    let waited = Stopwatch::start();
    // A machine that needs longer for an empty cluster is too slow for the tests' own deadlines.
    while waited.elapsed() < Duration::from_secs(60) {
        if PidFile::read(cluster).is_ok_and(|file| file.is_some_and(|file| file.ready)) {
            return Ok(());
        }
        if server.try_wait().is_ok_and(|status| status.is_some()) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Server { tail: log.tail() })
}
