//! Retention of attempts.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{ATTEMPTS, written};
use crate::clock::utc_now;

/// What begins the name of a directory that is not finished, or is going.
const TEMPORARY: &str = ".tmp-";
/// How long what was never finished stays.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// What a turn of a sweep let go of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many attempts.
    pub attempts: u64,
    /// Whether there were more that are old enough.
    pub more: bool,
}

/// Lets go of the attempts below `root` that are older than `keep`, at most `most` of them.
///
/// # Errors
/// When the disk refuses; what went before that is gone.
pub fn sweep(root: &Path, keep: Duration, most: usize) -> io::Result<Swept> {
    let (now, mut swept) = (utc_now(), Swept::default());
    for toolset in directories(&root.join(ATTEMPTS))? {
        let toolset = toolset?;
        for attempt in directories(&toolset.path())? {
            let attempt = attempt?;
            let name = attempt.file_name();
            let unfinished = name.to_string_lossy().starts_with(TEMPORARY);
            let keep = if unfinished { UNFINISHED } else { keep };
            let Some(time) = time_of(&attempt, unfinished) else { continue };
            if (now - time).to_std().is_ok_and(|age| age > keep) {
                if swept.attempts == most as u64 {
                    swept.more = true;
                    return Ok(swept);
                }
                remove(&toolset.path(), &name, unfinished)?;
                swept.attempts += 1;
            }
        }
    }
    Ok(swept)
}

/// When an attempt was written: by its name, which a copy of the folder keeps; else by its directory.
fn time_of(attempt: &std::fs::DirEntry, unfinished: bool) -> Option<DateTime<Utc>> {
    let by_name = || written(attempt.file_name().to_str()?);
    let by_directory = || Some(attempt.metadata().ok()?.modified().ok()?.into());
    if unfinished { by_directory() } else { by_name().or_else(by_directory) }
}

/// Out of sight as a whole first, so that nobody finds half an attempt.
fn remove(dir: &Path, name: &OsString, unfinished: bool) -> io::Result<()> {
    let mut going = dir.join(name);
    if !unfinished {
        let mut hidden = OsString::from(TEMPORARY);
        hidden.push(name);
        let hidden = dir.join(hidden);
        if !gone(std::fs::rename(&going, &hidden))? {
            return Ok(());
        }
        going = hidden;
    }
    gone(std::fs::remove_dir_all(going)).map(drop)
}

/// Whether it was done; another process may have been first.
fn gone(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directories in one, and no links; nothing if there is none.
fn directories(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>> {
    let found = match std::fs::read_dir(dir) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let is_dir = |entry: &io::Result<std::fs::DirEntry>| match entry {
        Ok(entry) => entry.file_type().is_ok_and(|kind| kind.is_dir()),
        Err(_) => true,
    };
    Ok(found.into_iter().flatten().filter(is_dir))
}
