//! A child that is told when we die, however we die. The one module with unsafe code.

#![allow(unsafe_code)]

use std::process::Command;

/// Sends the child SIGINT, a fast shutdown to Postgres, when the thread that starts it ends. Only on
/// Linux; elsewhere the next start finds the orphan.
pub(super) fn stop_with_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        use rustix::io::Errno;
        use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

        let parent: Pid = getpid();
        let ask = move || {
            set_parent_process_death_signal(Some(Signal::INT))?;
            // We may have died before the line above; then nobody would ever tell the child.
            if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
        };
        // SAFETY: between fork and exec the closure makes two system calls (prctl and getppid) and
        // builds errors from plain numbers: it takes no lock and allocates nothing, so it does not
        // matter in what state the other threads were at the fork.
        unsafe {
            command.pre_exec(ask);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
