//! What a claim costs beside many rows.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::bus::{Bus, ClaimRequest, Settle};
use cogo::clock::Stopwatch;
use cogo::message::{DEFAULT_TENANT, MessageId};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::bench::Run;
use crate::bench::database::Database;
use crate::bench::fill;
use crate::bench::load::{Messages, WORKER_CONNECTIONS, topic};
use crate::bench::measure::{Better, Case, Latencies, Record, Unit, median};

pub(super) const ABOUT: &str = "What a claim of 1, 10 and 100 costs with many rows (--depth) waiting, delayed or finished, \
    beside the same claim on an empty table, taken in turns";

/// How many are claimed at once.
const AT_ONCE: [usize; 3] = [1, 10, 100];
/// How many claims one figure is of.
const CLAIMS: usize = 200;
/// The figure is that much of the one on an empty table.
const RATIO: Unit = Unit("× empty", Better::Lower);
/// How long what is delayed stays so: longer than all that is measured.
const DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The state that the many rows are in.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Waiting,
    Delayed,
    Finished,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Finished => "finished",
        }
    }
}

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    for kind in [Kind::Waiting, Kind::Delayed, Kind::Finished] {
        for &depth in &run.plan.depth {
            let what = format!("{depth} {}", kind.word());
            let database = run.place.database().await?;
            let template = template(run, &database, kind).await?;
            let owner = database.owner().await?;
            fill::copies(&owner, template, depth - 1, |done| {
                run.screen.doing(&format!("depth: filling {what}, {done} so far"));
            })
            .await
            .context("filling")?;
            checkpoint(&owner).await;
            let deep = Table::of(run, database).await?;
            // Its own for each, so that what is claimed leaves as much behind in the one as in the other.
            let empty = Table::of(run, run.place.database().await?).await?;
            for round in 1..=run.plan.rounds {
                run.screen.doing(&format!("depth: claims beside {what}, round {round}"));
                for at_once in AT_ONCE {
                    compare(run, record, &empty, &deep, &what, (kind, depth, at_once)).await?;
                }
            }
            for table in [empty, deep] {
                run.place.drop_database(table.database).await?;
            }
        }
    }
    Ok(())
}

/// Claims from both in turns, so that what else the machine does falls on both.
async fn compare(
    run: &Run,
    record: &Record,
    empty: &Table,
    deep: &Table,
    what: &str,
    (kind, depth, at_once): (Kind, u64, usize),
) -> Result<()> {
    let claims = run.plan.either(10, CLAIMS);
    let (mut at_empty, mut at_deep) = (Vec::new(), Vec::new());
    // Plans are kept after a few calls.
    for _ in 0..run.plan.either(2, 10) {
        empty.claim(at_once).await?;
        deep.claim(at_once).await?;
    }
    for _ in 0..claims {
        at_empty.push(empty.claim(at_once).await?);
        at_deep.push(deep.claim(at_once).await?);
    }
    let ratio = median(&at_deep).as_secs_f64() / median(&at_empty).as_secs_f64();
    let case = |rows: u64, name: String| {
        Case::new(name, json!({"rows": rows, "state": kind.word(), "at_once": at_once}))
    };
    let beside = case(depth, format!("{at_once} beside {what}"));
    record.add_latencies(
        &case(0, format!("{at_once}, empty, taken with {what}")),
        Latencies(at_empty),
    );
    record.add_latencies(&beside, Latencies(at_deep));
    record.add(&beside, "ratio of p50", RATIO, ratio);
    Ok(())
}

/// A table to claim from.
struct Table {
    database: Database,
    bus: Bus,
    messages: Messages,
}

impl Table {
    async fn of(run: &Run, database: Database) -> Result<Self> {
        let bus = database.bus(WORKER_CONNECTIONS).await?;
        Ok(Self { database, bus, messages: Messages::of(run.plan.payload_bytes) })
    }

    /// Enqueues as many as it claims, so that the depth stays; the time of the claim alone.
    async fn claim(&self, at_once: usize) -> Result<Duration> {
        self.bus.publish_all(&self.messages.some(0, at_once as u64)).await?;
        let request = request(at_once);
        let watch = Stopwatch::start();
        let claims = self.bus.claim(&request).await?;
        let took = watch.elapsed();
        ensure!(claims.len() == at_once, "{} of {at_once} were claimed", claims.len());
        let settles: Vec<Settle> = claims
            .into_iter()
            .map(|claim| Settle::complete(&claim.into_message(), json!({"ok": true}), json!({})))
            .collect();
        self.bus.step(&settles, &self::request(0)).await?;
        Ok(took)
    }
}

fn request(max: usize) -> ClaimRequest {
    ClaimRequest {
        worker: "bench".to_owned(),
        tenant: DEFAULT_TENANT.to_owned(),
        topics: vec![topic().to_string()],
        max,
        lease: Duration::from_secs(30),
    }
}

/// One message in the state, brought there by the bus.
async fn template(run: &Run, database: &Database, kind: Kind) -> Result<MessageId> {
    let bus = database.bus(WORKER_CONNECTIONS).await?;
    let mut message = Messages::of(run.plan.payload_bytes).one(0);
    if matches!(kind, Kind::Delayed) {
        message.delay = DELAY;
    }
    let id = bus.publish(message).await?.id;
    if matches!(kind, Kind::Finished) {
        let claims = bus.claim(&request(1)).await?;
        for claim in claims {
            claim.complete(json!({"ok": true})).await?;
        }
    }
    Ok(id)
}

/// So that what was filled is not written out while it is measured. Not every login may.
async fn checkpoint(owner: &sqlx::PgPool) {
    let _may_not = sqlx::query(AssertSqlSafe("checkpoint".to_owned())).execute(owner).await;
}
