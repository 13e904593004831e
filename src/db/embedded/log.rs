//! The server's log file: bounded, and quoted when something goes wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::account::RunAs;
use super::error::Error;

/// The log is put aside at a start when it is longer; one older log is kept.
const ROTATE_AT_BYTES: u64 = 1024 * 1024;
/// Enough for the lines below, and a bound when one of them is huge.
const TAIL_BYTES: u64 = 8 * 1024;
/// What fits on a screen and holds the server's usual FATAL with its DETAIL and HINT.
const TAIL_LINES: usize = 12;

/// A log, and where in it the present server began to write.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
    start: u64,
}

impl Log {
    /// Opens the log at `path` for a server that is about to start.
    pub(crate) fn open(path: &Path, run_as: &RunAs) -> Result<(Self, File), Error> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.len() > ROTATE_AT_BYTES) {
            let aside = path.with_extension("log.1");
            fs::rename(path, &aside).map_err(Error::io("rotate", path))?;
        }
        let file = no_follow(OpenOptions::new().append(true).create(true))
            .open(path)
            .map_err(Error::io("open", path))?;
        run_as.own_file(&file).map_err(Error::io("change the owner of", path))?;
        let start = file.metadata().map_err(Error::io("read", path))?.len();
        Ok((Self { path: path.to_owned(), start }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines that the present server wrote.
    pub(crate) fn tail(&self) -> String {
        self.read_tail().unwrap_or_else(|error| format!("(unreadable: {error})"))
    }

    fn read_tail(&self) -> std::io::Result<String> {
        let mut file = no_follow(OpenOptions::new().read(true)).open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
    }
}

/// The directory belongs to the server's user. When we are root, a link there must not lead us to
/// write into a file that this user could not write itself.
fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW.bits();
        options.mode(0o600).custom_flags(i32::from_ne_bytes(flags.to_ne_bytes()));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_the_tail_is_of_this_start_only() -> anyhow::Result<()> {
        use std::io::Write;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("server.log");
        let run_as = RunAs::choose(dir.path())?;
        fs::write(&path, "of an earlier start\n")?;

        let (log, mut file) = Log::open(&path, &run_as)?;
        writeln!(file, "of this start")?;
        assert_eq!(log.tail(), "of this start");

        fs::write(&path, vec![b'x'; usize::try_from(ROTATE_AT_BYTES)? + 1])?;
        let (log, _file) = Log::open(&path, &run_as)?;
        assert_eq!(log.tail(), "");
        assert!(dir.path().join("server.log.1").exists());
        Ok(())
    }
}
