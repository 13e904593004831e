//! The first start: a new cluster, whole or not at all.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::USER;
use super::account::RunAs;
use super::error::Error;
use super::find::Binaries;
use super::parent_death;

/// The name of a cluster that is not finished begins with this.
const UNFINISHED: &str = "data.new-";

/// How a cluster is initialised.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Init<'a> {
    /// The superuser's password, for clusters on a loopback port.
    pub(crate) password_file: Option<&'a Path>,
    /// Leaves it to the system when files reach the disk. Only for tests.
    pub(crate) no_sync: bool,
}

/// Makes the new cluster `root/data`: initialised beside it, then renamed, so that a crash in between
/// leaves no half of one.
pub(crate) fn cluster(
    binaries: &Binaries,
    run_as: &RunAs,
    root: &Path,
    init: Init<'_>,
) -> Result<(), Error> {
    remove_unfinished(root)?;
    let cluster = root.join("data");
    let unfinished = root.join(format!("{UNFINISHED}{}", uuid::Uuid::now_v7().simple()));
    let mut command = Command::new(binaries.program("initdb"));
    run_as.apply(&mut command);
    parent_death::stop_with_thread(&mut command);
    command.current_dir(root).arg("--pgdata").arg(&unfinished).args([
        "--username",
        USER,
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
    ]);
    match init.password_file {
        Some(file) => command.args(["--auth=scram-sha-256", "--pwfile"]).arg(file),
        // The socket's directory decides who gets in; by any other way nobody does.
        None => command.args(["--auth-local=trust", "--auth-host=reject"]),
    };
    if init.no_sync {
        command.arg("--no-sync");
    }
    let output = command.output().map_err(Error::io("run", binaries.program("initdb")))?;
    if !output.status.success() {
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output).trim().to_owned();
        return Err(Error::Init { dir: cluster, output });
    }
    fs::rename(&unfinished, &cluster).map_err(Error::io("rename", &unfinished))?;
    if cfg!(unix) && !init.no_sync {
        // The rename itself must outlive a power cut too.
        File::open(root).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", root))?;
    }
    Ok(())
}

/// Removes what an `initdb` left that was cut off.
fn remove_unfinished(root: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(root).map_err(Error::io("list", root))? {
        let entry = entry.map_err(Error::io("list", root))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            tracing::info!("Removing {}, which was never finished", entry.path().display());
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}
