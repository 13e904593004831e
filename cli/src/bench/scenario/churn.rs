//! An hour's churn in minutes: what is left in the tables and their indexes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::postgres::PgPool;

use crate::bench::Run;
use crate::bench::load::{
    Fleet, Messages, SENDER_CONNECTIONS, WORKER_CONNECTIONS, counter, until_drained,
};
use crate::bench::measure::{Better, Case, JOBS, Record, Unit};
use crate::bench::scenario::held::send;

pub(super) const ABOUT: &str = "Messages that come, are done and are let go by retention, with a vacuum after each \
    sixtieth as autovacuum makes one a minute: the sizes of table, indexes and log, and what vacuum leaves";

/// Vacuums, of which an hour has sixty.
const MINUTES: u64 = 60;
/// How many go in one call of the retention, as a hub lets them go.
const GO: u32 = 1000;
const STUCK: Duration = Duration::from_secs(120);
const MB: Unit = Unit("MB", Better::Lower);
const ROWS: Unit = Unit("dead rows", Better::Lower);
const BYTES: Unit = Unit("bytes", Better::Lower);

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let minutes = run.plan.either(5, MINUTES);
    let count = run.plan.most_messages(run.plan.either(1_000, 200_000));
    let each = count.div_ceil(minutes).max(1);
    let case = Case::new(
        format!("{} messages", each * minutes),
        json!({"messages": each * minutes, "vacuums": minutes}),
    );
    for round in 1..=run.plan.rounds {
        let database = run.place.database().await?;
        let owner = database.owner().await?;
        let sender = database.bus(SENDER_CONNECTIONS).await?;
        let worker = database.bus(WORKER_CONNECTIONS).await?;
        // What the hub's chores do; only who operates the bus may.
        let chores = cogo::bus::Bus::new(owner.clone());
        let messages = Messages::of(run.plan.payload_bytes);
        let (handled, began) = counter();
        let fleet = Fleet::start(&[worker], run.plan.concurrency, &database.tasks, began);
        let mut sizes = Vec::new();
        let mut passed = Duration::ZERO;
        for minute in 1..=minutes {
            let done = (minute - 1) * each;
            run.screen.doing(&format!("churn: {done} messages so far, round {round}"));
            let watch = cogo::clock::Stopwatch::start();
            send(&sender, &messages, each).await?;
            until_drained(&owner, &handled, minute * each, STUCK).await?;
            // Those of the minute before stay, as some always do.
            let mut go = u32::try_from(kept(&owner).await?.saturating_sub(each))?;
            while go > 0 {
                let gone = chores.retain(Duration::ZERO, None, go.min(GO)).await?;
                ensure!(gone > 0, "the retention lets nothing go, and {go} messages are to go");
                go = go.saturating_sub(gone);
            }
            passed += watch.elapsed();
            if minute == minutes {
                record.add(&case, "dead before the last vacuum", ROWS, dead(&owner).await?);
            }
            sqlx::query("vacuum (analyze) public.agent_messages").execute(&owner).await?;
            sizes.push(Sizes::look(&owner).await?);
        }
        fleet.stop().await?;
        let all = minutes * each;
        record.add(&case, "passed, retention included", JOBS, all as f64 / passed.as_secs_f64());
        record.add(&case, "dead after it", ROWS, dead(&owner).await?);
        if let (Some(after), Some(first)) = (sizes.last(), sizes.first()) {
            record.add(&case, "table, after the first vacuum", MB, first.table);
            record.add(&case, "table, at the end", MB, after.table);
            record.add(&case, "indexes, after the first vacuum", MB, first.indexes);
            record.add(&case, "indexes, at the end", MB, after.indexes);
            record.add(&case, "log a message, with its indexes", BYTES, after.log / all as f64);
        }
        let over = |of: fn(&Sizes) -> f64| {
            sizes.iter().zip(1..).map(move |(sizes, n)| ((n * each) as f64, of(sizes)))
        };
        let table = Case::new("table", json!({}));
        record.add_series(&table, "messages", "MB", over(|sizes| sizes.table).collect());
        let indexes = Case::new("indexes", json!({}));
        record.add_series(&indexes, "messages", "MB", over(|sizes| sizes.indexes).collect());
        run.place.drop_database(database).await?;
    }
    Ok(())
}

/// How many finished messages there are.
async fn kept(owner: &PgPool) -> Result<u64> {
    let kept: i64 = sqlx::query_scalar(
        "select count(*) from public.agent_messages where status in ('done', 'cancelled')",
    )
    .fetch_one(owner)
    .await?;
    Ok(u64::try_from(kept)?)
}

/// How many dead rows the table has, as the statistics say; sessions tell them about once a second.
async fn dead(owner: &PgPool) -> Result<f64> {
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let dead = "select pg_stat_get_dead_tuples('public.agent_messages'::regclass)::float8";
    Ok(sqlx::query_scalar(dead).fetch_one(owner).await?)
}

/// How large things are.
struct Sizes {
    table: f64,
    indexes: f64,
    log: f64,
}

impl Sizes {
    async fn look(owner: &PgPool) -> Result<Self> {
        let (table, indexes, log): (f64, f64, f64) = sqlx::query_as(
            "select pg_table_size('public.agent_messages')::float8,
                pg_indexes_size('public.agent_messages')::float8,
                (select sum(pg_total_relation_size(relid))::float8 from pg_partition_tree('public.bus_events'))",
        )
        .fetch_one(owner)
        .await?;
        let mb = 1024.0 * 1024.0;
        Ok(Self { table: table / mb, indexes: indexes / mb, log })
    }
}
