//! A hub outside, a worker inside, and messages that come steadily.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use cogo::clock::{Stopwatch, utc_now};
use cogo::message::MessageId;
use serde_json::{Value, json};

use crate::inside::http;
use crate::net::Net;
use crate::support::{Cogo, temp_dir, until};
use crate::tls::{Certificates, NAME};

/// Where the hub listens in its namespace.
pub(crate) const BACKEND: &str = "127.0.0.1:8787";
/// How long a claim lives without being extended; cuts are longer.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// What lies between two messages of the stream.
const PACE: Duration = Duration::from_millis(100);
/// What a worker must be back within, from when its link is.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(5);
/// What a machine that does other things as well may add to that. Without its signs of life a worker would be back
/// when TCP gives up, after many minutes.
pub(crate) const BUSY: Duration = Duration::from_secs(20);
const TENANT: &str = "acme";

/// A process that is killed when this is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Everything, running.
pub(crate) struct World {
    pub(crate) net: Arc<Net>,
    pub(crate) certificates: Certificates,
    cogo: Cogo,
    service: String,
    worker: Option<Guarded>,
    _hub: Guarded,
    dir: tempfile::TempDir,
}

impl World {
    /// A hub behind TLS, and no worker yet.
    pub(crate) fn new(net: Net) -> Result<Self> {
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs)?;
        let hub_json = json!({"allowed_hosts": [crate::net::HUB, NAME]});
        std::fs::write(configs.join("hub.json"), hub_json.to_string())?;
        let cogo = Cogo::new()
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_WORKER_LEASE_MS", LEASE.as_millis().to_string())
            .with("COGO_JWT_SECRET", "the-secret-of-the-nat-tests-0123456789");
        let certificates = Certificates::make(dir.path())?;
        certificates.terminate(&net.hub, BACKEND)?;
        let said = dir.path().join("hub.log");
        let hub = start(&cogo, &net.hub, &["up", "--listen", BACKEND], &[], &said)?;
        let ready =
            || std::fs::read_to_string(&said).is_ok_and(|text| text.contains("Ctrl-C stops it."));
        ensure!(until(ready), "the hub did not start: {:?}", std::fs::read_to_string(&said));
        let service = cogo.ok(&["token", "mint", "--role", "service_role"]).line().to_owned();
        let net = Arc::new(net);
        Ok(Self { net, certificates, cogo, service, worker: None, _hub: hub, dir })
    }

    /// Starts the worker, which knows a URL and a key.
    pub(crate) fn start_worker(&mut self, url: &str, variables: &[(&str, String)]) -> Result<()> {
        let mint = ["token", "mint", "--tenant", TENANT, "--worker", "laptop", "--topic", "echo/*"];
        let key = self.cogo.ok(&mint).line().to_owned();
        let ca = self.certificates.ca();
        let args = ["worker", "echo", "--url", url, "--ca-file", &ca, "--worker-id", "laptop"];
        let mut all = vec![("COGO_KEY", key), ("COGO_DATA_DIR", "/nonexistent".to_owned())];
        all.extend_from_slice(variables);
        let said = self.dir.path().join("worker.log");
        self.worker = Some(start(&self.cogo, &self.net.worker, &args, &all, &said)?);
        ensure!(
            until(|| std::fs::read_to_string(&said).is_ok_and(|text| text.contains("is ready"))),
            "the worker did not start: {:?}",
            std::fs::read_to_string(&said)
        );
        Ok(())
    }

    /// Sends the worker a signal.
    pub(crate) fn signal_worker(&self, name: &str) -> Result<()> {
        let pid = self.worker.as_ref().context("a worker")?.0.id().to_string();
        crate::net::run("kill", &[&format!("-{name}"), &pid], "")
    }

    /// Ends the worker as Ctrl-C does; it must end cleanly.
    pub(crate) fn stop_worker(&mut self) -> Result<()> {
        self.signal_worker("INT")?;
        let mut worker = self.worker.take().context("a worker")?;
        let mut code = None;
        let ended = until(|| {
            worker.0.try_wait().expect("a child").is_some_and(|status| {
                code = status.code();
                true
            })
        });
        ensure!(ended && code == Some(0), "the worker ended with {code:?}:\n{}", self.worker_log());
        Ok(())
    }

    /// What the worker has said, for when something is wrong.
    pub(crate) fn worker_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("worker.log")).unwrap_or_default()
    }

    /// Reads from the hub, with the rights of the service; again where the hub has no time for it.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let path = format!("/rest/v1/{path}");
        let read = || http(&self.net.hub, "GET", (BACKEND, &path), &self.service, "");
        let mut answer = read();
        until(|| {
            if answer.is_err() {
                answer = read();
            }
            answer.is_ok()
        });
        answer
    }

    /// Whether the hub takes the worker for online.
    pub(crate) fn worker_status(&self) -> Result<String> {
        let found = self.get("workers?id=eq.laptop&select=status")?;
        Ok(found[0]["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// Begins to send.
    pub(crate) fn stream(&self) -> Stream {
        let (net, service) = (Arc::clone(&self.net), self.service.clone());
        let stream = Stream::default();
        let inner = stream.0.clone();
        thread::spawn(move || {
            while !inner.over.load(Ordering::Relaxed) {
                let sent = utc_now();
                let n = inner.sent.lock().expect("unpoisoned").len();
                let id = MessageId::new().to_string();
                let message = json!({"id": id, "tenant": TENANT, "role": "echo", "service": "default",
                    "intent": "echo", "payload": {"n": n}, "max_attempts": 100});
                let body = json!({"messages": [message]}).to_string();
                let path = (BACKEND, "/rest/v1/rpc/bus_enqueue");
                // As a client does that a hub on a busy machine tells to come again: with its id it is sent once.
                let mut answer = http(&net.hub, "POST", path, &service, &body);
                until(|| {
                    if answer.is_err() {
                        answer = http(&net.hub, "POST", path, &service, &body);
                    }
                    answer.is_ok() || inner.over.load(Ordering::Relaxed)
                });
                match answer {
                    Ok(_) => inner.sent.lock().expect("unpoisoned").push((id, sent)),
                    Err(_) if inner.over.load(Ordering::Relaxed) => {}
                    Err(error) => {
                        inner.failures.lock().expect("unpoisoned").push(format!("{error:#}"))
                    }
                }
                thread::sleep(PACE);
            }
        });
        stream
    }

    /// How long after `since` the first message that was sent later was done.
    pub(crate) fn back_after(&self, since: DateTime<Utc>) -> Result<Duration> {
        let watch = Stopwatch::start();
        loop {
            let after = since.format("%Y-%m-%dT%H:%M:%S%.6fZ");
            let path = format!(
                "agent_messages?role=eq.echo&status=eq.done&created_at=gt.{after}&select=done_at&order=done_at&limit=1"
            );
            let found = self.get(&path)?;
            if let Some(done) = found[0]["done_at"].as_str() {
                let done: DateTime<Utc> = done.parse()?;
                return Ok((done - since).to_std().unwrap_or_default());
            }
            ensure!(
                watch.elapsed() < Duration::from_secs(60),
                "the worker did not come back:\n{}",
                self.worker_log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Messages that are sent until [`Stream::end`].
#[derive(Debug, Default)]
pub(crate) struct Stream(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    over: AtomicBool,
    sent: Mutex<Vec<(String, DateTime<Utc>)>>,
    failures: Mutex<Vec<String>>,
}

impl Stream {
    /// Ends it; the ids of what was sent.
    pub(crate) fn end(&self) -> Result<Vec<String>> {
        self.0.over.store(true, Ordering::Relaxed);
        let failures = self.0.failures.lock().expect("unpoisoned").join("\n");
        ensure!(failures.is_empty(), "sending failed: {failures}");
        let sent = self.0.sent.lock().expect("unpoisoned");
        Ok(sent.iter().map(|(id, _)| id.clone()).collect())
    }
}

/// Where a test fails before its end; else the thread would go on, and keep the namespaces.
impl Drop for Stream {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Starts `cogo` in a namespace; what it says goes to a file.
fn start(
    cogo: &Cogo,
    namespace: &str,
    args: &[&str],
    variables: &[(&str, String)],
    log: &std::path::Path,
) -> Result<Guarded> {
    let like = cogo.command(args);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL", "--"]);
    command.arg(like.get_program()).args(like.get_args());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    for proxy in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        command.env_remove(proxy);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.env("NO_COLOR", "1").current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Guarded(command.stderr(std::fs::File::create(log)?).spawn()?))
}
