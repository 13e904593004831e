//! The claim protocol under random schedules: simulated workers that are slow, wrong, late and dead, ordering
//! keys, deadlines and two circuit breakers, on a clock that jumps, against a model of what must hold. The seed is printed when it fails;
//! `COGO_SCHEDULE_SEED=<seed>` runs that one again, `COGO_SCHEDULES=<n>` runs more.

#![allow(clippy::print_stderr)] // the seed

use std::collections::HashMap;
use std::time::Duration;

use cogo::bus::{Bus, ClaimRequest, Settle, Settled};
use cogo::message::{Message, MessageId, Status};
use cogo::testing::TestDb;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::fixtures::{broken_invariants, enqueue, raw, replay_differences, request, rows};

const STEPS: usize = 120;
const WORKERS: [&str; 4] = ["a", "b", "c", "d"];
const BREAKERS: [&str; 2] = ["left", "right"];

/// What the simulation knows: every claim that was ever handed out, and which is in force.
#[derive(Default)]
struct Model {
    /// Claims that somebody still believes to hold, in force or not.
    believed: Vec<Message>,
    /// The claim number in force for each claimed message.
    in_force: HashMap<MessageId, i64>,
    /// How often each message was completed.
    completed: HashMap<MessageId, u32>,
    /// The highest claim number that each message ever had.
    highest: HashMap<MessageId, i64>,
    /// The ordering key of each message that has one.
    keys: HashMap<MessageId, String>,
}

impl Model {
    fn claimed(&mut self, message: &Message) {
        let before = self.highest.insert(message.id, message.claim_no).unwrap_or(0);
        assert!(message.claim_no > before, "claim numbers only grow");
        assert!(message.attempts <= message.max_attempts, "no attempt beyond the limit");
        let held = self.in_force.insert(message.id, message.claim_no);
        assert_eq!(held, None, "two workers hold message {}", message.id);
        if let Some(key) = self.keys.get(&message.id) {
            let of_key = self.in_force.keys().filter(|id| self.keys.get(*id) == Some(key)).count();
            assert_eq!(of_key, 1, "two messages of key {key} are under way");
        }
        self.believed.push(message.clone());
    }

    fn settled(&mut self, message: &Message, outcome: Settled, what: &str) {
        let in_force = self.in_force.get(&message.id) == Some(&message.claim_no);
        match outcome {
            Settled::Settled => {
                assert!(in_force, "{what}: a claim that was not in force was settled");
                self.in_force.remove(&message.id);
                if what == "complete" {
                    *self.completed.entry(message.id).or_default() += 1;
                }
            }
            Settled::Repeated | Settled::Stale => {
                assert!(!in_force, "{what}: a claim in force was refused ({outcome:?})");
            }
        }
    }
}

