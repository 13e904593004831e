//! A checkout with a `docker` that only plays, and the gate run in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const DOCKER: &str = include_str!("docker.sh");
const COGO: &str = env!("CARGO_BIN_EXE_cogo");
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Nobody's: what is on this machine must not be found in its place.
const PODMAN: &str = "#!/bin/sh\necho 'podman: not on this machine' >&2\nexit 125\n";

/// One test's.
pub(crate) struct World(TempDir);

impl World {
    pub(crate) fn new() -> Self {
        let world = Self(tempfile::tempdir().expect("a directory"));
        for dir in ["bin", "fake/configs", "fake/data", "home"] {
            std::fs::create_dir_all(world.dir().join(dir)).expect("a directory");
        }
        for (name, text) in [("docker", DOCKER), ("podman", PODMAN)] {
            let path = world.dir().join("bin").join(name);
            std::fs::write(&path, text).expect("a program");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
        }
        let file = "docker-compose.ci.yml";
        std::fs::copy(Path::new(REPOSITORY).join(file), world.dir().join(file)).expect("the file");
        // What Compose would say of it, but with the server that `cogo up` brings along.
        let config = json!({
            "services": {
                "migrate": {},
                "hub": {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
            },
            "x-gate": {
                "hub": {"service": "hub", "port": 8787},
                "call": {
                    "toolset": "demo", "tool": "echo", "params": {"message": "through the port"},
                    "answers": "through the port",
                },
                "dead_letter": {
                    "toolset": "demo", "tool": "add", "params": {"a": "one", "b": 2},
                    "class": "invalid_params", "mended": {"a": 1, "b": 2},
                },
            },
        });
        world.knows("config.json", &config.to_string());
        world.knows(
            "ps.json",
            "{\"Service\":\"migrate\",\"State\":\"exited\",\"Health\":\"\",\"ExitCode\":0}\n\
             {\"Service\":\"hub\",\"State\":\"running\",\"Health\":\"healthy\",\"ExitCode\":0}\n",
        );
        world.knows("said", "");
        world
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    fn fake(&self, name: &str) -> PathBuf {
        self.dir().join("fake").join(name)
    }

    /// Gives the playing Docker a file.
    pub(crate) fn knows(&self, name: &str, text: &str) {
        std::fs::write(self.fake(name), text).expect("written");
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fake(name).exists()
    }

    /// All that `docker` was told.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.fake("calls")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// What Compose was told to do with the project.
    pub(crate) fn told(&self) -> Vec<String> {
        let command = |call: String| {
            let (_, rest) = call.split_once(" --progress plain ")?;
            rest.split(' ').next().map(ToOwned::to_owned)
        };
        self.calls().into_iter().filter_map(command).collect()
    }

    pub(crate) fn hub_runs(&self) -> bool {
        self.has("pid")
    }

    /// The gate, with the stage `docker` alone.
    pub(crate) fn command(&self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(COGO);
        command
            .args(["gate", "unified", "--stage", "docker", "--out", "out"])
            .current_dir(self.dir())
            .env("PATH", format!("{}:{path}", self.dir().join("bin").display()))
            .env("FAKE", self.dir().join("fake"))
            .env("COGO", COGO)
            .env("COGO_DATA_DIR", self.dir().join("home"))
            // What a person has set for a stack of their own.
            .env("COMPOSE_PROJECT_NAME", "mine")
            .env("HUB_PORT", "8787")
            .env_remove("DATABASE_URL")
            .env_remove("COGO_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs the gate; its exit code, and what it reports of the stage.
    pub(crate) fn gate(&self) -> (i32, Value) {
        self.gate_with(&[])
    }

    pub(crate) fn gate_with(&self, args: &[&str]) -> (i32, Value) {
        let status = self.command().args(args).status().expect("the gate");
        let runs = self.dir().join("out/gate-run");
        let run = std::fs::read_dir(&runs).expect("a run").next().expect("one").expect("an entry");
        let text = std::fs::read_to_string(run.path().join("report.json")).expect("a report");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        (status.code().expect("an exit code"), report["stages"][0].clone())
    }

    pub(crate) fn wait_for(&self, name: &str, within: Duration) {
        let deadline = cogo::clock::Stopwatch::start();
        while !self.has(name) {
            assert!(deadline.elapsed() < within, "{name} did not appear: {:?}", self.calls());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Where a test failed in the middle, or kept the hub on purpose.
        if let Ok(pid) = std::fs::read_to_string(self.fake("pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
            while Command::new("kill")
                .args(["-0", pid.trim()])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
            {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
