//! Announcing: the hub and other machines are told what this one offers.
//!
//! The worker's row says which tools there are and names each definition by its hash; definitions that the database
//! does not know are uploaded first, so that nobody reads of one that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cogo::bus::Bus;
use cogo::bus::offer::NewDefinition;
use cogo::clock::Stopwatch;
use cogo::error::chain;
use futures_util::future::select_all;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::canonical;
use crate::toolsets::{Set, Toolsets};

/// How many bytes of names and hashes are offered: a row of `workers` and each event that tells of a change hold
/// them, and the bus takes at most 64 KiB. Some five hundred tools.
const OFFER_BYTES: usize = 48 * 1024;
/// The largest definition, as the database takes it.
const DEFINITION_BYTES: usize = 64 * 1024;
/// The most tools of one toolset. No model chooses well among more, and one server must not take all the room.
const TOOLS_MAX: usize = 400;
/// The longest name of a tool, in bytes. MCP allows 128.
const NAME_BYTES: usize = 255;
/// What a hash, its quotes and its commas take.
const HASH_BYTES: usize = 64 + 6;
/// How soon a failed upload is tried again; doubled up to a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How often the offer is looked at when nothing tells of a change: a server may have been away for too long.
const LOOK: Duration = Duration::from_secs(5);
/// How often the definitions are told again, by their hashes: the database lets those go that nobody tells of.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// How long changes are gathered: a server that starts may tell of each of its tools.
const GATHER: Duration = Duration::from_millis(100);

/// What a worker says of itself, as `info` of a handler.
#[derive(Debug)]
pub struct Announced {
    now: watch::Sender<(u64, Value)>,
    /// Which of them was asked for last.
    asked: AtomicU64,
}

impl Announced {
    /// To begin with, this.
    #[must_use]
    pub fn new(info: Value) -> Self {
        Self { now: watch::Sender::new((0, info)), asked: AtomicU64::new(0) }
    }

    /// What it is now.
    #[must_use]
    pub fn info(&self) -> Value {
        let now = self.now.borrow();
        self.asked.store(now.0, Ordering::Release);
        now.1.clone()
    }

    /// Waits until it is not what it was when [`Announced::info`] was last called. Cancel-safe.
    pub async fn changed(&self) {
        let asked = self.asked.load(Ordering::Acquire);
        // The sender lives in `self`.
        let _ = self.now.subscribe().wait_for(|now| now.0 != asked).await;
    }

    fn set(&self, info: Value) {
        self.now.send_if_modified(|now| {
            let is_new = now.1 != info;
            if is_new {
                *now = (now.0 + 1, info);
            }
            is_new
        });
    }
}

/// What a machine offers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Offering {
    /// `{"toolsets": {"<name>": {"tools": {"<tool>": "<hash>"}}}}`, with `more` how many tools did not fit.
    pub info: Value,
    /// The definitions of these.
    pub definitions: Vec<Arc<Value>>,
    /// Tools that are left out, as `<toolset>: <tool>`, and why.
    pub left_out: BTreeSet<String>,
}

impl Offering {
    /// What these servers offer. One that has been away for longer than the grace of `mesh` offers nothing.
    #[must_use]
    pub fn of(set: &Set) -> Self {
        let grace = set.config().mesh.grace();
        let mut offering = Self::default();
        let (mut left, mut toolsets) = (OFFER_BYTES, Map::new());
        for (name, upstream) in set.iter() {
            // The quotes and commas, and what is around the tools.
            left = left.saturating_sub(name.len() + 40);
            if left == 0 {
                break;
            }
            let tools = upstream.tools();
            let tools = tools.iter().filter(|_| !upstream.is_gone_for(grace));
            let tools =
                tools.map(|tool| (tool.name.as_str(), tool.hash.as_str(), &tool.definition));
            toolsets.insert(name.to_owned(), offering.toolset(name, tools, &mut left));
        }
        offering.info = json!({"toolsets": toolsets});
        offering
    }

    fn toolset<'t>(
        &mut self,
        toolset: &str,
        tools: impl Iterator<Item = (&'t str, &'t str, &'t Arc<Value>)>,
        left: &mut usize,
    ) -> Value {
        let (mut shown, mut more) = (Map::new(), 0);
        for (name, hash, definition) in tools {
            let why = if name.len() > NAME_BYTES || name.chars().any(char::is_control) {
                "its name is longer than 255 bytes, or has control characters"
            } else if canonical::text(definition).len() > DEFINITION_BYTES {
                "its definition is larger than 64 KiB"
            } else if shown.len() >= TOOLS_MAX {
                "its toolset has more than 400 tools"
            } else if name.len() + HASH_BYTES > *left {
                "this machine has more tools than can be announced"
            } else {
                *left -= name.len() + HASH_BYTES;
                shown.insert(name.to_owned(), hash.into());
                self.definitions.push(Arc::clone(definition));
                continue;
            };
            more += 1;
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            self.left_out.insert(format!("{toolset}: {name}: {why}"));
        }
        match more {
            0 => json!({"tools": shown}),
            more => json!({"tools": shown, "more": more}),
        }
    }
}

