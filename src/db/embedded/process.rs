//! Which processes are servers on a cluster. A pid alone says nothing: it may be another's by now.

use std::path::Path;

/// Whether process `pid` is a living server on `cluster`.
pub(crate) fn is_server(pid: u32, cluster: &Path) -> bool {
    platform::is_server(pid, cluster)
}

/// The living processes of servers on `cluster`, of which `candidate` may be one. On Linux all of
/// them, so that sessions which outlived their server are seen too.
pub(crate) fn servers_on(cluster: &Path, candidate: Option<u32>) -> Vec<u32> {
    platform::servers_on(cluster, candidate)
}

#[cfg(target_os = "linux")]
mod platform {
    use std::fs;
    use std::path::Path;

    /// A server's working directory is its cluster. A zombie has none, and the kernel shows nobody
    /// that of a process which is not theirs.
    pub(super) fn is_server(pid: u32, cluster: &Path) -> bool {
        let of = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
        fs::read_link(of("cwd")).is_ok_and(|dir| dir == cluster)
            && fs::read_to_string(of("comm")).is_ok_and(|name| name.trim_end() == "postgres")
    }

    pub(super) fn servers_on(cluster: &Path, _candidate: Option<u32>) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| is_server(*pid, cluster))
            .collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::path::Path;

    pub(super) fn is_server(pid: u32, cluster: &Path) -> bool {
        #[cfg(unix)]
        return super::by_ps::is_server(pid, cluster);
        // The pid was read from the cluster's own file; that a Postgres has it is all that can be
        // seen from outside.
        #[cfg(not(unix))]
        return super::has_signal_pipe(pid) && cluster.is_dir();
    }

    pub(super) fn servers_on(cluster: &Path, candidate: Option<u32>) -> Vec<u32> {
        candidate.into_iter().filter(|pid| is_server(*pid, cluster)).collect()
    }
}

/// Whether a Postgres has the pid: each listens for signals on a pipe of that name.
#[cfg(not(unix))]
pub(crate) fn has_signal_pipe(pid: u32) -> bool {
    let wanted = format!("pgsignal_{pid}");
    std::fs::read_dir(r"\\.\pipe\")
        .is_ok_and(|pipes| pipes.filter_map(Result::ok).any(|pipe| *pipe.file_name() == *wanted))
}

/// For systems without `/proc`: we start servers with the cluster's path as an argument.
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
mod by_ps {
    use std::path::Path;
    use std::process::{Command, Stdio};

    pub(super) fn is_server(pid: u32, cluster: &Path) -> bool {
        Command::new("ps")
            .args(["-ww", "-o", "stat=", "-o", "args=", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| matches(&String::from_utf8_lossy(&output.stdout), cluster))
    }

    /// Whether a line such as `Ss   /usr/lib/postgresql/15/bin/postgres -D /data` is of a living
    /// server on `cluster`.
    pub(super) fn matches(line: &str, cluster: &Path) -> bool {
        let Some((state, arguments)) = line.trim().split_once(char::is_whitespace) else {
            return false;
        };
        !state.starts_with('Z')
            && arguments.contains("postgres -D ")
            && arguments.contains(&format!(" -D {} ", cluster.display()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn another_process_is_no_server_whatever_its_directory() -> anyhow::Result<()> {
        let here = std::env::current_dir()?;
        assert!(!is_server(std::process::id(), &here));
        assert!(!by_ps::is_server(std::process::id(), &here));
        Ok(())
    }

    #[test]
    fn the_process_list_tells_our_server_from_others() {
        let of = |line: &str| by_ps::matches(line, Path::new("/a b/data"));
        assert!(of("Ss   /opt/bin/postgres -D /a b/data -c port=5432\n"));
        assert!(!of("Z    [postgres] <defunct>"));
        assert!(!of("Ss   /opt/bin/postgres -D /a b/data2 -c port=5432"));
        assert!(!of("S    tail -f /a b/data /x"));
        assert!(!of(""));
    }
}
