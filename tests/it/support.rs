//! What several tests need.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// Waits until `condition` holds. The deadline is for machines that are busy with something else.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), holds).await.with_context(|| what.to_owned())
}

/// Another process of this test binary, which runs one `#[ignore]`d test. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Other {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    /// Runs the test `name` with `variables` in its environment, in a test run of its own.
    pub(crate) fn run(name: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env_remove("NEXTEST_RUN_ID")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self { child, stdout: BufReader::new(stdout) })
    }

    /// What the other process says after `word`, which it is waited for to say.
    pub(crate) fn says(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line)? > 0 {
            // The test harness writes `test <name> ... ` in front.
            if let Some((_, rest)) = line.split_once(word) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        anyhow::bail!("the other process ended without saying {word}")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Says `word` and `rest` to the test that runs this process.
pub(crate) fn say(word: &str, rest: impl std::fmt::Display) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{word} {rest}")?;
    Ok(stdout.flush()?)
}
