//! One round over a bus: a worker joins, calls go through it, and it leaves.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cogo::bus::Bus;
use cogo::bus::dead_letter::{Filter, Operated};
use cogo::clock::Stopwatch;
use cogo::event::Event;
use cogo::gate::{Done, Failure, Stage, Steps, Stopped, done};
use cogo::message::{DEFAULT_TENANT, Message, MessageId, NewMessage, Status, Topic};
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::ROLE;
use cogo_worker_mcp_gateway::demo::Demo;
use cogo_worker_mcp_gateway::handler::INTENT;
use futures_util::future::BoxFuture;
use rand::RngExt as _;
use serde_json::{Value, json};

use super::access::Access;
use crate::gate::process::Process;
use crate::text::error_text;
use crate::wait::wait;

/// How long a worker may take until it claims.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long a call may take over the internet, with wake-ups lost. It ends by itself after that, so that what a gate leaves
/// behind that was killed does not wait for ever.
const CALL_WITHIN: Duration = Duration::from_secs(60);
/// For how long the slow tool sleeps: long enough to be seen at it over the internet.
const SLEEP: Duration = Duration::from_secs(3);
/// How often to look whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many workers are looked at: those online come first, the last seen first.
const WORKERS: u32 = 1000;
/// How many events of a message are read; a call that goes well has two.
const EVENTS: u32 = 100;

/// The stage.
#[derive(Debug)]
pub(super) struct Round {
    name: &'static str,
    access: Result<Access, String>,
    operator: Option<Access>,
    dir: PathBuf,
}

impl Round {
    /// A round by this access, or none for want of what is named. What it may not clean up, `operator` may. Its files go
    /// into `dir`, which it makes.
    pub(super) fn new(
        name: &'static str,
        access: Result<Access, String>,
        operator: Option<Access>,
        dir: PathBuf,
    ) -> Self {
        Self { name, access, operator, dir }
    }
}

impl Stage for Round {
    fn name(&self) -> &'static str {
        self.name
    }

    fn at_most(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let access = match &self.access {
                Ok(access) => access,
                Err(missing) => {
                    steps.skip_stage(missing.as_str());
                    return Ok(());
                }
            };
            steps.artifacts(&self.dir);
            let bus = steps.step("reach", reach(access)).await?;
            let demo = Shutdown::new();
            let _ends_with_this = demo.cancelled().clone().drop_guard();
            let worker = steps.step("join", self.join(access, &bus, &demo)).await?;
            let calls = Calls::new(bus, &worker);
            let went = calls.go(steps).await;
            // Also after a failure.
            let cleaned = steps.step("clean up", calls.clean_up(self.operator.as_ref())).await;
            let left = steps.step("leave", leave(&calls.bus, worker)).await;
            went.and(cleaned).and(left)
        })
    }
}

/// The gateway's worker, a process of its own.
struct Worker {
    process: Process,
    id: String,
    toolset: String,
}

async fn reach(access: &Access) -> Result<Done<Bus>, Failure> {
    let unreachable = |error: anyhow::Error| {
        let remedy = "See docs/supabase.md for how a project is set up, and `cogo token inspect` for what a key allows.";
        Failure::new(format!("{error:#}")).remedy(remedy)
    };
    let (bus, place) = access.bus().await.map_err(unreachable)?;
    let schema = match bus.schema_version().await? {
        Some(version) => format!("schema {version}"),
        None => "a schema without a version".to_owned(),
    };
    Ok(done(bus, format!("{place}, {schema}")))
}

