//! The log: readers never skip, it folds to the table, and the old leaves by whole partitions.

use std::time::Duration;

use cogo::bus::{Bus, Feed};
use cogo::event::Cursor;
use cogo::message::Status;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{SOON, count, echo, eventually, publish, replay_differences, request};

async fn read(bus: &Bus, after: Cursor) -> Vec<cogo::event::Event> {
    bus.read_events(after, 1000, &json!({})).await.expect("read")
}

#[tokio::test]
async fn a_reader_waits_for_what_commits_late_instead_of_skipping_it() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let batch = |n: i32| json!([echo(json!(n))]);
    let enqueue = "select * from bus_enqueue($1)";
    let mut late = db.pool().begin().await.expect("begun");
    sqlx::query(enqueue).bind(batch(1)).fetch_all(&mut *late).await.expect("written");
    sqlx::query(enqueue).bind(batch(2)).fetch_all(db.pool()).await.expect("committed");

    // The second is committed, with the higher number; but the first may still come.
    assert_eq!(read(&bus, Cursor::START).await, []);
    late.commit().await.expect("committed");
    let payloads = eventually("both are read", async || {
        // Other tests' transactions may hold the horizon for a moment.
        let events = read(&bus, Cursor::START).await;
        (events.len() == 2)
            .then(|| events.into_iter().map(|e| e.payload["payload"].clone()).collect())
    });
    let payloads: Vec<Value> = payloads.await;
    assert_eq!(payloads, [json!(1), json!(2)]);
}

#[tokio::test]
async fn concurrent_writers_are_read_once_each_whatever_the_batch() {
    const WRITERS: usize = 8;
    const EACH: usize = 50;
    let db = TestDb::new().await;
    let tasks = Tasks::new();
    for _ in 0..WRITERS {
        let bus = Bus::new(db.pool().clone());
        tasks.spawn(async move {
            for n in 0..EACH {
                bus.publish(echo(json!(n))).await.expect("published");
            }
        });
    }
    let bus = Bus::new(db.pool().clone());
    let mut seen = Vec::new();
    let reading = async {
        let mut cursor = Cursor::START;
        while seen.len() < WRITERS * EACH {
            let events = bus.read_events(cursor, 7, &json!({})).await.expect("read");
            for event in events {
                assert!(event.cursor > cursor, "the log is read in order");
                cursor = event.cursor;
                seen.push(event.id);
            }
        }
    };
    tokio::time::timeout(SOON, reading).await.expect("all is read in time");
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), WRITERS * EACH);
}

#[tokio::test]
async fn a_filter_narrows_and_a_bad_one_is_refused_by_name() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let first = bus.publish(echo(json!(1))).await.expect("published");
    let second = bus.publish(echo(json!(2))).await.expect("published");
    let claim = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
    claim.complete(json!(1)).await.expect("settled");
    let ids = async |filter: Value| {
        let wanted = if filter.get("types").is_some() { 2 } else { 1 };
        eventually("the events are visible", async || {
            let events = bus.read_events(Cursor::START, 10, &filter).await.expect("read");
            (events.len() >= wanted)
                .then(|| events.iter().map(|e| e.message_id).collect::<Vec<_>>())
        })
        .await
    };
    assert_eq!(ids(json!({"message_id": second.id})).await, [Some(second.id)]);
    assert_eq!(ids(json!({"worker_id": "w"})).await, [Some(first.id)]);
    assert_eq!(ids(json!({"types": ["echo_scheduled"]})).await, [Some(first.id), Some(second.id)]);
    for (filter, text) in [
        (json!({"colour": 1}), "filter.colour: "),
        (json!({"trace_id": "x"}), "filter.trace_id: "),
        (json!({"message_id": null}), "filter.message_id: "),
        (json!({"types": "x"}), "filter.types: "),
        (json!({"tenant": null}), "filter.tenant: "),
        (json!({"worker_id": 7}), "filter.worker_id: "),
        (json!([]), "filter: must be an object"),
    ] {
        let error = bus.read_events(Cursor::START, 10, &filter).await.expect_err(text);
        assert!(error.to_string().starts_with(text), "expected {text:?}, got {error}");
    }
}

