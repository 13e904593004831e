//! `bus_enqueue_many`: a batch in arrays leaves what the same batch leaves as JSON.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::message::{MessageId, NewMessage};
use cogo::testing::TestDb;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixtures::{count, echo, replay_differences};

/// Ten messages, in several heads.
fn mixed() -> Vec<NewMessage> {
    let mut batch: Vec<_> = (0..10).map(|n| echo(json!({"n": n}))).collect();
    batch[3] = echo(json!("later")).with_delay(Duration::from_hours(1)).with_priority(5);
    batch[5] = echo(json!(null)).with_deadline(Duration::from_mins(1)).with_max_attempts(2);
    batch[5].parent_id = Some(batch[0].id);
    batch[7].tenant = "other".to_owned();
    batch
}

/// All that is in the tables but what differs from one enqueue to the next: times, ids of events, traces, numbers.
async fn left(db: &TestDb) -> Vec<Value> {
    sqlx::query_scalar(
        "select to_jsonb(m) - '{trace_id,claim_no,run_at,created_at,updated_at,rank_at,deadline_at,ordering_no}'::text[]
                || jsonb_build_object('in', m.run_at - m.created_at, 'rank', m.rank_at - m.created_at,
                    'deadline', m.deadline_at - m.created_at, 'numbered', m.claim_no > 0, 'ordered', m.ordering_no is not null,
                    'event', to_jsonb(e) - '{seq,xid,created_at,id,trace_id}'::text[]
                        || jsonb_build_object('payload', e.payload - '{run_at,ordering_no}'::text[],
                            'in', (e.payload ->> 'run_at')::timestamptz - m.created_at,
                            'ordered', e.payload ? 'ordering_no', 'of', e.trace_id = m.trace_id))
            from agent_messages m join bus_events e on e.message_id = m.id order by m.id",
    )
    .fetch_all(db.pool())
    .await
    .expect("rows")
}

#[tokio::test]
async fn a_batch_in_arrays_leaves_what_it_leaves_as_json_and_message_by_message() {
    let (arrays, whole) = (TestDb::new().await, TestDb::new().await);
    // One alone is inserted in another way than many.
    let each = TestDb::new().await;
    let keyed = |n: i32| echo(json!(n)).with_idempotency_key(format!("k{n}"));
    let ordered = |n: i32| echo(json!(n)).with_ordering_key("o");
    let batches = [
        mixed(),
        (0..9).map(|n| if n % 2 == 0 { keyed(n) } else { ordered(n) }).collect(),
        vec![echo(json!("alone")).with_deadline(Duration::from_secs(9))],
    ];
    let (bus, one_by_one) = (Bus::new(arrays.pool().clone()), Bus::new(each.pool().clone()));
    for batch in batches {
        bus.publish_all(&batch).await.expect("published");
        for message in &batch {
            one_by_one.publish(message.clone()).await.expect("published");
        }
        sqlx::query("select * from bus_enqueue($1)")
            .bind(serde_json::to_value(&batch).expect("JSON"))
            .execute(whole.pool())
            .await
            .expect("enqueued");
    }
    let found = left(&arrays).await;
    assert_eq!(found.len(), 20);
    assert_eq!(found, left(&whole).await);
    assert_eq!(found, left(&each).await);
    for db in [&arrays, &whole, &each] {
        assert_eq!(replay_differences(db).await, Vec::<String>::new());
        let ids = "(select distinct id from bus_events) x";
        assert_eq!(count(db, ids).await, 20, "each event has an id of its own");
    }
}

