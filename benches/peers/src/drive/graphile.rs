//! The crate `graphile_worker`, as its guides set it for throughput: a local queue, and completions in batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgPool;

use super::{Done, Job, Tally, Work, all_acked, payload, ready};

const SCHEMA: &str = "graphile_worker";
const ANY_LEFT: &str = "select exists (select from graphile_worker._private_jobs)";
/// How long completions gather: the figure of its guide.
const COMPLETE_DELAY: Duration = Duration::from_millis(5);

pub(super) async fn drive(job: &Job) -> Result<Done> {
    let pool = job.pool(job.connections).await?;
    let utils = WorkerUtils::new(pool.clone(), SCHEMA);
    match job.work {
        Work::Setup => {
            utils.migrate().await?;
            Ok(Done::nothing())
        }
        Work::Enqueue => {
            job.batches(async |numbers| {
                let jobs: Vec<_> = numbers.map(|n| raw(payload(n))).collect();
                utils.add_raw_jobs(&jobs).await?;
                Ok(())
            })
            .await
        }
        Work::Single => {
            job.singles(move |n| {
                let utils = utils.clone();
                async move { send(&utils, payload(n)).await }
            })
            .await
        }
        Work::Drain | Work::Listen => work(job, &pool).await,
        Work::Send => job.paced(async |payload| send(&utils, payload).await).await,
        Work::Claims => bail!("graphile_worker is measured through its worker"),
    }
}

fn raw(payload: Value) -> RawJobSpec {
    RawJobSpec { identifier: Count::IDENTIFIER.to_owned(), payload, spec: JobSpec::default() }
}

async fn send(utils: &WorkerUtils, payload: Value) -> Result<()> {
    utils.add_raw_job(Count::IDENTIFIER, payload, JobSpec::default()).await?;
    Ok(())
}

async fn work(job: &Job, pool: &PgPool) -> Result<Done> {
    let tally = Arc::new(Tally::default());
    let worker = WorkerOptions::default()
        .pg_pool(pool.clone())
        .schema(SCHEMA)
        .concurrency(usize::try_from(job.batch)?)
        .local_queue(LocalQueueConfig::default().with_size(usize::try_from(job.batch)?))
        .complete_job_batch_delay(COMPLETE_DELAY)
        .fail_job_batch_delay(COMPLETE_DELAY)
        .add_extension(Counter(Arc::clone(&tally)))
        .define_job::<Count>()
        .init()
        .await?;
    let worker = Arc::new(worker);
    let start = Stopwatch::start();
    let mut running = Tasks::new().spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run().await }
    });
    if job.work == Work::Listen {
        ready();
    }
    tally.reached_by(job.messages, &mut running).await?;
    all_acked(pool, ANY_LEFT).await?;
    let took = start.elapsed();
    worker.request_shutdown();
    running.await??;
    Ok(Done::timed(tally.count.load(Ordering::SeqCst), took).with_latencies(tally.latencies()))
}

#[derive(Clone, Debug)]
struct Counter(Arc<Tally>);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Count(Value);

impl TaskHandler for Count {
    const IDENTIFIER: &'static str = "count";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(Counter(tally)) = context.get_ext::<Counter>() else {
            return Err("the worker was given no tally".to_owned());
        };
        tally.handled(&self.0);
        Ok(())
    }
}
