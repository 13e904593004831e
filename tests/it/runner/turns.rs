//! Turns that are not answered, or refused, and what a worker does when it ends or is to be careful.

use std::sync::Arc;

use cogo::message::{MessageId, NewMessage};
use cogo::retry::Policies;
use cogo::shutdown::Shutdown;
use cogo::worker::Prefetch;
use cogo::worker::runner::{Options, Runner};
use tokio::sync::watch;

use super::*;
use crate::fixtures::topic;

/// Has the server give up each transaction that would finish more than `most` messages, as one whose time is over.
async fn overburden(db: &TestDb, most: u32) {
    let sql = format!(
        "create function public.overburden() returns trigger language plpgsql security definer as $$
        declare n constant int := coalesce(nullif(current_setting('test.finished', true), ''), '0')::int + 1;
        begin
            perform set_config('test.finished', n::text, true);
            if n > {most} then
                raise exception 'overburdened' using errcode = '57014';
            end if;
            return new;
        end $$;
        create trigger overburden before update on public.agent_messages for each row
            when (new.status = 'done') execute function public.overburden()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()).await.expect("overburdened");
}

/// How many transactions finished messages.
async fn finishing(db: &TestDb) -> i64 {
    let sql = "select count(distinct xid) from bus_events where event_type = 'echo_succeeded'";
    sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("counted")
}

async fn claimed(db: &TestDb) -> i64 {
    let sql = "select count(*) from agent_messages where status = 'claimed'";
    sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("counted")
}

/// Publishes what waits at the gate, in one batch, which no worker of this process takes.
async fn send(bus: &Bus, count: usize) -> Vec<MessageId> {
    let batch = vec![json!({"do": "pass"}); count].into_iter().map(echo);
    let batch: Vec<NewMessage> = batch.collect();
    let sent = bus.publish_all(&batch).await.expect("published");
    sent.into_iter().map(|receipt| receipt.id).collect()
}

fn options(concurrency: usize, prefetch: Prefetch) -> Options {
    Options {
        worker_id: "w1".to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic()],
        concurrency,
        prefetch,
        lease: LEASE,
    }
}

