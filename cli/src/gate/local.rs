//! The stage `local`: a whole bus of real processes, on a fresh database.
//!
//! The gate's process starts Postgres, as `cogo up` does, and is the MCP server that the scenario calls. Everything
//! else is this very program as processes of its own, each with a log: the hub, workers, and what an operator would
//! type. Nothing of the user's is used but the configuration: no database that is running, no server of `mcp.json`, no
//! variable `COGO_*`.
//!
//! | step | what must be so |
//! |---|---|
//! | `config` | the user's files are good; a copy of them, with rules for the scenario's own toolset, is what is run with |
//! | `database` | a fresh Postgres starts |
//! | `migrate` | `cogo migrate` makes the schema, of the built-in migrations or of `--migrations` |
//! | `hub` | the hub says that it is ready |
//! | `workers` | one beside the database, and one with a URL and a key file alone, are online and their tools offered |
//! | `call` | enqueued over HTTP, claimed, called, done: the right result, and two events |
//! | `retry` | a tool that is silent twice gets three attempts, with pauses as the policy has them |
//! | `breaker` | a sick tool's breaker opens, what is asked meanwhile keeps its attempts, and it closes when the tool is well |
//! | `dead letter` | a hopeless call ends in the dead-letter queue with its cause; `cogo dlq requeue` brings it back |
//! | `outbound worker` | what only that one serves is done by it; it listens nowhere, and knows of no database |
//! | `killed worker` | `kill -9` in the middle of a call: another takes over, and one of the two succeeded |
//! | `artifacts` | the files of attempts are served, and hold no secret |
//! | `metrics` | what /metrics counted is what the log has |
//! | `events` | each message's events are in an order that may be |
//! | `nothing lost` | each message that was acknowledged is done, and `cogo replay verify` says exact |
//! | `stop` | SIGTERM ends all with exit code 0; no process, no directory and no secret is left behind |
//!
//! A few hundred trivial messages are sent while the steps from `call` to `killed worker` run. Left behind are
//! `summary.json`, `events.jsonl`, `metrics.txt`, `configs/`, `logs/` and `artifacts/`, also where a step fails.

mod artifacts;
mod background;
mod breaker;
mod calls;
mod config;
mod database;
mod fleet;
mod hub;
mod killed;
mod log;
mod metrics;
mod nothing_lost;
mod outbound;
mod process;
mod record;
mod scenario;
mod secrets;
mod stop;
mod tool;
mod wait;
mod work;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use cogo::gate::{Stage, Steps, Stopped};
use futures_util::future::BoxFuture;

use crate::connect::Global;

/// What `--inject` breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// A migration that the database refuses
    BrokenMigration,
    /// A breaker whose tool is well again, and that stays open all the same
    BreakerNeverCloses,
    /// A message that was acknowledged goes without an event
    LostMessage,
}

/// What the command line says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct LocalOptions {
    /// What to break.
    pub(super) inject: Option<Fault>,
    /// Where the migrations are, in place of those that are built in. It is a directory.
    pub(super) migrations: Option<PathBuf>,
    /// Whether the database and all else stays as it is at the end.
    pub(super) keep: bool,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Local {
    global: Global,
    dir: PathBuf,
    options: LocalOptions,
}

impl Local {
    /// A stage that leaves its files in `dir`, which it makes. Dropped in the middle, it ends what it started.
    pub(super) fn new(global: Global, dir: PathBuf, options: LocalOptions) -> Self {
        Self { global, dir, options }
    }
}

impl Stage for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn at_most(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn run<'a>(&'a mut self, steps: &'a Steps<'_>) -> BoxFuture<'a, Result<(), Stopped>> {
        Box::pin(scenario::run(&self.global, &self.dir, &self.options, steps))
    }
}
