//! Rebuild: a table that was lost or damaged is what the log says, and old claims stay fenced.

use std::time::Duration;

use cogo::bus::replay::{Options, Rebuilt};
use cogo::bus::{Bus, Settle, Settled};
use cogo::error::Code;
use cogo::message::{MessageId, Status};
use cogo::shutdown::Tasks;
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{SOON, count, echo, publish, replay_differences, request, stopping};

const NOTHING: Vec<String> = Vec::new();

async fn sql(db: &TestDb, text: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(db.pool()).await.expect(text);
}

async fn rebuild(bus: &Bus, range: u32) -> Rebuilt {
    let options = Options { range, ..Options::default() };
    bus.replay_rebuild(&options, |_| {}).await.expect("rebuilt")
}

/// What of the table a rebuild must give back; what is undone by time is left out.
async fn contents(db: &TestDb) -> Value {
    sqlx::query_scalar(
        "select jsonb_agg(to_jsonb(m) - '{claim_no,updated_at}'::text[] order by id)
            from cogo.stored_messages m",
    )
    .fetch_one(db.pool())
    .await
    .expect("read")
}

/// Enqueues messages of one ordering key, with these payloads.
async fn publish_ordered(db: &TestDb, payloads: &[i32]) {
    let batch: Value = payloads
        .iter()
        .map(|n| {
            json!({"id": MessageId::new(), "role": "echo", "service": "default", "intent": "echo",
                "payload": n, "ordering_key": "k"})
        })
        .collect();
    sqlx::query("select * from bus_enqueue($1)")
        .bind(batch)
        .execute(db.pool())
        .await
        .expect("sent");
}

#[tokio::test]
async fn a_claim_that_was_lost_with_the_table_settles_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let id = bus.publish(echo(json!(1)).with_priority(3)).await.expect("published").id;
    let old =
        bus.claim(&request("old", 1)).await.expect("claimed").pop().expect("one").into_message();
    sql(&db, "truncate agent_messages").await;
    assert_eq!(replay_differences(&db).await.len(), 1);

    let rebuilt = rebuild(&bus, 10).await;
    assert_eq!((rebuilt.inserted, rebuilt.replaced, rebuilt.removed), (1, 0, 0));
    assert_eq!(replay_differences(&db).await, NOTHING);
    let late = Settle::complete(&old, json!("late"), json!({}));
    assert_eq!(bus.settle(late.clone()).await.expect("answered"), Settled::Stale, "it waits");
    assert_eq!(bus.message(id).await.expect("found").status, Status::Queued);

    let new = bus.claim(&request("new", 1)).await.expect("claimed").pop().expect("one");
    assert!(new.message().claim_no > old.claim_no);
    assert_eq!(new.message().attempts, 1, "the lost claim burns no attempt");
    let lease = Duration::from_secs(30);
    let stale = bus.extend(&[(id, old.claim_no)], lease).await.expect("answered");
    assert_eq!(stale, [(id, old.claim_no)]);
    assert_eq!(
        bus.settle(late.clone()).await.expect("answered"),
        Settled::Stale,
        "another holds it"
    );
    new.complete(json!("in time")).await.expect("settled");
    assert_eq!(bus.settle(late).await.expect("answered"), Settled::Stale, "it is done");
    assert_eq!(bus.message(id).await.expect("found").result, Some(json!("in time")));
    assert_eq!(replay_differences(&db).await, NOTHING);
}

#[tokio::test]
async fn a_claim_on_a_damaged_message_is_lost_as_well_whatever_its_number() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 3).await;
    // One is damaged in its claim's hands, one was claimed after its number had been damaged, one is well.
    let first =
        bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one").into_message();
    sql(&db, "update agent_messages set priority = 7 where status = 'claimed'").await;
    sql(&db, "update agent_messages set claim_no = claim_no + 100 where payload = '1'").await;
    let second =
        bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one").into_message();
    let third = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    let rebuilt = rebuild(&bus, 10).await;
    assert_eq!((rebuilt.inserted, rebuilt.replaced, rebuilt.messages), (0, 2, 1));
    third.complete(json!(1)).await.expect("what is well is left alone, and its claim in force");
    let again = bus.claim(&request("w", 3)).await.expect("claimed");
    assert_eq!(again.len(), 2);
    for old in [first, second] {
        let new = again.iter().find(|claim| claim.message().id == old.id).expect("waits again");
        assert!(new.message().claim_no > old.claim_no);
        let late = Settle::complete(&old, json!("late"), json!({}));
        assert_eq!(bus.settle(late).await.expect("answered"), Settled::Stale);
    }
    assert_eq!(replay_differences(&db).await, NOTHING);
}