async fn start(bus: &Bus, options: Options) -> Running {
    let script = Scripted::new();
    let running = Running::start_as(script.clone(), options, bus, Policies::default()).await;
    Running { script, ..running }
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_its_time_is_made_smaller_until_it_goes_through() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    overburden(&db, 6).await;
    let sent = send(&bus, 40).await;
    let running = start(&bus, options(40, Prefetch::AtMost(0))).await;
    eventually("all are claimed", async || (claimed(&db).await == 40).then_some(())).await;
    running.script.gate.add_permits(40);
    for id in sent {
        let done = finished(&bus, id).await;
        assert_eq!((done.status, done.attempts), (Status::Done, 1));
    }
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn of_a_refused_batch_the_good_ones_arrive_in_a_few_round_trips() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    // A delay that the bus refuses, and the whole batch with it.
    let policies = json!({"echo": {"retry_on": ["connect"],
        "backoff": {"kind": "fixed", "delay_ms": 99_999_999_999u64}}});
    let running = Running::start(&bus, policies, LEASE, 128).await;
    let mut batch = vec![echo(json!({"do": "wait"})); 128];
    batch.iter_mut().for_each(|message| message.id = MessageId::new());
    batch[77].payload["then"] = json!("fail");
    let sent = bus.publish_all(&batch).await.expect("published");
    eventually("all are claimed", async || (claimed(&db).await == 128).then_some(())).await;
    running.script.gate.add_permits(128);
    for (at, receipt) in sent.iter().enumerate() {
        let ended = finished(&bus, receipt.id).await;
        let wanted = if at == 77 { Status::Failed } else { Status::Done };
        assert_eq!((ended.status, ended.attempts), (wanted, 1), "{at}");
    }
    let refused = bus.message(sent[77].id).await.expect("found").error.expect("an error");
    let says = refused["message"].as_str().expect("a text");
    assert!(says.starts_with("the result could not be stored"), "{says}");
    let calls = finishing(&db).await;
    assert!(calls <= 32, "{calls} calls for the others: it is found by halves");
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_runner_that_is_dropped_begins_nothing_any_more_and_lets_go_what_it_has() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let sent = send(&bus, 5).await;
    let script = Scripted::new();
    let (gate, begun) = (Arc::clone(&script.gate), Arc::clone(&script.begun));
    let lease = Duration::from_secs(5);
    let options = Options { lease, ..options(1, Prefetch::AtMost(9)) };
    let runner = Runner::new(script.clone(), options, bus.clone(), Policies::default());
    let (shutdown, ready) = (Shutdown::new(), watch::channel(false).0);
    let all_are_there = async {
        eventually("all wait in it", async || (claimed(&db).await == 5).then_some(())).await;
        script.have_begun(1).await;
    };
    tokio::select! {
        ended = runner.run(&shutdown, &ready) => panic!("{ended:?}"),
        () = all_are_there => {}
    }
    drop(script);
    // Nobody keeps the lease of what is being handled: it is not to go on beside who claims it next.
    eventually("its last task has ended", async || (Arc::strong_count(&gate) == 1).then_some(()))
        .await;
    assert_eq!(begun.available_permits(), 0, "one was begun before");
    let beside = bus.publish(echo(json!({}))).await.expect("published").id;
    assert_eq!(bus.message(beside).await.expect("found").status, Status::Queued);
    let running =
        start(&bus, Options { worker_id: "w2".to_owned(), ..self::options(4, Prefetch::Auto) })
            .await;
    running.script.gate.add_permits(5);
    for id in sent {
        let done = finished(&bus, id).await;
        assert_eq!((done.status, done.attempts), (Status::Done, 2), "its lease ran out");
    }
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn beside_what_a_worker_died_with_nothing_waits() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let urgent = echo(json!({"do": "pass"})).with_priority(9);
    let first = bus.publish(urgent).await.expect("published").id;
    send(&bus, 19).await;
    let short = cogo::bus::ClaimRequest {
        lease: Duration::from_millis(100),
        ..crate::fixtures::request("dead", 1)
    };
    assert_eq!(bus.claim(&short).await.expect("claimed").len(), 1);
    eventually("it is taken back", async || {
        bus.reap(10).await.expect("reaped");
        (bus.message(first).await.expect("found").status == Status::Queued).then_some(())
    })
    .await;
    let survivor = bus.message(first).await.expect("found");
    assert_eq!(survivor.error.expect("an error")["class"], "lease_expired");
    // It may have four waiting, and would.
    let running = start(&bus, options(1, Prefetch::AtMost(4))).await;
    let done = async || {
        let sql = "select count(*) from agent_messages where status = 'done'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(db.pool()).await.expect("counted")
    };
    for so_far in 0..20 {
        running.script.gate.add_permits(1);
        eventually("one more is done", async || {
            assert!(claimed(&db).await <= 1, "something waits after {so_far}");
            (done().await > so_far).then_some(())
        })
        .await;
    }
    running.stop().await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_in_a_worker_past_its_deadline_is_not_handled() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let first = echo(json!({"do": "pass"}));
    // Long enough for a worker to be started and to claim it, wherever this runs.
    let late = echo(json!({"do": "pass"})).with_deadline(Duration::from_secs(3));
    let sent = bus.publish_all(&[first, late]).await.expect("published");
    let running = start(&bus, options(1, Prefetch::AtMost(9))).await;
    until(&bus, sent[1].id, |message| message.status == Status::Claimed).await;
    // The worker counts from when the answer to its claim came, which was after it was claimed.
    let is_over = "select cogo.now() > deadline_at + interval '1 second' from agent_messages
        where deadline_at is not null";
    eventually("its deadline has passed", async || {
        let over: bool = sqlx::query_scalar(is_over).fetch_one(db.pool()).await.expect("asked");
        over.then_some(())
    })
    .await;
    running.script.gate.add_permits(9);
    assert_eq!(finished(&bus, sent[0].id).await.status, Status::Done);
    let late = finished(&bus, sent[1].id).await;
    assert_eq!(late.error.expect("an error")["class"], "deadline_exceeded");
    assert_eq!(running.script.gate.available_permits(), 8, "it was not begun");
    running.stop().await;
}