#[tokio::test]
async fn the_end_of_the_log_is_before_what_comes_next() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 3).await;
    // A transaction elsewhere on the server, such as another test's, holds back what is visible of the log.
    eventually("what was written is visible", async || {
        (read(&bus, Cursor::START).await.len() == 3).then_some(())
    })
    .await;
    let end = bus.log_end().await.expect("answered");
    let next = bus.publish(echo(json!("next"))).await.expect("published");
    let events = eventually("the next is read", async || {
        let events = read(&bus, end).await;
        events.iter().any(|event| event.message_id == Some(next.id)).then_some(events)
    })
    .await;
    assert!(events.iter().all(|event| event.payload["payload"] != json!(0)), "the old is not read");
}

#[tokio::test]
async fn a_waiter_is_told_when_its_message_is_finished() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let id = bus.publish(echo(json!(1))).await.expect("published").id;
    let settle = async {
        let claim = bus.claim(&request("w", 1)).await.expect("claimed").pop().expect("one");
        claim.complete(json!("the result")).await.expect("settled");
    };
    let (message, ()) = tokio::join!(feed.wait(id, SOON), settle);
    let message = message.expect("found");
    assert_eq!((message.status, message.result), (Status::Done, Some(json!("the result"))));
    shutdown.drain();
    assert!(tasks.join(SOON).await, "the feed ends");
}

#[tokio::test]
async fn what_a_transition_writes_cannot_be_appended_by_hand() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let append = async |event: Value| bus.append_event(event).await;
    append(json!({"event_type": "mcp_call_progress", "payload": {"done": 0.5}}))
        .await
        .expect("appended");
    for (event, text) in [
        (
            json!({"event_type": "mcp_call_succeeded"}),
            "events[0].event_type: mcp_call_succeeded is written",
        ),
        (json!({"event_type": "mcp_call_retry_scheduled"}), "events[0].event_type: mcp_call_retry"),
        (json!({"event_type": "messages_purged"}), "events[0].event_type: messages_purged is"),
        (json!({"event_type": "Bad"}), "events[0].event_type: must be"),
        (json!({"event_type": "a", "payload": 1}), "events[0].payload: "),
        (json!({"event_type": "a", "trace_id": "x"}), "events[0].trace_id: "),
        (
            json!({"event_type": "a", "payload": {"x": "y".repeat(70_000)}}),
            "events[0]: at most 64 KiB",
        ),
    ] {
        let error = append(event).await.expect_err(text);
        assert!(error.to_string().starts_with(text), "expected {text:?}, got {error}");
    }
    assert_eq!(count(&db, "bus_events").await, 1);
}

#[tokio::test]
async fn finished_messages_leave_by_retention_and_the_log_says_which() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let day = Duration::from_secs(24 * 3600);
    publish(&bus, 3).await;
    for claim in bus.claim(&request("w", 2)).await.expect("claimed") {
        if claim.message().payload == 0 {
            claim.complete(json!(1)).await.expect("settled");
        } else {
            claim.fail(json!({"class": "connect"}), None).await.expect("settled");
        }
    }
    assert_eq!(bus.retain(day, None, 100).await.expect("retained"), 0, "nothing is old yet");
    db.advance(day + Duration::from_secs(1)).await;
    assert_eq!(bus.retain(day, None, 100).await.expect("retained"), 1, "the one that is done");
    assert_eq!(count(&db, "agent_messages").await, 2, "what waits and what is dead stays");
    assert_eq!(
        bus.retain(day, Some(day), 100).await.expect("retained"),
        1,
        "the dead one, if asked"
    );
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_when_all_in_them_is_old() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let week = Duration::from_secs(7 * 24 * 3600);
    publish(&bus, 1).await;
    assert_eq!(bus.partition(4, 5 * week).await.expect("kept"), [], "the migration made them");

    // Nobody looked after the log for ten weeks: an append finds no partition, and does not fail.
    db.advance(10 * week).await;
    publish(&bus, 1).await;
    assert_eq!(count(&db, "cogo.bus_events_rest").await, 1);
    let did = bus.partition(1, 20 * week).await.expect("kept");
    assert_eq!(did.iter().filter(|(_, what)| what == "made").count(), 2);
    assert_eq!(count(&db, "cogo.bus_events_rest").await, 0, "its events moved where they belong");
    assert_eq!(count(&db, "bus_events").await, 2);

    let did = bus.partition(1, 5 * week).await.expect("kept");
    assert_eq!(did.len(), 5, "{did:?}");
    assert!(did.iter().all(|(_, what)| what == "dropped"));
    assert_eq!(count(&db, "bus_events").await, 1);
    assert_eq!(
        replay_differences(&db).await,
        Vec::<String>::new(),
        "what the log still holds is proven"
    );
}

