//! Running the binary, and talking to what it serves.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::testing::TestDb;
use serde_json::Value;

/// For machines that are busy with something else.
const DEADLINE: Duration = Duration::from_secs(60);

/// How `cogo` is run: with nothing of this process' environment that could change what it does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cogo {
    variables: Vec<(String, String)>,
    /// Which `cogo`; by default the one of this build.
    program: Option<PathBuf>,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Cogo {
    pub(crate) fn new() -> Self {
        // No configuration and no data of this machine's.
        Self::default().with("COGO_DATA_DIR", "/nonexistent/cogo")
    }

    pub(crate) fn on(db: &TestDb) -> Self {
        Self::new().with("DATABASE_URL", db.url())
    }

    /// The same with another build of `cogo`.
    #[allow(dead_code, reason = "for the tests of upgrades")]
    pub(crate) fn of(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = self.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_cogo")));
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let ours = name.starts_with("COGO_") && name != "COGO_PG_BIN";
            if ours
                || name.starts_with("OTEL_")
                || ["DATABASE_URL", "RUST_LOG", "NO_COLOR"].contains(&name.as_ref())
            {
                command.env_remove(name.as_ref());
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Where there is no directory `configs`.
        command.current_dir(std::env::temp_dir()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "")
    }

    /// Runs a command to its end, with `input` on stdin.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cogo starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let _may_not_read_it = stdin.write_all(input.as_bytes());
        drop(stdin);
        let stdout = reading(child.stdout.take().expect("a pipe"));
        let stderr = reading(child.stderr.take().expect("a pipe"));
        let code = wait(&mut child, &args);
        let text = |reading: thread::JoinHandle<String>| reading.join().expect("text");
        Done { code, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a command that must do what it is asked.
    pub(crate) fn ok(&self, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "cogo {args:?}: {done:?}");
        done
    }

    /// What a command that must succeed prints, as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let done = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
    }

    /// Starts a command that goes on.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cogo starts");
        let (stdout, stderr) = (Said::default(), Said::default());
        stdout.gather(child.stdout.take().expect("a pipe"));
        stderr.gather(child.stderr.take().expect("a pipe"));
        Running { child, stdout, stderr }
    }
}

impl Done {
    /// The command must have failed with `code`, saying `words` on stderr and nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:?}");
        }
    }

    pub(crate) fn line(&self) -> &str {
        self.stdout.trim()
    }
}

fn reading(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _what_there_is = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, what: &dyn Debug) -> Option<i32> {
    let mut code = None;
    let ended = until(|| {
        child.try_wait().expect("a child").is_some_and(|status| {
            code = status.code();
            true
        })
    });
    if !ended {
        let _best_effort = child.kill();
        panic!("cogo did not end: {what:?}");
    }
    code
}

/// Looks until `condition` holds; whether it did in time.
pub(crate) fn until(mut condition: impl FnMut() -> bool) -> bool {
    let watch = Stopwatch::start();
    while !condition() {
        if watch.elapsed() > DEADLINE {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// What a process has said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(Arc<Mutex<String>>);

impl Said {
    fn gather(&self, from: impl Read + Send + 'static) {
        let said = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut said = said.0.lock().expect("unpoisoned");
                said.push_str(&line);
                said.push('\n');
            }
        });
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("unpoisoned").clone()
    }

    /// Waits until `words` have been said.
    #[track_caller]
    pub(crate) fn wait(&self, words: &str) -> String {
        assert!(until(|| self.text().contains(words)), "{words:?} was not said:\n{}", self.text());
        self.text()
    }
}

/// A command that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Said,
    pub(crate) stderr: Said,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let args = [format!("-{name}"), self.child.id().to_string()];
        let status = Command::new("kill").args(args).status().expect("kill runs");
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for the end, and gives the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        wait(&mut self.child, &self.stderr)
    }

    /// Ends it as Ctrl-C does; it must end cleanly.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("INT");
        assert_eq!(self.end(), Some(0), "{}", self.stderr.text());
    }
}

impl Running {
    /// Ends it as [`Running::stop`] does, and looks at all that it said.
    #[track_caller]
    pub(crate) fn stop_with(self, look: impl FnOnce(&str)) {
        let said = self.stderr.clone();
        self.stop();
        said.wait("Stopped.");
        look(&said.text());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One HTTP request; the answer's status and body.
pub(crate) fn http(method: &str, url: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let token = token.map(|token| ("x-admin-token", token));
    http_with(method, url, token.as_slice(), body)
}

/// As [`http`], with these headers.
pub(crate) fn http_with(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let rest = url.strip_prefix("http://").expect("an http:// address");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(host).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}content-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
}

/// A temporary directory that the server's user may enter when we are root.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711));
    builder.prefix("cogo-cli-").tempdir().expect("a temporary directory")
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("a file");
}
