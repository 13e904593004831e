//! A process of the product: started, watched, started again when it dies, stopped, killed.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::memory::{self, Memory};
use crate::skew;

pub(crate) use rustix::process::Signal;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// What a supervisor waits before it starts a process again that could not start.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a process may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(20);

/// How one sees that a process has started.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// It says so.
    Says(&'static str),
    /// Its `up.json` bears its pid.
    Hub(PathBuf),
    /// Once it runs.
    AtOnce,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    recipe: Recipe,
    log: Log,
    state: Mutex<State>,
    incidents: SyncMutex<Vec<String>>,
    stop: CancellationToken,
}

/// How it is started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) ready: Ready,
    /// Whether what it prints is read.
    pub(crate) read_stdout: bool,
    /// The exit code that is clean after SIGTERM.
    pub(crate) clean: i32,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Whether it should run.
    wanted: bool,
    starts: u32,
    ready: bool,
    /// Where in the log this start's words begin.
    said_before: usize,
    before: Option<Memory>,
    settled: Option<Stopwatch>,
}

impl Process {
    /// A process that is started now, and again whenever it is not there.
    pub(crate) fn start(name: &str, recipe: Recipe, clock: Stopwatch, tasks: &Tasks) -> Arc<Self> {
        let this = Arc::new(Self {
            name: name.to_owned(),
            recipe,
            log: Log { text: Arc::default(), clock },
            state: Mutex::new(State { wanted: true, ..State::default() }),
            incidents: SyncMutex::default(),
            stop: CancellationToken::new(),
        });
        let watched = Arc::clone(&this);
        tasks.spawn(async move {
            while !watched.stop.is_cancelled() {
                let pause = watched.look().await;
                tokio::time::sleep(pause).await;
            }
        });
        this
    }

    /// Looks how it is doing, and starts it if it should run and does not.
    async fn look(&self) -> Duration {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let Some(child) = &mut state.child else {
            if state.wanted {
                match self.spawn() {
                    Ok(child) => {
                        state.child = Some(child);
                        state.starts += 1;
                        (state.ready, state.before, state.settled) = (false, None, None);
                        state.said_before = self.log.text().len();
                    }
                    Err(error) => self.incident(format!("cannot be started: {error:#}")),
                }
            }
            return LOOK;
        };
        let pid = child.id().unwrap_or_default();
        if let Ok(Some(status)) = child.try_wait() {
            state.child = None;
            // What cannot reach its database at the start says so and ends; whoever runs it starts it again.
            let unavailable = !state.ready && status.code() == Some(4);
            if state.wanted && !unavailable {
                let words = self.log.tail();
                self.incident(format!("died by itself ({status}); its last words:\n{words}"));
            }
            self.log.note(&format!("-- ended: {status}"));
            return AGAIN;
        }
        if !state.ready && self.is_ready(state.said_before, pid) {
            (state.ready, state.settled) = (true, Some(Stopwatch::start()));
        }
        // Once what a start allocates is there.
        let settled =
            state.settled.is_some_and(|since| since.elapsed() > Duration::from_millis(100));
        if settled && state.before.is_none() {
            state.before = memory::of(pid);
        }
        LOOK
    }

    fn is_ready(&self, said_before: usize, pid: u32) -> bool {
        match &self.recipe.ready {
            Ready::Says(words) => self.log.text()[said_before..].contains(words),
            Ready::Hub(file) => std::fs::read_to_string(file)
                .is_ok_and(|text| text.contains(&format!("\"pid\":{pid},"))),
            Ready::AtOnce => true,
        }
    }

