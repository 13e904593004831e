//! The commands of the small build, which is what a machine needs that lends its tools: no hub, no database of its own,
//! no operator's commands.

use anyhow::Result;
use clap::Subcommand;
use clap::error::{ContextKind, ErrorKind};

use crate::connect::Global;
use crate::exit::{Exit, Failed, judge};
use crate::output::{self, Output};
use crate::{config, mcp, message, status, tail, trace, worker, workers};

/// What only the full build has; `tests/dist/check.sh` holds the list to that build's own.
const ELSEWHERE: [&str; 13] = [
    "up", "bench", "hub", "top", "dlq", "limits", "circuit", "artifact", "replay", "env", "token",
    "gate", "migrate",
];

pub(crate) const FIRST_STEPS: &str = "\
First steps:
  cogo mcp add --help                                           name the tools of this machine
  cogo worker mcp-gateway --url https://hub.example.com --key-file laptop.key
  cogo worker install --help                                    have this machine always run it";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Worker(worker::Worker),
    Workers(workers::Workers),
    Enqueue(message::Enqueue),
    Get(message::Get),
    Tail(tail::Tail),
    Trace(trace::Trace),
    Mcp(mcp::Mcp),
    Status(status::Status),
    Config(config::Config),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Worker(worker) if worker.serves())
    }

    /// Whether it looks after signals itself, since it has to clean up.
    pub(crate) fn hears_signals(&self) -> bool {
        self.serves()
    }

    /// What it logs unless it is told otherwise.
    pub(crate) fn usual_log(&self) -> &'static str {
        match self {
            // It serves whoever looks at the log; there is nobody else to tell.
            _ if self.serves() => "warn,cogo=info",
            // It says itself what went wrong.
            _ => "error",
        }
    }

    /// Whether one thread is enough for it.
    pub(crate) fn is_small(&self) -> bool {
        false
    }

    /// What traces call this process, where it makes any.
    pub(crate) fn part(&self) -> Option<&str> {
        match self {
            Self::Worker(worker) => worker.built_in(),
            _ => None,
        }
    }

    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self {
            Self::Worker(command) => command.run(global, output).await,
            Self::Workers(command) => command.run(global, output).await,
            Self::Enqueue(command) => command.run(global, output).await,
            Self::Get(command) => command.run(global, output).await,
            Self::Tail(command) => command.run(global, output).await,
            Self::Trace(command) => command.run(global, output).await,
            Self::Mcp(command) => command.run(global, output).await,
            Self::Status(command) => command.run(global, output).await,
            Self::Config(command) => command.run(global, output),
        }
    }
}

/// Ends the process for arguments that make no command; of a command that the full build has, it says so.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    let asked = match error.kind() {
        ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
        _ => None,
    };
    let asked = asked.map(ToString::to_string).unwrap_or_default();
    if !ELSEWHERE.contains(&asked.as_str()) {
        error.exit();
    }
    let failed =
        Failed::usage(format!("`{asked}` is not in this build of cogo, which is the worker's"))
            .hint("It is in the full one, whose archive has no `-worker` in its name.");
    let (exit, text) = judge(&failed.into());
    output::error(&text.unwrap_or_default());
    std::process::exit(exit as i32)
}

/// Leaves the terminal as it was: nothing here changes it.
pub(crate) fn leave() {}
