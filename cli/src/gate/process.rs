//! A program that never outlives the gate, nor does anything that it started, however the gate ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cogo::clock::Stopwatch;

/// Runs a program in the process group of this shell. When our end of the shell's input closes, also because the gate was
/// killed, the program is asked to end, and 7 s later the whole group is killed. The group is killed as well when
/// the program ends by itself, so that nothing stays that it started. The shell bears the SIGTERM that it sends to
/// its group: it is what says that the program has ended.
#[cfg(unix)]
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
trap : TERM
"$@" 3<&- &
program=$!
( trap '' TERM; read -r _ <&3; kill -TERM -$$; sleep 7; kill -KILL -$$ ) 2>/dev/null &
while :; do
  wait "$program"; status=$?
  kill -0 "$program" 2>/dev/null || break
done
echo "It ended with status $status."
kill -KILL -$$
"#;

/// How long the shell above may take, before we do without an orderly end.
const END_WITHIN: Duration = Duration::from_secs(9);
/// How much of what a program said goes into a reason.
const TAIL_LINES: usize = 5;

/// A program that runs. It ends when this is dropped, which blocks until it has.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with all that it says going to the file `log`. On Windows nothing looks after what it starts.
    pub(super) fn start(command: &Command, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        let mut started = watched(command);
        started.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: started.spawn()?, log: log.to_owned() })
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it has said so far.
    pub(super) fn said(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last of what it has said.
    pub(super) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ")
    }

    /// Asks it to end, without waiting.
    pub(super) fn ask_to_end(&mut self) {
        drop(self.child.stdin.take());
        #[cfg(not(unix))]
        let _gone_already = self.child.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        let watch = Stopwatch::start();
        while !self.has_ended() && watch.elapsed() < END_WITHIN {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(unix)]
fn watched(command: &Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("sh");
    shell.args(["-c", WATCHDOG, "sh"]).arg(command.get_program()).args(command.get_args());
    pass_on(command, &mut shell);
    shell.process_group(0); // a Ctrl-C at the terminal is for us; we end it in order
    shell
}

#[cfg(not(unix))]
fn watched(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args());
    pass_on(command, &mut same);
    same
}

fn pass_on(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(dir) = from.get_current_dir() {
        to.current_dir(dir);
    }
}