    fn spawn(&self) -> Result<Child> {
        let Recipe { program, args, env, read_stdout, .. } = &self.recipe;
        // Nothing of ours outlives us, however we end: where we are killed, nobody drops the child. The signal
        // comes when the thread ends that spawned it; those of the runtime live as long as it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("COGO_") || ["DATABASE_URL", "RUST_LOG"].contains(&name.as_ref()) {
                command.env_remove(name.as_ref());
            }
        }
        command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).env("NO_COLOR", "1");
        let mut child =
            command.spawn().with_context(|| format!("running {}", program.display()))?;
        self.log.note(&format!("-- started as {}", child.id().unwrap_or_default()));
        if let Some(stderr) = child.stderr.take() {
            self.log.gather(stderr);
        }
        if *read_stdout && let Some(stdout) = child.stdout.take() {
            self.log.gather(stdout);
        }
        Ok(child)
    }

    /// Waits until it has started.
    pub(crate) async fn ready(&self, within: Duration) -> Result<()> {
        let waited = Stopwatch::start();
        while !self.state.lock().await.ready {
            if waited.elapsed() > within {
                anyhow::bail!("{} is not ready after {within:?}:\n{}", self.name, self.log.tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until its memory before the work has been taken.
    pub(crate) async fn measured(&self) {
        while self.state.lock().await.before.is_none() && !self.stop.is_cancelled() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// `kill -9`. Whether it ran.
    pub(crate) async fn kill(&self) -> bool {
        let mut state = self.state.lock().await;
        state.wanted = false;
        state.ready = false;
        let Some(mut child) = state.child.take() else { return false };
        let pid = child.id();
        let killed = child.kill().await.is_ok();
        pid.into_iter().for_each(skew::clear_up);
        self.log.note("-- killed");
        killed
    }

    /// Lets it be started again after [`Process::kill`].
    pub(crate) async fn revive(&self) {
        self.state.lock().await.wanted = true;
    }

    /// Sends a signal, if it runs. Whether it did.
    pub(crate) async fn signal(&self, what: Signal) -> bool {
        let state = self.state.lock().await;
        let Some(pid) = state.child.as_ref().and_then(Child::id) else { return false };
        self.log.note(&format!("-- signal {what:?}"));
        signal(pid, what).is_ok()
    }

    /// Its memory when it had started and now, if it runs.
    pub(crate) async fn memory(&self) -> Option<(Memory, Memory)> {
        let state = self.state.lock().await;
        let pid = state.child.as_ref().and_then(Child::id)?;
        Some((state.before?, memory::of(pid)?))
    }

    /// What it did that it should not have.
    pub(crate) fn incidents(&self) -> Vec<String> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn incident(&self, what: String) {
        let mut all = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(format!("{} {what}", self.name));
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.log.text()
    }

    /// Asks it to end, and waits; what was not clean about that.
    pub(crate) async fn end(&self) -> Result<(), String> {
        self.stop.cancel();
        let mut state = self.state.lock().await;
        state.wanted = false;
        let Some(mut child) = state.child.take() else {
            return Err(format!("{} was not there to be ended", self.name));
        };
        let pid = child.id().unwrap_or_default();
        self.log.note("-- signal TERM");
        let clock = Stopwatch::start();
        let _gone = signal(pid, Signal::TERM);
        match tokio::time::timeout(END_WITHIN, child.wait()).await {
            Ok(Ok(status)) if self.is_clean(status) => {
                self.log.note(&format!("-- ended after {} ms", clock.elapsed_ms()));
                Ok(())
            }
            Ok(Ok(status)) => {
                Err(format!("{} ended with {status}:\n{}", self.name, self.log.tail()))
            }
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => {
                let _gone = child.kill().await;
                let words = self.log.tail();
                Err(format!("{} did not end within {END_WITHIN:?} of SIGTERM:\n{words}", self.name))
            }
        }
    }

    fn is_clean(&self, status: ExitStatus) -> bool {
        status.code() == Some(self.recipe.clean)
    }
}

/// What a process says, with the time.
#[derive(Debug, Clone)]
struct Log {
    text: Arc<SyncMutex<String>>,
    clock: Stopwatch,
}

impl Log {
    fn gather(&self, from: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        Tasks::new().spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.note(&line);
            }
        });
    }

    fn note(&self, line: &str) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&format!("{:>6} {line}\n", self.clock.elapsed_ms()));
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

/// Signals a process that the caller knows to be there.
pub(crate) fn signal(pid: u32, what: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1);
    let pid = pid.and_then(rustix::process::Pid::from_raw).context("no pid")?;
    Ok(rustix::process::kill_process(pid, what)?)
}
