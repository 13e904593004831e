//! Sequences that nobody plans: ids that come back, meta that looks like ours, verbs out of order.

use std::time::Duration;

use cogo::bus::{Bus, Claim, Settle, Settled};
use cogo::message::{NewMessage, Status};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{broken_invariants, echo, replay_differences, request, topic};

const LEASE: Duration = Duration::from_secs(30);
const NOTHING: Vec<String> = Vec::new();

async fn claim_one(bus: &Bus) -> Claim {
    bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("a message waits")
}

fn error() -> Value {
    json!({"class": "connect", "message": "nobody answers"})
}

#[tokio::test]
async fn an_id_that_comes_back_after_it_was_dropped_or_purged_folds_anew() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let (dropped, purged) = (echo(json!("first")), echo(json!("first")));
    bus.publish(dropped.clone()).await.expect("published");
    claim_one(&bus).await.fail(error(), None).await.expect("dead");
    bus.drop_dead_letters(&[dropped.id], None).await.expect("dropped");
    bus.publish(purged.clone()).await.expect("published");
    claim_one(&bus).await.complete(json!(1)).await.expect("done");
    db.advance(Duration::from_secs(2)).await;
    assert_eq!(bus.retain(Duration::from_secs(1), None, 10).await.expect("purged"), 1);
    assert_eq!(replay_differences(&db).await, NOTHING);

    for mut message in [dropped, purged] {
        message.payload = json!("second");
        assert!(!bus.publish(message).await.expect("published").duplicate);
    }
    assert_eq!(replay_differences(&db).await, NOTHING);
    claim_one(&bus).await.fail(error(), Some(LEASE)).await.expect("failed");
    claim_one(&bus).await.complete(json!(2)).await.expect("done");
    assert_eq!(replay_differences(&db).await, NOTHING);
    let waiting: i64 = sqlx::query_scalar("select count(*) from cogo.replayed_messages")
        .fetch_one(db.pool())
        .await
        .expect("folded");
    assert_eq!(waiting, 2, "both are judged");
}

#[tokio::test]
async fn a_claim_from_before_a_drop_does_not_settle_the_message_that_came_after() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let message = echo(json!(1)).with_max_attempts(1);
    bus.publish(message.clone()).await.expect("published");
    let lost = claim_one(&bus).await;
    db.advance(LEASE + Duration::from_millis(1)).await;
    assert_eq!(bus.reap(10).await.expect("reaped").dead, 1);
    bus.drop_dead_letters(&[message.id], None).await.expect("dropped");
    bus.publish(message.clone()).await.expect("published");
    let held = claim_one(&bus).await;
    let late = Settle::complete(lost.message(), json!("late"), json!({}));
    assert_eq!(bus.settle(late).await.expect("answered"), Settled::Stale);
    held.complete(json!("in time")).await.expect("settled");
    assert_eq!(bus.message(message.id).await.expect("found").result, Some(json!("in time")));
}

#[tokio::test]
async fn meta_that_looks_like_the_protocols_own_fields_does_not_disturb_the_proof() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let meta = json!({"run_at": "soon", "claim_no": "x", "max_attempts": "y", "intent": "z"});
    for n in 0..3 {
        let id = bus.publish(echo(json!(n))).await.expect("published").id;
        let message = claim_one(&bus).await.into_message();
        assert_eq!(message.id, id);
        let settle = match n {
            0 => Settle::complete(&message, json!(1), meta.clone()),
            1 => Settle::fail(&message, error(), Some(LEASE), None, meta.clone()),
            _ => Settle::fail(&message, error(), None, None, meta.clone()),
        };
        assert_eq!(bus.settle(settle).await.expect("settled"), Settled::Settled);
    }
    assert_eq!(replay_differences(&db).await, NOTHING);
}

#[tokio::test]
async fn an_intent_whose_last_word_is_retry_is_judged_like_any_other() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    for intent in ["job.retry", "retry", "retry_scheduled", "x.failed"] {
        let id = bus.publish(NewMessage::new(&topic(), intent, json!(1))).await.expect("sent").id;
        claim_one(&bus).await.fail(error(), Some(LEASE)).await.expect("failed");
        assert_eq!(bus.message(id).await.expect("found").status, Status::Delayed);
    }
    assert_eq!(replay_differences(&db).await, NOTHING);
    let judged: i64 = sqlx::query_scalar("select count(*) from cogo.replayed_messages")
        .fetch_one(db.pool())
        .await
        .expect("folded");
    assert_eq!(judged, 4);
}

#[tokio::test]
async fn only_the_verb_that_was_carried_out_is_a_repetition() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    bus.publish(echo(json!(1))).await.expect("published");
    let message = claim_one(&bus).await.into_message();
    let release = Settle::release(&message, Duration::ZERO, "test");
    let fail = Settle::fail(&message, error(), None, None, json!({}));
    assert_eq!(bus.settle(release.clone()).await.expect("answered"), Settled::Settled);
    assert_eq!(bus.settle(fail).await.expect("answered"), Settled::Stale);
    assert_eq!(bus.settle(release).await.expect("answered"), Settled::Repeated);
    // Nor is a claim that nobody ever had.
    bus.cancel(&[message.id], None).await.expect("cancelled");
    bus.requeue(&[message.id], None).await.expect("requeued");
    let mut never = (*message).clone();
    never.claim_no = bus.message(message.id).await.expect("found").claim_no;
    let release = Settle::release(&never, Duration::ZERO, "test");
    assert_eq!(bus.settle(release).await.expect("answered"), Settled::Stale);
}