#[tokio::test]
async fn every_state_comes_back_in_ranges_of_any_size() {
    for range in [1, 3, 1000] {
        let db = TestDb::new().await;
        db.freeze_time().await;
        let bus = Bus::new(db.pool().clone());
        let hour = Duration::from_secs(3600);
        bus.publish(echo(json!("delayed")).with_delay(hour)).await.expect("published");
        bus.publish(echo(json!("keyed")).with_idempotency_key("key")).await.expect("published");
        bus.publish(echo(json!("high")).with_priority(5)).await.expect("published");
        publish(&bus, 8).await;
        for claim in bus.claim(&request("w", 7)).await.expect("claimed") {
            match claim.message().payload.as_u64() {
                Some(0) => claim.complete(json!({"n": 1})).await.expect("done"),
                Some(1) => claim.fail(json!({"class": "connect"}), None).await.expect("dead"),
                Some(2) => {
                    claim.fail(json!({"class": "timeout"}), Some(hour)).await.expect("again")
                }
                Some(3) => claim.release(Duration::ZERO, "test").await.expect("released"),
                Some(4) => {
                    let id = claim.message().id;
                    bus.cancel(&[id], None).await.expect("cancelled");
                }
                _ => {}
            }
        }
        assert_eq!(replay_differences(&db).await, NOTHING);
        let before = contents(&db).await;
        sql(&db, "truncate agent_messages").await;
        let rebuilt = rebuild(&bus, range).await;
        assert_eq!(rebuilt.inserted, 11);
        assert_eq!(replay_differences(&db).await, NOTHING);
        assert_eq!(contents(&db).await, before);
        let delayed: Vec<Value> = sqlx::query_scalar(
            "select payload from agent_messages where status = 'delayed' order by id",
        )
        .fetch_all(db.pool())
        .await
        .expect("read");
        assert_eq!(delayed, [json!("delayed"), json!(2)]);
        let first = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
        assert_eq!(first.message().payload, "high", "the rank is restored");
        let again = bus.publish(echo(json!("keyed")).with_idempotency_key("key")).await;
        assert!(again.expect("answered").duplicate, "the key is restored");
        assert_eq!(rebuild(&bus, range).await.inserted, 0, "there is nothing left to do");
    }
}

#[tokio::test]
async fn what_the_log_says_is_gone_goes_and_what_it_does_not_know_stays() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let week = Duration::from_secs(7 * 24 * 3600);
    publish(&bus, 2).await;
    db.advance(10 * week).await;
    bus.partition(1, 5 * week).await.expect("made");
    bus.partition(1, 5 * week).await.expect("dropped");
    publish(&bus, 3).await;
    // An old backup of the table brings back what was purged; somebody inserts what never was.
    sql(&db, "create table copies as select * from agent_messages").await;
    let claims = bus.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(claims.len(), 5);
    for claim in claims {
        claim.complete(json!(1)).await.expect("done");
    }
    db.advance(Duration::from_secs(1)).await;
    assert_eq!(bus.retain(Duration::ZERO, None, 10).await.expect("purged"), 5);
    sql(&db, "insert into agent_messages select * from copies").await;
    sql(
        &db,
        "insert into agent_messages select (jsonb_populate_record(null::agent_messages, to_jsonb(c)
            || jsonb_build_object('id', gen_random_uuid(), 'created_at', cogo.now()))).* from copies c limit 1",
    )
    .await;
    let rebuilt = rebuild(&bus, 2).await;
    assert_eq!((rebuilt.removed, rebuilt.inserted, rebuilt.replaced), (3, 0, 0));
    // Of two the log has lost the beginning, and so cannot say that they are gone.
    assert_eq!((rebuilt.unjudged, rebuilt.unknown), (2, 1));
    assert_eq!(count(&db, "agent_messages").await, 3);
    assert_eq!(replay_differences(&db).await.len(), 1, "the unknown one");
}

#[tokio::test]
async fn keys_that_were_swapped_find_back_even_across_ranges() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    for key in ["a", "b", "c"] {
        bus.publish(echo(json!(key)).with_idempotency_key(key)).await.expect("published");
    }
    sql(
        &db,
        "update agent_messages set idempotency_key = 'x' where payload = '\"a\"';
        update agent_messages set idempotency_key = 'a' where payload = '\"c\"';
        update agent_messages set idempotency_key = 'c' where payload = '\"a\"';",
    )
    .await;
    for range in [1, 10] {
        let rebuilt = rebuild(&bus, range).await;
        assert_eq!(rebuilt.replaced, if range == 1 { 2 } else { 0 });
        assert_eq!(replay_differences(&db).await, NOTHING);
    }
}

