//! One tool call over the bus, for every way in (`/mcp`, REST): checked, durable, waited for, explained.
//!
//! | module | job |
//! |---|---|
//! | `request` | what is asked for, and what was started |
//! | `start` | checked, and then committed to the bus |
//! | `validate` | arguments against the tool's `inputSchema`, at bounded cost |
//! | `outcome` | what became of a message, as a caller of a tool is told |
//! | `task` | a call as a task: its state, its questions and their answers, its end |
//! | `refusal` | why something was not done |
//!
//! There is no state here that matters: a call is its message, and a task is its message as well. A tool that
//! asks for input before it goes on (MCP 2026-07-28, "Multi Round-Trip Requests") has finished that message; the
//! answers make a follow-up message, whose id is derived from that of the one before. So whoever asks finds the
//! chain again, and whatever is done twice, by a client or after a crash, is done once.

mod near;
mod outcome;
mod refusal;
mod request;
mod start;
mod task;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use cogo::bus::{Feed, Update, Watch};
use cogo::error::chain;
use cogo::hub::Principal;
use cogo::live::Live;
use cogo::message::{Message, MessageId, Status, Topic};
use cogo::retry::Policies;
use serde_json::Value;

use crate::catalogue::{Catalogue, Offer};
use crate::config;
use crate::gateway::ROLE;
use crate::handler::INTENT;

pub use self::outcome::{Failed, Outcome, Verdict};
pub use self::refusal::Refusal;
pub use self::request::{Input, Request, Started};
pub use self::task::{Task, TaskState};
use self::validate::Validators;
pub(crate) use self::validate::problem_of;

/// Calls tools over the bus. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    catalogue: Catalogue,
    feed: Feed,
    policies: Live<Policies>,
    config: Live<config::Mesh>,
    validators: Arc<Validators>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mesh")
    }
}

impl Mesh {
    /// A mesh of what `catalogue` offers. `feed` tells of what happens to messages; `policies` say how many attempts
    /// a call has, `config` how long it may take.
    #[must_use]
    pub fn new(
        catalogue: Catalogue,
        feed: Feed,
        policies: impl Into<Live<Policies>>,
        config: impl Into<Live<config::Mesh>>,
    ) -> Self {
        let (policies, config) = (policies.into(), config.into());
        Self { catalogue, feed, policies, config, validators: Arc::default() }
    }

    /// What is offered, and when that changes.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// How the mesh is configured, as of now.
    #[must_use]
    pub fn config(&self) -> Arc<config::Mesh> {
        self.config.get()
    }

    /// The retry policies, as they are at any moment.
    #[must_use]
    pub fn policies(&self) -> Live<Policies> {
        self.policies.clone()
    }

    /// The tools that `who` may call, of all toolsets or of one, by toolset and name.
    ///
    /// # Errors
    /// [`Refusal::Bus`] when the catalogue cannot be read.
    pub async fn tools(
        &self,
        who: &Principal,
        toolset: Option<&str>,
    ) -> Result<Vec<Arc<Offer>>, Refusal> {
        let snapshot = self.catalogue.snapshot(who.tenant()).await?;
        let mut tools: Vec<_> = snapshot
            .iter()
            .filter(|offer| toolset.is_none_or(|toolset| offer.toolset == toolset))
            .cloned()
            .collect();
        let mut may_send = Seen::default();
        tools.retain(|offer| may_send.may(who, &offer.toolset));
        tools.sort_by(|a, b| (&a.toolset, &a.tool).cmp(&(&b.toolset, &b.tool)));
        Ok(tools)
    }

    /// Waits until the call has ended, at most for `until` or until the process drains, and gives what its caller
    /// is told. `progress` takes the tool's reports as they come, all of them before the end; without it, that costs
    /// nothing. Dropping the future leaves the call as it is. While the database does not answer, as when it is
    /// started anew, it waits on.
    ///
    /// # Errors
    /// [`Refusal::Bus`] when the message is gone.
    pub async fn wait(
        &self,
        started: &Started,
        until: Duration,
        progress: Option<&mut (dyn FnMut(Value) + Send)>,
    ) -> Result<Outcome, Refusal> {
        Ok(self.verdict(started, until, progress).await?.into())
    }

    /// As [`Mesh::wait`], with the watch that [`Mesh::begin`] gave.
    ///
    /// # Errors
    /// As [`Mesh::wait`].
    pub async fn outcome(
        &self,
        watch: Watch,
        until: Duration,
        progress: Option<&mut (dyn FnMut(Value) + Send)>,
    ) -> Result<Outcome, Refusal> {
        Ok(self.watched(watch, until, progress).await?.into())
    }

    /// As [`Mesh::wait`], for those who tell a tool's failure from the bus's.
    ///
    /// # Errors
    /// As [`Mesh::wait`].
    pub async fn verdict(
        &self,
        started: &Started,
        until: Duration,
        progress: Option<&mut (dyn FnMut(Value) + Send)>,
    ) -> Result<Verdict, Refusal> {
        self.watched(self.feed.watch(started.id), until, progress).await
    }

    async fn watched(
        &self,
        mut watch: Watch,
        until: Duration,
        mut progress: Option<&mut (dyn FnMut(Value) + Send)>,
    ) -> Result<Verdict, Refusal> {
        let clock = cogo::clock::Stopwatch::start();
        watch = watch.results();
        if progress.is_none() {
            watch = watch.without_progress();
        }
        loop {
            match watch.next(until.saturating_sub(clock.elapsed())).await {
                Ok(Update::Progress(reports)) => {
                    if let Some(progress) = progress.as_mut() {
                        reports.into_iter().for_each(progress);
                    }
                }
                Ok(Update::Finished(message)) => return Ok(Verdict::of(&message)),
                Ok(Update::Done(result)) => {
                    return Ok(Verdict::Result(Arc::unwrap_or_clone(result)));
                }
                Ok(Update::Waiting(_)) => return Ok(Verdict::Pending),
                // The time is up, and nobody can say where the call stands; but it is committed, and goes on.
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        message.id = %watch.id(), error = %chain(&error),
                        "Could not see what has become of the call {}; it goes on", watch.id()
                    );
                    return Ok(Verdict::Pending);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The message of a call, if it is one that `who` may know of.
    async fn call(&self, who: &Principal, id: MessageId) -> Result<Message, Refusal> {
        match who.message(id).await {
            // An operator reads all tenants' messages, but acts for one at a time.
            Ok(message)
                if message.role == ROLE.name
                    && message.intent == INTENT
                    && message.tenant == who.tenant() =>
            {
                Ok(message)
            }
            Ok(_) | Err(cogo::bus::Error::NoMessage(_)) => Err(Refusal::NoCall(id)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a message is under way.
fn is_live(message: &Message) -> bool {
    matches!(message.status, Status::Delayed | Status::Queued | Status::Claimed)
}

/// Where the calls of `toolset` wait, if it is a name at all.
fn topic(toolset: &str) -> Option<Topic> {
    Topic::new(ROLE.name, toolset).ok()
}

/// Which toolsets a principal may send to, asked once each.
#[derive(Default)]
struct Seen(std::collections::HashMap<String, bool>);

impl Seen {
    fn may(&mut self, who: &Principal, toolset: &str) -> bool {
        if let Some(known) = self.0.get(toolset) {
            return *known;
        }
        let may = topic(toolset).is_some_and(|topic| who.may_send(&topic));
        self.0.insert(toolset.to_owned(), may);
        may
    }
}
