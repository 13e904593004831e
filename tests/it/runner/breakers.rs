//! Workers and their circuit breakers: shared transitions, parking, probes and fallbacks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::breaker::{self, Id, State};
use cogo::bus::Bus;
use cogo::bus::circuit::CircuitAction;
use cogo::message::{Message, MessageId, Status};
use cogo::retry::ErrorClass;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Fallback, Handler, Output};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fixtures::{SOON, echo, eventually, replay_differences, topic};

const KEY: &str = "echo.default";

/// A target that all workers call: sick or well, with a look at who calls it.
#[derive(Debug, Default)]
struct Target {
    sick: AtomicBool,
    /// Whether it says nothing where it is sick, so that what it did is in doubt.
    silent: bool,
    /// Calls of each message.
    calls: Mutex<HashMap<MessageId, i32>>,
    now: AtomicUsize,
    most_at_once: AtomicUsize,
    /// How long a call takes, in milliseconds, beside a few.
    slow: AtomicU64,
}

impl Target {
    fn sick() -> Arc<Self> {
        Arc::new(Self { sick: AtomicBool::new(true), ..Self::default() })
    }

    fn heal(&self) {
        self.sick.store(false, Ordering::SeqCst);
    }

    /// Counts anew what goes on at once.
    fn watch(&self) {
        self.most_at_once.store(0, Ordering::SeqCst);
    }

    async fn call(&self, id: MessageId) -> Result<Output, Failure> {
        *self.calls.lock().expect("whole").entry(id).or_default() += 1;
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let slow = self.slow.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5 + slow)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.sick.load(Ordering::SeqCst) {
            let class = if self.silent { ErrorClass::Timeout } else { ErrorClass::Connect };
            return Err(Failure::new(class, "the target is sick"));
        }
        Ok(json!("well").into())
    }
}

struct Calls {
    target: Arc<Target>,
    fallback: Option<Arc<Target>>,
}

impl Handler for Calls {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let id = delivery.message.id;
        match (&delivery.fallback, &self.fallback) {
            (Some(name), Some(fallback)) => {
                assert_eq!(name, "second");
                fallback.call(id).await
            }
            _ => self.target.call(id).await,
        }
    }

    fn fallback(&self, _message: &Message, may_have_run: bool) -> Option<Fallback> {
        self.fallback.as_ref().filter(|_| !may_have_run)?;
        Some(Fallback { name: "second".to_owned(), policy_key: "echo.second".to_owned() })
    }
}

struct Fleet {
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Fleet {
    /// `workers` workers, each with a bus of its own, as if they were processes.
    async fn start(
        db: &TestDb,
        workers: usize,
        target: &Arc<Target>,
        fallback: Option<&Arc<Target>>,
        rule: Value,
    ) -> Self {
        Self::start_with(db, workers, target, fallback, rule, 60_000).await
    }

    async fn start_with(
        db: &TestDb,
        workers: usize,
        target: &Arc<Target>,
        fallback: Option<&Arc<Target>>,
        rule: Value,
        timeout_ms: u64,
    ) -> Self {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        for n in 0..workers {
            let retry = json!({"policies": {"default": {
                "max_attempts": 50, "backoff": {"kind": "fixed", "delay_ms": 20},
                "timeout_ms": timeout_ms,
            }}});
            let retry: cogo::retry::Policies = serde_json::from_value(retry).expect("good");
            let breakers: breaker::Policies =
                serde_json::from_value(json!({"policies": {"default": rule}})).expect("good");
            breakers.validate().expect("good");
            let options = Options {
                worker_id: format!("w{n}"),
                tenant: "default".to_owned(),
                topics: vec![topic()],
                concurrency: 4,
                prefetch: cogo::worker::Prefetch::Auto,
                lease: Duration::from_secs(10),
            };
            let calls = Calls { target: Arc::clone(target), fallback: fallback.cloned() };
            let runner = Runner::new(calls, options, Bus::new(db.pool().clone()), Arc::new(retry))
                .with_breakers(breakers);
            let (ready, mut is_ready) = watch::channel(false);
            let stop = shutdown.clone();
            tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
            tokio::time::timeout(SOON, is_ready.wait_for(|ready| *ready))
                .await
                .expect("ready in time")
                .expect("running");
        }
        Self { shutdown, tasks }
    }

    async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(SOON).await, "the workers end");
    }
}

