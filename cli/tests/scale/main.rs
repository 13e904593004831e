//! A thousand idle workers and two hundred busy ones on one hub: what each costs, and how soon it hears.
//!
//! `just remote-scale`, on a release build; what it prints is for `docs/remote-scale.md`. The workers are the
//! library's runner over HTTPS and Realtime, each with a bus, a key, a topic and connections of its own, all
//! in this process; hub and Postgres are the real `cogo up`. All of them share this machine.
//!
//! | variable | what |
//! |---|---|
//! | `COGO_SCALE_IDLE` | how many idle workers; 1000 |
//! | `COGO_SCALE_BUSY` | how many busy ones; 200 |
//! | `COGO_SCALE_MESSAGES` | how many messages for the busy ones; 20000 |

#![cfg(target_os = "linux")] // /proc

mod hub;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod usage;
mod workers;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;

use crate::hub::Hub;
use crate::usage::{Usage, quantile};
use crate::workers::Fleet;

/// How long nothing is done, to see what that costs.
const QUIET: Duration = Duration::from_secs(60);
/// How many wake-ups are measured, and what lies between them.
const WAKE_UPS: (usize, Duration) = (500, Duration::from_millis(100));

fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
}

fn number(name: &str, usual: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}: must be a whole number")),
        Err(_) => Ok(usual),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes: `just remote-scale`"]
async fn a_thousand_idle_workers_and_two_hundred_busy_ones() -> Result<()> {
    let idle = number("COGO_SCALE_IDLE", 1000)?;
    let busy = number("COGO_SCALE_BUSY", 200)?;
    let messages = number("COGO_SCALE_MESSAGES", 20_000)?;
    usage::raise_the_limit_of_open_files(32_768)?;
    let hub = tokio::task::spawn_blocking(Hub::start).await?;
    // What the first connections make it allocate is not theirs.
    let warm = Fleet::start(&hub, "warm", 20, 1, false)?;
    warm.ready().await?;
    warm.stop().await;
    let before = Usage::of(hub.pid())?;

    let watch = Stopwatch::start();
    let fleet = Fleet::start(&hub, "idle", idle, 1, true)?;
    fleet.ready().await?;
    say(&format!("{idle} workers were ready after {:?}", watch.elapsed()));
    tokio::time::sleep(QUIET / 4).await;
    let after = Usage::of(hub.pid())?;
    let each = |kb: u64| kb as f64 / idle as f64;
    say(&format!(
        "hub: {} kB before, {} kB with {idle} workers: {:.1} kB each; {} open files; {} threads",
        before.rss_kb,
        after.rss_kb,
        each(after.rss_kb.saturating_sub(before.rss_kb)),
        after.files,
        after.threads
    ));
    tokio::time::sleep(QUIET).await;
    let later = Usage::of(hub.pid())?;
    let cpu =
        |a: &Usage, b: &Usage| (b.cpu - a.cpu).as_secs_f64() / (b.at - a.at).as_secs_f64() * 100.0;
    say(&format!("hub, idle: {:.1} % of a core; {} kB", cpu(&after, &later), later.rss_kb));

    let mut waits = Vec::new();
    for n in 0..WAKE_UPS.0 {
        // Far apart in the fleet, so that it is never the one that was just awake.
        waits.push(fleet.wake((n * 7919) % idle).await?);
        tokio::time::sleep(WAKE_UPS.1).await;
    }
    waits.sort_unstable();
    say(&format!(
        "wake-up, enqueued and answered to the handler's start, of {}: p50 {:?}, p95 {:?}, p99 {:?}, max {:?}",
        waits.len(),
        quantile(&waits, 0.50),
        quantile(&waits, 0.95),
        quantile(&waits, 0.99),
        quantile(&waits, 1.0)
    ));

    let working = Fleet::start(&hub, "busy", busy, 8, false)?;
    working.ready().await?;
    let before = Usage::of(hub.pid())?;
    let watch = Stopwatch::start();
    working.work_off(&hub, messages).await?;
    let took = watch.elapsed();
    let after = Usage::of(hub.pid())?;
    say(&format!(
        "{busy} busy workers, with the {idle} idle ones there: {messages} messages in {took:?}, {:.0} a second; hub {:.0} % of \
         a core, {} kB",
        messages as f64 / took.as_secs_f64(),
        cpu(&before, &after),
        after.rss_kb
    ));
    fleet.stop().await;
    working.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let end = Usage::of(hub.pid())?;
    say(&format!("hub, when all had gone: {} kB, {} open files", end.rss_kb, end.files));
    Ok(())
}
