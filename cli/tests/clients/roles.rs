//! The roles of `examples/` that have all that a role should have, in three languages: one list of promises for each.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::driver::Client;
use crate::hub::Hub;
use crate::service::Service;
use crate::support::until;

/// Short, so that what a killed one held comes back soon; and long enough that a busy machine extends it in time, since a
/// lease that is lost is told here as `ambiguous`.
const LEASE_MS: &str = "5000";

#[derive(Debug, Clone, Copy)]
enum Language {
    TypeScript,
    Python(Client),
    Rust,
}

impl Language {
    /// What may stand in a topic.
    fn word(self) -> String {
        match self {
            Self::TypeScript => "ts".to_owned(),
            Self::Python(client) => client.word(),
            Self::Rust => "rust".to_owned(),
        }
    }

    /// The example, made ready to run as its page says.
    fn command(self) -> Command {
        match self {
            Self::TypeScript => typescript(),
            Self::Python(client) => {
                let mut command = client.interpreter();
                command.arg(examples().join("role.py"));
                command
            }
            Self::Rust => Command::new(made("sh", &["rust-role.sh"])),
        }
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The last line of what a script of `tests/clients` prints.
fn made(program: &str, args: &[&str]) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    let done = Command::new(program).current_dir(dir).args(args).output().expect("it starts");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).expect("text");
    said.lines().last().expect("a line").to_owned()
}

/// `worker.ts`, compiled by `tsc` where its imports find the client.
fn typescript() -> Command {
    let home = Client::Js2_109.home().with_file_name("ts-5.9");
    for file in ["worker.ts", "tsconfig.json"] {
        std::fs::copy(examples().join(file), home.join(file)).expect("target/ is writable");
    }
    let tsc =
        Command::new("node_modules/.bin/tsc").current_dir(&home).output().expect("tsc starts");
    assert!(tsc.status.success(), "{}", String::from_utf8_lossy(&tsc.stdout));
    let mut command = Command::new("node");
    command.arg(home.join("worker.js"));
    command
}

/// A worker; killed when dropped.
struct Worker(Child);

impl Worker {
    fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill starts").success(), "the worker has ended");
    }
}

