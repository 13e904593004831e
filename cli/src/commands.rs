//! All commands. A build without the feature `full` has those of `commands/worker.rs` in their place.

use anyhow::Result;
use clap::Subcommand;

use crate::connect::Global;
use crate::exit::Exit;
use crate::output::Output;
use crate::{
    artifact, bench, circuit, config, dlq, env, gate, hub, jwt, limits, mcp, message, migrate,
    replay, status, tail, top, trace, up, worker, workers,
};

pub(crate) const FIRST_STEPS: &str = "\
First steps:
  cogo up                                                       start everything
  cogo mcp call demo echo --params '{\"message\": \"hello\"}'       call a tool through the bus
  cogo tail --follow                                            watch what happens
  cogo trace <trace id>                                         read it back";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(up::Up),
    Hub(hub::Hub),
    Worker(worker::Worker),
    Workers(workers::Workers),
    Enqueue(message::Enqueue),
    Get(message::Get),
    Tail(tail::Tail),
    Top(top::Top),
    Trace(trace::Trace),
    Dlq(dlq::Dlq),
    Limits(limits::Limits),
    Circuit(circuit::Circuit),
    Artifact(artifact::Artifact),
    Replay(replay::Replay),
    Mcp(mcp::Mcp),
    Env(env::Env),
    Token(jwt::Token),
    Status(status::Status),
    Config(config::Config),
    Gate(gate::Gate),
    Bench(bench::Bench),
    Migrate(migrate::Migrate),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Self::Up(_) | Self::Hub(_) => true,
            Self::Worker(worker) => worker.serves(),
            _ => false,
        }
    }

    /// Whether it looks after signals itself, since it has to clean up.
    pub(crate) fn hears_signals(&self) -> bool {
        self.serves() || matches!(self, Self::Gate(_) | Self::Bench(_))
    }

    /// What it logs unless it is told otherwise.
    pub(crate) fn usual_log(&self) -> &'static str {
        match self {
            // It serves whoever looks at the log; there is nobody else to tell.
            _ if self.serves() => "warn,cogo=info",
            // What goes wrong is in the report, and the lines under way would be torn.
            Self::Gate(_) | Self::Bench(_) => "off",
            // It says itself what went wrong.
            _ => "error",
        }
    }

    /// Whether one thread is enough for it, as it is to need little memory.
    pub(crate) fn is_small(&self) -> bool {
        matches!(self, Self::Hub(hub) if hub.is_minimal())
    }

    /// What traces call this process, where it makes any.
    pub(crate) fn part(&self) -> Option<&str> {
        match self {
            Self::Up(_) => Some("up"),
            Self::Hub(_) => Some("hub"),
            Self::Worker(worker) => worker.built_in(),
            _ => None,
        }
    }

    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self {
            Self::Up(command) => command.run(global).await,
            Self::Hub(command) => command.run(global).await,
            Self::Worker(command) => command.run(global, output).await,
            Self::Workers(command) => command.run(global, output).await,
            Self::Enqueue(command) => command.run(global, output).await,
            Self::Get(command) => command.run(global, output).await,
            Self::Tail(command) => command.run(global, output).await,
            Self::Top(command) => command.run(global, output).await,
            Self::Trace(command) => command.run(global, output).await,
            Self::Dlq(command) => command.run(global, output).await,
            Self::Limits(command) => command.run(global, output).await,
            Self::Circuit(command) => command.run(global, output).await,
            Self::Artifact(command) => command.run(global, output).await,
            Self::Replay(command) => command.run(global, output).await,
            Self::Mcp(command) => command.run(global, output).await,
            Self::Env(command) => command.run(global, output).await,
            Self::Token(command) => command.run(global, output),
            Self::Status(command) => command.run(global, output).await,
            Self::Config(command) => command.run(global, output),
            Self::Gate(command) => command.run(global, output).await,
            Self::Bench(command) => command.run(global, output).await,
            Self::Migrate(command) => command.run(global, output).await,
        }
    }
}

/// Ends the process for arguments that make no command.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    error.exit()
}

/// Leaves the terminal as it was, before a signal ends the process.
pub(crate) fn leave() {
    top::leave();
}