#[tokio::test]
async fn what_is_known_among_many_is_told_and_the_rest_is_written_once() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let mut batch = mixed();
    let known = bus.publish(batch[4].clone()).await.expect("published");
    batch.push(batch[8].clone());

    for again in [false, true] {
        let receipts = bus.publish_all(&batch).await.expect("published");
        let ids: Vec<_> = receipts.iter().map(|receipt| receipt.id).collect();
        assert_eq!(ids, batch.iter().map(|message| message.id).collect::<Vec<_>>());
        let duplicates: Vec<_> = receipts.iter().map(|receipt| receipt.duplicate).collect();
        let first: Vec<_> = (0..11).map(|n| again || n == 4 || n == 10).collect();
        assert_eq!(duplicates, first);
        assert_eq!(receipts[4].trace_id, known.trace_id);
        for receipt in receipts {
            let stored = bus.message(receipt.id).await.expect("found");
            assert_eq!(stored.trace_id, receipt.trace_id);
        }
        assert_eq!(count(&db, "agent_messages").await, 10);
        assert_eq!(count(&db, "bus_events").await, 10);
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

/// A batch of less than eight is inserted in another way than a larger one: they must not come into each other's way.
#[tokio::test]
async fn small_and_large_batches_of_the_same_messages_at_once_write_each_once() {
    const MESSAGES: usize = 60;
    let db = TestDb::new().await;
    let messages: Vec<_> = (0..MESSAGES).map(|n| echo(json!(n))).collect();
    let senders = (0..4).map(|sender| {
        let (bus, messages) = (Bus::new(db.pool().clone()), &messages);
        async move {
            let mut fresh = 0;
            for round in 0..30 {
                let size = [3, 20, 7, 12][(sender + round) % 4];
                let first = round * 13 + sender * 5;
                // Two of them go through the messages from the end.
                let step = if sender % 2 == 0 { 1 } else { MESSAGES - 1 };
                let places = (0..size).map(|n| (first + n * step) % MESSAGES);
                let batch: Vec<_> = places.map(|place| messages[place].clone()).collect();
                let receipts = bus.publish_all(&batch).await.expect("published");
                assert!(receipts.iter().zip(&batch).all(|(receipt, sent)| receipt.id == sent.id));
                fresh += receipts.iter().filter(|receipt| !receipt.duplicate).count();
            }
            fresh
        }
    });
    let fresh: usize = join_all(senders).await.into_iter().sum();
    assert_eq!(fresh, MESSAGES, "each was new to one sender");
    for table in ["agent_messages", "bus_events"] {
        assert_eq!(count(&db, table).await, MESSAGES as i64, "{table}");
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn json_answers_for_a_batch_with_known_and_delayed_messages_in_its_order() {
    let db = TestDb::new().await;
    let batch = mixed();
    let bus = Bus::new(db.pool().clone());
    bus.publish(batch[3].clone()).await.expect("published");
    for again in [false, true] {
        let rows: Vec<(MessageId, bool, String)> =
            sqlx::query_as("select id, duplicate, status from bus_enqueue($1)")
                .bind(serde_json::to_value(&batch).expect("JSON"))
                .fetch_all(db.pool())
                .await
                .expect("enqueued");
        let expected: Vec<_> = (0..10)
            .map(|n| (batch[n].id, again || n == 3, if n == 3 { "delayed" } else { "queued" }))
            .collect();
        let found: Vec<_> =
            rows.iter().map(|(id, known, status)| (*id, *known, status.as_str())).collect();
        assert_eq!(found, expected);
    }
}

/// What `bus_enqueue` answers to a batch: for each message its trace's last digit, whether it was known, and its status.
async fn enqueue(db: &TestDb, batch: Value) -> sqlx::Result<Vec<(String, bool, String)>> {
    sqlx::query_as("select right(trace_id::text, 1), duplicate, status from bus_enqueue($1)")
        .bind(batch)
        .fetch_all(db.pool())
        .await
}

#[tokio::test]
async fn json_is_read_as_it_was_before_it_was_taken_apart() {
    let db = TestDb::new().await;
    let message = json!({"role": "echo", "service": "default", "intent": "echo", "payload": 1});
    let with = |more: Value| {
        let mut message = message.clone();
        message.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        message
    };
    let late = enqueue(&db, json!([with(json!({"delay_ms": "5000"}))])).await.expect("enqueued");
    assert_eq!(late[0].2, "delayed", "a number may be a string");

    // Of one id twice, that with the key comes first, whatever its place.
    let id = MessageId::new();
    let trace = |n: u8| format!("00000000-0000-7000-8000-00000000000{n}");
    let twice = enqueue(
        &db,
        json!([
            with(json!({"id": id, "trace_id": trace(1)})),
            with(json!({"id": id, "trace_id": trace(2), "idempotency_key": "k", "delay_ms": 1000})),
        ]),
    )
    .await
    .expect("enqueued");
    let delayed = |known| ("2".to_owned(), known, "delayed".to_owned());
    assert_eq!(twice, [delayed(true), delayed(false)]);

    let before = count(&db, "bus_events").await;
    for bad in [json!("payload"), json!(["payload"]), json!(null), json!(1)] {
        let error = enqueue(&db, json!([message, bad])).await.expect_err("refused");
        let error = error.into_database_error().expect("the database's");
        assert_eq!(error.code().as_deref(), Some("CG400"), "{error}");
        assert!(error.message().starts_with("messages[1]: must be an object"), "{error}");
    }
    assert_eq!(count(&db, "bus_events").await, before);
}

#[tokio::test]
async fn one_that_is_known_among_as_many_heads_as_messages_is_told() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let keyed = |n: usize| echo(json!(n)).with_idempotency_key(format!("k{n}"));
    let known = bus.publish(keyed(150)).await.expect("published");
    let batch: Vec<_> = (0..300).map(keyed).collect();
    for again in [false, true] {
        let receipts = bus.publish_all(&batch).await.expect("published");
        for (n, receipt) in receipts.iter().enumerate() {
            assert_eq!(receipt.duplicate, again || n == 150, "message {n}");
            let id = if n == 150 { known.id } else { batch[n].id };
            assert_eq!(receipt.id, id, "message {n}");
        }
    }
    assert_eq!(count(&db, "agent_messages").await, 300);
}

#[tokio::test]
async fn a_batch_that_is_gigabytes_when_written_out_is_refused() {
    let db = TestDb::new().await;
    // 2 kB stored and 16 MB of digits each.
    let error = sqlx::query(
        "select * from bus_enqueue((
            select jsonb_agg(jsonb_build_object('role', 'r', 'service', 's', 'intent', 'i', 'payload', p))
            from (select jsonb_agg('1e131071'::numeric) as p from generate_series(1, 125)) p, generate_series(1, 70)))",
    )
    .execute(db.pool())
    .await
    .expect_err("refused")
    .into_database_error()
    .expect("the database's");
    assert_eq!(error.code().as_deref(), Some("CG413"), "{error}");
    assert!(error.message().contains("1 GiB"), "{error}");
    assert_eq!(count(&db, "bus_events").await, 0);
}

