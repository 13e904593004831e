//! Drivers: one process for one piece of work.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How a participant's driver is started; the arguments of a job come after these.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// What a driver is to do, in words of `drive.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) work: &'static str,
    pub(crate) messages: u64,
    pub(crate) batch: u64,
    pub(crate) connections: u64,
    pub(crate) rate: u64,
    pub(crate) variant: Option<&'static str>,
}

/// The line that a driver prints.
#[derive(Deserialize, Debug)]
pub(crate) struct Done {
    pub(crate) count: u64,
    pub(crate) written: u64,
    pub(crate) seconds: f64,
    #[serde(default)]
    pub(crate) latencies_ms: Vec<f64>,
}

/// A driver that runs; it is killed if this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    limit: Duration,
}

impl Driver {
    pub(crate) fn start(&self, url: &str, task: &Task, limit: Duration) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["--url", url, "--work", task.work]);
        for (name, value) in [
            ("--messages", task.messages),
            ("--batch", task.batch),
            ("--connections", task.connections),
            ("--rate", task.rate),
        ] {
            command.args([name, &value.to_string()]);
        }
        if let Some(variant) = task.variant {
            command.args(["--variant", variant]);
        }
        // Of an error the words are wanted, and not where in the driver it came up.
        command.env("RUST_LIB_BACKTRACE", "0");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("a driver without standard output")?;
        Ok(Running { child, lines: BufReader::new(stdout).lines(), limit })
    }

    /// Does a task from its start to its end.
    pub(crate) async fn run(&self, url: &str, task: &Task, limit: Duration) -> Result<Done> {
        self.start(url, task, limit)?.done().await
    }
}

impl Running {
    /// Waits until the driver has said that it is ready.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let line = self.line().await?;
        if line["ready"] != true {
            bail!("a driver said {line} and not that it is ready");
        }
        Ok(())
    }

    /// Waits for what it prints at the end, and for the end itself.
    pub(crate) async fn done(mut self) -> Result<Done> {
        let line = self.line().await?;
        let done = Done::deserialize(&line).with_context(|| format!("a driver said {line}"))?;
        match timeout(self.limit, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(done),
            Ok(status) => Err(self.failure(format!("it ended with {}", status?)).await),
            Err(_) => bail!("it was done after {:.1} s and did not end", done.seconds),
        }
    }

    async fn line(&mut self) -> Result<serde_json::Value> {
        match timeout(self.limit, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                serde_json::from_str(&line).with_context(|| format!("a driver said {line:?}"))
            }
            Ok(end) => {
                let why = match end {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("it ended with {}", self.child.wait().await?),
                };
                Err(self.failure(why).await)
            }
            Err(_) => bail!("it was not done after {} s", self.limit.as_secs()),
        }
    }

    /// Why it ended, with its last words.
    async fn failure(&mut self, why: String) -> anyhow::Error {
        let mut words = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            // What cannot be read is not worth a second failure.
            let _ = timeout(Duration::from_secs(2), stderr.read_to_string(&mut words)).await;
        }
        let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n");
        anyhow!("{why}: {last}")
    }
}
