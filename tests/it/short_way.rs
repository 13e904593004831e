//! The short ways of `bus_enqueue_and_claim` and of results lead where the long ones do.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{enqueue, raw, refusal, replay_differences, rows};

/// `bus_enqueue_and_claim` for a worker of `echo/default` with `max` places.
fn both(batch: &[Value], max: i32) -> String {
    let batch = Value::from(batch);
    format!(
        "select * from bus_enqueue_and_claim('{batch}', 'w', '{{echo/default}}', {max}, 30000, 'default')"
    )
}

/// How the messages of an answer came out: which place, whether known, and whether claimed.
async fn outcome(db: &TestDb, query: &str) -> Vec<(Option<i64>, Option<bool>, bool)> {
    let mut outcome: Vec<_> = rows(db, query)
        .await
        .into_iter()
        .map(|row| (row["ord"].as_i64(), row["duplicate"].as_bool(), !row["message"].is_null()))
        .collect();
    outcome.sort_by_key(|row| (row.0.is_none(), row.0));
    outcome
}

fn id(n: u8) -> Value {
    json!(format!("00000000-0000-7000-8000-0000000000{n:02}"))
}

#[tokio::test]
async fn what_is_inserted_as_claimed_is_what_an_insert_and_a_claim_make() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let full = json!({"id": id(1), "trace_id": id(2), "parent_id": id(3), "shard": 7, "priority": 3, "max_attempts": 2,
        "deadline_ms": 60000, "payload": {"a": [1, null]}});
    for fields in [full, json!({"id": id(1), "trace_id": id(2)})] {
        let message = raw(&fields);
        let mut made = Vec::new();
        for short in [true, false] {
            match short {
                true => {
                    let outcome = outcome(&db, &both(std::slice::from_ref(&message), 1)).await;
                    assert_eq!(outcome, [(Some(1), Some(false), true)]);
                }
                false => {
                    enqueue(&db, std::slice::from_ref(&message)).await;
                    let claim =
                        "select * from bus_claim('w', '{echo/default}', 1, 30000, 'default')";
                    assert_eq!(rows(&db, claim).await.len(), 1);
                }
            }
            let row = rows(&db, "select * from agent_messages").await;
            let log = rows(&db, "select event_type, message_id, trace_id, tenant, service, role, shard, attempt, worker_id, \
                reason, payload, created_at from bus_events").await;
            assert_eq!(replay_differences(&db).await, Vec::<String>::new());
            made.push((row, log));
            for table in ["agent_messages", "bus_events"] {
                sqlx::query(sqlx::AssertSqlSafe(format!("delete from {table}")))
                    .execute(db.pool())
                    .await
                    .expect("deleted");
            }
        }
        assert_eq!(made[0], made[1]);
    }
}

