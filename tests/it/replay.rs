//! Verify: the log against the table, range by range, while work goes on.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::bus::replay::{Options, Report, Verdict};
use cogo::error::Code;
use cogo::event::Cursor;
use cogo::message::MessageId;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use rand::RngExt as _;
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::fixtures::{SOON, echo, publish, replay_differences, request, stopping, verify};

async fn sql(db: &TestDb, text: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(db.pool()).await.expect(text);
}

/// The id of the message whose payload is this number.
async fn id_of(db: &TestDb, payload: i32) -> MessageId {
    sqlx::query_scalar("select id from agent_messages where payload = $1")
        .bind(json!(payload))
        .fetch_one(db.pool())
        .await
        .expect("there")
}

/// A pool that acts with the rights of `role`.
fn acting_as(db: &TestDb, role: &str) -> PgPool {
    PgPoolOptions::new().connect_lazy_with(db.connect_options().options([("role", role)]))
}

fn found(report: &Report) -> Vec<(MessageId, Verdict)> {
    report.differences.iter().map(|found| (found.id, found.verdict)).collect()
}

#[tokio::test]
async fn all_kinds_of_damage_are_found_in_ranges_of_any_size() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 8).await;
    for claim in bus.claim(&request("w", 3)).await.expect("claimed") {
        claim.fail(json!({"class": "connect"}), None).await.expect("dead");
    }
    sql(&db, "create table copies as select * from agent_messages where status = 'failed'").await;
    let dropped = bus.dead_letters(&Default::default(), 1).await.expect("listed")[0].message.id;
    bus.drop_dead_letters(&[dropped], None).await.expect("dropped");
    let (damaged, lost) = (id_of(&db, 5).await, id_of(&db, 6).await);
    for range in [1, 3, 1000] {
        let report = verify(&bus, range).await;
        assert!(report.is_exact(), "{report:?}");
        assert_eq!((report.messages, report.events, report.unjudged), (7, 8 + 3 * 2 + 1, 0));
    }

    sql(
        &db,
        &format!(
            "update agent_messages set priority = 9, payload = '\"x\"' where id = '{damaged}'"
        ),
    )
    .await;
    sql(&db, &format!("delete from agent_messages where id = '{lost}'")).await;
    sql(&db, &format!("insert into agent_messages select * from copies where id = '{dropped}'"))
        .await;
    let forged = MessageId::new();
    let forge = format!(
        "insert into agent_messages select (jsonb_populate_record(null::agent_messages,
            to_jsonb(c) || jsonb_build_object('id', '{forged}'))).* from copies c where id = '{dropped}'"
    );
    sql(&db, &forge).await;
    for range in [1, 3, 1000] {
        let report = verify(&bus, range).await;
        let mut expected = vec![
            (damaged, Verdict::Differs),
            (lost, Verdict::Missing),
            (dropped, Verdict::Extra),
            (forged, Verdict::Unknown),
        ];
        expected.sort_by_key(|(id, _)| *id);
        assert_eq!(found(&report), expected);
        assert_eq!((report.differing, report.missing, report.extra, report.unknown), (1, 1, 1, 1));
        assert_eq!(report.messages, 5, "the others are as the log says");
        let fields =
            &report.differences.iter().find(|found| found.id == damaged).expect("told").fields;
        let told: Vec<_> = fields
            .iter()
            .map(|f| (f.field.as_str(), f.in_table.as_deref(), f.in_log.as_deref()))
            .collect();
        assert_eq!(told, [("payload", Some("x"), Some("5")), ("priority", Some("9"), Some("0"))]);
    }
    assert_eq!(replay_differences(&db).await.len(), 4);
}

#[tokio::test]
async fn what_is_shown_is_bounded_and_what_is_counted_is_not() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 30).await;
    sql(&db, "update agent_messages set payload = to_jsonb(repeat('x', 5000))").await;
    for range in [4, 1000] {
        let options = Options { range, show: 7 };
        let report = bus.replay_verify(&options, |_| {}).await.expect("verified");
        assert_eq!((report.differing, report.differences.len()), (30, 7));
        let value = report.differences[6].fields[0].in_table.as_deref();
        assert_eq!(value.map(str::len), Some(200));
    }
    let options = Options { show: 0, ..Options::default() };
    let report = bus.replay_verify(&options, |_| {}).await.expect("verified");
    assert_eq!((report.differing, report.differences.len()), (30, 0));
}