impl Round {
    /// Starts an MCP server here, and a worker that offers it under a name of this run alone.
    async fn join(
        &self,
        access: &Access,
        bus: &Bus,
        demo: &Shutdown,
    ) -> Result<Done<Worker>, Failure> {
        let run: u32 = rand::rng().random();
        let toolset = format!("e2e-{run:08x}");
        let url = Demo::start(demo.clone()).await?.url;
        let configs = self.dir.join("configs");
        std::fs::create_dir_all(&configs)?;
        let config = json!({"toolsets": {&toolset: {"url": url}}});
        std::fs::write(configs.join("mcp.json"), config.to_string())?;

        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", ROLE.name, "--log-format", "text"]);
        if matches!(access, Access::Postgres { .. }) {
            command.args(["--worker-id", &format!("gate-{toolset}")]);
        }
        // Nothing of ours but what it needs to join.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("COGO_") || name == "DATABASE_URL")
            {
                command.env_remove(name);
            }
        }
        let absolute = std::path::absolute(&self.dir)?;
        command.env("COGO_CONFIG_DIR", absolute.join("configs"));
        command.env("COGO_DATA_DIR", absolute.join("data"));
        command.env("COGO_ARTIFACTS_DIR", absolute.join("artifacts"));
        command.envs(access.environment());
        let log = self.dir.join("worker.log");
        let mut process = Process::start(&command, &log)?;
        let watch = Stopwatch::start();
        let id = loop {
            let said = process.said();
            let ready = said.lines().find_map(|line| {
                line.strip_prefix("Worker ")?.split_once(" is ready").map(|(id, _)| id.to_owned())
            });
            let is_listed = match &ready {
                Some(id) => status_of(bus, id).await?.as_deref() == Some("online"),
                None => false,
            };
            if let Some(id) = ready.filter(|_| is_listed) {
                break id;
            }
            let late = watch.elapsed() > JOIN_WITHIN;
            if process.has_ended() || late {
                let what = if late { "did not join in time" } else { "ended before it had joined" };
                let why = format!("the worker {what}: {}", process.last_words());
                let remedy = format!("All that it said is in {}.", log.display());
                return Err(Failure::new(why).remedy(remedy));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let detail = format!("{id} is listed, and offers {toolset}");
        Ok(done(Worker { process, id, toolset }, detail))
    }
}

/// `online` or `offline`, once it has been heard of.
async fn status_of(bus: &Bus, id: &str) -> Result<Option<String>, Failure> {
    let workers = bus.workers(WORKERS).await?;
    Ok(workers.into_iter().find(|row| row.id == id).map(|row| row.status))
}

/// The worker is asked to end; the bus must know that it has.
async fn leave(bus: &Bus, worker: Worker) -> Result<Done<()>, Failure> {
    let Worker { process, id, .. } = worker;
    // Its end is waited for, which blocks.
    tokio::task::spawn_blocking(move || drop(process)).await?;
    let watch = Stopwatch::start();
    loop {
        match status_of(bus, &id).await?.as_deref() {
            Some("online") if watch.elapsed() > CALL_WITHIN => {
                return Err(Failure::new(format!("{id} has ended, and is still listed as online")));
            }
            Some("online") => tokio::time::sleep(LOOK_EVERY).await,
            _ => return Ok(done((), format!("{id} is offline"))),
        }
    }
}

/// The calls of a round.
struct Calls {
    bus: Bus,
    worker: String,
    tenant: String,
    toolset: String,
    made: Mutex<Vec<MessageId>>,
}

impl Calls {
    fn new(bus: Bus, worker: &Worker) -> Self {
        let tenant = bus.claims().and_then(|claims| claims.tenant);
        Self {
            tenant: tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
            worker: worker.id.clone(),
            toolset: worker.toolset.clone(),
            made: Mutex::default(),
            bus,
        }
    }

    async fn go(&self, steps: &Steps<'_>) -> Result<(), Stopped> {
        let called = steps.step("call", self.call()).await?;
        steps.step("events", self.events(&called)).await?;
        steps.step("claim", self.claim()).await?;
        steps.step("dead letter", self.dead_letter()).await
    }

    async fn publish(&self, tool: &str, params: Value) -> Result<MessageId, Failure> {
        let topic = Topic::new(ROLE.name, &self.toolset)?;
        let payload = json!({"toolset": self.toolset, "tool": tool, "params": params});
        let mut message = NewMessage::new(&topic, INTENT, payload)
            .with_max_attempts(1)
            .with_deadline(CALL_WITHIN);
        message.tenant.clone_from(&self.tenant);
        let receipt = self.bus.publish(message).await?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(receipt.id);
        self.bus.wake_others().await;
        Ok(receipt.id)
    }

    /// Waits for the end of a call, which must be this one.
    async fn ended(&self, id: MessageId, expected: Status) -> Result<Message, Failure> {
        let waited = wait(&self.bus, id, 2 * CALL_WITHIN, |_| {}).await;
        let message = waited.map_err(|error| Failure::new(format!("{error:#}")))?;
        if message.status == expected {
            return Ok(message);
        }
        let why = message.error.as_ref().map(error_text).unwrap_or_default();
        let status = message.status;
        Err(Failure::new(format!("message {id} should be {expected} and is {status} {why}")))
    }

    /// A call that comes back with what only the tool can have said.
    async fn call(&self) -> Result<Done<Message>, Failure> {
        let watch = Stopwatch::start();
        let (a, b): (u16, u16) = rand::rng().random();
        let id = self.publish("add", json!({"a": a, "b": b})).await?;
        let message = self.ended(id, Status::Done).await?;
        let sum =
            message.result.as_ref().and_then(|r| r.pointer("/structuredContent/sum")?.as_f64());
        if sum != Some(f64::from(a) + f64::from(b)) {
            let result = message.result.unwrap_or_default();
            return Err(Failure::new(format!("{a} + {b} came back as {result}")));
        }
        let detail = format!("message {id}: {a} + {b} was added up in {} ms", watch.elapsed_ms());
        Ok(done(message, detail))
    }