#[tokio::test]
async fn what_is_special_or_not_next_is_enqueued_and_then_claimed() {
    let db = TestDb::new().await;
    let n = |n| raw(&json!({"id": id(n)}));
    let left = (Some(1), Some(false), false);
    let claimed = (None, None, true);
    // Two messages and one place; then what waits goes first.
    let two = outcome(&db, &both(&[n(1), n(2)], 1)).await;
    assert_eq!(two, [left, (Some(2), Some(false), false), claimed]);
    assert_eq!(outcome(&db, &both(&[n(3)], 1)).await, [left, claimed]);
    let first = rows(&db, "select id from agent_messages where status = 'queued'").await;
    assert_eq!(first, [json!({"id": id(3)})], "the second was before it");
    assert_eq!(outcome(&db, &both(&[n(4)], 9)).await, [left, claimed, claimed]);
    // Nothing waits now.
    let special = [
        json!({"id": id(5), "delay_ms": 60000}),
        json!({"id": id(6), "service": "other"}),
        json!({"id": id(7), "tenant": "other"}),
    ];
    for fields in special {
        assert_eq!(outcome(&db, &both(&[raw(&fields)], 9)).await, [left], "{fields}");
    }
    for fields in
        [json!({"id": id(8), "ordering_key": "k"}), json!({"id": id(9), "idempotency_key": "k"})]
    {
        assert_eq!(outcome(&db, &both(&[raw(&fields)], 9)).await, [left, claimed], "{fields}");
    }
    let behind = raw(&json!({"id": id(10), "ordering_key": "k"}));
    assert_eq!(outcome(&db, &both(&[behind], 9)).await, [left], "one of its key is under way");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_known_id_is_answered_and_claimed_by_nobody_else() {
    let db = TestDb::new().await;
    let n = |n| raw(&json!({"id": id(n)}));
    outcome(&db, &both(&[n(1)], 9)).await;
    let again = outcome(&db, &both(&[n(2), n(1), n(3)], 9)).await;
    let (new, known) = (Some(false), Some(true));
    assert_eq!(again, [(Some(1), new, true), (Some(2), known, false), (Some(3), new, true)]);
    let twice = outcome(&db, &both(&[n(4), n(4)], 9)).await;
    assert_eq!(twice, [(Some(1), new, false), (Some(2), known, false), (None, None, true)]);
    let foreign = raw(&json!({"id": id(1), "tenant": "other"}));
    let everybody = both(&[n(5), foreign], 9).replace("'default')", "'*')");
    assert_eq!(refusal(&db, &everybody).await.0, "CG409");
    assert_eq!(rows(&db, "select id from agent_messages").await.len(), 4, "nothing of it is there");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_by_the_long_way() {
    let db = TestDb::new().await;
    let wrong = [
        json!({"role": "a b"}),
        json!({"intent": "Echo"}),
        json!({"priority": 101}),
        json!({"payloat": 1}),
        json!({"id": "1"}),
        json!({"deadline_ms": 0}),
        json!({"max_attempts": "x"}),
        json!({"ordering_key": 1}),
    ];
    for fields in wrong {
        let batch = [raw(&json!({})), raw(&fields)];
        let long = format!("select * from bus_enqueue('{}')", Value::from(&batch[..]));
        assert_eq!(refusal(&db, &both(&batch, 9)).await, refusal(&db, &long).await, "{fields}");
    }
    for none in ["'{}'", "'1'", "null"] {
        let call = format!("select * from bus_enqueue_and_claim({none}, 'w', '{{echo/default}}')");
        assert_eq!(refusal(&db, &call).await.0, "CG400", "{none}");
    }
    let claim = both(&[raw(&json!({}))], 9).replace("30000", "1");
    assert_eq!(refusal(&db, &claim).await.0, "CG400");
    assert_eq!(refusal(&db, &both(&[], -1)).await.0, "CG400");
    assert!(rows(&db, "select * from agent_messages").await.is_empty(), "none of it is there");
}

#[tokio::test]
async fn results_among_which_some_are_late_or_repeated_are_told_in_their_places() {
    let db = TestDb::new().await;
    let messages: Vec<_> = (1..=4).map(|n| raw(&json!({"id": id(n)}))).collect();
    let claimed = rows(&db, &both(&messages, 9)).await;
    let settle = |place: usize, op: &str, more: i64| {
        let message = &claimed[place]["message"];
        let number = message["claim_no"].as_i64().expect("a number") + more;
        json!({"op": op, "id": message["id"], "claim_no": number, "result": place})
    };
    let step = |items: Value| {
        format!("select ord, outcome from bus_step('{items}', 'w', '{{}}', 0) order by ord")
    };
    let outcomes = async |items: Value| -> Vec<Value> {
        rows(&db, &step(items)).await.into_iter().map(|row| row["outcome"].clone()).collect()
    };
    assert_eq!(outcomes(json!([settle(0, "complete", 0)])).await, ["settled"]);
    let some = json!([settle(1, "complete", 1), settle(0, "complete", 0), settle(2, "complete", 0),
        {"op": "complete", "id": id(99), "claim_no": 1}]);
    assert_eq!(outcomes(some).await, ["stale", "repeated", "settled", "stale"]);
    let mixed = json!([settle(1, "complete", 0), settle(3, "release", 0)]);
    assert_eq!(outcomes(mixed).await, ["settled", "settled"]);
    for wrong in [
        json!([settle(3, "complete", 0), settle(3, "complete", 0)]),
        json!([{"op": "complete", "id": id(1)}]),
        json!([{"op": "complete", "id": id(1), "claim_no": 1, "meta": 1}]),
        json!([1]),
    ] {
        assert_eq!(refusal(&db, &step(wrong.clone())).await.0, "CG400", "{wrong}");
    }
    let done = rows(
        &db,
        "select id from agent_messages where status = 'done' and result is not null order by id",
    )
    .await;
    assert_eq!(done, [json!({"id": id(1)}), json!({"id": id(2)}), json!({"id": id(3)})]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}