impl Worker {
    /// Told to stop, it does: no claim that it asked for is under way any more, which would be lost with a killed one, and
    /// burn an attempt of what comes next.
    fn stop(mut self) {
        self.signal("TERM");
        assert!(until(|| self.0.try_wait().expect("a child").is_some()), "it does not stop");
        assert!(self.0.wait().expect("a child").success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A hub, a topic, and one of the languages.
struct World {
    hub: Hub,
    language: Language,
    topic: String,
}

impl World {
    fn worker(&self, name: &str, target: &str, repeatable: bool) -> Worker {
        let mut command = self.language.command();
        command.env("COGO_URL", &self.hub.url).env("COGO_TOPIC", &self.topic);
        command.env("COGO_KEY", self.hub.worker_key("acme", name, &self.topic));
        command.env("COGO_WORKER", name).env("DELIVER_TO", target);
        command.env("COGO_LEASE_MS", LEASE_MS).env("COGO_WORKER_LEASE_MS", LEASE_MS);
        command.env("DELIVER_REPEATABLE", if repeatable { "1" } else { "0" });
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Worker(command.spawn().expect("it starts"))
    }

    fn send(&self, items: Value) -> String {
        let (role, service) = self.topic.split_once('/').expect("role/service");
        let message = json!({
            "tenant": "acme", "role": role, "service": service, "intent": "deliver",
            "payload": {"items": items}, "max_attempts": 5,
        });
        let rows = self.hub.rpc("bus_enqueue", json!({"messages": [message]}));
        rows[0]["id"].as_str().expect("an id").to_owned()
    }

    fn message(&self, id: &str) -> Value {
        self.hub.get(&format!("/rest/v1/agent_messages?id=eq.{id}"))[0].clone()
    }

    /// The message, once it has this status.
    #[track_caller]
    fn wait(&self, id: &str, status: &str) -> Value {
        let there = until(|| self.message(id)["status"] == status);
        assert!(there, "{}", self.message(id));
        self.message(id)
    }

    fn events(&self, id: &str) -> Vec<Value> {
        let path = format!("/rest/v1/bus_events?message_id=eq.{id}&order=seq");
        self.hub.get(&path).as_array().expect("rows").clone()
    }

    /// How many events of this type the message has.
    fn count(&self, id: &str, event_type: &str) -> usize {
        let events = self.events(id);
        events.iter().filter(|event| event["event_type"] == event_type).count()
    }

    /// A failure that nobody tries again.
    #[track_caller]
    fn dead(&self, id: &str, class: &str, attempts: u32) {
        let dead = self.wait(id, "failed");
        assert_eq!(
            (&dead["error"]["class"], &dead["attempts"]),
            (&json!(class), &json!(attempts)),
            "{dead}"
        );
        assert_eq!(self.count(id, "deliver_retry_scheduled"), 0);
    }
}

/// All that a page on writing a role promises.
fn keeps_its_promises(language: Language) {
    let topic = format!("deliver/{}", language.word());
    let world = World { hub: Hub::start(), language, topic };
    let service = Service::start();

    // It claims, works longer than a lease, reports, settles.
    let careful = world.worker("careful", &service.url, false);
    let id = world.send(json!([{}, {"ms": 6500}, {}]));
    let done = world.wait(&id, "done");
    assert_eq!(
        (&done["result"], &done["attempts"]),
        (&json!({"delivered": 3}), &json!(1)),
        "{done}"
    );
    assert_eq!(reports(&world.events(&id)), [1, 2, 3]);
    assert_eq!(world.events(&id).last().expect("events")["event_type"], "deliver_succeeded");
    let row = world.hub.get("/rest/v1/workers?id=eq.careful&select=status,role");
    assert_eq!(row, json!([{"status": "online", "role": "deliver"}]));

    // It fails by class, and gives up what another try would not mend.
    let id = world.send(json!([{"status": 422}]));
    world.dead(&id, "invalid_params", 1);
    let id = world.send(json!("no list"));
    world.dead(&id, "invalid_params", 1);
    let id = world.send(json!([{"status": 503}]));
    world.dead(&id, "tool_error", 1);

    // A lost answer is not a failure: nobody knows.
    let id = world.send(json!([{}, {"drop": 9}]));
    world.dead(&id, "ambiguous", 1);
    assert_eq!((service.count(&id, 0), service.count(&id, 1)), (1, 1));

    // What was delivered before the service went away is not delivered twice.
    careful.stop();
    let brief = Service::start_brief(1);
    let unlucky = world.worker("unlucky", &brief.url, false);
    let id = world.send(json!([{}, {}]));
    world.dead(&id, "ambiguous", 1);
    assert_eq!((brief.count(&id, 0), brief.count(&id, 1)), (1, 0));
    unlucky.stop();
    let careful = world.worker("careful", &service.url, false);

    // Killed in the middle: the next one may not repeat it.
    let id = world.send(json!([{}, {"ms": 60_000}]));
    assert!(until(|| service.count(&id, 1) == 1));
    careful.signal("KILL");
    drop(careful);
    let next = world.worker("careful", &service.url, false);
    world.dead(&id, "ambiguous", 2);
    assert_eq!((service.count(&id, 0), service.count(&id, 1)), (1, 1));
    next.stop();

    // Where the service knows its keys, all of that is simply done again, under the same keys.
    let victim = world.worker("repeats", &service.url, true);
    let id = world.send(json!([{"drop": 1}]));
    let done = world.wait(&id, "done");
    assert_eq!((service.count(&id, 0), world.count(&id, "deliver_succeeded")), (2, 1), "{done}");
    let id = world.send(json!([{}, {"ms": 3000}]));
    assert!(until(|| service.count(&id, 1) == 1));
    victim.signal("KILL");
    drop(victim);
    let last = world.worker("repeats", &service.url, true);
    let done = world.wait(&id, "done");
    assert_eq!((&done["attempts"], service.count(&id, 1)), (&json!(2), 2), "{done}");
    assert_eq!(
        (world.count(&id, "deliver_lease_expired"), world.count(&id, "deliver_succeeded")),
        (1, 1)
    );

    // Told to stop, it finishes what it has, takes nothing more, and says that it goes.
    let id = world.send(json!([{"ms": 2000}]));
    assert!(until(|| service.count(&id, 0) == 1));
    last.stop();
    assert_eq!(world.message(&id)["status"], "done");
    let row = world.hub.get("/rest/v1/workers?id=eq.repeats&select=status");
    assert_eq!(row, json!([{"status": "offline"}]));

    // A service that is away was sent nothing: the call is tried again until it is there.
    let nowhere = Service::nowhere();
    let _early = world.worker("early", &format!("http://{nowhere}/"), false);
    let id = world.send(json!([{}]));
    assert!(until(|| world.count(&id, "deliver_retry_scheduled") > 0), "{:?}", world.events(&id));
    assert_eq!(world.message(&id)["error"]["class"], "connect");
    let late = Service::start_late(nowhere);
    world.wait(&id, "done");
    assert_eq!(late.count(&id, 0), 1);
}

/// The numbers that were reported, in order.
fn reports(events: &[Value]) -> Vec<u64> {
    let progress = events.iter().filter(|event| event["event_type"] == "deliver_progress");
    let of = |event: &Value| match event["payload"]["reports"].as_array() {
        Some(several) => several.clone(),
        None => vec![event["payload"]["progress"].clone()],
    };
    progress.flat_map(of).map(|report| report["progress"].as_u64().expect("a number")).collect()
}

#[test]
fn the_role_in_typescript_keeps_its_promises() {
    keeps_its_promises(Language::TypeScript);
}

#[test]
fn the_role_in_python_keeps_its_promises() {
    keeps_its_promises(Language::Python(Client::Py2_34));
}

#[test]
fn the_role_in_python_keeps_its_promises_with_an_old_client() {
    keeps_its_promises(Language::Python(Client::Py2_15));
}

#[test]
fn the_role_in_rust_keeps_its_promises() {
    keeps_its_promises(Language::Rust);
}
