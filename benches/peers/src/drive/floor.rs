//! What Postgres itself can do: rows written and taken by hand, without anything that makes a queue of them.

mod same;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use sqlx::postgres::PgPool;

use super::{Done, Job, Work, payload};

const TABLES: &str = "
    create schema floor;
    create table floor.message (
        id bigint generated always as identity primary key,
        lease_until timestamptz not null default '-infinity',
        payload jsonb not null
    );
    create table floor.event (
        id bigint generated always as identity primary key,
        message_id bigint not null,
        kind text not null,
        created_at timestamptz not null default now()
    )";
const INSERT: &str = "insert into floor.message (payload) select * from unnest($1::jsonb[])";
/// Claim and delete at once: what is taken is lost should the process die.
const TAKE: &str = "
    delete from floor.message where id = any(array(
        select id from floor.message order by id limit $1 for update skip locked
    )) returning id, payload";
const LEASE: &str = "
    update floor.message set lease_until = now() + interval '30 s' where id = any(array(
        select id from floor.message where lease_until < now() order by id limit $1 for update skip locked
    )) returning id, payload";
const DELETE: &str = "delete from floor.message where id = any($1)";
const DELETE_AND_TELL: &str = "
    with gone as (delete from floor.message where id = any($1) returning id)
    insert into floor.event (message_id, kind) select id, 'done' from gone";

pub(super) async fn drive(job: &Job) -> Result<Done> {
    let pool = job.pool(job.connections).await?;
    match job.work {
        Work::Setup => {
            same::setup(&job.url).await?;
            sqlx::raw_sql(TABLES).execute(&pool).await?;
            Ok(Done::nothing())
        }
        Work::Enqueue => match job.variant()? {
            "rows" => {
                job.batches(async |numbers| insert(&pool, numbers.map(payload).collect()).await)
                    .await
            }
            "same" => {
                let insert = same::Insert::new(&pool).await?;
                job.batches(async |numbers| insert.run(&pool, numbers.map(payload).collect()).await)
                    .await
            }
            "copy" => job.batches(async |numbers| copy(&pool, numbers).await).await,
            other => bail!("there is no variant \"{other}\""),
        },
        Work::Single => {
            job.singles(move |n| {
                let pool = pool.clone();
                async move { insert(&pool, vec![payload(n)]).await }
            })
            .await
        }
        Work::Claims => {
            let settle = match job.variant()? {
                "take" => None,
                "lease" => Some(DELETE),
                "lease-event" => Some(DELETE_AND_TELL),
                other => bail!("there is no variant \"{other}\""),
            };
            let (batch, messages) = (i64::try_from(job.batch)?, job.messages);
            job.loops(move |_, settled| claims(pool.clone(), settle, batch, messages, settled))
                .await
        }
        Work::Drain | Work::Listen | Work::Send => bail!("a floor has no worker"),
    }
}

async fn insert(pool: &PgPool, payloads: Vec<Value>) -> Result<()> {
    sqlx::query(INSERT).bind(payloads).execute(pool).await?;
    Ok(())
}

async fn copy(pool: &PgPool, numbers: std::ops::Range<u64>) -> Result<()> {
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw("copy floor.message (payload) from stdin").await?;
    // Nothing in a payload has to be escaped for COPY: it has no backslash, tab or newline.
    let text: String = numbers.map(|n| format!("{}\n", payload(n))).collect();
    copy.send(text.as_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

async fn claims(
    pool: PgPool,
    settle: Option<&'static str>,
    batch: i64,
    messages: u64,
    settled: Arc<AtomicU64>,
) -> Result<()> {
    let claim = if settle.is_some() { LEASE } else { TAKE };
    while settled.load(Ordering::SeqCst) < messages {
        let taken: Vec<(i64, Value)> = sqlx::query_as(claim).bind(batch).fetch_all(&pool).await?;
        if taken.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        if let Some(settle) = settle {
            let ids: Vec<i64> = taken.iter().map(|(id, _)| *id).collect();
            sqlx::query(settle).bind(&ids).execute(&pool).await?;
        }
        settled.fetch_add(taken.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}
