//! How a server is told to go.

use std::io;

/// How a server is told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Ends sessions, rolls back, writes everything out.
    Fast,
    /// Drops everything; the next start recovers.
    Immediate,
}

#[cfg(unix)]
impl Halt {
    pub(crate) fn signal(self) -> rustix::process::Signal {
        match self {
            Self::Fast => rustix::process::Signal::INT,
            Self::Immediate => rustix::process::Signal::QUIT,
        }
    }
}

/// Signals process `pid`, which the caller knows to be a server.
#[cfg(unix)]
pub(crate) fn send(pid: u32, how: Halt) -> io::Result<()> {
    Ok(rustix::process::kill_process(checked(pid)?, how.signal())?)
}

/// Signals process `pid`. A server reads signals from a pipe that bears its pid and answers each
/// byte; nothing else listens there.
#[cfg(windows)]
pub(crate) fn send(pid: u32, how: Halt) -> io::Result<()> {
    use std::io::{Read, Write};
    let number = match how {
        Halt::Fast => 2u8,
        Halt::Immediate => 3u8,
    };
    let path = format!(r"\\.\pipe\pgsignal_{pid}");
    let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    pipe.write_all(&[number])?;
    pipe.read_exact(&mut [0])
}

/// A pid in the form that system calls take; refuses 0 and what would be negative, which name groups
/// of processes.
#[cfg(unix)]
pub(crate) fn checked(pid: u32) -> io::Result<rustix::process::Pid> {
    i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}
