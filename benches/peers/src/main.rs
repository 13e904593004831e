//! COGO and the other queues on Postgres: the same work, on one cluster, in one run, by turns.
//!
//! `bench-peers` (or `just bench-peers`) starts a Postgres of its own, gives each participant a database, and starts
//! one driver process after another, each of which does one piece of work and prints one line of JSON (`drive.rs`).
//! What is measured and how is in `docs/benchmarks-peers.md`.

mod cluster;
mod drive;
mod install;
mod measure;
mod participant;
mod process;
mod record;
mod report;
mod run;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// COGO and the other queues on Postgres, measured beside each other.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Does one piece of work for one of the participants that are driven from Rust. The bench starts this.
    #[command(hide = true)]
    Drive {
        /// Whose.
        participant: String,
        #[command(flatten)]
        job: drive::Job,
    },
}

/// What to measure.
#[derive(Args, Clone)]
struct Options {
    /// How often each participant has its turn; what is printed are medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// These participants alone, by name and separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many messages a batch enqueue and a drain have; single enqueues have a quarter, slow participants less.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    messages: u64,
    /// One round of few messages, to see that all of it works. Its figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Where the record goes, in JSON; `target/bench-peers/peers.json` of the repository if absent.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Ends well although a participant failed or could not be installed. The report says so all the same.
    #[arg(long)]
    allow_missing: bool,
    /// The most seconds that one piece of work may take.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Where the cluster is made; a new directory below the system's for temporary files if absent. It must lie on a
    /// disk, and let the user in whom Postgres runs as.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Drive { participant, job }) => {
            drive::run(&participant, &job).await?;
            Ok(ExitCode::SUCCESS)
        }
        None => run::run(cli.options).await,
    }
}