    /// The log says what happened to it, in order.
    async fn events(&self, message: &Message) -> Result<Done<()>, Failure> {
        let events = self.bus.message_events(message.id, EVENTS).await?;
        let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
        if types != ["mcp_call_scheduled", "mcp_call_succeeded"] {
            let why = format!("the log should hold scheduled and succeeded, and holds {types:?}");
            return Err(Failure::new(why));
        }
        let of_trace = |event: &Event| event.trace_id == message.trace_id;
        let by = events.last().and_then(|event| event.worker_id.as_deref());
        if !events.iter().all(of_trace) || by != Some(&self.worker) {
            let why =
                format!("the events of message {} are not of its trace and worker", message.id);
            return Err(Failure::new(why));
        }
        Ok(done((), format!("{} of trace {}", types.join(", "), message.trace_id)))
    }

    /// A call that is seen in the worker's hands.
    async fn claim(&self) -> Result<Done<()>, Failure> {
        let ms = u64::try_from(SLEEP.as_millis()).unwrap_or(u64::MAX);
        let id = self.publish("sleep", json!({"ms": ms})).await?;
        loop {
            let message = self.bus.message(id).await?;
            match (message.status, message.claimed_by.as_deref()) {
                (Status::Claimed, Some(by)) if by == self.worker => break,
                (Status::Delayed | Status::Queued, _) => tokio::time::sleep(LOOK_EVERY).await,
                (status, by) => {
                    let by = by.unwrap_or("nobody");
                    let why = format!(
                        "message {id} was never seen claimed by {}: it is {status}, claimed by {by}",
                        self.worker
                    );
                    return Err(Failure::new(why));
                }
            }
        }
        self.ended(id, Status::Done).await?;
        Ok(done((), format!("message {id} was seen claimed, then done")))
    }

    /// A call that fails, and lies where such calls lie.
    async fn dead_letter(&self) -> Result<Done<()>, Failure> {
        let word = format!("{}, as it should", self.toolset);
        let id = self.publish("fail", json!({"message": word})).await?;
        let message = self.ended(id, Status::Failed).await?;
        let said = message.error.as_ref().map(error_text).unwrap_or_default();
        if !said.contains(&word) {
            return Err(Failure::new(format!("message {id} failed for another reason: {said}")));
        }
        let events = self.bus.message_events(id, EVENTS).await?;
        if !events.iter().any(|event| event.event_type == "mcp_call_dead_lettered") {
            return Err(Failure::new(format!("the log does not say that message {id} is dead")));
        }
        if self.bus.pool().is_none() {
            // The queue itself is read by who has a database.
            return Ok(done((), format!("message {id}: {said}; the log calls it dead-lettered")));
        }
        let filter = Filter { service: Some(self.toolset.clone()), ..Filter::default() };
        let dead = self.bus.dead_letters(&filter, EVENTS).await?;
        match dead.as_slice() {
            [one] if one.message.id == id => {
                Ok(done((), format!("message {id}: {said}; it lies in the dead-letter queue")))
            }
            others => Err(Failure::new(format!(
                "the dead-letter queue should hold message {id} of {}, and holds {}",
                self.toolset,
                others.len()
            ))),
        }
    }

    /// Cancels what is under way, and drops what is dead, as far as the rights go.
    async fn clean_up(&self, operator: Option<&Access>) -> Result<Done<()>, Failure> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut left = sweep(&self.bus, &made).await?;
        if let Some(operator) = operator.filter(|_| !left.is_empty()) {
            let unreachable = |error: anyhow::Error| Failure::new(format!("{error:#}"));
            let (bus, _) = operator.bus().await.map_err(unreachable)?;
            left = sweep(&bus, &made).await?;
        }
        let detail = match left.as_slice() {
            [] => "nothing is left but finished calls, which go with the retention".to_owned(),
            left => format!("what this key may not drop stays: {}", left.join("; ")),
        };
        Ok(done((), detail))
    }
}

/// Gives what could not be cancelled or dropped, and why.
async fn sweep(bus: &Bus, made: &[MessageId]) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    for id in made {
        let operated = match bus.message(*id).await {
            // Somebody else has dropped it, or the retention has taken it.
            Err(cogo::bus::Error::NoMessage(_)) => continue,
            Err(error) => return Err(error.into()),
            Ok(message) => match message.status {
                Status::Done | Status::Cancelled => continue,
                Status::Failed => bus.drop_dead_letters(&[*id], Some("gate")).await,
                _ => bus.cancel(&[*id], Some("gate")).await,
            },
        };
        match operated {
            Ok(rows) if rows.iter().all(|(_, what)| *what == Operated::Done) => {}
            Ok(rows) => left.push(format!("message {id}, {rows:?}")),
            Err(error) => left.push(format!("message {id}, {}", cogo::error::chain(&error))),
        }
    }
    Ok(left)
}
