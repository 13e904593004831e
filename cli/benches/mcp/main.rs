//! What a durable call costs, beside what proxies cost that store nothing: `just bench-mcp`.
//!
//! One `echo` server, over standard input and output, behind each of the ways; one client (rmcp's, streamable HTTP,
//! connections kept); interleaved rounds, of which the medians count. What it prints is for
//! `docs/benchmarks-mcp.md`. All processes share this machine, and so the ratios say more than the figures.
//!
//! | argument | what |
//! |---|---|
//! | none | all ways, the table and the verdict |
//! | `path` | the bus alone, in this process: publish, claim, call, settle, tell |
//! | `echo` | the server itself, on standard input and output; `echo ADDRESS` over streamable HTTP |
//!
//! | variable | what |
//! |---|---|
//! | `COGO_BENCH_ROUNDS` | how many rounds; 5 |
//! | `COGO_BENCH_CALLS` | how many calls a round and way one at a time, and twice as many at once; 400 |
//! | `COGO_BENCH_AT_ONCE` | how many calls are under way, with commas between the numbers; 1,16,64 |
//! | `COGO_BENCH_WAYS` | which ways, with commas between them; all |
//! | `COGO_BENCH_OTHER` | another `cogo`, to be measured beside this one |
//! | `COGO_BENCH_DIR` | where the rivals are installed; `target/bench-mcp` |

#![cfg(unix)]

mod durable;
mod echo;
mod load;
mod path;
mod process;
mod report;
mod rivals;

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    // `cargo bench` adds this one.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    match arguments.as_slice() {
        [] => run(true, compare()),
        ["path"] => run(true, path::measure()),
        // One thread, as the servers that people write have.
        ["echo"] => run(false, echo::stdio()),
        ["echo", address] => run(true, echo::http(address.parse().context("ADDRESS")?)),
        _ => bail!("takes nothing, `path`, `echo` or `echo ADDRESS`"),
    }
}

fn run(threads: bool, work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut builder = match threads {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(work)
}

async fn compare() -> Result<()> {
    let (rounds, calls) = (number("COGO_BENCH_ROUNDS", 5)?, number("COGO_BENCH_CALLS", 400)?);
    let wanted = std::env::var("COGO_BENCH_WAYS").unwrap_or_default();
    let numbers = at_once()?;
    let dir = tempfile::Builder::new().prefix("cogo-bench-").tempdir()?;
    let mut ways = Vec::new();
    for name in rivals::NAMES.iter().chain(&durable::NAMES) {
        if *name == durable::OTHER && durable::other().is_none() {
            continue;
        }
        if wanted.is_empty() || wanted.split(',').any(|wanted| wanted == *name) {
            say(&format!("Starting {name}"));
            ways.push(match durable::NAMES.contains(name) {
                true => durable::start(name, dir.path())?,
                false => rivals::start(name, dir.path())?,
            });
        }
    }
    let mut report = report::Report::default();
    for round in 0..=rounds {
        for way in &ways {
            let client = load::Client::connect(&way.url, way.token.as_deref(), &way.tool).await;
            let client = client.with_context(|| format!("{}\n{}", way.name, way.said()))?;
            for &at_once in &numbers {
                let calls = if at_once == 1 { calls } else { calls * 2 };
                let before = way.cpu();
                let measured = client.measure(calls, at_once).await;
                let measured = measured.with_context(|| format!("{}\n{}", way.name, way.said()))?;
                let cpu = way.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
                // The first round is for warming up: connections, caches, plans.
                if round > 0 {
                    report.add(way.name, at_once, measured, cpu);
                }
            }
            client.close().await;
        }
        say(&format!("Round {round} of {rounds} is over"));
    }
    say(&report.text());
    Ok(())
}

/// Which of [`load::AT_ONCE`] are measured.
fn at_once() -> Result<Vec<usize>> {
    let Ok(wanted) = std::env::var("COGO_BENCH_AT_ONCE") else { return Ok(load::AT_ONCE.into()) };
    let numbers = wanted.split(',').map(|text| match text.trim().parse() {
        Ok(number) if load::AT_ONCE.contains(&number) => Ok(number),
        _ => bail!("COGO_BENCH_AT_ONCE: {text:?} is none of {:?}", load::AT_ONCE),
    });
    numbers.collect()
}

fn number(name: &str, usual: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}: must be a whole number")),
        Err(_) => Ok(usual),
    }
}

fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
}