/// Opens after four calls that failed, and soon probes.
fn rule(open_ms: u64) -> Value {
    json!({
        "window": {"kind": "count", "calls": 10}, "min_requests": 4, "failure_rate": 0.5,
        "open_ms": open_ms, "half_open_max_calls": 1, "successes_to_close": 2,
    })
}

async fn publish(bus: &Bus, count: usize) -> Vec<MessageId> {
    let batch: Vec<_> = (0..count).map(|n| echo(json!(n)).with_max_attempts(50)).collect();
    bus.publish_all(&batch).await.expect("published");
    batch.iter().map(|message| message.id).collect()
}

async fn transitions(db: &TestDb) -> Vec<String> {
    let sql = "select event_type from bus_events where event_type like 'circuit%' order by seq";
    sqlx::query_scalar(sql).fetch_all(db.pool()).await.expect("read")
}

async fn state(bus: &Bus, key: &str) -> State {
    let circuits = bus.circuits("default").await.expect("read");
    circuits.iter().find(|circuit| circuit.key == key).map_or(State::Closed, |found| found.state)
}

async fn until(bus: &Bus, wanted: State) {
    eventually("the breaker changes", async || (state(bus, KEY).await == wanted).then_some(()))
        .await;
}

async fn parked(db: &TestDb) -> i64 {
    let sql = "select count(*) from agent_messages where parked_for = 'circuit:echo.default'";
    sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("counted")
}

/// Waits until all are done, and checks that attempts are what was tried and nothing else.
async fn all_done(bus: &Bus, target: &Target, ids: &[MessageId]) {
    for id in ids {
        let message = eventually("the message is done", async || {
            let message = bus.message(*id).await.expect("found");
            message.status.is_final().then_some(message)
        })
        .await;
        assert_eq!(message.status, Status::Done, "{:?}", message.error);
        let calls = target.calls.lock().expect("whole").get(id).copied().unwrap_or(0);
        assert_eq!(message.attempts, calls, "an attempt is burnt only by trying");
    }
}

