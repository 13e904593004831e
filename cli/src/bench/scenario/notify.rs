//! What wake-ups cost those who enqueue.

use std::time::Duration;

use anyhow::Result;
use cogo::bus::Bus;
use serde_json::json;
use sqlx::postgres::PgListener;

use crate::bench::Run;
use crate::bench::database::Database;
use crate::bench::load::{Messages, SENDER_CONNECTIONS};
use crate::bench::measure::{Better, Case, ROWS, Record, Unit};
use crate::bench::scenario::enqueue;

pub(super) const ABOUT: &str = "What wake-ups cost those who enqueue: 32 producers, one at a time, without wake-ups, with them, and \
    with 16 other connections that hear them; in turns, on one database";

const PRODUCERS: (usize, u64) = (32, 1);
const LISTENERS: usize = 16;
/// How often they take turns in a round.
const TURNS: u32 = 4;
const COST: Unit = Unit("% slower", Better::Lower);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let names = ["without wake-ups", "with wake-ups", "with wake-ups, heard by 16"];
    let cases: Vec<Case> = names
        .iter()
        .map(|name| {
            let (wake_ups, heard) = (*name != names[0], *name == names[2]);
            let listeners = if heard { LISTENERS } else { 0 };
            Case::new(*name, json!({"wake_ups": wake_ups, "listeners": listeners}))
        })
        .collect();
    for round in 1..=run.plan.rounds {
        let database = run.place.database().await?;
        let silent = silent(&database).await?;
        let waking = database.bus(SENDER_CONNECTIONS).await?;
        let messages = Messages::of(run.plan.payload_bytes);
        let spell = run.plan.spell() / TURNS;
        let mut rates = [0.0; 3];
        for bus in [&silent, &waking] {
            enqueue::send(bus, &messages, PRODUCERS, spell / 2, &database.tasks).await?;
        }
        for turn in 0..TURNS {
            // Each goes first as often as any other: the table grows meanwhile.
            for at in (0..3).map(|at| (at + turn as usize) % 3) {
                run.screen.doing(&format!("notify: {}, round {round}", names[at]));
                let bus = if at == 0 { &silent } else { &waking };
                let heard = if at == 2 { LISTENERS } else { 0 };
                let listeners = listen(&database, heard).await?;
                let sent = enqueue::send(bus, &messages, PRODUCERS, spell, &database.tasks).await?;
                rates[at] += sent.rate() / f64::from(TURNS);
                drop(listeners);
            }
        }
        for (case, rate) in cases.iter().zip(rates) {
            record.add(case, "enqueued", ROWS, rate);
        }
        for at in [1, 2] {
            let cost = (1.0 - rates[at] / rates[0]) * 100.0;
            record.add(&cases[at], "cost of the wake-ups", COST, cost);
        }
        run.place.drop_database(database).await?;
    }
    Ok(())
}

/// A bus that publishes as any other and wakes nobody: it leaves wake-ups to one whose pool is closed.
async fn silent(database: &Database) -> Result<Bus> {
    // Two: it listens on one for as long as there is any.
    let mute = database.bus(2).await?;
    if let Some(pool) = mute.pool() {
        pool.close().await;
    }
    let other = database.bus(SENDER_CONNECTIONS).await?;
    let pool = other.pool().cloned().unwrap_or_else(|| unreachable!("a bus over Postgres"));
    Ok(mute.beside(pool))
}

/// Connections that hear all wake-ups, as those of other processes do, and leave it at that.
async fn listen(database: &Database, count: usize) -> Result<Vec<PgListener>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let owner = database.one_connection().await?;
        let mut listener = PgListener::connect_with(&owner).await?;
        listener
            .listen_all(["cogo_work", "cogo_log", "cogo_circuit", "cogo_claims", "cogo_env"])
            .await?;
        all.push(listener);
    }
    // So that what the connections cost is not what is measured.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(all)
}
