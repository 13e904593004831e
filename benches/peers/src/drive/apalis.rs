//! The crate `apalis-postgres`: woken by NOTIFY, and polling besides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use serde_json::Value;
use sqlx::postgres::PgPool;

use super::{Done, Job, Tally, Work, all_acked, payload, ready};

const ANY_LEFT: &str = "select exists (select from apalis.jobs where status <> 'Done')";
/// How often the worker looks by itself; a NOTIFY that comes while it fetches is lost on it.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn drive(job: &Job) -> Result<Done> {
    // As many connections as a worker of many tasks has use for; it fetches and acks on one at a time.
    let pool = job.pool(job.connections).await?;
    if job.work == Work::Setup {
        PostgresStorage::setup(&pool).await?;
        return Ok(Done::nothing());
    }
    let config = Config::default().queue("bench").batch_size(usize::try_from(job.batch)?);
    let mut storage = PostgresStorage::<Value>::new(&pool).with_config(config);
    match job.work {
        Work::Setup => unreachable!("done above"),
        Work::Enqueue => {
            job.batches(async |numbers| {
                storage.push_bulk(numbers.map(payload).collect()).await?;
                Ok(())
            })
            .await
        }
        Work::Single => {
            job.singles(move |n| {
                let mut storage = storage.clone();
                async move {
                    storage.push(payload(n)).await?;
                    Ok(())
                }
            })
            .await
        }
        Work::Drain | Work::Listen => work(job, storage, &pool).await,
        Work::Send => {
            job.paced(async |payload| {
                storage.push(payload).await?;
                Ok(())
            })
            .await
        }
        Work::Claims => bail!("apalis-postgres is measured through its worker"),
    }
}

async fn count(payload: Value, tally: Data<Arc<Tally>>) -> Result<(), BoxDynError> {
    tally.handled(&payload);
    Ok(())
}

async fn work(job: &Job, storage: PostgresStorage<Value>, pool: &PgPool) -> Result<Done> {
    let tally = Arc::new(Tally::default());
    let context = WorkerContext::new("peers");
    let worker = WorkerBuilder::new(&context)
        .backend(storage.with_pubsub().poll_with_interval(POLL))
        .data(Arc::clone(&tally))
        .build(count);
    let start = Stopwatch::start();
    let mut running =
        Tasks::new().spawn(async move { worker.run().await.map_err(|error| error.to_string()) });
    if job.work == Work::Listen {
        // It says nowhere that it listens.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ready();
    }
    tally.reached_by(job.messages, &mut running).await?;
    all_acked(pool, ANY_LEFT).await?;
    let took = start.elapsed();
    context.stop()?;
    if let Err(error) = running.await? {
        bail!("the worker stopped with {error}");
    }
    Ok(Done::timed(tally.count.load(Ordering::SeqCst), took).with_latencies(tally.latencies()))
}
