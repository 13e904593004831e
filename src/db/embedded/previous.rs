//! What an earlier server on the same cluster left behind, when its parent was killed.
//!
//! We hold the lock, so no living parent owns it. A server that is still there is shut down; a pid
//! file whose process is gone, or is somebody else's by now, is put out of the way.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::layout::Layout;
use super::pid_file::PidFile;
use super::process;
use super::signal::{self, Halt};
use crate::clock::Stopwatch;

/// How long a server may take to go after it was cut off.
const CUT_OFF: Duration = Duration::from_secs(10);

/// Makes sure that no server runs on the cluster and nothing keeps a new one from starting.
pub(crate) async fn clear(layout: &Layout, stop_deadline: Duration) -> Result<(), Error> {
    let cluster = layout.cluster();
    let pid_path = PidFile::path(&cluster);
    let pid_file = PidFile::read(&cluster).map_err(Error::io("read", &pid_path))?;
    let candidate = pid_file.as_ref().map(|file| file.pid);

    stop_servers(&cluster, candidate, stop_deadline).await?;

    // Postgres itself takes over the file of a process that is gone, and checks on the way that no
    // session of it is left. Only a pid that is in use again, or is a zombie's, would mislead it.
    let left = PidFile::read(&cluster).map_err(Error::io("read", &pid_path))?;
    if left.is_some_and(|file| in_use(file.pid)) {
        tracing::info!("Removing {}: its pid is another process's", pid_path.display());
        remove(&pid_path)?;
        remove(&layout.socket_dir().join(".s.PGSQL.5432.lock"))?;
    }
    Ok(())
}

async fn stop_servers(
    cluster: &Path,
    candidate: Option<u32>,
    stop_deadline: Duration,
) -> Result<(), Error> {
    let waited = Stopwatch::start();
    let mut told = false;
    let mut cut_off = false;
    loop {
        let left = process::servers_on(cluster, candidate);
        let Some(first) = left.first() else {
            return Ok(());
        };
        // Sessions need not be told: they go by themselves when their server has.
        let server = candidate.filter(|pid| left.contains(pid));
        if !told {
            tracing::info!(
                "Postgres with pid {first} was left behind by a killed process; stopping it"
            );
            told = true;
            tell(server, cluster, Halt::Fast);
        } else if !cut_off && waited.elapsed() > stop_deadline {
            cut_off = true;
            tell(server, cluster, Halt::Immediate);
        } else if waited.elapsed() > stop_deadline + CUT_OFF {
            return Err(Error::StillRunning { pid: *first });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Signals the server, if it still is one.
fn tell(server: Option<u32>, cluster: &Path, halt: Halt) {
    if let Some(pid) = server
        && let Err(error) = signal_server(pid, cluster, halt)
    {
        tracing::warn!(error = %error, "Cannot signal the Postgres server with pid {pid}");
    }
}

#[cfg(target_os = "linux")]
fn signal_server(pid: u32, cluster: &Path, halt: Halt) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    // The descriptor stays with this process: if the check below holds, it is this one that gets the
    // signal, even when it ends and its pid is given away meanwhile.
    let process = pidfd_open(signal::checked(pid)?, PidfdFlags::empty())?;
    if process::is_server(pid, cluster) {
        pidfd_send_signal(process, halt.signal())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn signal_server(pid: u32, cluster: &Path, halt: Halt) -> io::Result<()> {
    if process::is_server(pid, cluster) { signal::send(pid, halt) } else { Ok(()) }
}

/// Whether a process, or what is left of one, has the pid.
fn in_use(pid: u32) -> bool {
    #[cfg(unix)]
    return signal::checked(pid).is_ok_and(|pid| {
        !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    });
    #[cfg(not(unix))]
    return process::has_signal_pipe(pid);
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