#[tokio::test]
async fn a_key_in_the_hands_of_what_the_log_cannot_judge_is_refused_and_nothing_is_written() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 2).await;
    let id =
        bus.publish(echo(json!("mine")).with_idempotency_key("key")).await.expect("published").id;
    sql(
        &db,
        "create table copies as select * from agent_messages where idempotency_key is not null;
        truncate agent_messages;
        insert into agent_messages select (jsonb_populate_record(null::agent_messages, to_jsonb(c)
            || jsonb_build_object('id', gen_random_uuid()))).* from copies c;",
    )
    .await;
    let error = bus.replay_rebuild(&Options::default(), |_| {}).await.expect_err("a conflict");
    assert_eq!(error.code(), Code::Conflict, "{error}");
    assert!(error.to_string().contains("idempotency key key"), "{error}");
    assert_eq!(count(&db, "agent_messages").await, 1);
    assert!(bus.message(id).await.is_err());
}

#[tokio::test]
async fn of_an_ordering_key_one_goes_at_a_time_and_in_order() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish_ordered(&db, &[0, 1, 2]).await;
    let claims = bus.claim(&request("w", 5)).await.expect("claimed");
    assert_eq!(claims.len(), 1, "the first alone");
    sql(&db, "truncate agent_messages").await;
    // While they were lost, a later one went ahead; it steps back, since nobody has it yet.
    publish_ordered(&db, &[3]).await;
    assert_eq!(rebuild(&bus, 2).await.inserted, 3);
    for n in 0..4 {
        let mut claims = bus.claim(&request("w", 5)).await.expect("claimed");
        assert_eq!(claims.len(), 1, "one at a time");
        let claim = claims.pop().expect("one");
        assert_eq!(claim.message().payload, n);
        claim.complete(json!(n)).await.expect("done");
    }
    assert_eq!(replay_differences(&db).await, NOTHING);

    // One that is in a worker's hands does not step back.
    publish_ordered(&db, &[5]).await;
    sql(&db, "delete from agent_messages where status <> 'done'").await;
    publish_ordered(&db, &[6]).await;
    let ahead = bus.claim(&request("w", 5)).await.expect("claimed").pop().expect("went ahead");
    assert_eq!(rebuild(&bus, 2).await.inserted, 1);
    assert_eq!(bus.claim(&request("w", 5)).await.expect("answered").len(), 0);
    ahead.complete(json!(6)).await.expect("done");
    let last = bus.claim(&request("w", 5)).await.expect("claimed").pop().expect("its turn");
    assert_eq!(last.message().payload, 5);
    assert_eq!(replay_differences(&db).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_for_it_and_readers_do_not() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 10).await;
    sql(&db, "truncate agent_messages").await;
    let (tell, is_stopped) = stopping();
    let tasks = Tasks::new();
    let rebuilding = {
        let bus = bus.clone();
        tasks.spawn(async move {
            let options = Options { range: 4, ..Options::default() };
            bus.replay_rebuild(&options, tell).await.expect("rebuilt")
        })
    };
    let go_on = tokio::task::block_in_place(|| is_stopped.recv_timeout(SOON)).expect("stopped");
    assert_eq!(count(&db, "agent_messages").await, 0, "read meanwhile, as it was");
    let writing = {
        let bus = bus.clone();
        tasks.spawn(async move { bus.publish(echo(json!("new"))).await.expect("published") })
    };
    let blocked =
        "select count(*) from pg_locks where not granted and relation = 'agent_messages'::regclass";
    crate::fixtures::eventually("the writer waits", async || {
        let waiting: i64 = sqlx::query_scalar(blocked).fetch_one(db.pool()).await.expect("read");
        (waiting > 0).then_some(())
    })
    .await;
    go_on.send(()).expect("it waits");
    assert_eq!(rebuilding.await.expect("ended").inserted, 10);
    writing.await.expect("written afterwards");
    assert_eq!(count(&db, "agent_messages").await, 11);
    assert_eq!(replay_differences(&db).await, NOTHING);
}

#[tokio::test]
async fn a_rebuild_that_is_cut_off_has_changed_nothing() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 6).await;
    sql(&db, "truncate agent_messages").await;
    let options = Options { range: 2, ..Options::default() };
    let written = tokio::sync::Notify::new();
    tokio::select! {
        biased;
        () = written.notified() => {}
        ended = bus.replay_rebuild(&options, |_| written.notify_one()) => panic!("{ended:?}"),
    }
    assert_eq!(count(&db, "agent_messages").await, 0);
    assert_eq!(rebuild(&bus, 2).await.inserted, 6, "and nothing is locked for good");
}
