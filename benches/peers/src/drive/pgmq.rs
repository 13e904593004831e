//! pgmq: its SQL functions alone, as any client would call them. It has no worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cogo::clock::Stopwatch;
use serde_json::Value;
use sqlx::postgres::{PgListener, PgPool};

use super::{Done, Job, Tally, Work, payload, ready};

/// The file with pgmq's SQL, which the coordinator found in the downloaded crate.
pub(crate) const SQL_FILE: &str = "BENCH_PEERS_PGMQ_SQL";
/// How long a message that was read stays hidden.
const HIDDEN_S: i32 = 30;
const READ: &str = "select msg_id, message from pgmq.read('bench', $1, $2)";

pub(super) async fn drive(job: &Job) -> Result<Done> {
    let pool = job.pool(job.connections).await?;
    match job.work {
        Work::Setup => setup(&pool).await,
        Work::Enqueue => {
            job.batches(async |numbers| {
                let messages: Vec<Value> = numbers.map(payload).collect();
                sqlx::query("select from pgmq.send_batch('bench', $1::jsonb[])")
                    .bind(messages)
                    .execute(&pool)
                    .await?;
                Ok(())
            })
            .await
        }
        Work::Single => {
            job.singles(move |n| {
                let pool = pool.clone();
                async move { send(&pool, payload(n)).await }
            })
            .await
        }
        Work::Claims => {
            let settle = settle_sql(job.variant()?)?;
            let (batch, messages) = (i32::try_from(job.batch)?, job.messages);
            job.loops(move |_, settled| claims(pool.clone(), settle, batch, messages, settled))
                .await
        }
        Work::Listen => listen(job, &pool).await,
        Work::Send => job.paced(async |payload| send(&pool, payload).await).await,
        Work::Drain => bail!("pgmq has no worker"),
    }
}

async fn setup(pool: &PgPool) -> Result<Done> {
    let file = std::env::var(SQL_FILE).with_context(|| format!("{SQL_FILE} is not set"))?;
    let sql = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await?;
    sqlx::query("select from pgmq.create('bench')").execute(pool).await?;
    Ok(Done::nothing())
}

async fn send(pool: &PgPool, payload: Value) -> Result<()> {
    sqlx::query("select from pgmq.send('bench', $1::jsonb)").bind(payload).execute(pool).await?;
    Ok(())
}

fn settle_sql(variant: &str) -> Result<&'static str> {
    Ok(match variant {
        "archive" => "select from pgmq.archive('bench', $1::bigint[])",
        "delete" => "select from pgmq.delete('bench', $1::bigint[])",
        other => bail!("pgmq has no variant \"{other}\""),
    })
}

async fn read(pool: &PgPool, batch: i32) -> Result<Vec<(i64, Value)>> {
    Ok(sqlx::query_as(READ).bind(HIDDEN_S).bind(batch).fetch_all(pool).await?)
}

async fn claims(
    pool: PgPool,
    settle: &'static str,
    batch: i32,
    messages: u64,
    settled: Arc<AtomicU64>,
) -> Result<()> {
    while settled.load(Ordering::SeqCst) < messages {
        let ids: Vec<i64> = read(&pool, batch).await?.into_iter().map(|(id, _)| id).collect();
        if ids.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        sqlx::query(settle).bind(&ids).execute(&pool).await?;
        settled.fetch_add(ids.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

/// What pgmq offers for low latency: a NOTIFY for each insert, here without its throttle.
async fn listen(job: &Job, pool: &PgPool) -> Result<Done> {
    sqlx::query("select from pgmq.enable_notify_insert('bench', 0)").execute(pool).await?;
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("pgmq.q_bench.INSERT").await?;
    ready();
    let (tally, start) = (Tally::default(), Stopwatch::start());
    while tally.count.load(Ordering::SeqCst) < job.messages {
        let messages = read(pool, 100).await?;
        if messages.is_empty() {
            // Looks by itself as well, should a NOTIFY be lost.
            let _ = tokio::time::timeout(Duration::from_secs(1), listener.recv()).await;
            continue;
        }
        for (_, payload) in &messages {
            tally.handled(payload);
        }
        let ids: Vec<i64> = messages.into_iter().map(|(id, _)| id).collect();
        sqlx::query(settle_sql("archive")?).bind(&ids).execute(pool).await?;
    }
    Ok(Done::timed(job.messages, start.elapsed()).with_latencies(tally.latencies()))
}
