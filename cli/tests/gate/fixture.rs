//! A directory to run the gate in, and what it left there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::demo::Demo;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Cogo, Done, temp_dir, until, write};

/// Configuration, a place for reports, and perhaps servers to start.
pub(crate) struct Home {
    pub(crate) cogo: Cogo,
    dir: tempfile::TempDir,
}

impl Home {
    /// With this `mcp.json`.
    pub(crate) fn new(mcp: &str) -> Self {
        let dir = temp_dir();
        for folder in ["configs", "mcp-servers"] {
            std::fs::create_dir(dir.path().join(folder)).expect("a directory");
        }
        write(&dir.path().join("configs"), "mcp.json", mcp);
        // Plain lines also when the tests run at GitHub.
        let cogo = Cogo::new().with("GITHUB_ACTIONS", "").with("GITHUB_STEP_SUMMARY", "");
        Self { cogo, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `cogo gate …`, run in the directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cogo.command(&[&["gate"], args].concat());
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn gate(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().expect("cogo starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Done {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Starts it, with what it says in the file `said`.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let said = std::fs::File::create(self.path().join("said")).expect("a file");
        self.command(args)
            .stdout(said.try_clone().expect("the same file"))
            .stderr(said)
            .spawn()
            .expect("cogo starts")
    }

    /// The directory of the only run.
    pub(crate) fn run_dir(&self) -> PathBuf {
        let runs = std::fs::read_dir(self.path().join("artifacts/gate-run")).expect("runs");
        let mut runs: Vec<_> = runs.map(|run| run.expect("a run").path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    /// The report of the only run.
    pub(crate) fn report(&self) -> Value {
        let text = std::fs::read(self.run_dir().join("report.json")).expect("a report");
        serde_json::from_slice(&text).expect("JSON")
    }
}

/// The stage of a report.
#[track_caller]
pub(crate) fn stage<'a>(report: &'a Value, name: &str) -> &'a Value {
    let stages = report["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["name"] == name).unwrap_or_else(|| panic!("{report}"))
}

/// The step of a stage.
#[track_caller]
pub(crate) fn step<'a>(stage: &'a Value, name: &str) -> &'a Value {
    let steps = stage["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("{name}: {stage}"))
}

/// An MCP server that answers.
pub(crate) struct Server {
    pub(crate) url: String,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let url = runtime.block_on(Demo::start(Shutdown::new())).expect("a server").url;
        Self { url, _runtime: runtime }
    }
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether a process with this id runs. One that has ended stays in the table until its new parent looks at it.
#[cfg(target_os = "linux")]
pub(crate) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether a process with this id runs.
#[cfg(not(target_os = "linux"))]
pub(crate) fn runs(pid: &str) -> bool {
    let listed = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().expect("ps");
    let state = String::from_utf8_lossy(&listed.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Waits for the process, and gives its exit code; none if a signal ended it.
#[track_caller]
pub(crate) fn ends(child: &mut Child) -> Option<i32> {
    let mut status = None;
    let ended = until(|| {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    assert!(ended, "it goes on");
    status.and_then(|status| status.code())
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, name: &str) {
    let args = [format!("-{name}"), child.id().to_string()];
    assert!(Command::new("kill").args(args).status().expect("kill").success());
}