#[tokio::test]
async fn every_call_at_once_ends_in_no_deadlock() {
    let db = TestDb::new().await;
    let ids: Vec<uuid::Uuid> = (0..40).map(|_| uuid::Uuid::now_v7()).collect();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(8)
        .connect_with(db.connect_options())
        .await
        .expect("connected");
    let until = tokio::time::Instant::now() + Duration::from_secs(6);
    let callers = (0..8u32).map(|caller| {
        let (pool, ids) = (pool.clone(), ids.clone());
        async move {
            let mut connection = pool.acquire().await.expect("connected");
            let mut claims: Vec<Value> = Vec::new();
            while tokio::time::Instant::now() < until {
                use rand::RngExt as _;
                use rand::seq::SliceRandom as _;
                let mut some = ids.clone();
                some.shuffle(&mut rand::rng());
                some.truncate(rand::rng().random_range(2..20));
                let named: Value = some.iter().map(|id| json!({"id": id})).collect();
                let (sql, batch) = match rand::rng().random_range(0..14) {
                    0..2 => {
                        let batch = some.iter().map(|id| {
                            // Half of them with one of four keys.
                            let key = id.as_u128() % 8;
                            json!({"id": id, "role": "echo", "service": "default", "intent": "echo",
                                "payload": 1, "max_attempts": 1, "tenant": "default",
                                "delay_ms": rand::rng().random_range(0..3) * 20,
                                "ordering_key": (key < 4).then(|| key.to_string())})
                        });
                        ("select count(*) from bus_enqueue($1)", batch.collect())
                    }
                    2 => ("select count(*) from bus_cancel($1)", named),
                    3 => ("select count(*) from bus_requeue($1)", named),
                    4 => ("select count(*) from bus_drop($1)", named),
                    5 => (
                        "select bus_retain('0', '0', 5) from jsonb_array_length($1)",
                        named,
                    ),
                    11 => ("select bus_reap(5) from jsonb_array_length($1)", named),
                    6 => {
                        claims.shuffle(&mut rand::rng());
                        let batch = claims.iter().cloned().collect();
                        ("select count(*) from bus_extend($1, 100)", batch)
                    }
                    // Claims of long ago, of which some may be parked by now.
                    7 => (
                        "select count(*) from bus_extend(
                            (select jsonb_agg(c || '{\"claim_no\": 1}') from jsonb_array_elements($1) c), 100)",
                        named,
                    ),
                    8 => (
                        "select bus_circuit_open('default', 'k', 'w', 'test', max(version),
                            '{\"open_ms\": 1, \"half_open_max_calls\": 3, \"successes_to_close\": 1}')
                            from bus_circuits() where $1 is not null",
                        named,
                    ),
                    9 => (
                        "select bus_circuit_probe('default', key, 'w', 100), bus_circuit_report('default', key,
                            'w', (array[true, false, null])[1 + floor(random() * 3)::int])
                            from bus_circuits() where $1 is not null",
                        named,
                    ),
                    10 => (
                        "select bus_set_limits(jsonb_build_object('tenants', jsonb_build_object('default',
                            jsonb_build_object('max_queued', 30 + floor(random() * 20))), 'topics',
                            '{\"echo/default\": {\"max_queued\": 40}}'::jsonb)) where $1 is not null",
                        named,
                    ),
                    _ => {
                        claims.shuffle(&mut rand::rng());
                        let op = ["complete", "fail", "release"][rand::rng().random_range(0..3)];
                        let batch = claims.drain(..).map(|mut claim| {
                            claim["op"] = json!(op);
                            claim["retry_in_ms"] = json!(rand::rng().random_range(0..2) * 20);
                            claim["park"] = rand::rng().random_bool(0.5).then_some("k").into();
                            claim
                        });
                        let batch: Value = batch.collect();
                        let rows: Vec<(Option<uuid::Uuid>, Option<i64>)> = sqlx::query_as(
                            "select (message).id, (message).claim_no
                                from bus_step($1, $2, '{echo/default}', 10, 100, $3) where ord is null",
                        )
                        .bind(&batch)
                        .bind(format!("w{caller}"))
                        .bind(if caller % 2 == 0 { "default" } else { "*" })
                        .fetch_all(&mut *connection)
                        .await
                        .expect("stepped");
                        claims = rows
                            .into_iter()
                            .map(|(id, claim_no)| json!({"id": id, "claim_no": claim_no}))
                            .collect();
                        continue;
                    }
                };
                let answer = sqlx::query(sql).bind(batch).execute(&mut *connection).await;
                if let Err(sqlx::Error::Database(error)) = &answer {
                    // A purge between the two statements of an enqueue; more than may wait.
                    if ["40001", "CG429"].contains(&error.code().as_deref().unwrap_or_default()) {
                        continue;
                    }
                }
                answer.expect(sql);
            }
        }
    });
    futures_util::future::join_all(callers).await;
    assert_eq!(broken_invariants(&db).await, NOTHING);
    assert_eq!(replay_differences(&db).await, NOTHING);
}