/// Keeps what is announced as `toolsets` are, until `stop`: `tenant`, whose work the worker does, is told the
/// definitions first.
pub async fn run(
    toolsets: Arc<Toolsets>,
    announced: Arc<Announced>,
    bus: Bus,
    tenant: String,
    stop: CancellationToken,
) {
    let work = keep(&toolsets, &announced, &bus, &tenant);
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn keep(toolsets: &Toolsets, announced: &Announced, bus: &Bus, tenant: &str) {
    let mut live = toolsets.live();
    let mut left_out = BTreeSet::new();
    // What was last uploaded, and when to try again what was not.
    let (mut known, mut retry) = (None, RETRY.0);
    let mut told = Stopwatch::start();
    loop {
        // Armed before looking, so that what changes in between is not missed.
        let set = live.get();
        let changes: Vec<_> =
            set.iter().map(|(_, upstream)| Box::pin(upstream.changes())).collect();
        let offering = Offering::of(&set);
        if offering.left_out != left_out {
            for tool in offering.left_out.difference(&left_out) {
                tracing::warn!("A tool is not offered to the mesh: {tool}");
            }
            left_out.clone_from(&offering.left_out);
        }
        let mut pause = LOOK;
        if known.as_ref() != Some(&offering.info) || told.elapsed() >= TELL_AGAIN {
            match define(bus, tenant, &offering.definitions).await {
                Ok(()) => {
                    (known, told) = (Some(offering.info.clone()), Stopwatch::start());
                    retry = RETRY.0;
                }
                Err(error) => {
                    tracing::warn!(
                        error = %chain(&error),
                        "Could not tell the mesh what the tools of this machine are; trying again"
                    );
                    pause = retry;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
            // Also where the upload failed: who is here, and with which tools, is worth knowing all the same.
            announced.set(offering.info);
        }
        let changed = async {
            if changes.is_empty() {
                std::future::pending::<()>().await;
            }
            select_all(changes).await;
        };
        tokio::select! {
            () = changed => tokio::time::sleep(GATHER).await,
            () = live.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn define(
    bus: &Bus,
    tenant: &str,
    definitions: &[Arc<Value>],
) -> Result<(), cogo::bus::Error> {
    let new = |definition: &Arc<Value>| {
        let definition = canonical::text(definition);
        NewDefinition { hash: canonical::hash(&definition), definition }
    };
    let definitions: Vec<_> = definitions.iter().map(new).collect();
    for (hash, error) in bus.define(tenant, &definitions).await? {
        tracing::warn!(error = %chain(&error), "The bus does not take the definition {hash}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(names: impl IntoIterator<Item = String>) -> Vec<(String, String, Arc<Value>)> {
        let tool = |name: String| {
            let definition = json!({"name": name, "inputSchema": {}});
            (name, canonical::hash(&canonical::text(&definition)), Arc::new(definition))
        };
        names.into_iter().map(tool).collect()
    }

    fn offer(tools: &[(String, String, Arc<Value>)], left: &mut usize) -> (Value, Offering) {
        let mut offering = Offering::default();
        let tools = tools.iter().map(|(name, hash, tool)| (name.as_str(), hash.as_str(), tool));
        (offering.toolset("t", tools, left), offering)
    }

    #[test]
    fn what_is_offered_is_named_by_hash_and_bounded() {
        let mut left = OFFER_BYTES;
        let two = tools(["add".to_owned(), "echo".to_owned()]);
        let (shown, offering) = offer(&two, &mut left);
        assert_eq!(shown, json!({"tools": {"add": two[0].1, "echo": two[1].1}}));
        assert!(offering.definitions.len() == 2 && offering.left_out.is_empty());

        let many = tools((0..500).map(|n| format!("tool_{n:05}")));
        let (shown, offering) = offer(&many, &mut left);
        assert_eq!((&shown["more"], offering.definitions.len()), (&json!(100), TOOLS_MAX));
        let (shown, offering) = offer(&many, &mut left);
        assert!(offering.definitions.len() < TOOLS_MAX, "the room is one machine's");
        assert_eq!(shown["more"], 500 - offering.definitions.len());
        assert!(left < HASH_BYTES + 10);
    }

    #[test]
    fn what_cannot_be_announced_is_left_out_and_said() {
        let large = json!({"name": "large", "description": "x".repeat(70_000), "inputSchema": {}});
        let all = [
            ("large".to_owned(), "h".to_owned(), Arc::new(large)),
            ("a\u{0}b".to_owned(), "h".to_owned(), Arc::new(json!({}))),
            ("good".to_owned(), "h".to_owned(), Arc::new(json!({}))),
        ];
        let (shown, offering) = offer(&all, &mut OFFER_BYTES.clone());
        assert_eq!(shown, json!({"tools": {"good": "h"}, "more": 2}));
        let said: Vec<_> = offering.left_out.iter().map(String::as_str).collect();
        assert!(
            said[0].starts_with("t: ab: its name")
                && said[1].starts_with("t: large: its definition"),
            "{said:?}"
        );
    }

    #[tokio::test]
    async fn a_change_is_told_until_it_was_asked_for() {
        let announced = Announced::new(json!(1));
        let is_told = async || {
            tokio::time::timeout(Duration::from_millis(20), announced.changed()).await.is_ok()
        };
        assert_eq!(announced.info(), 1);
        assert!(!is_told().await);
        announced.set(json!(1));
        assert!(!is_told().await, "it is the same");
        announced.set(json!(2));
        assert!(is_told().await && is_told().await);
        assert_eq!(announced.info(), 2);
        assert!(!is_told().await);
    }
}
