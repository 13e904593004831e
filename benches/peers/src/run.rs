//! The coordinator: rounds of measures of participants, by turns.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cogo::shutdown::Shutdown;
use serde_json::json;
use tokio::time::Instant;

use crate::Options;
use crate::cluster::Cluster;
use crate::install;
use crate::participant::{self, Case, Measure, Participant};
use crate::process::{Done, Driver, Task};
use crate::record::{self, Failed, Figure, Record};
use crate::report;

/// How many messages a wake-up is measured by.
const WAKE_UPS: u64 = 100;
/// What a worker that says it is ready may still have to do.
const BREATH: Duration = Duration::from_millis(500);
/// The database of the piece of work under way.
const DATABASE: &str = "work";

struct Bench {
    options: Options,
    cluster: Cluster,
    drivers: BTreeMap<&'static str, Driver>,
    record: Record,
}

/// Does all of it, and prints the report.
pub(crate) async fn run(mut options: Options) -> Result<ExitCode> {
    if options.quick {
        options.rounds = 1;
        options.messages = options.messages.min(2_000);
    }
    let participants = chosen(&options.only)?;
    let machine = record::machine();
    let cluster = Cluster::start(options.data_dir.as_deref()).await?;
    let about = json!({
        "commit": record::commit(),
        "machine": machine,
        "postgres": cluster.settings().await?,
        "rounds": options.rounds,
        "messages": options.messages,
        "quick": options.quick,
    });
    let mut bench = Bench { options, cluster, drivers: BTreeMap::new(), record: Record::default() };
    tokio::select! {
        () = bench.all(&participants) => {}
        () = interrupted() => {
            bench.cluster.stop().await?;
            bail!("interrupted; nothing is reported");
        }
    }
    let Bench { options, cluster, record, .. } = bench;
    cluster.stop().await?;
    let out = options.out.unwrap_or_else(|| install::root().join("target/bench-peers/peers.json"));
    record.write(&out, &about, &participants)?;
    print!("{}", report::markdown(&record, &about, &participants));
    eprintln!("The record is in {}.", out.display());
    let good = record.failed.is_empty() || options.allow_missing;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for SIGINT or SIGTERM; where they cannot be heard, for ever.
async fn interrupted() {
    if Shutdown::signal().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Those of `only`, or everyone.
fn chosen(only: &[String]) -> Result<Vec<Participant>> {
    let all = participant::all();
    if let Some(unknown) =
        only.iter().find(|name| all.iter().all(|participant| participant.name != **name))
    {
        let names: Vec<_> = all.iter().map(|participant| participant.name).collect();
        bail!("--only: there is no participant \"{unknown}\"; there are {}", names.join(", "));
    }
    let wanted = |participant: &Participant| {
        only.is_empty() || only.iter().any(|name| name == participant.name)
    };
    Ok(all.into_iter().filter(wanted).collect())
}

impl Bench {
    async fn all(&mut self, participants: &[Participant]) {
        for participant in participants {
            eprintln!("{}: setting up", participant.name);
            if let Err(error) = self.set_up(participant).await {
                self.failed(participant, "set-up", &error);
            }
        }
        for round in 1..=self.options.rounds {
            for measure in Measure::ALL {
                // Whoever was first in a round is last in the next one.
                let first = (round as usize - 1) % participants.len();
                for participant in participants[first..].iter().chain(&participants[..first]) {
                    for case in participant.cases.iter().filter(|case| case.measure == measure) {
                        self.measure(round, participant, case).await;
                    }
                }
            }
        }
    }

    /// Installs what the participant needs, and makes the database that each piece of work begins with.
    async fn set_up(&mut self, participant: &Participant) -> Result<()> {
        let driver = install::driver(participant).await.context("it cannot be installed")?;
        let template = template(participant);
        self.cluster.create(&template).await?;
        let task =
            Task { work: "setup", messages: 0, batch: 1, connections: 1, rate: 1, variant: None };
        driver.run(&self.cluster.url(&template), &task, self.limit()).await?;
        self.drivers.insert(participant.name, driver);
        Ok(())
    }

    async fn measure(&mut self, round: u32, participant: &Participant, case: &Case) {
        if !self.drivers.contains_key(participant.name) {
            return; // It could not be set up, which was told.
        }
        let what = format!("round {round}, {}, {}", case.measure.name(), case.row);
        let began = Instant::now();
        match self.one(participant, case).await {
            Ok(done) => {
                let whole = began.elapsed().as_secs_f64();
                eprintln!(
                    "{what}: {} messages in {:.3} s; {whole:.1} s in all",
                    done.count, done.seconds
                );
                self.record.figures.push(Figure {
                    round,
                    row: case.row,
                    measure: case.measure.name(),
                    messages: done.count,
                    seconds: done.seconds,
                    latencies_ms: done.latencies_ms,
                });
            }
            Err(error) => self.failed(participant, &what, &error),
        }
    }

    /// One piece of work, in a database of its own, with all that was asked for seen in it.
    async fn one(&self, participant: &Participant, case: &Case) -> Result<Done> {
        let driver = &self.drivers[participant.name];
        let url = self.cluster.url(DATABASE);
        self.cluster.drop(DATABASE).await?;
        self.cluster.clone_database(DATABASE, &template(participant)).await?;
        let mut task = case.task.clone();
        task.messages = match case.measure {
            Measure::Latency if self.options.quick => WAKE_UPS / 5,
            Measure::Latency => WAKE_UPS,
            _ => (self.options.messages / case.fewer).max(1),
        };
        if case.measure.needs_backlog() {
            self.backlog(driver, &url, &task).await?;
            let waiting = self.cluster.count(DATABASE, case.waiting).await?;
            ensure!(
                waiting == task.messages.cast_signed(),
                "{waiting} messages wait and not {}",
                task.messages
            );
        }
        self.cluster.settle(DATABASE).await?;
        let done = if case.measure == Measure::Latency {
            self.wake_up(driver, &url, task.clone()).await?
        } else {
            driver.run(&url, &task, self.limit()).await?
        };
        ensure!(
            done.count == task.messages,
            "{} messages were timed and not {}",
            done.count,
            task.messages
        );
        let waiting = self.cluster.count(DATABASE, case.waiting).await?;
        let expected = match case.measure {
            Measure::Enqueue1000 | Measure::Enqueue100 | Measure::Single => {
                done.written.cast_signed()
            }
            Measure::Drain | Measure::Claims100 | Measure::Claims1000 | Measure::Latency => 0,
        };
        ensure!(waiting == expected, "{waiting} messages wait afterwards and not {expected}");
        self.cluster.drop(DATABASE).await?;
        Ok(done)
    }

    /// Enqueues exactly as many as are to be taken: the batch that is not timed counts as well.
    async fn backlog(&self, driver: &Driver, url: &str, task: &Task) -> Result<()> {
        let batch = (task.messages / 2).clamp(1, 1000);
        let variant = task.variant.map(|_| "rows");
        let fill = Task {
            work: "enqueue",
            messages: task.messages - batch,
            batch,
            connections: 1,
            rate: 1,
            variant,
        };
        driver.run(url, &fill, self.limit()).await.context("the backlog")?;
        Ok(())
    }

    /// A worker in one process, and in another one who sends.
    async fn wake_up(&self, driver: &Driver, url: &str, task: Task) -> Result<Done> {
        let mut worker = driver.start(url, &task, self.limit())?;
        worker.ready().await.context("the worker")?;
        tokio::time::sleep(BREATH).await;
        let send = Task { work: "send", connections: 1, batch: 1, ..task };
        let began = Instant::now();
        driver.run(url, &send, self.limit()).await.context("the sender")?;
        let mut done = worker.done().await.context("the worker")?;
        let heard = done.latencies_ms.len() as u64;
        ensure!(
            heard == send.messages,
            "{heard} messages said when they were sent and not {}",
            send.messages
        );
        done.seconds = began.elapsed().as_secs_f64();
        Ok(done)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.options.timeout)
    }

    fn failed(&mut self, participant: &Participant, what: &str, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        eprintln!("{}, {what}: FAILED: {reason}", participant.name);
        self.record.failed.push(Failed {
            participant: participant.name,
            what: what.to_owned(),
            reason,
        });
    }
}

fn template(participant: &Participant) -> String {
    format!("set_up_{}", participant.name.replace('-', "_"))
}
