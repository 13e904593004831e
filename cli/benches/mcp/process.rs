//! Processes: started, waited for, ended, and what they use of processors.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cogo::clock::Stopwatch;
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take until it listens, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks a second of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux that we know.
const TICKS: u64 = 100;

/// A way to the server: where it is called, and what runs for it. It ends when dropped.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) tool: String,
    pub(crate) processes: Vec<Process>,
}

/// A process with a group of its own.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Way {
    /// What its processes, and theirs, have used of processors so far.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let roots: Vec<u32> = self.processes.iter().map(|process| process.child.id()).collect();
        cpu_of(&roots)
    }

    /// What they have said, the end of it.
    pub(crate) fn said(&self) -> String {
        self.processes.iter().map(Process::said).collect()
    }
}

impl Process {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let program = command.get_program().display().to_string();
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {program}"))?;
        Ok(Self { child, log })
    }

    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        while !condition() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended ({status}) before {what}:\n{}", self.said());
            }
            if watch.elapsed() > PATIENCE {
                bail!("{what} did not come:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn until_it_listens(&mut self, port: u16) -> Result<()> {
        self.until("listening", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        for signal in [Signal::INT, Signal::KILL] {
            if let Some(group) = group {
                let _gone_already = kill_process_group(group, signal);
            }
            let watch = Stopwatch::start();
            while watch.elapsed() < PATIENCE {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let address: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    Ok(address.port())
}

/// This program, as the `echo` server.
pub(crate) fn echo() -> Result<String> {
    let path = std::env::current_exe().context("where this program is")?;
    path.to_str().map(str::to_owned).context("a path that is text")
}

/// What these processes and all below them have used; none where /proc does not say.
pub(crate) fn cpu_of(roots: &[u32]) -> Option<Duration> {
    let mut all: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in Path::new("/proc").read_dir().ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold spaces; what follows it does not.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        // Of those that have ended below it, too.
        let ticks: u64 = [11, 12, 13, 14].into_iter().filter_map(number).sum();
        let parent = number(1).and_then(|parent| u32::try_from(parent).ok())?;
        all.insert(pid, (parent, ticks));
    }
    let below = |mut pid: u32| loop {
        if roots.contains(&pid) {
            return true;
        }
        match all.get(&pid) {
            Some((parent, _)) if *parent > 1 => pid = *parent,
            _ => return false,
        }
    };
    let ticks: u64 = all.iter().filter(|(pid, _)| below(**pid)).map(|(_, (_, t))| t).sum();
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}
