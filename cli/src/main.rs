//! The `cogo` command: the hub, every worker and the operator's tool in one binary.
//!
//! One file a command; `exit.rs` has the exit codes, `output.rs` is all that prints.

#![deny(unsafe_code)]
// What the commands share is there for all of them; the small build has fewer.
#![cfg_attr(not(feature = "full"), allow(dead_code))]

#[cfg(feature = "full")]
mod artifact;
#[cfg(feature = "full")]
mod bench;
#[cfg(feature = "full")]
mod circuit;
#[cfg_attr(not(feature = "full"), path = "commands/worker.rs")]
mod commands;
mod config;
mod connect;
#[cfg(feature = "full")]
mod dlq;
#[cfg(feature = "full")]
mod env;
mod exit;
#[cfg(feature = "full")]
mod gate;
#[cfg(feature = "full")]
mod hub;
mod install;
#[cfg(feature = "full")]
mod jwt;
#[cfg(feature = "full")]
mod jwt_secret;
mod lifecycle;
#[cfg(feature = "full")]
mod limits;
mod logs;
mod mcp;
mod message;
#[cfg(feature = "full")]
mod migrate;
#[cfg(feature = "full")]
mod minimal;
#[cfg(feature = "full")]
mod open_files;
mod output;
mod private_file;
mod probe;
#[cfg(feature = "full")]
mod progress;
mod recorder;
#[cfg(all(test, feature = "full"))]
mod reference;
mod reload;
mod remote;
#[cfg(feature = "full")]
mod replay;
#[cfg(feature = "full")]
mod serve;
mod status;
mod store;
mod tail;
#[cfg_attr(not(feature = "otlp"), path = "telemetry/none.rs")]
mod telemetry;
mod text;
#[cfg(feature = "full")]
mod token;
#[cfg(feature = "full")]
mod top;
mod trace;
#[cfg(feature = "full")]
mod up;
mod up_file;
mod version;
mod wait;
mod worker;
mod workers;

use std::panic::resume_unwind;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use commands::Command;
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
    after_long_help = format!("{}\n\n{}", commands::FIRST_STEPS, exit::HELP),
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let matches = Cli::command().try_get_matches().unwrap_or_else(|error| commands::refuse(&error));
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
                commands::leave();
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
