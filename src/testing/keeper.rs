//! The process that clears up after a test run, also after one that was killed.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;

/// Starts a process that stops the servers below `dir` and removes it once `runner` is gone.
pub(super) fn start(runner: u32, dir: &Path) -> Result<(), Error> {
    let mut command = Command::new("sh");
    command
        .args(["-c", include_str!("keeper.sh"), "cogo-test-keeper"])
        .arg(runner.to_string())
        .arg(dir)
        .current_dir("/")
        // Runners wait for the pipes that they gave to a test until everyone has closed them.
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // Runners kill the group of a test that takes too long, and terminals that of Ctrl-C.
        command.process_group(0);
    }
    // Nobody waits for it: when it ends, we have long ended.
    #[allow(clippy::zombie_processes)]
    command.spawn().map_err(Error::io("start the keeper of", dir))?;
    Ok(())
}
