//! `cogo bench`: what the bus can do on this machine and this Postgres, in databases of its own.

mod arguments;
mod child;
mod database;
mod fill;
mod load;
mod machine;
mod measure;
mod place;
mod plot;
mod report;
mod scenario;
mod screen;
mod server;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use cogo::clock::{Stopwatch, utc_now};
use cogo::shutdown::Tasks;
use tokio::sync::oneshot;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::lifecycle::{Signals, exit_at_once};
use crate::output::{Output, note};

pub(crate) use self::arguments::Bench;
use self::arguments::Plan;
use self::measure::Record;
use self::place::Place;
use self::report::{Ended, Outcome, Report};
use self::scenario::Scenario;
use self::screen::Screen;

/// All that a scenario is given.
#[derive(Debug)]
pub(crate) struct Run {
    place: Place,
    plan: Plan,
    screen: Screen,
}

impl Bench {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let Some(wanted) = self.wanted()? else { return scenario::list(output) };
        let plan = self.plan()?;
        let (named, settings) = (self.database(global)?, self.settings()?);
        let begun_at = utc_now();
        let out = self.out(begun_at);
        // Before anything else is done: whoever waited for an hour wants the report.
        std::fs::create_dir_all(&out)
            .map_err(|error| Failed::usage(format!("--out {}: {error}", out.display())))?;
        let watch = Stopwatch::start();
        let mut interrupted = interrupts()?;
        let load_average = machine::load_average();
        let place = {
            let opening = Place::open(named, settings);
            tokio::pin!(opening);
            tokio::select! {
                place = &mut opening => place?,
                _ = &mut interrupted => {
                    // Nothing half made: it takes a moment, and then it can be taken away.
                    opening.await?.close().await?;
                    return Ok(Exit::Interrupted);
                }
            }
        };
        let server = place.look().await;
        let run = Run { place, plan, screen: Screen::new() };
        let measured = match server {
            Ok(server) => {
                server.warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
                let ended = measure(&run, &wanted, &mut interrupted).await;
                Ok((server, ended))
            }
            Err(error) => Err(error),
        };
        run.screen.clear();
        // Also after a failure and after a signal: what was made goes.
        let closed = run.place.close().await;
        let (server, ended) = measured?;
        let report = Report::new(begun_at, watch.elapsed(), load_average, &run.plan, server, ended);
        report.write(&out).with_context(|| format!("writing to {}", out.display()))?;
        show(output, &report, &out)?;
        closed?;
        Ok(report.exit())
    }
}

/// Runs what is wanted, one after the other. At a signal what is under way is dropped; what it has measured is kept.
async fn measure(
    run: &Run,
    wanted: &[Scenario],
    interrupted: &mut oneshot::Receiver<()>,
) -> Vec<Ended> {
    let mut all = Vec::new();
    let mut stopped = false;
    for scenario in wanted {
        let record = Record::default();
        let watch = Stopwatch::start();
        let outcome = if stopped {
            Outcome::NotRun
        } else {
            tokio::select! {
                done = scenario.run(run, &record) => match done {
                    Ok(()) => Outcome::Complete,
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                },
                _ = &mut *interrupted => {
                    stopped = true;
                    Outcome::Interrupted
                }
            }
        };
        if let Outcome::Failed(why) = &outcome {
            run.screen.clear();
            note(&format!("{} failed: {why}", scenario.name()));
        }
        // Whatever a scenario that ended early has left to run must not disturb the next one.
        run.place.clear().await;
        all.push(Ended { scenario: *scenario, outcome, took: watch.elapsed(), record });
    }
    all
}

fn show(output: Output, report: &Report, out: &Path) -> Result<()> {
    if output.json {
        output.value(report)?;
    } else {
        table::show(output, report)?;
    }
    note(&format!("The report is {}", out.join(report::FILE).display()));
    Ok(())
}

/// Resolves at the first signal; the second one ends the process at once.
fn interrupts() -> Result<oneshot::Receiver<()>> {
    let mut signals = Signals::new().context("hearing signals")?;
    let (tell, told) = oneshot::channel();
    Tasks::new().spawn(async move {
        let signal = signals.next().await;
        note(&format!(
            "{signal}: cleaning up, and keeping what was measured. Again to exit at once, which leaves databases \
             {}* behind.",
            place::PREFIX
        ));
        if tell.send(()).is_ok() {
            signals.next().await;
        }
        exit_at_once()
    });
    Ok(told)
}
