//! What a process uses, from /proc.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks a second of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux that we know.
const TICKS: u64 = 100;

/// One look at a process.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) rss_kb: u64,
    pub(crate) files: usize,
    pub(crate) threads: u64,
    /// What it has used of processors so far.
    pub(crate) cpu: Duration,
    /// Since when we look.
    pub(crate) at: Duration,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        static SINCE: std::sync::OnceLock<Stopwatch> = std::sync::OnceLock::new();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).context("a field")?;
            line.split_whitespace().nth(1).context("a value")?.parse::<u64>().context("a number")
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold spaces; what follows it does not.
        let (_, rest) = stat.rsplit_once(") ").context("a name")?;
        let fields: Vec<_> = rest.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Self {
            rss_kb: field("VmRSS:")?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: field("Threads:")?,
            cpu: Duration::from_millis(ticks * 1000 / TICKS),
            at: SINCE.get_or_init(Stopwatch::start).elapsed(),
        })
    }
}

/// Sockets of a thousand workers are more than a process may usually have open; children inherit it. As far as we may.
pub(crate) fn raise_the_limit_of_open_files(to: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.map_or(to, |maximum| maximum.min(to));
    if now.current.is_none_or(|current| current >= maximum) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: now.maximum })
        .context("raising the limit of open files")
}

/// Of sorted values, the one that this share of them does not exceed.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
