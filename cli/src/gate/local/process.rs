//! Processes of this very program: started, listened to, stopped, killed. None outlives the scenario, unless the gate itself
//! is killed or told twice to end: then hub and workers stay, and look for a database that is gone.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::Failure;
use tokio::process::{Child, Command};

use super::wait::Patience;

/// What a process gets of our environment: what it needs to run at all. Nothing that configures it.
const PASSED_ON: &[&str] = &["HOME", "LANG", "LLVM_PROFILE_FILE", "PATH", "TMPDIR", "TEMP", "TMP"];
/// Without which nothing starts on Windows.
const ALWAYS: &[&str] = &["SYSTEMROOT"];
/// How long a command may take that does one thing and ends.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);
/// How long a killed process may take to be gone, which is the system's business alone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How many lines of a log are told where it ended too soon.
const LAST_WORDS: usize = 6;

/// How a process is started.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// What its log is called.
    pub(super) name: String,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Whether it gets nothing of our own environment.
    pub(super) bare: bool,
    pub(super) cwd: PathBuf,
    /// Where its log goes.
    pub(super) logs: PathBuf,
}

impl Recipe {
    /// With these arguments as well.
    pub(super) fn args<I: Into<OsString>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With this variable in its environment.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log())
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear();
        let more = if self.bare { &[] } else { PASSED_ON };
        for name in ALWAYS.iter().chain(more) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.cwd).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Starts it. What it says goes to its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(&self) -> Result<Process, Failure> {
        let child = self
            .open()
            .and_then(|log| self.command()?.stdout(log.try_clone()?).stderr(log).spawn());
        let child = child.map_err(|error| {
            Failure::new(format!("{} could not be started: {error}", self.name))
        })?;
        Ok(Process { name: self.name.clone(), child, log: self.log() })
    }

    /// Runs it to its end. What it says goes to its log, but what it prints, which may be a secret, only to the caller.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub(super) async fn run(&self) -> Result<Finished, Failure> {
        let running = async {
            let mut command = self.command()?;
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let output = command.output().await?;
            self.open()?.write_all(&output.stderr)?;
            Ok::<_, io::Error>(output)
        };
        let output = tokio::time::timeout(COMMAND_WITHIN, running)
            .await
            .map_err(|_| {
                let within = COMMAND_WITHIN.as_secs();
                Failure::new(format!("`cogo {}` did not end within {within} s", self.told()))
            })?
            .map_err(|error| Failure::new(format!("`cogo {}`: {error}", self.told())))?;
        Ok(Finished {
            told: self.told(),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn told(&self) -> String {
        let args = self.args.iter().map(|arg| arg.to_string_lossy());
        args.collect::<Vec<_>>().join(" ")
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    told: String,
    status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Finished {
    pub(super) fn is_ok(&self) -> bool {
        self.status.success()
    }

    /// What it printed.
    ///
    /// # Errors
    /// Where it failed: with what it said.
    pub(super) fn ok(self) -> Result<String, Failure> {
        if self.is_ok() {
            return Ok(self.stdout);
        }
        let (status, said) = (self.status, last_words(&self.stderr));
        Err(Failure::new(format!("`cogo {}` ended with {status}: {said}", self.told)))
    }
}

/// A process that runs. Dropped, it is killed, and gone when the drop returns.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    /// Fails if it has ended by itself.
    pub(super) fn still_runs(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let (name, said) = (&self.name, last_words(&self.said()));
                Err(Failure::new(format!("{name} ended by itself with {status}: {said}"))
                    .remedy(format!("Its log is {}.", self.log.display())))
            }
        }
    }

    /// Waits until it has said `words`, and gives all that it said until then.
    pub(super) async fn says(&mut self, words: &str, within: Duration) -> Result<String, Failure> {
        let patience = Patience::with(format!("{} says {words:?}", self.name), within);
        loop {
            let said = self.said();
            if said.contains(words) {
                return Ok(said);
            }
            self.still_runs()?;
            patience.again(format!("it said: {}", last_words(&said))).await?;
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.still_runs()?;
        Ok(self.child.kill().await?)
    }

    /// Asks it to end, which it must do with exit code 0. How long it took.
    pub(super) async fn stop(&mut self, within: Duration) -> Result<Duration, Failure> {
        self.still_runs()?;
        let watch = Stopwatch::start();
        self.terminate().await?;
        match tokio::time::timeout(within, self.child.wait()).await.map(|ended| ended.ok()) {
            Ok(Some(status)) if asked_to_end(status) => Ok(watch.elapsed()),
            Ok(status) => {
                let status = status.map_or_else(|| "no status".to_owned(), |s| s.to_string());
                let said = last_words(&self.said());
                Err(Failure::new(format!("{} ended with {status}: {said}", self.name)))
            }
            Err(_) => {
                let (name, within, said) = (&self.name, within.as_secs(), last_words(&self.said()));
                let text = format!("{name} did not end within {within} s of SIGTERM: {said}");
                Err(Failure::new(text))
            }
        }
    }

    /// By the shell's own `kill`, which every Unix has: sending a signal takes a system call, and this crate makes none.
    #[cfg(unix)]
    async fn terminate(&self) -> Result<(), Failure> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let mut command = Command::new("sh");
        let command = command.args(["-c", "kill -TERM \"$1\"", "sh", &pid.to_string()]);
        let sent = command.stdin(Stdio::null()).status().await?;
        match sent.success() {
            true => Ok(()),
            false => Err(Failure::new(format!("{} (pid {pid}) takes no SIGTERM", self.name))),
        }
    }

    /// There is no SIGTERM; it is ended at once, and how it would end by itself is not seen.
    #[cfg(not(unix))]
    async fn terminate(&mut self) -> Result<(), Failure> {
        Ok(self.child.start_kill()?)
    }
}

#[cfg(unix)]
fn asked_to_end(status: ExitStatus) -> bool {
    status.success()
}

#[cfg(not(unix))]
fn asked_to_end(_status: ExitStatus) -> bool {
    true
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without waiting, another could still write into a directory that is about to go.
        let _gone_already = self.child.start_kill();
        let watch = Stopwatch::start();
        while matches!(self.child.try_wait(), Ok(None)) && watch.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The end of a log, in one line.
pub(super) fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.len() {
        0 => "it said nothing".to_owned(),
        some => lines[some.saturating_sub(LAST_WORDS)..].join(" | "),
    }
}