#[tokio::test]
async fn the_protocol_holds_under_random_schedules() {
    let seeds: Vec<u64> = match std::env::var("COGO_SCHEDULE_SEED") {
        Ok(seed) => vec![seed.parse().expect("COGO_SCHEDULE_SEED: a number")],
        Err(_) => {
            let schedules =
                std::env::var("COGO_SCHEDULES").map_or(12, |n| n.parse().expect("a number"));
            (0..schedules).map(|_| rand::random()).collect()
        }
    };
    for seed in seeds {
        // On stderr, which a failing test shows.
        eprintln!("schedule {seed}: COGO_SCHEDULE_SEED={seed} runs it again");
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let mut model = Model::default();
    let mut ids = Vec::new();
    for _ in 0..STEPS {
        match rng.random_range(0..100) {
            0..15 => {
                let batch: Vec<_> =
                    (0..rng.random_range(1..5)).map(|_| message(&mut rng)).collect();
                let sent = enqueue(&db, &batch).await;
                for (id, message) in sent.iter().zip(&batch) {
                    if let Some(key) = message["ordering_key"].as_str() {
                        model.keys.insert(*id, key.to_owned());
                    }
                }
                ids.extend(sent);
            }
            15..40 => {
                let worker = pick(&mut rng, &WORKERS);
                let max = rng.random_range(1..5);
                let tenant = pick(&mut rng, &["default", "*"]).to_owned();
                let request = ClaimRequest { tenant, ..request(worker, max) };
                for claim in bus.claim(&request).await.expect("claimed") {
                    model.claimed(&claim.into_message());
                }
            }
            40..60 if !model.believed.is_empty() => settle(&mut rng, &bus, &mut model).await,
            60..66 if !model.believed.is_empty() => park(&mut rng, &db, &mut model).await,
            66..75 => call_breaker(&mut rng, &db).await,
            75..78 if !model.believed.is_empty() => {
                let message = model.believed.choose(&mut rng).expect("some").clone();
                let claim = (message.id, message.claim_no);
                let stale = bus.extend(&[claim], Duration::from_secs(30)).await.expect("extended");
                let in_force = model.in_force.get(&message.id) == Some(&message.claim_no);
                assert_eq!(
                    stale.is_empty(),
                    in_force,
                    "an extend says whether the claim is in force"
                );
            }
            78..90 => {
                db.advance(Duration::from_secs(rng.random_range(1..25))).await;
                bus.reap(rng.random_range(1..100)).await.expect("reaped");
                // The reaper alone may take claims away: learn which, as the log says.
                for id in model.in_force.keys().copied().collect::<Vec<_>>() {
                    let message = bus.message(id).await.expect("found");
                    if message.status != Status::Claimed {
                        model.in_force.remove(&id);
                        assert!(message.lease_until.is_none());
                    }
                }
            }
            90..95 if !ids.is_empty() => {
                let id = pick(&mut rng, &ids);
                bus.cancel(&[id], None).await.expect("answered");
                model.in_force.remove(&id);
            }
            _ if !ids.is_empty() => {
                let id = pick(&mut rng, &ids);
                bus.requeue(&[id], None).await.expect("answered");
            }
            _ => {}
        }
        assert_eq!(broken_invariants(&db).await, Vec::<String>::new());
    }
    assert_eq!(breaker_stories(&db).await, Vec::<String>::new());
    assert_eq!(replay_differences(&db).await, Vec::<String>::new(), "the log folds to the table");
    finish(&db, &bus).await;
    assert!(model.completed.values().all(|times| *times == 1), "a message is completed once");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new(), "the log folds to the table");
}

fn message(rng: &mut StdRng) -> Value {
    let mut message = raw(&json!({
        "priority": rng.random_range(-2..3),
        "max_attempts": rng.random_range(1..4),
        "delay_ms": if rng.random_bool(0.3) { rng.random_range(1..60_000) } else { 0 },
    }));
    if rng.random_bool(0.5) {
        message["ordering_key"] = json!(pick(rng, &["x", "y", "z"]));
    }
    if rng.random_bool(0.2) {
        message["deadline_ms"] = json!(rng.random_range(1..90_000));
    }
    message
}

/// Puts a message back because a breaker is open, or was when the worker last looked.
async fn park(rng: &mut StdRng, db: &TestDb, model: &mut Model) {
    let at = rng.random_range(0..model.believed.len());
    let message = model.believed.swap_remove(at);
    let claim =
        json!([{"id": message.id, "claim_no": message.claim_no, "park": pick(rng, &BREAKERS)}]);
    let (code, repeated): (Option<String>, bool) =
        sqlx::query_as("select code, repeated from bus_release($1)")
            .bind(claim)
            .fetch_one(db.pool())
            .await
            .expect("answered");
    let outcome = match (code, repeated) {
        (Some(_), _) => Settled::Stale,
        (None, true) => Settled::Repeated,
        (None, false) => Settled::Settled,
    };
    model.settled(&message, outcome, "park");
}

/// A worker or an operator calls a breaker; who may probe is checked against what the breaker was before.
async fn call_breaker(rng: &mut StdRng, db: &TestDb) {
    let (key, worker) = (pick(rng, &BREAKERS), pick(rng, &WORKERS));
    let query = format!("select * from bus_circuits() where key = '{key}'");
    let before = rows(db, &query).await.pop();
    let seen = before.as_ref().map_or(0, |its| its["version"].as_i64().expect("a number"));
    let seen = if rng.random_bool(0.8) { seen } else { 0 };
    let call = match (rng.random_range(0..10), &before) {
        (0..3, _) | (_, None) => format!(
            "bus_circuit_open('default', '{key}', '{worker}', 'test', {seen}, '{{\"open_ms\": 20000,
                \"half_open_max_calls\": 2, \"successes_to_close\": 2}}')"
        ),
        (3..6, Some(_)) => format!("bus_circuit_probe('default', '{key}', '{worker}', 10000)"),
        (6..9, Some(_)) => {
            let ok = pick(rng, &["true", "true", "false", "null"]);
            format!("bus_circuit_report('default', '{key}', '{worker}', {ok})")
        }
        (_, Some(_)) => {
            let action = pick(rng, &["open", "close", "reset"]);
            format!("bus_circuit_set('default', '{key}', '{action}')")
        }
    };
    let answer = rows(db, &format!("select * from {call}")).await.pop().expect("a breaker");
    if let (Some(granted), Some(before)) = (answer.get("granted"), &before) {
        let is_free = before["state"] != "closed" && before["open_for_ms"] == 0;
        if granted == &json!(true) {
            assert!(is_free || before["prober"] == worker, "two probers: {before} and {worker}");
            assert_eq!(answer["circuit"]["prober"], worker);
        } else {
            assert!(!is_free, "nobody probes {before}");
        }
    }
    if call.contains("report") && before.is_some_and(|its| its["prober"] != worker) {
        let after = rows(db, &query).await.pop().expect("a breaker");
        assert_eq!(after["state"], answer["state"], "who is no prober changes nothing");
    }
}

