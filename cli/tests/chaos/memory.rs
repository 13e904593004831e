//! How much memory a process holds.

use serde::Serialize;

/// The memory of a process, in kilobytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// What it holds (VmRSS).
    pub(crate) held_kb: u64,
    /// The most that it ever held (VmHWM).
    pub(crate) peak_kb: u64,
}

/// The memory of a process; `None` if it is gone.
pub(crate) fn of(pid: u32) -> Option<Memory> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some(Memory { held_kb: field("VmRSS")?, peak_kb: field("VmHWM")? })
}

#[test]
fn our_own_memory_is_seen() {
    let ours = of(std::process::id()).expect("we are there");
    assert!(ours.held_kb > 0 && ours.peak_kb >= ours.held_kb);
}
