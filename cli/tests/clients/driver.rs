//! A client in a process of its own, which does what it is told.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread;
use std::time::Duration;

use cogo::clock::Stopwatch;
use serde_json::{Value, json};

/// For machines that are busy with something else.
const DEADLINE: Duration = Duration::from_secs(60);

/// One of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Js2_109,
    Js2_49,
    Py2_34,
    Py2_15,
}

/// All of them.
pub(crate) const ALL: [Client; 4] =
    [Client::Js2_109, Client::Js2_49, Client::Py2_34, Client::Py2_15];

impl Client {
    /// The name of its directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Js2_109 => "js-2.109",
            Self::Js2_49 => "js-2.49",
            Self::Py2_34 => "py-2.34",
            Self::Py2_15 => "py-2.15",
        }
    }

    /// What may stand in a topic or the id of a worker.
    pub(crate) fn word(self) -> String {
        self.name().replace('.', "-")
    }

    pub(crate) fn is_js(self) -> bool {
        matches!(self, Self::Js2_109 | Self::Js2_49)
    }

    /// Where it is installed.
    pub(crate) fn home(self) -> PathBuf {
        install();
        target().join("clients").join(self.name())
    }

    /// What runs a script with it, in [`Client::home`].
    pub(crate) fn interpreter(self) -> Command {
        let home = self.home();
        let mut command =
            if self.is_js() { Command::new("node") } else { Command::new(home.join("bin/python")) };
        command.current_dir(&home).env("PYTHONUNBUFFERED", "1").stdin(Stdio::null());
        command
    }

    /// Starts it, with nothing connected.
    pub(crate) fn start(self) -> Driver {
        let script = if self.is_js() { "driver.mjs" } else { "driver.py" };
        let mut command = self.interpreter();
        command.arg(pins().join(script)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the interpreter starts");
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let stdout = child.stdout.take().expect("a pipe");
        let listening = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                listening.0.lock().expect("unpoisoned").take_in(&line);
                listening.1.notify_all();
            }
            listening.0.lock().expect("unpoisoned").ended = true;
            listening.1.notify_all();
        });
        let stderr = child.stderr.take().expect("a pipe");
        let listening = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                listening.0.lock().expect("unpoisoned").said.push(line);
            }
        });
        let stdin = child.stdin.take();
        let driver = Driver { client: self, child, stdin, heard, last: Cell::new(0) };
        let version = driver.ask("version", json!({}));
        assert!(version.as_str().is_some_and(|v| v.starts_with(&self.name()[3..])), "{version}");
        driver
    }

    /// Starts it, connected with a key.
    pub(crate) fn connect(self, url: &str, key: &str) -> Driver {
        let driver = self.start();
        driver.ask("connect", json!({"url": url, "key": key}));
        driver
    }
}

fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients")
}

fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("tmp lies in target").to_owned()
}

/// What cannot be installed fails the test: skipping would hide that nothing was tested.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Other test processes may be at it.
        let lock = target().join("clients.lock");
        let lock = File::create(lock).expect("target/ is writable");
        lock.lock().expect("the file system has locks");
        let mut script = Command::new(pins().join("install.sh"));
        let script = script.env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
        let output = script.output().expect("the script starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the clients could not be installed:\n{said}");
    });
}

/// What a driver has said so far.
#[derive(Debug, Default)]
struct Heard {
    answers: HashMap<u64, Value>,
    events: Vec<Value>,
    said: Vec<String>,
    ended: bool,
}

impl Heard {
    fn take_in(&mut self, line: &str) {
        self.said.push(line.to_owned());
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        match line["id"].as_u64() {
            Some(id) => drop(self.answers.insert(id, line)),
            None => self.events.push(line),
        }
    }
}

/// A client that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) client: Client,
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    last: Cell<u64>,
}

impl Driver {
    /// Tells it to do something, and gives what it answers.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str, args: Value) -> Value {
        let line = self.try_ask(command, args);
        assert!(line.get("failed").is_none(), "{command}: {line}\n{}", self.log());
        line["answer"].clone()
    }

    /// Tells it to do something that must fail; what it says about that.
    #[track_caller]
    pub(crate) fn fails(&self, command: &str, args: Value) -> Value {
        let line = self.try_ask(command, args);
        assert!(line.get("failed").is_some(), "{command}: {line}");
        line["failed"].clone()
    }

    #[track_caller]
    fn try_ask(&self, command: &str, mut args: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        args["id"] = json!(id);
        args["command"] = json!(command);
        let mut stdin = self.stdin.as_ref().expect("open until dropped");
        let told = writeln!(stdin, "{args}").and_then(|()| stdin.flush());
        told.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        self.wait(command, |heard| heard.answers.remove(&id))
    }

    /// Waits for an event of which `is_it` holds; it is not given again.
    #[track_caller]
    pub(crate) fn event(&self, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.wait(event, |heard| {
            let found = heard.events.iter().position(|e| e["event"] == event && is_it(e))?;
            Some(heard.events.remove(found))
        })
    }

    /// The events of this kind that came so far, and were not yet given.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let heard = self.heard.0.lock().expect("unpoisoned");
        heard.events.iter().filter(|e| e["event"] == event).cloned().collect()
    }

    /// Subscribes to a channel, which must work.
    #[track_caller]
    pub(crate) fn subscribe(&self, channel: &str, mut args: Value) {
        args["channel"] = json!(channel);
        let status = self.ask("subscribe", args);
        assert_eq!(status, "SUBSCRIBED", "{:?}: {}", self.client, self.log());
    }

    /// Waits until changes are listened for, which is later than the subscription is there.
    #[track_caller]
    pub(crate) fn listening(&self, channel: &str) {
        self.event("system", |event| {
            let payload = &event["payload"];
            event["channel"] == channel
                && payload["status"] == "ok"
                && payload["message"] == "Subscribed to PostgreSQL"
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, mut look: impl FnMut(&mut Heard) -> Option<Value>) -> Value {
        let watch = Stopwatch::start();
        let mut heard = self.heard.0.lock().expect("unpoisoned");
        loop {
            if let Some(found) = look(&mut heard) {
                return found;
            }
            let left = DEADLINE.saturating_sub(watch.elapsed());
            if left.is_zero() || heard.ended {
                let why = if heard.ended { "it ended" } else { "time is up" };
                let said = heard.said.join("\n");
                drop(heard);
                panic!("{:?}: no {what}, and {why}:\n{said}", self.client);
            }
            heard = self.heard.1.wait_timeout(heard, left).expect("unpoisoned").0;
        }
    }

    pub(crate) fn log(&self) -> String {
        self.heard.0.lock().expect("unpoisoned").said.join("\n")
    }

    /// `kill -9`, as when the machine is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