#[tokio::test]
async fn what_was_purged_is_not_missed_however_much_it_is() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 50).await;
    let claims = bus.claim(&request("w", 40)).await.expect("claimed");
    let mut again = Vec::new();
    for claim in claims {
        let message = claim.message();
        if message.payload.as_u64().is_some_and(|n| n % 10 == 0) {
            let mut message = echo(json!("again"));
            message.id = claim.message().id;
            again.push(message);
        }
        claim.complete(json!(1)).await.expect("done");
    }
    db.advance(Duration::from_secs(2)).await;
    for _ in 0..4 {
        assert_eq!(bus.retain(Duration::from_secs(1), None, 10).await.expect("purged"), 10);
    }
    // Ids that come back, and one that is purged a second time.
    bus.publish_all(&again).await.expect("published");
    assert_eq!(again.len(), 4);
    for claim in bus.claim(&request("w", 20)).await.expect("claimed") {
        if claim.message().id == again[0].id {
            claim.complete(json!(2)).await.expect("done");
        }
    }
    db.advance(Duration::from_secs(2)).await;
    assert_eq!(bus.retain(Duration::from_secs(1), None, 10).await.expect("purged"), 1);
    for range in [1, 2, 7, 1000] {
        let report = verify(&bus, range).await;
        assert!(report.is_exact(), "{report:?}");
        assert_eq!(report.messages, 10 + 3);
        assert_eq!(report.events, 50 + 40 + 4 + 1);
    }
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_lost_its_beginning_with_a_partition_is_counted_and_not_judged() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let week = Duration::from_secs(7 * 24 * 3600);
    publish(&bus, 3).await;
    db.advance(10 * week).await;
    publish(&bus, 2).await;
    bus.partition(1, 20 * week).await.expect("kept");
    bus.partition(1, 5 * week).await.expect("dropped");
    // Tampering cannot be seen where nothing is left to compare with; where it can, it is.
    sql(&db, "update agent_messages set priority = 1").await;
    let report = verify(&bus, 2).await;
    assert_eq!((report.unjudged, report.differing, report.messages), (3, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_while_work_goes_on_and_holds_up_neither_writers_nor_readers_of_the_log() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 20).await;
    let waiting = bus.claim(&request("w", 5)).await.expect("claimed");
    let (tell, is_stopped) = stopping();
    let verifying = {
        let bus = bus.clone();
        Tasks::new().spawn(async move {
            let options = Options { range: 4, ..Options::default() };
            bus.replay_verify(&options, tell).await.expect("verified")
        })
    };
    let go_on = tokio::task::block_in_place(|| is_stopped.recv_timeout(SOON)).expect("stopped");
    // Behind it and before it: new messages, other states, a purge.
    for claim in waiting {
        claim.complete(json!(1)).await.expect("done");
    }
    assert_eq!(bus.retain(Duration::ZERO, None, 3).await.expect("purged"), 3);
    let end = bus.log_end().await.expect("answered");
    let new = bus.publish(echo(json!("new"))).await.expect("published").id;
    let seen = async {
        loop {
            let events =
                bus.read_events(Cursor::START.max(end), 100, &json!({})).await.expect("read");
            if events.iter().any(|event| event.message_id == Some(new)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the log is read on meanwhile");
    go_on.send(()).expect("it waits");
    let report = verifying.await.expect("ended");
    assert!(report.is_exact(), "{report:?}");
    assert_eq!((report.messages, report.events), (20, 20), "as it was when it began");
    let report = verify(&bus, 4).await;
    assert!(report.is_exact(), "{report:?}");
    assert_eq!((report.messages, report.events), (18, 26));
}

#[tokio::test]
async fn it_is_exact_again_and_again_under_everything_at_once() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 50).await;
    let stop = Shutdown::new();
    let tasks = Tasks::new();
    for n in 0..4 {
        let (bus, stop) = (Bus::new(db.pool().clone()), stop.draining().clone());
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                publish(&bus, 5).await;
                for claim in bus.claim(&request(&format!("w{n}"), 8)).await.expect("claimed") {
                    let id = claim.message().id;
                    let dice = rand::rng().random_range(0..5);
                    match dice {
                        0 => drop(claim.fail(json!({"class": "connect"}), None).await),
                        1 => drop(claim.release(Duration::ZERO, "test").await),
                        2 => drop(bus.cancel(&[id], None).await),
                        _ => drop(claim.complete(json!(n)).await),
                    }
                    if rand::rng().random_bool(0.2) {
                        drop(bus.requeue(&[id], None).await);
                    }
                }
                bus.retain(Duration::ZERO, None, 10).await.expect("purged");
            }
        });
    }
    let mut lengths = Vec::new();
    for _ in 0..12 {
        let report = verify(&bus, 25).await;
        assert!(report.is_exact(), "{report:?}");
        lengths.push(report.events);
    }
    stop.drain();
    assert!(tasks.join(SOON).await, "the callers end");
    assert!(lengths.first() < lengths.last(), "work went on meanwhile: {lengths:?}");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn it_needs_the_rights_of_an_operator_and_no_more() {
    let db = TestDb::new().await;
    publish(&Bus::new(db.pool().clone()), 3).await;
    let report = verify(&Bus::new(acting_as(&db, "cogo_operator")), 2).await;
    assert_eq!((report.is_exact(), report.messages), (true, 3));
    let worker = Bus::new(acting_as(&db, "cogo_bus"));
    let error = worker.replay_verify(&Options::default(), |_| {}).await.expect_err("no operator");
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    assert!(error.to_string().contains("cogo_operator"), "{error}");
    let error = worker.replay_rebuild(&Options::default(), |_| {}).await.expect_err("no operator");
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    let options = Options { range: 0, ..Options::default() };
    let operator = Bus::new(acting_as(&db, "cogo_operator"));
    let error = operator.replay_verify(&options, |_| {}).await.expect_err("out of range");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[tokio::test]
async fn deadlines_orders_new_params_and_ends_without_a_try_fold_as_well() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let call = async |statement: &str, batch: Value| {
        let statement = format!("select count(*) from {statement}");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(batch)
            .execute(db.pool())
            .await
            .expect("called");
    };
    let message = |extra: Value| {
        let mut message = json!({"id": MessageId::new(), "role": "echo", "service": "default",
            "intent": "echo", "payload": {"params": {"n": 1}, "tool": "t"}});
        message.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        message
    };
    let late = message(json!({"deadline_ms": 1500}));
    let ordered: Vec<Value> = (0..3).map(|_| message(json!({"ordering_key": "k"}))).collect();
    call("bus_enqueue($1)", json!([late, ordered[0], ordered[1], ordered[2]])).await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    db.advance(Duration::from_secs(2)).await;
    assert_eq!(bus.reap(10).await.expect("reaped").dead, 1, "too late, and never tried");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    let requeue = json!([{"id": late["id"], "params": {"n": 2}, "max_attempts": 9}]);
    call("bus_requeue($1)", requeue).await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    // Once more without new params: the last ones stay.
    db.advance(Duration::from_secs(2)).await;
    assert_eq!(bus.reap(10).await.expect("reaped").dead, 1);
    call("bus_requeue($1)", json!([{"id": late["id"]}])).await;
    let report = verify(&bus, 1).await;
    assert!(report.is_exact(), "{report:?}");
    assert_eq!(report.messages, 4);
    let folded: (Value, i32, bool, i64) = sqlx::query_as(
        "select payload, max_attempts, deadline_at = updated_at + interval '1500 ms',
                (select count(distinct ordering_no) from cogo.replayed_messages where ordering_key = 'k')
            from cogo.replayed_messages where deadline_ms is not null",
    )
    .fetch_one(db.pool())
    .await
    .expect("folded");
    assert_eq!(folded, (json!({"params": {"n": 2}, "tool": "t"}), 9, true, 3));
}
