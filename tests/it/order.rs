//! Ordering keys: one message of a key at a time, in order, and never stuck.

use std::time::Duration;

use cogo::bus::{Bus, Settle};
use cogo::message::{Message, Status};
use cogo::testing::TestDb;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{
    SOON, broken_invariants, enqueue, raw, refusal, replay_differences, request, rows,
};

const NOTHING: Vec<String> = Vec::new();

fn keyed(key: &str, payload: impl Into<Value>) -> Value {
    raw(&json!({"ordering_key": key, "payload": payload.into()}))
}

async fn claim(bus: &Bus, max: usize) -> Vec<Message> {
    let claims = bus.claim(&request("w", max)).await.expect("claimed");
    claims.into_iter().map(|claim| (*claim.into_message()).clone()).collect()
}

/// Claims up to ten; the payloads.
async fn next(bus: &Bus) -> (Vec<Message>, Vec<Value>) {
    let mut messages = claim(bus, 10).await;
    // Those that came in one batch have one rank.
    messages.sort_by_key(|message| message.payload.to_string());
    let payloads = messages.iter().map(|message| message.payload.clone()).collect();
    (messages, payloads)
}

async fn done(bus: &Bus, message: &Message) {
    bus.settle(Settle::complete(message, json!(1), json!({}))).await.expect("settled");
}

async fn assert_sound(db: &TestDb) {
    assert_eq!(broken_invariants(db).await, NOTHING);
    assert_eq!(replay_differences(db).await, NOTHING, "the log folds to the table");
}

#[tokio::test]
async fn messages_of_a_key_go_one_at_a_time_and_in_order_and_others_pass() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    enqueue(&db, &[keyed("k", "a"), raw(&json!({"payload": "x"})), keyed("k", "b")]).await;
    enqueue(&db, &[keyed("k", "c"), keyed("other", "y")]).await;

    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["a", "x", "y"]);
    assert_eq!(next(&bus).await.1, Vec::<Value>::new(), "b waits for a");
    done(&bus, &held[0]).await;
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["b"]);
    // A failure that is tried again, and a release, keep their place.
    let pause = Some(Duration::ZERO);
    bus.settle(Settle::fail(&held[0], json!({}), pause, None, json!({}))).await.expect("failed");
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["b"]);
    bus.settle(Settle::release(&held[0], Duration::ZERO, "test")).await.expect("released");
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["b"]);
    // A dead letter lets the next one go.
    bus.settle(Settle::fail(&held[0], json!({}), None, None, json!({}))).await.expect("dead");
    assert_eq!(next(&bus).await.1, ["c"]);
    assert_sound(&db).await;
}

#[tokio::test]
async fn a_key_orders_within_its_tenant_and_topic_alone() {
    let db = TestDb::new().await;
    let mut elsewhere = keyed("k", 2);
    elsewhere["service"] = json!("other");
    let mut foreign = keyed("k", 3);
    foreign["tenant"] = json!("other");
    enqueue(&db, &[keyed("k", 1), elsewhere, foreign, keyed("k", 4)]).await;
    let parked = rows(&db, "select payload from agent_messages where parked_for is not null").await;
    assert_eq!(parked, [json!({"payload": 4})]);
}

#[tokio::test]
async fn a_delayed_head_and_a_retry_hold_back_what_comes_behind() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let mut late = keyed("k", "a");
    late["delay_ms"] = json!(60_000);
    let mut later = keyed("k", "c");
    later["delay_ms"] = json!(1000);
    enqueue(&db, &[late, keyed("k", "b"), later]).await;
    bus.reap(100).await.expect("reaped");
    assert!(claim(&bus, 10).await.is_empty(), "b is due, and behind a");
    db.advance(Duration::from_secs(60)).await;
    bus.reap(100).await.expect("reaped");
    for expected in ["a", "b", "c"] {
        let (held, payloads) = next(&bus).await;
        assert_eq!(payloads, [expected]);
        let pause = Duration::from_secs(5);
        let fail = Settle::fail(&held[0], json!({}), Some(pause), None, json!({}));
        bus.settle(fail).await.expect("failed");
        assert!(claim(&bus, 10).await.is_empty());
        db.advance(pause).await;
        bus.reap(100).await.expect("reaped");
        let (held, payloads) = next(&bus).await;
        assert_eq!(payloads, [expected]);
        done(&bus, &held[0]).await;
    }
    assert_sound(&db).await;
}

#[tokio::test]
async fn whatever_ends_a_message_lets_the_next_of_its_key_go() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let mut poison = keyed("k", "lost");
    poison["max_attempts"] = json!(1);
    let batch = [
        keyed("k", "cancelled"),
        keyed("k", "cancelled while parked"),
        keyed("k", "cancelled while claimed"),
        poison,
        keyed("k", "last"),
    ];
    let ids = enqueue(&db, &batch).await;
    bus.cancel(&[ids[1], ids[0]], None).await.expect("cancelled");
    assert_sound(&db).await;
    assert_eq!(next(&bus).await.1, ["cancelled while claimed"]);
    bus.cancel(&[ids[2]], None).await.expect("cancelled");
    assert_eq!(next(&bus).await.1, ["lost"]);
    db.advance(Duration::from_secs(31)).await;
    assert_eq!(bus.reap(100).await.expect("reaped").dead, 1);
    assert_eq!(next(&bus).await.1, ["last"]);
    assert_sound(&db).await;
}

