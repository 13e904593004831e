//! A steady stream: how long it takes from the enqueue to the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use serde_json::{Value, json};

use crate::bench::Run;
use crate::bench::load::{
    Fleet, Messages, SENDER_CONNECTIONS, Spawned, WORKER_CONNECTIONS, number, spawn,
};
use crate::bench::measure::{Better, Case, Latencies, Record, Unit};

pub(super) const ABOUT: &str = "A steady stream (--rate, --seconds): from the call that enqueues to the start of the \
    handler, with sender and worker as two processes have them (a wake-up through Postgres), and as one has them";
pub(super) const ABOUT_WAKEUP: &str =
    "The same at ten messages a second, where each finds an idle worker that has to be woken";

/// How fast the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As the command line says.
    Asked,
    /// Ten a second, for half as long: enough for a quantile.
    Low,
}

impl Pace {
    /// Messages a second, and for how long.
    fn of(self, run: &Run) -> (u32, Duration) {
        match self {
            Self::Asked => (run.plan.rate, Duration::from_secs(run.plan.seconds)),
            Self::Low => (10, Duration::from_secs(run.plan.seconds.div_ceil(2))),
        }
    }
}

pub(super) async fn measure(run: &Run, record: &Record, pace: Pace) -> Result<()> {
    let (rate, spell) = pace.of(run);
    for round in 1..=run.plan.rounds {
        for apart in [true, false] {
            let place = if apart { "two processes" } else { "one process" };
            let case = Case::new(
                format!("{rate} a second, {place}"),
                json!({"rate": rate, "seconds": spell.as_secs(), "apart": apart}),
            );
            run.screen.doing(&format!("steady: {}, round {round}", case.name()));
            let database = run.place.database().await?;
            let sender = database.bus(SENDER_CONNECTIONS).await?;
            let worker = match apart {
                true => database.bus(WORKER_CONNECTIONS).await?,
                false => sender.clone(),
            };
            let stream = Stream { sender, worker, rate, spell };
            let messages = Messages::of(run.plan.payload_bytes);
            stream.run(&messages, run.plan.concurrency, &database.tasks, record, &case).await?;
            run.place.drop_database(database).await?;
        }
    }
    Ok(())
}

/// A stream of messages from one bus to another.
pub(super) struct Stream {
    pub(super) sender: Bus,
    pub(super) worker: Bus,
    pub(super) rate: u32,
    pub(super) spell: Duration,
}

/// When each message was sent and when its handler began, in microseconds since the beginning.
struct Times {
    since: Stopwatch,
    sent: Vec<AtomicU64>,
    begun: Vec<AtomicU64>,
}

impl Times {
    fn note(&self, times: &[AtomicU64], n: usize) {
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        if let Some(time) = times.get(n) {
            // The first time counts, should one be handled twice.
            let _noted_before = time.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Stream {
    /// Sends at fixed times, whether or not the last one is acknowledged: a slow answer must not make the stream slower,
    /// or the slow times would hardly be counted.
    pub(super) async fn run(
        &self,
        messages: &Messages,
        concurrency: usize,
        tasks: &Tasks,
        record: &Record,
        case: &Case,
    ) -> Result<()> {
        let count = (f64::from(self.rate) * self.spell.as_secs_f64()).ceil() as usize;
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let times = Arc::new(Times { since: Stopwatch::start(), sent: zeros(), begun: zeros() });
        let began = {
            let times = Arc::clone(&times);
            move |payload: &Value| {
                if let Some(n) = number(payload) {
                    times.note(&times.begun, n);
                }
            }
        };
        let mut fleet = Fleet::start(std::slice::from_ref(&self.worker), concurrency, tasks, began);
        fleet.ready().await?;
        // Plans are kept and connections made; those have numbers of none.
        for n in 0..20 {
            self.sender.publish(messages.one(u64::try_from(count)? + n)).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let started = Stopwatch::start();
        let mut late = Duration::ZERO;
        let mut sending: Vec<Spawned<Result<(), cogo::bus::Error>>> = Vec::with_capacity(count);
        for n in 0..count {
            let due = Duration::from_secs_f64(n as f64 / f64::from(self.rate));
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
            late = late.max(started.elapsed().saturating_sub(due));
            let (bus, times) = (self.sender.clone(), Arc::clone(&times));
            let message = messages.one(u64::try_from(n)?);
            sending.push(spawn(tasks, async move {
                times.note(&times.sent, n);
                bus.publish(message).await?;
                Ok(())
            }));
        }
        for sending in sending {
            sending.ended().await??;
        }
        let missing = || times.begun.iter().filter(|at| at.load(Ordering::Relaxed) == 0).count();
        let waited = Stopwatch::start();
        while missing() > 0 {
            ensure!(
                waited.elapsed() < Duration::from_secs(60),
                "{} of {count} messages were never begun",
                missing()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fleet.stop().await?;
        let between = |from: &[AtomicU64], to: &[AtomicU64]| {
            let read = |time: &AtomicU64| time.load(Ordering::Relaxed);
            let pairs = from.iter().zip(to).map(|(from, to)| (read(from), read(to)));
            Latencies(
                pairs.map(|(from, to)| Duration::from_micros(to.saturating_sub(from))).collect(),
            )
        };
        record.add_latencies(case, between(&times.sent, &times.begun));
        record.add(
            case,
            "sender late by at most",
            Unit("ms", Better::Neither),
            crate::bench::measure::millis(late),
        );
        Ok(())
    }
}
