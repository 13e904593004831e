//! `postmaster.pid`: what a server says about itself.

use std::io;
use std::path::{Path, PathBuf};

/// The lines of `postmaster.pid` that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) socket_dir: Option<PathBuf>,
    /// Whether the server accepts connections. Says nothing about whether it is still alive.
    pub(crate) ready: bool,
}

impl PidFile {
    pub(crate) fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    /// Reads the file of the server on `cluster`; `None` when there is none, or it is not one that a
    /// server wrote (it is written in steps, so half of one is normal).
    pub(crate) fn read(cluster: &Path) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(Self::path(cluster)) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let line = |number: usize| text.lines().nth(number - 1).map(str::trim);
        Some(Self {
            pid: line(1)?.parse().ok()?,
            port: line(4).and_then(|port| port.parse().ok()).unwrap_or(0),
            socket_dir: line(5).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            ready: line(8) == Some("ready"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_and_a_half_written_file_are_read() {
        let whole = "42\n/d\n1700000000\n5432\n/d/run\n\n  123 456\nready   \n";
        let socket_dir = Some(PathBuf::from("/d/run"));
        assert_eq!(
            PidFile::parse(whole),
            Some(PidFile { pid: 42, port: 5432, socket_dir, ready: true })
        );
        assert!(PidFile::parse("42\n/d\n").is_some_and(|file| !file.ready));
        assert_eq!(PidFile::parse(""), None);
    }
}
