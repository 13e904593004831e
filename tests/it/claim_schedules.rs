//! The claim protocol under random schedules: simulated workers that are slow, wrong, late and dead, on a
//! clock that jumps, against a model of what must hold. The seed is printed when it fails;
//! `COGO_SCHEDULE_SEED=<seed>` runs that one again, `COGO_SCHEDULES=<n>` runs more.

#![allow(clippy::print_stderr)] // the seed

use std::collections::HashMap;
use std::time::Duration;

use cogo::bus::{Bus, Settle, Settled};
use cogo::message::{Message, MessageId, Status};
use cogo::testing::TestDb;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::fixtures::{echo, replay_differences, request};

const STEPS: usize = 120;
const WORKERS: [&str; 4] = ["a", "b", "c", "d"];

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
}

impl Model {
    fn claimed(&mut self, message: &Message) {
        let before = self.highest.insert(message.id, message.claim_no).unwrap_or(0);
        assert!(message.claim_no > before, "claim numbers only grow");
        assert!(message.attempts <= message.max_attempts, "no attempt beyond the limit");
        let held = self.in_force.insert(message.id, message.claim_no);
        assert_eq!(held, None, "two workers hold message {}", message.id);
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
                let batch: Vec<_> = (0..rng.random_range(1..5))
                    .map(|n| {
                        let delay = if rng.random_bool(0.3) { rng.random_range(1..60) } else { 0 };
                        echo(json!(n))
                            .with_priority(rng.random_range(-2..3))
                            .with_max_attempts(rng.random_range(1..4))
                            .with_delay(Duration::from_secs(delay))
                    })
                    .collect();
                bus.publish_all(&batch).await.expect("published");
                ids.extend(batch.iter().map(|message| message.id));
            }
            15..40 => {
                let worker = pick(&mut rng, &WORKERS);
                let max = rng.random_range(1..5);
                for claim in bus.claim(&request(worker, max)).await.expect("claimed") {
                    model.claimed(&claim.into_message());
                }
            }
            40..70 if !model.believed.is_empty() => settle(&mut rng, &bus, &mut model).await,
            70..78 if !model.believed.is_empty() => {
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
    }
    assert!(model.completed.values().all(|times| *times == 1), "a message is completed once");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new(), "the log folds to the table");
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