/// Where a breaker's events do not follow each other, or not lead to what it is.
async fn breaker_stories(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar(
        "with story as (
            select payload ->> 'key' as key, seq, payload ->> 'from' as was,
                replace(substring(event_type from 9), 'opened', 'open')
                    as state
            from bus_events where event_type like 'circuit\\_%'
        ), told as (
            select key, state, was, lag(state, 1, 'closed') over w as before, lead(key) over w is null as last
            from story window w as (partition by key order by seq)
        )
        select format('%s: %s from %s after %s', key, state, was, before) from told
            where was <> before or state = 'half_open' and was = 'closed'
        union all
        select format('%s is %s and the log says %s', key, c.state, told.state)
            from told join circuits c using (key) where last and c.state <> told.state",
    )
    .fetch_all(db.pool())
    .await
    .expect("read")
}

/// Closes the breakers and does all the work: whatever still waits comes to its end.
async fn finish(db: &TestDb, bus: &Bus) {
    for its in rows(db, "select key from circuits").await {
        let key = its["key"].as_str().expect("text");
        rows(db, &format!("select * from bus_circuit_set('default', '{key}', 'close')")).await;
    }
    for _ in 0..500 {
        db.advance(Duration::from_secs(31)).await;
        bus.reap(1000).await.expect("reaped");
        for claim in bus.claim(&request("last", 100)).await.expect("claimed") {
            let settle = Settle::complete(&claim.into_message(), json!(1), json!({}));
            assert_eq!(bus.settle(settle).await.expect("answered"), Settled::Settled);
        }
        let left = rows(db, "select 1 from agent_messages where done_at is null limit 1").await;
        if left.is_empty() {
            assert_eq!(broken_invariants(db).await, Vec::<String>::new());
            let (attempts, diff) = (
                rows(db, "select id from agent_messages where attempts > max_attempts").await,
                replay_differences(db).await,
            );
            assert_eq!((attempts, diff), (Vec::new(), Vec::new()));
            return;
        }
    }
    panic!(
        "something waits for ever: {:?}",
        rows(db, "select * from agent_messages where done_at is null").await
    );
}

async fn settle(rng: &mut StdRng, bus: &Bus, model: &mut Model) {
    let at = rng.random_range(0..model.believed.len());
    let message = model.believed[at].clone();
    let delay = Duration::from_secs(rng.random_range(0..40));
    let (settle, what) = match rng.random_range(0..3) {
        0 => (Settle::complete(&message, json!({"by": message.claimed_by}), json!({})), "complete"),
        1 => {
            let error = json!({"class": "timeout", "message": "simulated"});
            let retry_in = rng.random_bool(0.7).then_some(delay);
            (Settle::fail(&message, error, retry_in, None, json!({})), "fail")
        }
        _ => (Settle::release(&message, delay, "simulated"), "release"),
    };
    // Sometimes the answer is lost and the settle is sent again; sometimes a settled claim is believed in
    // for ever.
    let times = if rng.random_bool(0.2) { 2 } else { 1 };
    for _ in 0..times {
        let outcome = bus.settle(settle.clone()).await.expect("answered");
        model.settled(&message, outcome, what);
    }
    if rng.random_bool(0.8) {
        model.believed.swap_remove(at);
    }
}

fn pick<T: Copy>(rng: &mut impl Rng, items: &[T]) -> T {
    *items.choose(rng).expect("not empty")
}
