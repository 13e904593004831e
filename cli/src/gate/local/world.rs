//! What the scenario runs on: the processes, ways to ask them, and what has been asked of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cogo::bus::{Bus, Error};
use cogo::event::Event;
use cogo::gate::Failure;
use cogo::message::{Message, MessageId, Status};
use serde_json::Value;

use super::config::Configs;
use super::database::Postgres;
use super::hub::Hub;
use super::process::{Process, Recipe};
use super::secrets::Secrets;
use super::tool::Tool;
use super::wait::Patience;
use super::work::Work;

/// How long a message may take that nothing stands in the way of. On a machine that is busy; it takes milliseconds.
pub(super) const DONE_WITHIN: Duration = Duration::from_secs(60);
/// More events than any message of the scenario has.
const EVENTS_MAX: u32 = 1000;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Places {
    /// What is left behind.
    pub(super) dir: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) artifacts: PathBuf,
    /// What is not.
    pub(super) work: Work,
}

impl Places {
    pub(super) fn new(dir: &Path, work: Work) -> std::io::Result<Self> {
        let (logs, artifacts) = (dir.join("logs"), dir.join("artifacts"));
        for made in [&logs, &artifacts] {
            std::fs::create_dir_all(made)?;
        }
        Ok(Self { dir: dir.to_owned(), logs, artifacts, work })
    }

    /// How to start a process of that name, in a working directory of its own, where its data are as well.
    pub(super) fn recipe(&self, name: &str) -> Result<Recipe, Failure> {
        let cwd = self.work.dir(name)?;
        let recipe = Recipe {
            name: name.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            bare: false,
            cwd: cwd.clone(),
            logs: self.logs.clone(),
        };
        Ok(recipe.env("COGO_DATA_DIR", cwd.join("data")).env("NO_COLOR", "1"))
    }
}

/// What was acknowledged, and how it had been sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(Arc<Mutex<Vec<(MessageId, &'static str)>>>);

impl Acknowledged {
    pub(super) fn add(&self, id: MessageId, way: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, way));
    }

    pub(super) fn all(&self) -> Vec<(MessageId, &'static str)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All that the steps share. What is listed first goes first when it is dropped: the processes, then their database,
/// then the directory that they worked in.
#[derive(Debug)]
pub(super) struct World {
    /// The workers beside the database, called as they call themselves.
    pub(super) servers: Vec<Process>,
    /// The worker from far away.
    pub(super) outbound: Process,
    pub(super) hub_process: Process,
    pub(super) hub: Hub,
    /// The bus as the database's owner has it.
    pub(super) bus: Bus,
    pub(super) tool: Tool,
    pub(super) configs: Configs,
    pub(super) secrets: Secrets,
    pub(super) acknowledged: Acknowledged,
    pub(super) postgres: Postgres,
    pub(super) places: Places,
}

impl World {
    /// Has the hub enqueue a call of a tool, and remembers that it was acknowledged.
    pub(super) async fn enqueue(
        &self,
        toolset: &str,
        tool: &str,
        params: &Value,
    ) -> Result<MessageId, Failure> {
        let id = self.hub.enqueue(toolset, tool, params).await?;
        self.acknowledged.add(id, "over HTTP");
        Ok(id)
    }

    /// The message, if the table has it.
    pub(super) async fn find(&self, id: MessageId) -> Result<Option<Message>, Failure> {
        match self.bus.message(id).await {
            Ok(message) => Ok(Some(message)),
            Err(Error::NoMessage(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The message once it is finished, with all that happened to it.
    pub(super) async fn finished(
        &self,
        id: MessageId,
        within: Duration,
    ) -> Result<(Message, Vec<Event>), Failure> {
        let patience = Patience::with(format!("message {id} is finished"), within);
        loop {
            let message = self.bus.message(id).await?;
            if is_finished(&message) {
                return Ok((message, self.events(id).await?));
            }
            patience.again(told(&message)).await?;
        }
    }

    /// What happened to a message.
    pub(super) async fn events(&self, id: MessageId) -> Result<Vec<Event>, Failure> {
        Ok(self.bus.message_events(id, EVENTS_MAX).await?)
    }

    /// How to start a command of an operator, who has the database.
    pub(super) fn command(&self, name: &str) -> Result<Recipe, Failure> {
        Ok(self.places.recipe(name)?.env("DATABASE_URL", self.postgres.url()))
    }

    /// Fails if a process has ended that should run.
    pub(super) fn all_run(&mut self) -> Result<(), Failure> {
        let others = [&mut self.hub_process, &mut self.outbound];
        self.servers.iter_mut().chain(others).try_for_each(Process::still_runs)
    }
}

pub(super) fn is_finished(message: &Message) -> bool {
    matches!(message.status, Status::Done | Status::Failed | Status::Cancelled)
}

/// Where a message stands, in words.
pub(super) fn told(message: &Message) -> String {
    let Message { status, attempts, max_attempts, .. } = message;
    let mut text = format!("it is {status}, after {attempts} of {max_attempts} attempts");
    if let Some(worker) = &message.claimed_by {
        text.push_str(&format!(", and {worker} holds it"));
    }
    if let Some(why) = &message.parked_for {
        text.push_str(&format!(", parked for {why}"));
    }
    if let Some(error) = &message.error {
        text.push_str(&format!("; its last failure: {}", crate::text::error_text(error)));
    }
    text
}

/// What an event says that happened, without the intent.
pub(super) fn what(event: &Event) -> &str {
    event.event_type.strip_prefix("mcp_call_").unwrap_or(&event.event_type)
}

/// What happened, in order, but for progress.
pub(super) fn story(events: &[Event]) -> String {
    let told = events.iter().map(what).filter(|what| *what != "progress");
    told.collect::<Vec<_>>().join(", ")
}

/// Fails unless this and nothing else happened, in this order.
pub(super) fn happened(id: MessageId, events: &[Event], expected: &str) -> Result<(), Failure> {
    let seen = story(events);
    if seen == expected {
        return Ok(());
    }
    Err(Failure::new(format!(
        "message {id}: expected the events {expected}, and the log has {seen}"
    )))
}

/// Fails unless the message is done, with `expected` as the text of its result.
pub(super) fn gave(message: &Message, expected: &str) -> Result<(), Failure> {
    let id = message.id;
    if message.status != Status::Done {
        return Err(Failure::new(format!(
            "message {id}: expected it to be done; {}",
            told(message)
        )));
    }
    let seen = message.result.as_ref().and_then(|result| result["content"][0]["text"].as_str());
    if seen == Some(expected) {
        return Ok(());
    }
    let seen = message.result.clone().unwrap_or_default();
    Err(Failure::new(format!("message {id}: expected the result {expected:?}, and it is {seen}")))
}

/// Fails with a reason unless something holds.
pub(super) fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(reason())) }
}