#[tokio::test]
async fn the_proof_notices_a_table_that_was_tampered_with() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, 2).await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    sqlx::query("update agent_messages set priority = 9 where payload = '0'")
        .execute(db.pool())
        .await
        .expect("the owner may");
    sqlx::query("delete from agent_messages where payload = '1'")
        .execute(db.pool())
        .await
        .expect("the owner may");
    let differences = replay_differences(&db).await;
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences.iter().any(|text| text.contains("priority is 9 in the table and 0")));
    assert!(differences.iter().any(|text| text.contains("missing in table")));
}

#[tokio::test]
async fn partitioning_gets_along_with_readers_and_writers() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let week = Duration::from_secs(7 * 24 * 3600);
    let stop = Shutdown::new();
    let tasks = Tasks::new();
    let mut busy = Vec::new();
    for n in 0..4 {
        let (pool, stop) = (db.pool().clone(), stop.draining().clone());
        busy.push(tasks.spawn(async move {
            while !stop.is_cancelled() {
                // Straight to the database: the client would hide a deadlock behind its retry.
                let result = if n % 2 == 0 {
                    let batch = json!([echo(json!(n))]);
                    sqlx::query("select bus_enqueue($1)").bind(batch).execute(&pool).await
                } else {
                    sqlx::query("select count(*) from bus_events").execute(&pool).await
                };
                result.expect("no deadlock");
            }
        }));
    }
    for _ in 0..10 {
        db.advance(10 * week).await;
        bus.partition(2, 5 * week).await.expect("kept");
    }
    stop.drain();
    for task in busy {
        task.await.expect("nobody was a victim");
    }
}

#[tokio::test]
async fn partitions_begin_on_mondays_in_utc_whatever_the_session_calls_a_time() {
    let db = TestDb::new().await;
    let mut connection = db.pool().acquire().await.expect("connected");
    // Here a time is written with an abbreviation that is read as another zone's.
    sqlx::raw_sql("set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kolkata'")
        .execute(&mut *connection)
        .await
        .expect("set");
    sqlx::query("select bus_partition(9)").execute(&mut *connection).await.expect("made");
    let bounds: Vec<String> = sqlx::query_scalar(
        "select pg_get_expr(c.relpartbound, c.oid) from pg_inherits i
            join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'bus_events'::regclass and c.relname ~ '[0-9]{8}$'",
    )
    .fetch_all(db.pool())
    .await
    .expect("listed");
    assert_eq!(bounds.len(), 10);
    assert!(bounds.iter().all(|bound| bound.matches(" 00:00:00+00").count() == 2), "{bounds:?}");
}

#[tokio::test]
async fn two_buses_of_one_process_wake_each_other_without_the_database() {
    let db = TestDb::new().await;
    let here = Bus::new(db.pool().clone());
    // A pool that leads nowhere: whatever wakes this bus did not come from the database.
    let nowhere = sqlx::postgres::PgPoolOptions::new()
        .connect_lazy("postgres://nobody@127.0.0.1:1/nothing")
        .expect("a URL");
    let beside = here.beside(nowhere);
    let mut woken = beside.waker(cogo::bus::Signal::Work);
    here.publish(echo(json!(1))).await.expect("published");
    tokio::time::timeout(SOON, woken.woken()).await.expect("woken in time");
}
