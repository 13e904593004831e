//! `docker compose` with one file, one project and one run's secrets.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cogo::gate::Failure;
use serde_json::Value;

use super::engine::Engine;
use super::{keep, last_lines};

/// How long what only looks may take, also on an engine that is busy.
const LOOK_WITHIN: Duration = Duration::from_secs(60);
/// Stopping waits for the slowest container's grace period, and then it is killed.
pub(super) const DOWN_WITHIN: Duration = Duration::from_secs(120);
/// The file of variables that is read in place of `.env`: that one is for the person's own stack.
const NO_VARIABLES: &str = "empty.env";
/// What the environment must not decide: `-f`, `-p` and this run's values do.
const NOT_FROM_OUTSIDE: &[&str] =
    &["COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES"];

/// The command, with all that is the same each time.
#[derive(Debug, Clone)]
pub(super) struct Compose {
    program: &'static str,
    project: String,
    file: PathBuf,
    dir: PathBuf,
    admin_token: String,
    variables: Vec<(&'static str, String)>,
}

impl Compose {
    /// A project of its own, with secrets of its own. Its files go to `dir`.
    pub(super) fn new(engine: &Engine, file: &Path, dir: &Path) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir)?;
        std::fs::write(dir.join(NO_VARIABLES), "")?;
        let secret = cogo::identity::generate_secret;
        let admin_token = secret();
        let variables = vec![
            ("POSTGRES_PASSWORD", secret()),
            ("COGO_JWT_SECRET", secret()),
            ("COGO_ADMIN_TOKEN", admin_token.clone()),
            // Any that is free, on the loopback: other runs may be under way.
            ("COGO_BIND", "127.0.0.1".to_owned()),
            ("HUB_PORT", "0".to_owned()),
        ];
        let project = format!("cogo-gate-{:08x}", rand::random::<u32>());
        Ok(Self {
            program: engine.program,
            project,
            file: file.to_owned(),
            dir,
            admin_token,
            variables,
        })
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    pub(super) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The file as Compose understands it.
    pub(super) async fn config(&self) -> Result<Value, Failure> {
        let text = self.ask(&["config", "--format", "json"]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Where a port of a service is published, as `http://host:port`.
    pub(super) async fn published(&self, service: &str, port: u16) -> Result<String, Failure> {
        let said = self.ask(&["port", service, &port.to_string()]).await?;
        let address: std::net::SocketAddr = said.trim().parse().map_err(|_| {
            Failure::new(format!(
                "`compose port {service} {port}` said {said:?}, which is no address"
            ))
        })?;
        if address.port() == 0 {
            return Err(Failure::new(format!("the port {port} of {service} is not published")));
        }
        Ok(format!("http://{address}"))
    }

    /// Runs something that only looks; its stdout.
    pub(super) async fn ask(&self, args: &[&str]) -> Result<String, Failure> {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = tokio::time::timeout(LOOK_WITHIN, command.output());
        let output = running.await.map_err(|_| self.late(args, LOOK_WITHIN))??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = [last_lines(&stdout, 2), last_lines(&stderr, 2)];
        let said: Vec<_> = said.into_iter().filter(|said| !said.is_empty()).collect();
        Err(self.failed(args, output.status, &said.join(" / ")))
    }

    /// Runs something that takes its time; all that it says goes to the file `name`.
    pub(super) async fn log(
        &self,
        name: &str,
        args: &[&str],
        within: Duration,
    ) -> Result<(), Failure> {
        let path = self.dir.join(format!("{name}.log"));
        let file = File::create(&path)?;
        let mut command = self.command(args);
        command.stdout(file.try_clone()?).stderr(file);
        let status = match tokio::time::timeout(within, command.status()).await {
            Ok(status) => status?,
            Err(_) => {
                return Err(self.late(args, within).remedy(format!("See {}.", path.display())));
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = last_lines(&String::from_utf8_lossy(&std::fs::read(&path)?), 3);
        Err(self.failed(args, status, &said).remedy(format!("See {}.", path.display())))
    }

    /// Keeps what something that only looks says, or why it cannot be had.
    pub(super) async fn keep(&self, name: &str, args: &[&str]) {
        match self.ask(args).await {
            Ok(text) => keep(&self.dir, name, text),
            Err(failure) => keep(&self.dir, name, format!("{failure}\n")),
        }
    }

    /// What takes everything of the project down.
    pub(super) fn down_args() -> [&'static str; 5] {
        ["down", "--volumes", "--remove-orphans", "--timeout", "5"]
    }

    /// A command that a person can give to take the project down.
    pub(super) fn down_line(&self) -> String {
        format!("{} compose -p {} down --volumes", self.program, self.project)
    }

    /// The ids of the project's containers, also of those that have ended.
    pub(super) fn containers_args(&self) -> [String; 5] {
        let label = format!("label=com.docker.compose.project={}", self.project);
        ["ps", "--all", "--quiet", "--filter", &label].map(ToOwned::to_owned)
    }

    /// A command of the engine itself, where nobody can wait for it but by blocking.
    pub(super) fn blocking(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(self.program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        apart(&mut command);
        command
    }

    /// A command of Compose, where nobody can wait for it but by blocking.
    pub(super) fn blocking_compose(&self, args: &[&str]) -> std::process::Command {
        let file = self.file.to_string_lossy();
        let variables = self.dir.join(NO_VARIABLES);
        let variables = variables.to_string_lossy();
        let mut all = vec!["compose", "--project-name", &self.project, "--file", &file];
        all.extend(["--env-file", &variables, "--progress", "plain"]);
        all.extend(args);
        let mut command = self.blocking(&all);
        for name in NOT_FROM_OUTSIDE {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(self.blocking_compose(args));
        command.kill_on_drop(true);
        command
    }

    fn failed(&self, args: &[&str], status: std::process::ExitStatus, said: &str) -> Failure {
        let what = args.join(" ");
        Failure::new(format!("`{} compose {what}` ended with {status}: {said}", self.program))
    }

    fn late(&self, args: &[&str], within: Duration) -> Failure {
        let (what, within) = (args.join(" "), within.as_secs());
        Failure::new(format!("`{} compose {what}` took longer than {within} s", self.program))
    }
}

/// In a process group of its own: a Ctrl-C at the terminal is for us, who then take everything down in order.
fn apart(command: &mut std::process::Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        command.process_group(0);
    }
    #[cfg(not(unix))]
    let _ = command;
}