#[tokio::test]
async fn bad_arrays_are_refused_by_name_and_write_nothing() {
    let db = TestDb::new().await;
    let (a, b) = (MessageId::new(), MessageId::new());
    let ids = format!("'{{{a},{b}}}'");
    let good = r#"'[{"role": "r", "service": "s", "intent": "i"}]'"#;
    let two = r#"'[{"role": "r", "service": "s", "intent": "i"}, {"role": "a/b", "service": "s", "intent": "i"}]'"#;
    let call = |ids: &str, traces: &str, payloads: &str, heads: &str, head_of: &str| {
        format!("select * from bus_enqueue_many({ids}, {traces}, {payloads}, {heads}, {head_of})")
    };
    let cases = [
        (call(&format!("'{{{a},null}}'"), &ids, "'{1,2}'", good, "null"), "CG400", "ids: must be"),
        (
            call(&format!("'[0:1]={{{a},{b}}}'"), &ids, "'{1,2}'", good, "null"),
            "CG400",
            "ids: must be",
        ),
        (call("null", &ids, "'{1,2}'", good, "null"), "CG400", "ids: must be"),
        (call(&ids, &format!("'{{{a}}}'"), "'{1,2}'", good, "null"), "CG400", "traces: must be"),
        (call(&ids, &ids, "'{1,null}'", good, "null"), "CG400", "payloads: must be"),
        (call(&ids, &ids, "null", good, "null"), "CG400", "payloads: must be"),
        (call(&ids, &ids, "'{1,2}'", "'[]'", "null"), "CG400", "heads: must be"),
        (call(&ids, &ids, "'{1,2}'", "'{}'", "null"), "CG400", "heads: must be"),
        (call(&ids, &ids, "'{1,2}'", "null", "null"), "CG400", "heads: must be"),
        (call(&ids, &ids, "'{1,2}'", "'[1]'", "null"), "CG400", "messages[0]: must be an object"),
        (
            call(&ids, &ids, "'{1,2}'", r#"'[{"id": null}]'"#, "null"),
            "CG400",
            "heads: must be without",
        ),
        (
            call(&ids, &ids, "'{1,2}'", good, "'{1,2}'"),
            "CG400",
            "head_of: must be numbers from 1 to 1",
        ),
        (call(&ids, &ids, "'{1,2}'", two, "'{1,null}'"), "CG400", "head_of: must be"),
        (call(&ids, &ids, "'{1,2}'", two, "'{1}'"), "CG400", "head_of: must be"),
        (call(&ids, &ids, "'{1,2}'", two, "'{1,2}'"), "CG400", "messages[1].role: must be"),
        (call(&ids, &ids, "'{1,2}'", two, "'{2,1}'"), "CG400", "messages[0].role: must be"),
        (call(&ids, &ids, "'{1,2}'", two, "'{1,1}'"), "CG400", "heads[1].role: must be"),
        (
            call(&ids, &ids, "array['1', to_jsonb(repeat('x', 5 << 20))]", good, "null"),
            "CG413",
            "messages[1].payload: at most 4 MiB",
        ),
        (
            call(
                &ids,
                &ids,
                "array['1', (select jsonb_agg('1e131071'::numeric) from generate_series(1, 200))]",
                good,
                "null",
            ),
            "CG413",
            "messages[1].payload: at most 16 MiB",
        ),
        (
            call("array_fill(gen_random_uuid(), '{10001}')", &ids, "'{1,2}'", good, "null"),
            "CG413",
            "ids: at most 10000",
        ),
    ];
    for (sql, state, text) in cases {
        let error = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .fetch_all(db.pool())
            .await
            .expect_err(&sql);
        let error = error.as_database_error().expect("the database's own").to_owned();
        assert_eq!(error.code().as_deref(), Some(state), "{sql}: {error}");
        assert!(error.message().starts_with(text), "expected {text:?}, got {:?}", error.message());
    }
    assert_eq!(count(&db, "agent_messages").await, 0);
    assert_eq!(count(&db, "bus_events").await, 0);
}