#[tokio::test]
async fn a_requeued_message_waits_for_the_one_under_way_and_goes_before_later_ones() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let batch = [keyed("k", "a"), keyed("k", "b"), keyed("k", "c")];
    let ids = enqueue(&db, &batch).await;
    let (held, _) = next(&bus).await;
    bus.settle(Settle::fail(&held[0], json!({}), None, None, json!({}))).await.expect("dead");
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["b"]);
    bus.requeue(&[ids[0]], None).await.expect("requeued");
    assert!(claim(&bus, 10).await.is_empty(), "b is under way");
    done(&bus, &held[0]).await;
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["a"]);
    done(&bus, &held[0]).await;
    assert_eq!(next(&bus).await.1, ["c"]);
    // With nothing of its key under way it goes at once.
    bus.cancel(&[ids[2]], None).await.expect("cancelled");
    bus.requeue(&[ids[2]], None).await.expect("requeued");
    assert_eq!(next(&bus).await.1, ["c"]);
    assert_sound(&db).await;
}

#[tokio::test]
async fn a_duplicate_takes_no_place_in_the_order() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let twice = |payload: &str, key: &str| {
        raw(&json!({"ordering_key": key, "payload": payload, "idempotency_key": "once"}))
    };
    let ids =
        enqueue(&db, &[twice("a", "k"), keyed("k", "b"), twice("again", "k"), keyed("k", "c")])
            .await;
    assert_eq!(ids[0], ids[2]);
    let again = enqueue(&db, &[twice("other key", "other"), keyed("other", "d")]).await;
    assert_eq!(again[0], ids[0]);
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["a", "d"]);
    done(&bus, &held[0]).await;
    let (held, payloads) = next(&bus).await;
    assert_eq!(payloads, ["b"]);
    done(&bus, &held[0]).await;
    assert_eq!(next(&bus).await.1, ["c"]);
    assert_sound(&db).await;
}

#[tokio::test]
async fn many_senders_and_claimers_keep_the_order_of_every_key() {
    const SENDERS: usize = 4;
    const BATCHES: usize = 25;
    let db = TestDb::new().await;
    let tasks = cogo::shutdown::Tasks::new();
    let mut busy = Vec::new();
    for sender in 0..SENDERS {
        let pool = db.pool().clone();
        busy.push(tasks.spawn(async move {
            for batch in 0..BATCHES {
                use rand::RngExt as _;
                let batch: Value = (0..8)
                    .map(|n| {
                        let mut message = raw(&json!({"payload": [sender, batch, n]}));
                        let key = rand::rng().random_range(0..5);
                        if key > 0 {
                            message["ordering_key"] = json!(key.to_string());
                        }
                        message["idempotency_key"] = match rand::rng().random_range(0..10) {
                            0 => json!(format!("{batch}")),
                            _ => Value::Null,
                        };
                        message
                    })
                    .collect();
                let call = sqlx::query("select * from bus_enqueue($1)").bind(batch);
                call.fetch_all(&pool).await.expect("enqueued");
            }
        }));
    }
    for claimer in 0..4 {
        let pool = db.pool().clone();
        busy.push(tasks.spawn(async move {
            let (mut settles, mut idle) = (Value::Array(Vec::new()), 0);
            while idle < 100 {
                let claimed: Vec<(Uuid, i64)> = sqlx::query_as(
                    "select (message).id, (message).claim_no
                        from bus_step($1, $2, '{echo/default}', 5) where ord is null",
                )
                .bind(&settles)
                .bind(format!("w{claimer}"))
                .fetch_all(&pool)
                .await
                .expect("stepped");
                idle = if claimed.is_empty() { idle + 1 } else { 0 };
                settles = claimed
                    .into_iter()
                    .map(|(id, claim_no)| {
                        use rand::RngExt as _;
                        let claim = json!({"id": id, "claim_no": claim_no, "retry_in_ms": 0});
                        let op = match rand::rng().random_range(0..10) {
                            0 => "fail",
                            1 => "release",
                            _ => "complete",
                        };
                        let mut settle = claim;
                        settle["op"] = json!(op);
                        settle
                    })
                    .collect();
                if idle > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }));
    }
    for task in busy {
        task.await.expect("no call fails");
    }
    assert_sound(&db).await;
    let waiting = rows(&db, "select id from agent_messages where done_at is null").await;
    assert_eq!(waiting, Vec::<Value>::new(), "all was done");
    // In the log's order, the ends of a key's messages have growing numbers.
    let disorder = rows(
        &db,
        "select * from (
            select m.ordering_key, m.ordering_no,
                lag(m.ordering_no) over (partition by m.ordering_key order by e.seq) as before
            from bus_events e join agent_messages m on m.id = e.message_id
            where e.event_type in ('echo_succeeded', 'echo_dead_lettered')
                and m.ordering_key is not null
        ) ends where before > ordering_no",
    )
    .await;
    assert_eq!(disorder, Vec::<Value>::new());
}

