//! What is to be measured and how, from the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;

use crate::bench::scenario::{Named, Scenario};
use crate::connect::Global;
use crate::exit::Failed;

/// Measure what the bus can do on this machine, in databases of its own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo bench list                                 what there is, and what each measures
  cogo bench enqueue drain                        on a Postgres that it starts itself
  cogo bench all --quick                          a minute or two, to see that all works
  cogo bench drain --messages 20000,200000 --rounds 5
  cogo bench steady --rate 1000 --seconds 120 --database-url postgres://owner@db.example.com/postgres
  cogo bench depth --depth 10000000               claims beside ten million rows
  cogo bench enqueue --set shared_buffers=1GB --json | jq '.scenarios[0].measurements'

On a server of yours it makes databases cogo_bench_<random>, works in them alone, and drops them at the
end, also after Ctrl-C. The login must be one that may create databases. What you measure there,
others feel: it takes all that the server has. docs/benchmarks.md says how to read the figures.")]
pub(crate) struct Bench {
    /// What to measure, in this order: see `cogo bench list`
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<Named>,
    /// Start a Postgres of its own for the run, in a temporary directory; the default where no database is named
    #[arg(long)]
    local: bool,
    /// A setting for the Postgres that it starts, such as shared_buffers=1GB; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Where report.json and the plots go; by default artifacts/bench/<time>
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How often each case is measured; the medians count [default: 3, with --quick 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Small numbers: to see that all works, and not how fast
    #[arg(long)]
    quick: bool,
    /// drain, tail, churn, held: how many messages; several with commas, for drain [default: 20000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    messages: Vec<u64>,
    /// drain: how many workers; several with commas [default: 1,4,16]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    workers: Vec<usize>,
    /// How many messages one worker handles at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    concurrency: usize,
    /// How wide the payload of a message is, about
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload_bytes: usize,
    /// steady: how many messages a second
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,
    /// steady: for how long [default: 60, with --quick 2]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// depth: how many rows there are; several with commas [default: 100000,1000000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    depth: Vec<u64>,
    /// fanout: how many subscribers [default: 1000, with --quick 50]
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
}

/// What was asked for, with the defaults filled in; it stands in the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    pub(super) quick: bool,
    pub(super) rounds: usize,
    pub(super) messages: Vec<u64>,
    pub(super) workers: Vec<usize>,
    pub(super) concurrency: usize,
    pub(super) payload_bytes: usize,
    pub(super) rate: u32,
    pub(super) seconds: u64,
    pub(super) depth: Vec<u64>,
    pub(super) subscribers: usize,
}

impl Plan {
    /// For how long something is done over and over that has no natural end.
    pub(super) fn spell(&self) -> Duration {
        if self.quick { Duration::from_millis(300) } else { Duration::from_secs(5) }
    }

    /// One number in a quick run, another one else.
    pub(super) fn either<T>(&self, quick: T, usual: T) -> T {
        if self.quick { quick } else { usual }
    }

    /// How many messages, where one number is wanted.
    pub(super) fn most_messages(&self, usual: u64) -> u64 {
        // Those that were not asked for are drain's own.
        match self.messages.as_slice() {
            [] => usual,
            asked => asked.iter().copied().max().unwrap_or(usual),
        }
    }
}

impl Bench {
    /// The scenarios; none where they are to be listed.
    pub(super) fn wanted(&self) -> Result<Option<Vec<Scenario>>> {
        if self.scenarios.contains(&Named::List) {
            if self.scenarios.len() > 1 {
                return Err(Failed::usage("list: stands alone, without scenarios").into());
            }
            return Ok(None);
        }
        let mut wanted = Vec::new();
        for named in &self.scenarios {
            for scenario in named.scenarios() {
                if !wanted.contains(&scenario) {
                    wanted.push(scenario);
                }
            }
        }
        Ok(Some(wanted))
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        let quick = self.quick;
        let or = |given: &[u64], usual: &[u64]| match given {
            [] => usual.to_vec(),
            given => given.to_vec(),
        };
        let workers = match self.workers.as_slice() {
            [] if quick => vec![1, 2],
            [] => vec![1, 4, 16],
            given => given.to_vec(),
        };
        let plan = Plan {
            quick,
            rounds: self.rounds.unwrap_or(if quick { 1 } else { 3 }),
            messages: self.messages.clone(),
            workers,
            concurrency: self.concurrency,
            payload_bytes: self.payload_bytes,
            rate: self.rate,
            seconds: self.seconds.unwrap_or(if quick { 2 } else { 60 }),
            depth: or(&self.depth, if quick { &[2000] } else { &[100_000, 1_000_000] }),
            subscribers: self.subscribers.unwrap_or(if quick { 50 } else { 1000 }),
        };
        let least = |name: &str, value: u64, least: u64, most: u64| match value {
            value if (least..=most).contains(&value) => Ok(()),
            _ => Err(Failed::usage(format!("--{name}: must be from {least} to {most}"))),
        };
        least("rounds", plan.rounds as u64, 1, 100)?;
        least("concurrency", plan.concurrency as u64, 1, 10_000)?;
        least("payload-bytes", plan.payload_bytes as u64, 0, 1_000_000)?;
        least("rate", plan.rate.into(), 1, 100_000)?;
        least("seconds", plan.seconds, 1, 86_400)?;
        least("subscribers", plan.subscribers as u64, 1, 20_000)?;
        for messages in &plan.messages {
            least("messages", *messages, 1, 100_000_000)?;
        }
        for workers in &plan.workers {
            least("workers", *workers as u64, 1, 256)?;
        }
        for depth in &plan.depth {
            least("depth", *depth, 1, 1_000_000_000)?;
        }
        Ok(plan)
    }

    /// The server to measure on; none where one is to be started.
    pub(super) fn database(&self, global: &Global) -> Result<Option<PgConnectOptions>> {
        let over_https = ["http://", "https://"];
        let url = global.database_url.as_deref().unwrap_or_default();
        if over_https.iter().any(|scheme| url.starts_with(scheme))
            || (!self.local && global.url()?.is_some())
        {
            let text = "--url: the bus over HTTPS cannot be measured from outside: each scenario needs a database of \
                        its own";
            return Err(Failed::usage(text)
                .hint(
                    "Name a Postgres server by --database-url, or none, for one that is started for the run. \
                     `far` then measures the way over HTTP, through a hub that it starts itself.",
                )
                .into());
        }
        if self.local {
            if global.remote.is_database_flag() {
                let text = "--local and --database-url: only one of them can be used";
                return Err(Failed::usage(text).into());
            }
            return Ok(None);
        }
        let named = global.named_database()?;
        if named.is_some() && !self.set.is_empty() {
            let text =
                "--set: is for the Postgres that is started for the run, and a database is named";
            return Err(Failed::usage(text)
                .hint("Change the server's own settings, or add --local.")
                .into());
        }
        Ok(named)
    }

    /// The settings of the Postgres that is started.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(Failed::usage(format!("--set {text}: must be NAME=VALUE")).into()),
        };
        self.set.iter().map(pair).collect()
    }

    pub(super) fn out(&self, begun_at: DateTime<Utc>) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            let time = begun_at.format("%Y%m%dT%H%M%S%.3fZ").to_string();
            ["artifacts", "bench", &time].iter().collect()
        })
    }
}
