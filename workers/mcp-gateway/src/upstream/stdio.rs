//! MCP over a child process's standard input and output (MCP, "Transports", stdio): one JSON-RPC
//! message per line.
//!
//! The child leads a process group of its own, because `npx` and shells do not pass signals on; the
//! whole group ends with the connection. Its environment is empty but for a few variables and the
//! configured ones, so that our secrets are not its.

use std::path::Path;
use std::process::Stdio as Pipe;
use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::ServerJsonRpcMessage;
use rmcp::service::TxJsonRpcMessage;
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use super::wire::Wire;
use crate::secret::Secret;
use cogo::shutdown::Tasks;

/// What a child may inherit: where programs and a home are, and how text is written. The same idea
/// and nearly the same list as the Python and TypeScript SDKs' `get_default_environment`.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "APPDATA",
    "LOCALAPPDATA",
    "HOMEDRIVE",
    "HOMEPATH",
    "PATHEXT",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "USERNAME",
    "USERPROFILE",
    "PROGRAMFILES",
    "WINDIR",
    "COMSPEC",
];
/// How long a child may take to end after its input was closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_millis(1500);
/// The longest line of standard error that is logged, in bytes.
const STDERR_LINE: u64 = 2048;

/// What is needed to start a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    pub(super) env: &'a [(String, Secret)],
    pub(super) secrets: &'a [Secret],
    pub(super) cwd: Option<&'a Path>,
    pub(super) limit: usize,
}

/// A running server, as rmcp wants it.
pub(super) struct Stdio {
    group: Group,
    input: Arc<Mutex<Option<ChildStdin>>>,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    wire: Arc<Wire>,
    ready: std::vec::IntoIter<ServerJsonRpcMessage>,
    limit: usize,
}

/// Starts a server.
pub(super) fn start(
    program: Program<'_>,
    wire: Arc<Wire>,
    tasks: &Tasks,
) -> std::io::Result<Stdio> {
    let mut command = Command::new(program.command);
    command.args(program.args).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(program.env.iter().map(|(name, value)| (name, value.expose())));
    if let Some(cwd) = program.cwd {
        command.current_dir(cwd);
    }
    command.stdin(Pipe::piped()).stdout(Pipe::piped()).stderr(Pipe::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else {
        unreachable!("all three pipes were asked for");
    };
    let leader = child.id();
    let secrets = program.secrets.to_vec();
    tasks.spawn(log(errors, program.name.to_owned(), secrets));
    Ok(Stdio {
        group: Group { child, leader, ended: false },
        input: Arc::new(Mutex::new(Some(input))),
        output: BufReader::new(output),
        line: Vec::new(),
        wire,
        ready: Vec::new().into_iter(),
        limit: program.limit,
    })
}

/// Passes the child's standard error on to our log; ends with the child.
async fn log(errors: ChildStderr, toolset: String, secrets: Vec<Secret>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut errors).take(STDERR_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
                for secret in &secrets {
                    text = text.replace(secret.expose(), crate::redact::MARK);
                }
                tracing::debug!(mcp.toolset = %toolset, "{toolset}: {text}");
            }
        }
    }
}

impl Transport<RoleClient> for Stdio {
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        let (input, wire) = (Arc::clone(&self.input), Arc::clone(&self.wire));
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let mut input = input.lock().await;
            let Some(pipe) = input.as_mut() else {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            };
            if !wire.sending(&message) {
                return Ok(());
            }
            // A write that was cut off would leave half a line. rmcp spawns this future and never
            // drops it before the connection ends.
            let outcome = async {
                pipe.write_all(&line).await?;
                pipe.flush().await
            };
            let outcome = outcome.await;
            if let Err(error) = &outcome {
                wire.end(format!("cannot write to the server's standard input: {error}"));
            }
            outcome
        }
    }

    /// Cancel-safe: half a line waits in `self`.
    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        let closed = self.wire.closed().clone();
        loop {
            if let Some(message) = self.ready.next() {
                return Some(message);
            }
            let room = (self.limit + 1).saturating_sub(self.line.len()) as u64;
            let mut bounded = (&mut self.output).take(room);
            let read = tokio::select! {
                read = bounded.read_until(b'\n', &mut self.line) => read,
                () = closed.cancelled() => return None,
            };
            let full = self.line.len() > self.limit;
            match read {
                Ok(_) if self.line.last() == Some(&b'\n') => {
                    let line = std::mem::take(&mut self.line);
                    if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                        self.ready = self.wire.read(&line).into_iter();
                    }
                }
                Ok(_) if full => {
                    self.wire.oversized(self.limit);
                    return None;
                }
                Ok(_) => {
                    self.wire.end("the server ended");
                    return None;
                }
                Err(error) => {
                    self.wire.end(format!("cannot read the server's standard output: {error}"));
                    return None;
                }
            }
        }
    }

    async fn close(&mut self) -> std::io::Result<()> {
        self.wire.end("the connection was closed by us");
        // MCP 2025-11-25, "Lifecycle", shutdown: close the input, wait, SIGTERM, wait, SIGKILL.
        // A writer that is stuck holds the lock; then the input closes with the process.
        if let Ok(mut input) = self.input.try_lock() {
            input.take();
        }
        self.group.end().await;
        Ok(())
    }
}

/// The child and all that it started.
struct Group {
    child: Child,
    leader: Option<u32>,
    ended: bool,
}

impl Group {
    async fn end(&mut self) {
        let mut gone = tokio::time::timeout(GRACE, self.child.wait()).await.is_ok();
        if !gone {
            self.signal(false);
            gone = tokio::time::timeout(GRACE, self.child.wait()).await.is_ok();
        }
        // Also when the leader is gone: what it started may be left.
        self.signal(true);
        self.ended = true;
        if !gone {
            let _ = self.child.wait().await;
        }
    }

    #[cfg(unix)]
    fn signal(&mut self, kill: bool) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The group's id is the leader's. While the leader is not waited for, or one of the group
        // lives, the system gives the number to nobody else; after that we signal only once, at once.
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        if let Some(group) = self.leader.and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _already_gone = kill_process_group(group, signal);
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, _kill: bool) {
        let _already_gone = self.child.start_kill();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(true);
        }
    }
}
