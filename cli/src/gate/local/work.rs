//! The directory that the scenario works in: the database, keys, and the worker from far away. It goes when the scenario
//! has ended; what is to be looked at afterwards is written elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cogo::clock::Stopwatch;
use rand::RngExt as _;

use crate::output::note;

/// How long processes that still work in it are waited for. Making a database takes seconds where disks are slow.
const USED_FOR: Duration = Duration::from_secs(15);

/// The directory, removed when this is dropped unless it is to be kept.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    keep: bool,
}

impl Work {
    /// A new one below the system's temporary directory. The name is short, for the database's socket lies in it.
    pub(super) fn new(keep: bool) -> io::Result<Self> {
        let random: u32 = rand::rng().random();
        let path = std::env::temp_dir().join(format!("cogo-gate-{random:08x}"));
        let mut builder = std::fs::DirBuilder::new();
        // Entered, though not read, by the database's user where we are root.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o711);
        builder.create(&path)?;
        Ok(Self { path, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory within, made if it is not there, for us alone.
    pub(super) fn dir(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(path)
    }

    /// Removes it, unless it is to be kept.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.keep || !self.path.exists() {
            return Ok(());
        }
        let mut removed = std::fs::remove_dir_all(&self.path);
        // Who has just ended may have written something meanwhile.
        for _ in 0..10 {
            if removed.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            removed = std::fs::remove_dir_all(&self.path);
        }
        removed
    }
}

/// The processes that were told of a directory, by their arguments or their environment. Where there is no /proc, none
/// is found.
pub(super) fn users(dir: &Path) -> Vec<u32> {
    let dir = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<u32>().ok();
        let holds = |file: &str| {
            let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&dir)
        };
        let ours = pid.filter(|pid| *pid != std::process::id());
        found.extend(ours.filter(|_| holds("cmdline") || holds("environ")));
    }
    found
}

impl Drop for Work {
    fn drop(&mut self) {
        // Who is stopped while the database is being made cannot stop the program that makes it.
        let watch = Stopwatch::start();
        while watch.elapsed() < USED_FOR && !users(&self.path).is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.keep {
            note(&format!("The scenario's database is kept in {}", self.path.display()));
        } else if let Err(error) = self.remove() {
            note(&format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}
