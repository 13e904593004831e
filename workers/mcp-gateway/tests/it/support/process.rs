//! Servers as processes that never outlive their test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo_worker_mcp_gateway::config::Toolset;

use super::PATIENCE;
use super::install;

/// Runs the server in a process group of its own and kills the group once our end of its input
/// closes: also when the test process is killed.
const WATCHDOG: &str = r#""$@" </dev/null & read -r _; kill -9 -$$"#;

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts what `command` gives for a port, on a free one.
    pub(crate) async fn start(command: impl Fn(u16) -> Command) -> Self {
        // Another test may take the port between our looking and the server's binding it.
        for _ in 0..3 {
            if let Some(server) = Self::at(free_port(), &command).await {
                return server;
            }
        }
        panic!("no server came up: {:?}", command(0));
    }

    /// Starts it at `port`.
    pub(crate) async fn at(port: u16, command: impl Fn(u16) -> Command) -> Option<Self> {
        let inner = command(port);
        let mut watched = Command::new("sh");
        watched.args(["-c", WATCHDOG, "sh"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            watched.env(name, value.expect("tests only set variables"));
        }
        watched.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut watched, 0);
        let child = watched.spawn().expect("there is a shell");
        let server = Self { child, port };
        let clock = Stopwatch::start();
        while clock.elapsed() < PATIENCE / 3 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _already_gone = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        // The shell is gone, but what it started may hold the port for a moment longer.
        let clock = Stopwatch::start();
        while clock.elapsed() < PATIENCE
            && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// The official reference server, behind supergateway's WebSocket.
pub(crate) fn everything_over_websocket(port: u16) -> Command {
    let mut command = Command::new("node");
    command
        .arg(install::supergateway())
        .arg("--stdio")
        .arg(format!("node {} stdio", install::everything().display()))
        .args(["--outputTransport", "ws", "--messagePath", "/", "--port", &port.to_string()]);
    command
}

/// The official reference server over streamable HTTP.
pub(crate) fn everything_over_http(port: u16) -> Command {
    let mut command = Command::new("node");
    command.arg(install::everything()).arg("streamableHttp").env("PORT", port.to_string());
    command
}

/// The official reference server as a child of the gateway.
pub(crate) fn everything_over_stdio() -> Toolset {
    let script = install::everything().display().to_string();
    Toolset::command("node", [script.as_str(), "stdio"])
}

/// The Python SDK's WebSocket server.
pub(crate) fn python(port: u16) -> Command {
    let (python, script) = install::python();
    let mut command = Command::new(python);
    command.arg(script).arg(port.to_string());
    command
}
