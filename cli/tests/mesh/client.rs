//! An SDK's client in a process of its own, which does what it is told (`tests/mesh/driver.mjs` and `.py`).

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use cogo::clock::Stopwatch;
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::install::{home, node, pins, plain};
use crate::support::until;

/// For machines that are busy with something else.
const DEADLINE: Duration = Duration::from_secs(60);

/// One of the SDKs' clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// `@modelcontextprotocol/sdk` 1.x.
    TypeScript1,
    /// `@modelcontextprotocol/client` 2.x.
    TypeScript2,
    /// `mcp` 1.x.
    Python1,
    /// `mcp` 2.x.
    Python2,
}

/// All of them.
pub(crate) const ALL: [Sdk; 4] = [Sdk::TypeScript1, Sdk::TypeScript2, Sdk::Python1, Sdk::Python2];

impl Sdk {
    /// The revision that it comes to.
    pub(crate) fn revision(self) -> &'static str {
        match self {
            Self::TypeScript1 | Self::Python1 => "2025-11-25",
            Self::TypeScript2 | Self::Python2 => "2026-07-28",
        }
    }

    /// A word that tells it from the others.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::TypeScript1 => "ts1",
            Self::TypeScript2 => "ts2",
            Self::Python1 => "py1",
            Self::Python2 => "py2",
        }
    }

    fn command(self) -> Command {
        let mut command = match self {
            Self::TypeScript1 | Self::TypeScript2 => {
                let mut command = Command::new(node());
                command.arg(pins().join("driver.mjs")).current_dir(home("sdk"));
                command.arg(if self == Self::TypeScript1 { "sdk" } else { "client" });
                command
            }
            Self::Python1 | Self::Python2 => {
                let home = home(if self == Self::Python1 { "py-1" } else { "py-2" });
                let mut command = Command::new(home.join("bin/python"));
                command.arg(pins().join("driver.py")).current_dir(home);
                command
            }
        };
        plain(&mut command);
        command
    }

    /// Starts it, connected with a key. `within` may put another command around its own.
    #[track_caller]
    pub(crate) fn connect_within(
        self,
        url: &str,
        key: &str,
        within: impl FnOnce(Command) -> Command,
    ) -> Client {
        let mut command = within(self.command());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the interpreter starts");
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let (stdout, stderr) =
            (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let listening = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                listening.0.lock().expect("unpoisoned").take_in(&line);
                listening.1.notify_all();
            }
            listening.0.lock().expect("unpoisoned").ended = true;
            listening.1.notify_all();
        });
        let listening = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                listening.0.lock().expect("unpoisoned").said.push(line);
            }
        });
        let stdin = child.stdin.take().expect("a pipe");
        let client = Client { sdk: self, child, stdin, heard, last: Cell::new(0) };
        let server = client.ask("connect", json!({"url": url, "token": key}));
        assert_eq!(server["revision"], self.revision(), "{self:?}: {server}");
        client
    }

    /// Starts it, connected with a key.
    #[track_caller]
    pub(crate) fn connect(self, url: &str, key: &str) -> Client {
        self.connect_within(url, key, |command| command)
    }
}

/// What a client has said so far.
#[derive(Debug, Default)]
struct Heard {
    answers: HashMap<u64, Value>,
    events: Vec<Value>,
    said: Vec<String>,
    ended: bool,
}

impl Heard {
    fn take_in(&mut self, line: &str) {
        self.said.push(line.chars().take(2000).collect());
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        match line["id"].as_u64() {
            Some(id) => drop(self.answers.insert(id, line)),
            None => self.events.push(line),
        }
    }
}

/// A client that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) sdk: Sdk,
    child: Child,
    stdin: ChildStdin,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    last: Cell<u64>,
}

impl Client {
    /// Tells it to do something, and gives what it answers.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str, args: Value) -> Value {
        let line = self.try_ask(command, args);
        assert!(line.get("failed").is_none(), "{:?}: {command}: {line}\n{}", self.sdk, self.log());
        line["answer"].clone()
    }

    /// Calls a tool, and gives its result.
    #[track_caller]
    pub(crate) fn call(&self, name: &str, arguments: Value) -> Value {
        let call = self.last.get() + 1;
        self.ask("call", json!({"call": call, "name": name, "arguments": arguments}))
    }

    /// Calls a tool, which must be answered by a JSON-RPC error.
    #[track_caller]
    pub(crate) fn fails(&self, name: &str, arguments: Value) -> Value {
        let line = self.try_call(name, arguments);
        assert!(line.get("failed").is_some(), "{:?}: {name}: {line}", self.sdk);
        line["failed"].clone()
    }

    /// Calls a tool; its result under `answer`, or under `failed` what went wrong.
    #[track_caller]
    pub(crate) fn try_call(&self, name: &str, arguments: Value) -> Value {
        self.try_ask("call", json!({"call": 0, "name": name, "arguments": arguments}))
    }

    /// Begins to call a tool; [`Client::ended`] gives what becomes of it.
    #[track_caller]
    pub(crate) fn begin(&self, call: u64, name: &str, arguments: Value, meta: Value) {
        self.ask(
            "start",
            json!({"call": call, "name": name, "arguments": arguments, "meta": meta}),
        );
    }

    /// What became of a call that was begun.
    #[track_caller]
    pub(crate) fn ended(&self, call: u64) -> Value {
        self.event("ended", |event| event["call"] == call)
    }

    /// The names of the tools.
    #[track_caller]
    pub(crate) fn tools(&self) -> Vec<String> {
        let tools = self.ask("tools", json!({}));
        let tools = tools.as_array().expect("a list").iter();
        tools.map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }

    #[track_caller]
    fn try_ask(&self, command: &str, mut args: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        args["id"] = json!(id);
        args["command"] = json!(command);
        let mut stdin = &self.stdin;
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
                panic!("{:?}: no {what}, and {why}:\n{said}", self.sdk);
            }
            heard = self.heard.1.wait_timeout(heard, left).expect("unpoisoned").0;
        }
    }

    fn log(&self) -> String {
        self.heard.0.lock().expect("unpoisoned").said.join("\n")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits until the hub lists a tool.
#[track_caller]
pub(crate) fn listed(hub: &Hub, tool: &str) {
    let client = Sdk::TypeScript1.connect(&format!("{}/mcp", hub.url), &hub.client_key());
    assert!(
        until(|| client.tools().iter().any(|name| name == tool)),
        "{:?}\n{}",
        client.tools(),
        hub.log()
    );
}
