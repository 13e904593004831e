//! A worker among handlers that panic everywhere, messages that nobody can read, and a database that comes and
//! goes.

use cogo::message::Message;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::{Delivery, Failure, Handler, Output};

use super::*;

#[tokio::test]
async fn a_worker_outlives_a_database_that_drops_its_connections() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    for round in 0..3 {
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()",
        )
        .execute(db.pool())
        .await
        .expect("terminated");
        let id = bus.publish(echo(json!({"round": round}))).await.expect("published in spite").id;
        assert_eq!(finished(&bus, id).await.status, Status::Done);
    }
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

/// Panics where no future catches it.
struct Careless;

impl Handler for Careless {
    fn may_repeat(&self, _: &Message) -> bool {
        panic!("may_repeat, on purpose")
    }

    fn policy_key(&self, message: &Message) -> String {
        assert_ne!(message.payload, "key", "policy_key, on purpose");
        message.intent.clone()
    }

    #[allow(clippy::manual_async_fn)] // an async fn panics only when it is polled
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<Output, Failure>> + Send {
        assert_ne!(delivery.message.payload, "handle", "handle, on purpose");
        async move {
            if delivery.message.payload == "repeat" {
                std::future::pending::<()>().await;
            }
            Ok(json!(1).into())
        }
    }
}

#[tokio::test]
async fn a_panic_anywhere_in_a_handler_gives_its_place_back() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let policies = json!({"echo": {"timeout_ms": 50}});
    let running = Running::start_with(Careless, &bus, policies, LEASE, 1).await;
    for payload in ["handle", "repeat", "key"] {
        let id = bus.publish(echo(json!(payload)).with_max_attempts(1)).await.expect("sent").id;
        let dead = finished(&bus, id).await;
        assert_eq!(dead.status, Status::Failed);
        assert_eq!(dead.error.expect("an error")["class"], "internal", "{payload}");
    }
    let good = bus.publish(echo(json!({}))).await.expect("published").id;
    assert_eq!(finished(&bus, good).await.status, Status::Done);
    running.stop().await;
}

/// Makes the database fail with `state` whenever a message gets `status`, `times` times in all.
async fn sabotage(db: &TestDb, status: &str, state: &str, times: u32) {
    let sql = format!(
        "create sequence public.sabotage;
        create function public.sabotage() returns trigger language plpgsql security definer as $$ begin
            if nextval('public.sabotage') <= {times} then
                raise exception 'sabotage' using errcode = '{state}';
            end if;
            return new;
        end $$;
        create trigger sabotage before update on public.agent_messages for each row
            when (new.status = '{status}') execute function public.sabotage()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()).await.expect("sabotaged");
}

#[tokio::test]
async fn a_database_that_is_full_or_cancels_calls_neither_ends_a_worker_nor_loses_a_result() {
    for (status, state) in [("claimed", "57014"), ("done", "53100"), ("done", "25006")] {
        let db = TestDb::new().await;
        let bus = Bus::new(db.pool().clone());
        sabotage(&db, status, state, 3).await;
        let running = Running::start(&bus, json!({}), LEASE, 1).await;
        let id = bus.publish(echo(json!({}))).await.expect("published").id;
        let done = finished(&bus, id).await;
        assert_eq!((done.status, done.attempts), (Status::Done, 1), "{state}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_result_beside_a_refused_settle_outlives_a_database_that_does_not_answer() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // A delay that the bus refuses, so that the batch is settled one by one.
    let policies = json!({"echo": {"retry_on": ["connect"],
        "backoff": {"kind": "fixed", "delay_ms": 99_999_999_999u64}}});
    let running = Running::start(&bus, policies, LEASE, 2).await;
    sabotage(&db, "done", "40001", 6).await;
    let good = bus.publish(echo(json!({"do": "wait"}))).await.expect("published").id;
    let bad = bus.publish(echo(json!({"do": "wait", "then": "fail"}))).await.expect("sent").id;
    for id in [good, bad] {
        until(&bus, id, |message| message.status == Status::Claimed).await;
    }
    running.script.gate.add_permits(2);
    let done = finished(&bus, good).await;
    assert_eq!((done.status, done.error), (Status::Done, None));
    assert_eq!(finished(&bus, bad).await.status, Status::Failed);
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_a_dead_letter_and_holds_nobody_up() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let feed = cogo::bus::Feed::start(bus.clone(), &tasks, &shutdown);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for payload in [deep.as_str(), "1e400"] {
        sqlx::query(
            "select * from bus_enqueue(jsonb_build_array(jsonb_build_object(
                'role', 'echo', 'service', 'default', 'intent', 'echo', 'payload', $1::jsonb)))",
        )
        .bind(payload)
        .execute(db.pool())
        .await
        .expect("Postgres can store it");
    }
    let good = bus.publish(echo(json!({}))).await.expect("published").id;
    let running = Running::start(&bus, json!({}), LEASE, 4).await;
    assert_eq!(finished(&bus, good).await.status, Status::Done);
    let dead = eventually("both are dead letters", async || {
        let dead = bus.dead_letters(&Default::default(), 10).await.expect("listed");
        (dead.len() == 2).then_some(dead)
    })
    .await;
    for letter in dead {
        let message = letter.message;
        assert_eq!(message.error.expect("an error")["class"], "invalid_params");
        assert_eq!(message.attempts, 1);
        assert_eq!(bus.message_events(message.id, 10).await.expect("read").len(), 3);
    }
    let next = bus.publish(echo(json!({}))).await.expect("published").id;
    assert_eq!(feed.wait(next, SOON).await.expect("told").status, Status::Done);
    // Readers stay below the oldest transaction of the whole server, so other tests hold them up.
    eventually("the log is read to its end", async || {
        let start = cogo::event::Cursor::START;
        let log = bus.read_events(start, 100, &json!({})).await.expect("read");
        (log.len() >= 10).then_some(())
    })
    .await;
    running.stop().await;
    shutdown.cancel();
    assert!(tasks.join(SOON).await);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_comes_back_to_its_own_worker_costs_the_others_no_lease() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let lease = Duration::from_millis(1500);
    let running = Running::start(&bus, json!({}), lease, 3).await;
    let other = bus.publish(echo(json!({"do": "wait"}))).await.expect("published").id;
    let id = bus.publish(echo(json!({"do": "forever"}))).await.expect("published").id;
    running.script.have_begun(2).await;
    // Its handler does not hear that the claim is lost, and has a second to return; so for that time two
    // claims on one message are held.
    bus.cancel(&[id], None).await.expect("cancelled");
    bus.requeue(&[id], None).await.expect("requeued");
    bus.cancel(&[id], None).await.expect("cancelled");
    bus.requeue(&[id], None).await.expect("requeued");
    tokio::time::sleep(4 * lease).await;
    running.script.gate.add_permits(1);
    let done = finished(&bus, other).await;
    assert_eq!((done.status, done.attempts), (Status::Done, 1));
    running.shutdown.cancel();
    assert!(running.tasks.join(SOON).await);
}
