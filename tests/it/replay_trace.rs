//! A finished trace's work, done again.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::error::Code;
use cogo::message::{Message, MessageId, NewMessage, TraceId};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{count, echo, replay_differences, request};

/// A root with a key and two children, all in one trace.
async fn publish_trace(bus: &Bus) -> (TraceId, [MessageId; 3]) {
    let trace = TraceId::new();
    let root = echo(json!({"root": 1.5e300}))
        .with_trace(trace)
        .with_idempotency_key("once")
        .with_priority(7)
        .with_max_attempts(9);
    let child = |n| NewMessage { parent_id: Some(root.id), ..echo(json!(n)).with_trace(trace) };
    let messages = [root.clone(), child(1), child(2)];
    bus.publish_all(&messages).await.expect("published");
    (trace, messages.map(|message| message.id))
}

async fn finish(bus: &Bus, max: usize) {
    for claim in bus.claim(&request("w", max)).await.expect("claimed") {
        claim.complete(json!(1)).await.expect("done");
    }
}

async fn replay(
    bus: &Bus,
    trace: TraceId,
    everything: bool,
) -> (TraceId, Vec<Message>, Vec<MessageId>) {
    let anew = TraceId::new();
    let replayed = bus.replay_trace(trace, anew, everything).await.expect("replayed");
    assert_eq!((replayed.trace_id, replayed.replays), (anew, trace));
    let mut messages = Vec::new();
    for message in &replayed.messages {
        messages.push(bus.message(message.id).await.expect("there"));
    }
    (anew, messages, replayed.messages.iter().map(|message| message.replays).collect())
}

#[tokio::test]
async fn the_roots_are_enqueued_anew_after_retention_has_let_them_go() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (trace, [root, ..]) = publish_trace(&bus).await;
    finish(&bus, 3).await;
    sqlx::query("select bus_retain('0', null, 100, '0')").execute(db.pool()).await.expect("purged");
    assert_eq!(count(&db, "agent_messages").await, 0);

    let (anew, messages, replays) = replay(&bus, trace, false).await;
    assert_eq!(replays, [root]);
    let message = &messages[0];
    assert_ne!(message.id, root);
    assert_eq!((message.trace_id, message.parent_id), (anew, Some(root)));
    assert_eq!((message.priority, message.max_attempts), (7, 9));
    assert_eq!((&message.payload, &message.idempotency_key), (&json!({"root": 1.5e300}), &None));
    finish(&bus, 3).await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());

    // What was done again can be done again: its root's parent is in another trace.
    let (_, _, replays) = replay(&bus, anew, false).await;
    assert_eq!(replays, [message.id]);
}

#[tokio::test]
async fn all_of_it_is_enqueued_anew_when_asked_in_the_old_order() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (trace, ids) = publish_trace(&bus).await;
    finish(&bus, 3).await;
    let (_, messages, replays) = replay(&bus, trace, true).await;
    assert_eq!(replays, ids);
    let parents: Vec<_> = messages.iter().map(|message| message.parent_id).collect();
    assert_eq!(parents, ids.map(Some), "each names what it repeats");
}

#[tokio::test]
async fn deadlines_and_ordering_keys_are_repeated_and_params_are_the_first_ones() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (id, trace) = (MessageId::new(), TraceId::new());
    let batch = json!([{"id": id, "trace_id": trace, "role": "echo", "service": "default", "shard": 3,
        "intent": "echo", "payload": {"params": {"n": 1}}, "deadline_ms": 90_000, "ordering_key": "k",
        "delay_ms": 1}]);
    sqlx::query("select * from bus_enqueue($1)")
        .bind(batch)
        .execute(db.pool())
        .await
        .expect("sent");
    bus.cancel(&[id], None).await.expect("cancelled");
    let requeue = json!([{"id": id, "params": {"n": 2}}]);
    sqlx::query("select * from bus_requeue($1)")
        .bind(requeue)
        .execute(db.pool())
        .await
        .expect("sent");
    finish(&bus, 1).await;
    let (_, messages, _) = replay(&bus, trace, false).await;
    assert_eq!(messages[0].payload, json!({"params": {"n": 1}}));
    let row: (i64, String, i32, bool) = sqlx::query_as(
        "select deadline_ms, ordering_key, shard, run_at = created_at from agent_messages where id = $1",
    )
    .bind(messages[0].id)
    .fetch_one(db.pool())
    .await
    .expect("there");
    assert_eq!(row, (90_000, "k".to_owned(), 3, true));
}

#[tokio::test]
async fn a_trace_that_is_not_finished_or_not_there_is_refused_and_nothing_is_written() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (trace, ids) = publish_trace(&bus).await;
    let events = count(&db, "bus_events").await;
    let anew = TraceId::new();
    let error = bus.replay_trace(trace, anew, false).await.expect_err("not finished");
    assert_eq!(error.code(), Code::Conflict);
    assert!(ids.iter().all(|id| error.to_string().contains(&id.to_string())), "{error}");
    let error = bus.replay_trace(anew, TraceId::new(), true).await.expect_err("not there");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.to_string().contains(&anew.to_string()), "{error}");
    assert_eq!(count(&db, "bus_events").await, events);
    // A dead letter is finished, too.
    for claim in bus.claim(&request("w", 3)).await.expect("claimed") {
        claim.fail(json!({"class": "connect"}), None).await.expect("dead");
    }
    bus.replay_trace(trace, anew, false).await.expect("replayed");
}

#[tokio::test]
async fn a_large_trace_is_enqueued_in_parts_and_still_as_a_whole() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let trace = TraceId::new();
    // 12 of 3 MiB are three parts; the small ones stand between them.
    for n in 0..12 {
        let wide = echo(Value::from("x".repeat(3 << 20))).with_trace(trace);
        bus.publish_all(&[wide, echo(json!(n)).with_trace(trace)]).await.expect("published");
    }
    finish(&bus, 24).await;
    let limits = json!({"tenants": {"*": {"max_queued": 20}}});
    let set = async |limits: Value| {
        sqlx::query("select bus_set_limits($1)")
            .bind(limits)
            .execute(db.pool())
            .await
            .expect("set");
    };
    set(limits).await;
    let error = bus.replay_trace(trace, TraceId::new(), true).await.expect_err("too many");
    assert_eq!(error.code(), Code::RateLimited, "{error}");
    assert_eq!(count(&db, "agent_messages").await, 24, "not even the first part");
    set(json!({})).await;
    let replayed = bus.replay_trace(trace, TraceId::new(), true).await.expect("replayed");
    assert_eq!(replayed.messages.len(), 24);
    let order: Vec<Value> = sqlx::query_scalar(
        "select m.payload from unnest($1::uuid[]) with ordinality as u (id, n)
            join agent_messages m using (id) where jsonb_typeof(m.payload) = 'number' order by n",
    )
    .bind(replayed.messages.iter().map(|message| message.id.0).collect::<Vec<_>>())
    .fetch_all(db.pool())
    .await
    .expect("read");
    assert_eq!(order, (0..12).map(Value::from).collect::<Vec<_>>());
    tokio::time::timeout(Duration::from_secs(60), finish(&bus, 24)).await.expect("in time");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}
