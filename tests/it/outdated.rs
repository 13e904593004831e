//! What a process that is running finds when the schema has changed below it.

use std::sync::Arc;

use cogo::bus::Bus;
use cogo::db::Options;
use cogo::message::Status;
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::runner::{self, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output, Prefetch};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::fixtures::{SOON, echo, eventually, request, topic};

/// A function that answers with another type than before, as an upgrade may bring it.
const CHANGED: &str = "alter function public.bus_log_end() rename to bus_log_end_before;
    create function public.bus_log_end() returns varchar language sql as
        'select public.bus_log_end_before()::varchar'";

#[tokio::test]
async fn a_statement_of_the_schema_before_is_refused_once_and_not_for_as_long_as_its_connection_lives()
 {
    let db = TestDb::new().await;
    let bus = Bus::new(Options::new(db.connect_options()).pool());
    for _ in 0..3 {
        bus.log_end().await.expect("read");
    }
    sqlx::raw_sql(CHANGED).execute(db.pool()).await.expect("changed");
    let mut refused = 0;
    while bus.log_end().await.is_err() {
        refused += 1;
        assert!(refused < 5, "each of its connections has it once");
    }
    assert!(refused > 0, "else this shows nothing");
}

/// The same, of the function that settles and claims.
const CHANGED_STEP: &str = "alter function public.bus_step(jsonb, text, text[], integer, integer, text) rename to bus_step_before;
    create function public.bus_step(settles jsonb, worker text, topics text[], max integer, lease_ms integer, tenant text)
        returns table (ord bigint, outcome varchar, message public.agent_messages) language sql as
        'select ord, outcome::varchar, message from public.bus_step_before(settles, worker, topics, max, lease_ms, tenant)'";

/// Goes on when it is let.
struct Held(Arc<Semaphore>);

impl Handler for Held {
    async fn handle(&self, _: Delivery) -> Result<Output, Failure> {
        drop(self.0.acquire().await);
        Ok(json!("done").into())
    }
}

#[tokio::test]
async fn a_result_that_meets_statements_of_the_schema_before_on_every_connection_is_stored() {
    let db = TestDb::new().await;
    // One of its connections listens.
    let few = Options { max_connections: 8, ..Options::new(db.connect_options()) };
    let (bus, beside) = (Bus::new(few.pool()), Bus::new(db.pool().clone()));
    let gate = Arc::new(Semaphore::new(0));
    let options = runner::Options {
        worker_id: "w1".to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic()],
        concurrency: 1,
        prefetch: Prefetch::AtMost(0),
        lease: std::time::Duration::from_secs(30),
    };
    let runner = Runner::new(Held(Arc::clone(&gate)), options, bus.clone(), Policies::default());
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let stop = shutdown.clone();
    tasks.spawn(async move { runner.run(&stop, &watch::channel(false).0).await.expect("runs") });
    let id = bus.publish(echo(json!(1))).await.expect("published").id;
    let is = async |status| {
        eventually("it is so far", async || {
            let message = beside.message(id).await.expect("found");
            (message.status == status).then_some(message)
        })
        .await
    };
    is(Status::Claimed).await;
    // All others are made to call at once: they wait for the same lock.
    let mut lock = db.pool().begin().await.expect("begun");
    sqlx::raw_sql("lock table agent_messages in exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let wanted = request("other", 1);
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let letting_go = async {
        eventually("all wait", async || {
            let count = sqlx::query_scalar::<_, i64>(waiting).fetch_one(db.pool()).await;
            (count.expect("counted") >= 7).then_some(())
        })
        .await;
        lock.rollback().await.expect("let go");
    };
    let (looked, ()) = tokio::join!(join_all((0..7).map(|_| bus.claim(&wanted))), letting_go);
    assert!(looked.iter().all(Result::is_ok), "{looked:?}");
    sqlx::raw_sql(CHANGED_STEP).execute(db.pool()).await.expect("changed");
    gate.add_permits(1);
    assert_eq!(is(Status::Done).await.attempts, 1);
    shutdown.drain();
    assert!(tasks.join(SOON).await, "the runner ends");
}
