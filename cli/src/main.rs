//! The `cogo` command: the hub, every worker and the operator's tool in one binary.
//!
//! One file a command; `exit.rs` has the exit codes, `output.rs` is all that prints.

#![deny(unsafe_code)]

mod artifact;
mod circuit;
mod config;
mod connect;
mod dlq;
mod env;
mod exit;
mod gate;
mod hub;
mod install;
mod jwt;
mod jwt_secret;
mod lifecycle;
mod limits;
mod logs;
mod mcp;
mod message;
mod migrate;
mod minimal;
mod output;
mod private_file;
mod probe;
mod progress;
mod recorder;
#[cfg(test)]
mod reference;
mod reload;
mod remote;
mod replay;
mod serve;
mod status;
mod store;
mod tail;
mod telemetry;
mod text;
mod token;
mod top;
mod trace;
mod up;
mod up_file;
mod version;
mod wait;
mod worker;
mod workers;

use std::panic::resume_unwind;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use connect::Global;
use exit::{Exit, judge};
use lifecycle::Signals;
use output::Output;

/// A durable message bus for agents, on Postgres.
///
/// Work is a message; everything that happens to it is an event in a log that is never changed.
/// Workers join from anywhere with outbound connections only.
#[derive(Debug, Parser)]
#[command(
    name = "cogo", version = version::SHORT, long_version = version::long(), max_term_width = 100, disable_help_subcommand = true,
    after_help = exit::HELP,
    after_long_help = format!("{FIRST_STEPS}\n\n{}", exit::HELP),
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  cogo up                                                       start everything
  cogo mcp call demo echo --params '{\"message\": \"hello\"}'       call a tool through the bus
  cogo tail --follow                                            watch what happens
  cogo trace <trace id>                                         read it back";

#[derive(Debug, Subcommand)]
enum Command {
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
    Migrate(migrate::Migrate),
}

impl Command {
    /// Whether it runs until it is told to stop.
    fn serves(&self) -> bool {
        match self {
            Self::Up(_) | Self::Hub(_) => true,
            Self::Worker(worker) => worker.serves(),
            _ => false,
        }
    }

    /// Whether it looks after signals itself, since it has to clean up.
    fn hears_signals(&self) -> bool {
        self.serves() || matches!(self, Self::Gate(_))
    }

    /// What it logs unless it is told otherwise.
    fn usual_log(&self) -> &'static str {
        match self {
            // It serves whoever looks at the log; there is nobody else to tell.
            _ if self.serves() => "warn,cogo=info",
            // What goes wrong is in the report, and the lines under way would be torn.
            Self::Gate(_) => "off",
            // It says itself what went wrong.
            _ => "error",
        }
    }

    /// Whether one thread is enough for it, as it is to need little memory.
    fn is_small(&self) -> bool {
        matches!(self, Self::Hub(hub) if hub.is_minimal())
    }

    /// What traces call this process, where it makes any.
    fn part(&self) -> Option<&str> {
        match self {
            Self::Up(_) => Some("up"),
            Self::Hub(_) => Some("hub"),
            Self::Worker(worker) => worker.built_in(),
            _ => None,
        }
    }

    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
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
            Self::Migrate(command) => command.run(global, output).await,
        }
    }
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.remote.look_at(&matches);
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let (exit, text) = judge(&error);
            if let Some(text) = text {
                output::error(&text);
            }
            exit.into()
        }
    }
}

fn start(cli: Cli) -> Result<Exit> {
    let Cli { global, command } = cli;
    logs::start(&global, command.usual_log())?;
    let telemetry = command.part().map_or(Ok(None), telemetry::start)?;
    let output = Output::new(global.json);
    let mut runtime = match command.is_small() {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(async {
        if command.hears_signals() {
            return command.run(&global, output).await;
        }
        let mut signals = Signals::new().context("hearing signals")?;
        // On a thread of its own: a command that waits until somebody reads its output would keep a thread
        // of the runtime from hearing the signal.
        let runtime = Handle::current();
        let running = spawn_blocking(move || runtime.block_on(command.run(&global, output)));
        tokio::select! {
            ended = running => ended.unwrap_or_else(|panic| resume_unwind(panic.into_panic())),
            _ = signals.next() => {
                top::leave();
                Ok(Exit::Interrupted)
            }
        }
    });
    // What has ended until now still goes out.
    drop(telemetry);
    // Reading stdin or writing to a full pipe cannot be cut short; nobody waits for it.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }
}