#[tokio::test]
async fn one_workers_discovery_opens_for_all_and_one_probe_closes_for_all() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Target::sick();
    // Well again before anybody looks, however late this hears of the opening.
    let fleet = Fleet::start(&db, 3, &target, None, rule(5000)).await;
    let mut ids = publish(&bus, 40).await;
    until(&bus, State::Open).await;
    target.heal();
    ids.extend(publish(&bus, 40).await);
    all_done(&bus, &target, &ids).await;
    until(&bus, State::Closed).await;
    assert_eq!(transitions(&db).await, ["circuit_opened", "circuit_half_opened", "circuit_closed"]);
    assert_eq!(parked(&db).await, 0);
    fleet.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn while_it_is_open_one_prober_of_the_fleet_calls_and_nobody_else() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Target::sick();
    let fleet = Fleet::start(&db, 3, &target, None, rule(100)).await;
    let ids = publish(&bus, 60).await;
    until(&bus, State::Open).await;
    // What was in flight has ended and is parked, or waits for its next attempt.
    eventually("the messages are parked, and nobody calls", async || {
        (parked(&db).await > 40 && target.now.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    target.watch();
    let opened =
        async || transitions(&db).await.iter().filter(|what| *what == "circuit_opened").count();
    // Some may have failed before we looked.
    let before = opened().await;
    eventually("some probes failed", async || (opened().await >= before + 3).then_some(())).await;
    assert_eq!(target.most_at_once.load(Ordering::SeqCst), 1, "half_open_max_calls is 1");
    target.heal();
    all_done(&bus, &target, &ids).await;
    until(&bus, State::Closed).await;
    let log = transitions(&db).await;
    for (before, after) in log.iter().zip(log.iter().skip(1)) {
        let good = match before.as_str() {
            "circuit_opened" => after == "circuit_half_opened",
            "circuit_half_opened" => after == "circuit_opened" || after == "circuit_closed",
            _ => false,
        };
        assert!(good, "{before} is followed by {after}: {log:?}");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn a_fallback_takes_the_work_while_the_breaker_is_open_and_the_event_says_so() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (target, second) = (Target::sick(), Arc::new(Target::default()));
    let fleet = Fleet::start(&db, 2, &target, Some(&second), rule(600_000)).await;
    let ids = publish(&bus, 20).await;
    for id in &ids {
        let message = eventually("the message is done", async || {
            let message = bus.message(*id).await.expect("found");
            message.status.is_final().then_some(message)
        })
        .await;
        assert_eq!(message.status, Status::Done);
        let events = bus.message_events(*id, 100).await.expect("events");
        let last = events.last().expect("an event");
        assert_eq!(last.event_type, "echo_succeeded");
        assert_eq!(
            (&last.payload["fallback"], &last.payload["circuit"]),
            (&json!("second"), &json!(KEY))
        );
    }
    assert_eq!(second.calls.lock().expect("whole").len(), ids.len());
    assert_eq!(parked(&db).await, 0);
    fleet.stop().await;
}

#[tokio::test]
async fn what_the_target_may_have_done_is_not_done_by_its_fallback_too() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Arc::new(Target { sick: true.into(), silent: true, ..Target::default() });
    let second = Arc::new(Target::default());
    let fleet = Fleet::start(&db, 2, &target, Some(&second), rule(600_000)).await;
    let mut ids = publish(&bus, 20).await;
    until(&bus, State::Open).await;
    ids.extend(publish(&bus, 20).await);
    // Each is either done by the fallback, or in doubt and parked.
    eventually("all have gone one way or the other", async || {
        let sql =
            "select count(*) from agent_messages where status = 'done' or parked_for is not null";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("counted");
        (count == 40).then_some(())
    })
    .await;
    let called = |target: &Target| -> HashSet<MessageId> {
        target.calls.lock().expect("whole").keys().copied().collect()
    };
    let (own, other) = (called(&target), called(&second));
    assert!(own.len() >= 4 && other.len() >= 20, "{} and {}", own.len(), other.len());
    assert!(own.is_disjoint(&other), "done at both: {:?}", own.intersection(&other));
    fleet.stop().await;
}

#[tokio::test]
async fn an_operator_opens_and_closes_and_workers_hear_of_it_without_a_wake_up() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Arc::new(Target::default());
    let fleet = Fleet::start(&db, 1, &target, None, rule(100)).await;
    // By SQL, as another language would: nobody is told.
    sqlx::query("select bus_circuit_set('default', 'echo.default', 'open', 'an operator')")
        .execute(db.pool())
        .await
        .expect("opened");
    let ids = eventually("the worker parks", async || {
        let ids = publish(&bus, 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let message = bus.message(ids[0]).await.expect("found");
        (message.status == Status::Queued && parked(&db).await > 0).then_some(ids)
    })
    .await;
    assert_eq!(target.calls.lock().expect("whole").get(&ids[0]), None);
    let id = Id::new("default", KEY);
    let closed = bus.circuit_set(&id, CircuitAction::Close, Some("an operator"), None).await;
    assert_eq!(closed.expect("closed").state, State::Closed);
    all_done(&bus, &target, &ids).await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_breaker_that_opens_while_the_list_is_read_stays_open() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // An old list comes late, as over a slow network: when the lock is free.
    for sql in [
        "create schema real",
        "alter function bus_circuits(text) set schema real",
        "create function bus_circuits(tenant text) returns setof circuit_state language plpgsql as $$
            begin
                return query select * from real.bus_circuits(tenant);
                perform pg_advisory_xact_lock_shared(7);
            end $$",
    ] {
        sqlx::query(sql).execute(db.pool()).await.expect("replaced");
    }
    let target = Target::sick();
    let fleet = Fleet::start(&db, 1, &target, None, rule(600_000)).await;
    let mut lock = db.pool().acquire().await.expect("a connection");
    let sql = "select pg_advisory_lock(7)";
    sqlx::query(sql).execute(&mut *lock).await.expect("locked");
    let count = async |sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("counted")
    };
    eventually("the list is being read", async || {
        let sql = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
            where locktype = 'advisory' and not granted and objid = 7 and datname = current_database()";
        (count(sql).await > 0).then_some(())
    })
    .await;
    publish(&bus, 4).await;
    eventually("the breaker opens", async || {
        (count("select count(*) from circuits where state = 'open'").await == 1).then_some(())
    })
    .await;
    eventually("the worker knows it", async || (parked(&db).await > 0).then_some(())).await;
    let before = target.calls.lock().expect("whole").values().sum::<i32>();
    let sql = "select pg_advisory_unlock(7)";
    sqlx::query(sql).execute(&mut *lock).await.expect("unlocked");
    // In a second the worker has the old list, and a new one.
    for _ in 0..10 {
        publish(&bus, 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("they are parked", async || (parked(&db).await == 14).then_some(())).await;
    let calls = target.calls.lock().expect("whole").values().sum::<i32>();
    assert_eq!(calls, before, "nobody calls while it is open");
    fleet.stop().await;
}

#[tokio::test]
async fn a_worker_that_ends_first_says_how_its_probe_went() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    for sql in [
        "create schema real",
        "alter function bus_circuit_report set schema real",
        "create function bus_circuit_report(tenant text, key text, worker text, ok boolean, reason text)
            returns setof circuit_state language plpgsql as $$
            begin
                perform pg_sleep(0.3);
                return query select * from real.bus_circuit_report(tenant, key, worker, ok, reason);
            end $$",
    ] {
        sqlx::query(sql).execute(db.pool()).await.expect("replaced");
    }
    let target = Target::sick();
    let mut rule = rule(100);
    rule["successes_to_close"] = json!(1);
    let fleet = Fleet::start(&db, 1, &target, None, rule).await;
    let ids = publish(&bus, 1).await;
    until(&bus, State::Open).await;
    target.heal();
    all_done(&bus, &target, &ids).await;
    fleet.stop().await;
    assert_eq!(
        state(&bus, KEY).await,
        State::Closed,
        "else nobody could call for the probe's time"
    );
}

#[tokio::test]
async fn a_target_whose_calls_may_take_a_day_is_probed() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Target::sick();
    let fleet = Fleet::start_with(&db, 1, &target, None, rule(100), 86_400_000).await;
    let ids = publish(&bus, 4).await;
    until(&bus, State::Open).await;
    target.heal();
    all_done(&bus, &target, &ids).await;
    fleet.stop().await;
}

#[tokio::test]
async fn while_a_later_probe_is_under_way_no_other_worker_is_granted_one() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let target = Target::sick();
    let fleet = Fleet::start_with(&db, 1, &target, None, rule(100), 3000).await;
    let ids = publish(&bus, 8).await;
    until(&bus, State::Open).await;
    sqlx::query("update circuits set successes_to_close = 6")
        .execute(db.pool())
        .await
        .expect("set");
    // The first probe has eight seconds, its own three and five more; the fifth ends later than that.
    target.slow.store(1800, Ordering::SeqCst);
    target.heal();
    eventually("a probe is under way", async || {
        (state(&bus, KEY).await == State::HalfOpen && target.now.load(Ordering::SeqCst) == 1)
            .then_some(())
    })
    .await;
    let id = Id::new("default", KEY);
    while state(&bus, KEY).await == State::HalfOpen {
        let (granted, _) =
            bus.circuit_probe(&id, "other", Duration::from_secs(1)).await.expect("answered");
        assert!(!granted, "{} calls are under way", target.now.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    target.slow.store(0, Ordering::SeqCst);
    all_done(&bus, &target, &ids).await;
    fleet.stop().await;
}
