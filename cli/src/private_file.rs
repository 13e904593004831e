//! Files that only their owner may read, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Writes a file, over what may be there.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let written = write(&fresh, text.as_ref()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _best_effort = fs::remove_file(&fresh);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// Writes a file unless there is one; whether it was written.
pub(crate) fn create(path: &Path, text: &str) -> Result<bool> {
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let linked = write(&fresh, text.as_bytes()).and_then(|()| match fs::hard_link(&fresh, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    let _best_effort = fs::remove_file(&fresh);
    linked.with_context(|| format!("writing {}", path.display()))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let _left_behind = fs::remove_file(path); // by an earlier process of our number
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file: File = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