#[tokio::test]
async fn a_message_that_is_withdrawn_while_it_is_sent_leaves_its_key_in_order() {
    let db = TestDb::new().await;
    for _ in 0..60 {
        let ids: Vec<_> = (0..6).map(|_| Uuid::now_v7()).collect();
        let calls = (0..6).map(|n| {
            let (pool, ids) = (db.pool().clone(), ids.clone());
            async move {
                let named: Value = ids.iter().map(|id| json!({"id": id})).collect();
                let batch: Value = ids
                    .iter()
                    .skip(n % 2)
                    .map(|id| raw(&json!({"id": id, "ordering_key": "k"})))
                    .collect();
                let (sql, batch) = match n {
                    0..3 => ("select count(*) from bus_enqueue($1)", batch),
                    3..5 => ("select count(*) from bus_cancel($1)", named),
                    _ => ("select count(*) from bus_requeue($1)", named),
                };
                sqlx::query(sql).bind(batch).execute(&pool).await.expect(sql);
            }
        });
        futures_util::future::join_all(calls).await;
        assert_eq!(broken_invariants(&db).await, NOTHING);
    }
    assert_sound(&db).await;
}

#[tokio::test]
async fn a_lost_head_is_taken_back_while_its_key_is_busy() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    enqueue(&db, &[keyed("k", 1)]).await;
    assert_eq!(claim(&bus, 1).await.len(), 1);
    db.advance(Duration::from_secs(31)).await;
    let stop = cogo::shutdown::Shutdown::new();
    let tasks = cogo::shutdown::Tasks::new();
    for _ in 0..6 {
        let (pool, stop) = (db.pool().clone(), stop.draining().clone());
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                let batch = json!([keyed("k", 2)]);
                let call = sqlx::query("select bus_enqueue($1)").bind(batch).execute(&pool);
                call.await.expect("enqueued");
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reaped = bus.reap(100).await.expect("reaped");
    stop.drain();
    assert!(tasks.join(SOON).await);
    assert_eq!(reaped.expired, 1);
}

#[tokio::test]
async fn a_batch_of_ten_thousand_keys_leaves_others_their_locks() {
    let db = TestDb::new().await;
    let calls = (0..4).map(|call| {
        let pool = db.pool().clone();
        async move {
            let batch: Value =
                (0..10_000).map(|n| keyed(&format!("{call}-{n}"), Value::from(n))).collect();
            let sql = "select count(*) from bus_enqueue($1)";
            sqlx::query_scalar::<_, i64>(sql).bind(batch).fetch_one(&pool).await
        }
    });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.expect("enqueued"), 10_000);
    }
    assert_eq!(broken_invariants(&db).await, NOTHING);
}

#[tokio::test]
async fn a_settle_does_not_look_through_the_table_for_an_ordering_key() {
    let db = TestDb::new().await;
    // What makes a planner expect many messages with a key under way, where there is none.
    for sql in [
        "insert into agent_messages (id, trace_id, run_at, created_at, updated_at, done_at, max_attempts,
            status, tenant, role, service, intent, payload, ordering_key)
        select gen_random_uuid(), gen_random_uuid(), now(), now(), now(), case when n % 2 = 0 then now() end,
            5, case when n % 2 = 0 then 'done' else 'queued' end, 'default', 'r', 's', 'i', '1',
            case when n % 2 = 0 then 'k' || n end
        from generate_series(1, 20000) n",
        "analyze agent_messages",
    ] {
        sqlx::query(sql).execute(db.pool()).await.expect(sql);
    }
    let mut connection = db.pool().acquire().await.expect("connected");
    let mut buffers = 0;
    // The first call reads the catalogue.
    for _ in 0..2 {
        let plan: Value =
            sqlx::query_scalar("explain (analyze, buffers, format json) select cogo.any_ordered()")
                .fetch_one(&mut *connection)
                .await
                .expect("explained");
        let read = |what| plan[0]["Plan"][what].as_i64().expect("a number");
        buffers = read("Shared Hit Blocks") + read("Shared Read Blocks");
    }
    assert!(buffers < 50, "{buffers} of the table's more than 500");
}

#[tokio::test]
async fn a_bad_ordering_key_is_refused_by_name() {
    let db = TestDb::new().await;
    for bad in [json!(""), json!(5), json!("x".repeat(256))] {
        let batch = json!([raw(&json!({"ordering_key": bad}))]);
        let (code, message) = refusal(&db, &format!("select bus_enqueue('{batch}')")).await;
        assert_eq!(code, "CG400");
        assert!(message.starts_with("messages[0].ordering_key: "), "{message}");
    }
    let batch = json!([raw(&json!({"ordering_key": null}))]);
    rows(&db, &format!("select * from bus_enqueue('{batch}')")).await;
    let status = rows(&db, "select status, parked_for from agent_messages").await;
    assert_eq!(status, [json!({"status": Status::Queued, "parked_for": null})]);
}
