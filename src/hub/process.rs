//! What the system says of this process, by the names that Prometheus' client libraries give it; on Linux.

use metrics::{counter, gauge};

use crate::metrics::{
    PROCESS_CPU_SECONDS_TOTAL, PROCESS_OPEN_FDS, PROCESS_RESIDENT_BYTES, PROCESS_THREADS,
};

/// How many ticks `/proc/self/stat` counts in a second: the kernel's USER_HZ, which is 100 on all that we build for.
const TICKS_PER_SECOND: u64 = 100;

/// Sets the gauges; elsewhere than on Linux there are none.
pub(crate) fn measure() {
    let read = |name| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    if let Some(status) = read("status") {
        if let Some(kib) = field(&status, "VmRSS:") {
            #[allow(clippy::cast_precision_loss)] // exact for petabytes
            gauge!(PROCESS_RESIDENT_BYTES).set((kib * 1024) as f64);
        }
        if let Some(threads) = field(&status, "Threads:") {
            #[allow(clippy::cast_precision_loss)] // a count of threads
            gauge!(PROCESS_THREADS).set(threads as f64);
        }
    }
    if let Some(ticks) = read("stat").as_deref().and_then(ticks) {
        counter!(PROCESS_CPU_SECONDS_TOTAL).absolute(ticks / TICKS_PER_SECOND);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Without the one that lists them.
        #[allow(clippy::cast_precision_loss)] // a count of files
        gauge!(PROCESS_OPEN_FDS).set(open.count().saturating_sub(1) as f64);
    }
}

/// The number that follows `name` in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The time on processors, of `/proc/self/stat`.
fn ticks(stat: &str) -> Option<u64> {
    // The program's name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(field("Name:\tcogo\nVmRSS:\t    9216 kB\nThreads:\t3\n", "VmRSS:"), Some(9216));
        assert_eq!(field("Name:\tcogo\n", "VmRSS:"), None);
        let stat = "12 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 250 51 7 8 20 0 3 0 100 1 1\n";
        assert_eq!(ticks(stat), Some(301));
    }
}
