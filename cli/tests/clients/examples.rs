//! The workers of `examples/`, run as they are, with the clients that they are for.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::driver::{ALL, Client};
use crate::hub::Hub;
use crate::support::until;

/// How many messages each of them is given.
const MESSAGES: usize = 50;
/// Short, so that the messages of the one that is killed come back soon.
const LEASE_MS: &str = "1500";

/// A worker; killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(client: Client, script: &Path, hub: &Hub, topic: &str, name: &str) -> Self {
        let key = hub.worker_key("acme", name, topic);
        let mut command = client.interpreter();
        command.arg(script).env("COGO_URL", &hub.url).env("COGO_KEY", key);
        command.env("COGO_TOPIC", topic).env("COGO_WORKER", name).env("COGO_LEASE_MS", LEASE_MS);
        Self(command.stdout(Stdio::null()).spawn().expect("the interpreter starts"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The script, where its imports find the client: next to what npm installed.
fn script(client: Client, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    if !client.is_js() {
        return source;
    }
    let copy = client.home().join(name);
    std::fs::copy(source, &copy).expect("target/ is writable");
    copy
}

#[test]
fn each_example_does_all_its_work_once_though_one_of_two_is_killed() {
    let hub = Hub::start();
    let runs: Vec<_> = ALL
        .into_iter()
        .flat_map(|client| {
            let scripts: &[_] =
                if client.is_js() { &["worker.mjs"] } else { &["worker.py", "worker_sync.py"] };
            scripts.iter().map(move |name| (client, *name))
        })
        .collect();
    for (client, name) in runs {
        let what = format!("{name} with {}", client.name());
        let topic =
            format!("echo/{}-{}", client.word(), name.split('.').next().unwrap_or_default());
        // Some take longer than their lease, and have to be extended.
        let payload = |n: usize| json!({"n": n, "ms": if n % 25 == 7 { 2000 } else { 40 }});
        let payloads: Vec<_> = (0..MESSAGES).map(payload).collect();
        let script = script(client, name);
        let victim = Worker::start(client, &script, &hub, &topic, &format!("{}-1", client.word()));
        let ids = hub.enqueue_all("acme", &topic, &payloads);
        let (_, service) = topic.split_once('/').expect("role/service");
        let count = |filter: &str| {
            let path = format!("/rest/v1/agent_messages?service=eq.{service}&select=id&{filter}");
            hub.get(&path).as_array().map_or(0, Vec::len)
        };
        assert!(until(|| count("status=eq.done") >= 5), "{what} does nothing");
        let _survivor =
            Worker::start(client, &script, &hub, &topic, &format!("{}-2", client.word()));
        assert!(until(|| count("status=eq.claimed") > 0), "{what} claims nothing");
        drop(victim);
        assert!(
            until(|| count("status=eq.done") == MESSAGES),
            "{what}: {} done",
            count("status=eq.done")
        );

        for (id, payload) in ids.iter().zip(&payloads) {
            let path = format!("/rest/v1/bus_events?message_id=eq.{id}&select=event_type,attempt");
            let events = hub.get(&path);
            let events = events.as_array().expect("rows").iter();
            let done = events.filter(|event| event["event_type"] == "echo_succeeded").count();
            assert_eq!(done, 1, "{what}: {id}");
            let found = hub.get(&format!("/rest/v1/agent_messages?id=eq.{id}&select=result"));
            assert_eq!(found[0]["result"]["echo"], *payload, "{what}: {found}");
        }
    }
}

/// An example that is idle hears of new work at once, and does not wait for its poll.
#[test]
fn an_idle_example_is_woken() {
    let hub = Hub::start();
    for client in ALL {
        let name = if client.is_js() { "worker.mjs" } else { "worker.py" };
        let topic = format!("echo/{}", client.word());
        let _worker = Worker::start(client, &script(client, name), &hub, &topic, &client.word());
        let first = hub.enqueue("acme", &topic, json!({}));
        hub.wait_until(&first, "done");
        // It polls every 15 s at the most; of three, two at least are too soon for that.
        let watch = cogo::clock::Stopwatch::start();
        for n in 0..3 {
            let id = hub.enqueue("acme", &topic, json!({"n": n}));
            hub.wait_until(&id, "done");
        }
        let took = watch.elapsed();
        assert!(took.as_secs() < 15, "{} took {took:?} for three", client.name());
        assert_ne!(hub.get("/rest/v1/agent_messages?status=eq.done"), Value::Null);
    }
}
