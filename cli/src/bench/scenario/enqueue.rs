//! Enqueueing, one at a time and in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use serde_json::json;

use crate::bench::Run;
use crate::bench::load::{Messages, SENDER_CONNECTIONS, spawn};
use crate::bench::measure::{Case, Latencies, ROWS, Record};

pub(super) const ABOUT: &str = "Enqueueing: one at a time from 1, 8 and 32 producers of one process (the client groups \
    them), and in batches of 100 and 1,000 from 1 and 4";

/// Producers, and how many messages each sends at once.
const SINGLE: [(usize, u64); 3] = [(1, 1), (8, 1), (32, 1)];
const BATCHES: [(usize, u64); 4] = [(1, 100), (4, 100), (1, 1000), (4, 1000)];

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    for round in 1..=run.plan.rounds {
        for (producers, batch) in SINGLE.into_iter().chain(BATCHES) {
            let case = case(producers, batch);
            run.screen.doing(&format!("enqueue: {}, round {round}", case.name()));
            let database = run.place.database().await?;
            let bus = database.bus(SENDER_CONNECTIONS).await?;
            let messages = Messages::of(run.plan.payload_bytes);
            // Connections are made and plans are kept; the table is as good as empty.
            send(&bus, &messages, (producers, batch), run.plan.spell() / 10, &database.tasks)
                .await?;
            let sent = send(&bus, &messages, (producers, batch), run.plan.spell(), &database.tasks)
                .await?;
            sent.put(record, &case);
            run.place.drop_database(database).await?;
        }
    }
    Ok(())
}

pub(super) fn case(producers: usize, batch: u64) -> Case {
    let one = if producers == 1 { "producer" } else { "producers" };
    let how = if batch == 1 { "one at a time".to_owned() } else { format!("batches of {batch}") };
    let name = format!("{producers} {one}, {how}");
    Case::new(name, json!({"producers": producers, "batch": batch}))
}

/// What was sent, and how long it took.
pub(super) struct Sent {
    rows: u64,
    took: Duration,
    each: Vec<Duration>,
}

impl Sent {
    pub(super) fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }

    pub(super) fn put(self, record: &Record, case: &Case) {
        record.add(case, "enqueued", ROWS, self.rate());
        record.add_latencies(case, Latencies(self.each));
    }
}

/// Has producers send for so long, each its next when the last one is acknowledged.
pub(super) async fn send(
    bus: &Bus,
    messages: &Messages,
    (producers, batch): (usize, u64),
    spell: Duration,
    tasks: &Tasks,
) -> Result<Sent> {
    let numbers = Arc::new(AtomicU64::new(0));
    let watch = Stopwatch::start();
    let producers: Vec<_> = (0..producers)
        .map(|_| {
            let (bus, messages, numbers) = (bus.clone(), messages.clone(), Arc::clone(&numbers));
            spawn(tasks, async move {
                let mut each = Vec::new();
                while watch.elapsed() < spell {
                    let first = numbers.fetch_add(batch, Ordering::Relaxed);
                    let some = messages.some(first, batch);
                    let call = Stopwatch::start();
                    match <[_; 1]>::try_from(some) {
                        Ok([one]) => {
                            bus.publish(one).await?;
                        }
                        Err(some) => {
                            bus.publish_all(&some).await?;
                        }
                    }
                    each.push(call.elapsed());
                }
                anyhow::Ok(each)
            })
        })
        .collect();
    let mut each = Vec::new();
    for producer in producers {
        each.extend(producer.ended().await??);
    }
    Ok(Sent { rows: each.len() as u64 * batch, took: watch.elapsed(), each })
}
