//! What the loop decides, without a database: nothing here is sent.

use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::error::Code;
use crate::message::{Message, MessageId};
use crate::retry::Policies;
use crate::worker::runner::Options;
use crate::worker::turns::answer::{HEAVY, WEIGHED_FROM};
use crate::worker::{Delivery, Failure, Output, Prefetch};

struct Idle;

impl Handler for Idle {
    async fn handle(&self, _: Delivery) -> Result<Output, Failure> {
        Ok(json!({}).into())
    }
}

fn runner() -> Runner<Idle> {
    runner_of(2, 4)
}

fn runner_of(concurrency: usize, prefetch: usize) -> Runner<Idle> {
    runner_with(concurrency, prefetch, Duration::from_secs(3600))
}

fn runner_with(concurrency: usize, prefetch: usize, lease: Duration) -> Runner<Idle> {
    let pool = PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none");
    let options = Options {
        worker_id: "w1".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".parse().expect("a topic")],
        concurrency,
        prefetch: Prefetch::AtMost(prefetch),
        lease,
    };
    Runner::new(Idle, options, Bus::new(pool.expect("lazy")), Policies::default())
}

fn turns<'r>(runner: &'r Runner<Idle>, shutdown: &'r Shutdown) -> Turns<'r, Idle> {
    let topics = runner.options.topics.clone().into();
    let in_flight = InFlight::new(runner.options.lease);
    Turns::new(runner, shutdown, topics, in_flight, &Tasks::new())
}

/// A handler has returned, and its result is handed in.
fn hand_in(turns: &Turns<'_, Idle>, id: MessageId, claim_no: i64) {
    turns.starter.in_flight.add((id, claim_no), Stopwatch::start());
    turns.starter.in_flight.begin((id, claim_no)).expect("it is held");
    assert!(turns.starter.in_flight.ended((id, claim_no), true));
    turns.starter.hand_in(Settle::refused(id, claim_no, json!({})));
}

fn claims(turns: &Turns<'_, Idle>) -> Vec<(MessageId, i64)> {
    turns.settles.settles.iter().map(|settle| (settle.id, settle.claim_no)).collect()
}

#[tokio::test]
async fn a_batch_never_names_a_message_twice() {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let mut woken = runner.bus.waker(Signal::Work);
    let (id, other) = (MessageId::new(), MessageId::new());
    hand_in(&turns, id, 1);
    hand_in(&turns, other, 1);
    turns.gather(&mut woken);
    assert_eq!(claims(&turns), [(id, 1), (other, 1)]);
    // It was taken away, claimed again, and handled again before that was sent.
    hand_in(&turns, id, 3);
    turns.gather(&mut woken);
    assert_eq!(claims(&turns), [(other, 1), (id, 3)]);
    // Or while a turn was under way that was not answered.
    let unanswered = std::mem::take(&mut turns.settles);
    hand_in(&turns, other, 4);
    turns.gather(&mut woken);
    turns.put_before(unanswered);
    assert_eq!(claims(&turns), [(id, 3), (other, 4)]);
}

#[tokio::test]
async fn a_drain_does_not_end_before_what_was_handed_in_is_sent() {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let mut woken = runner.bus.waker(Signal::Work);
    turns.gather(&mut woken);
    // After the loop has taken what there was, and before it looks whether it is over.
    let id = MessageId::new();
    hand_in(&turns, id, 1);
    turns.close();
    assert!(!turns.is_over(), "it is with nobody yet");
    shutdown.cancel();
    assert!(!turns.is_over(), "nor may it be left when the worker is to stop at once");
    turns.gather(&mut woken);
    assert!(!turns.is_over() && claims(&turns) == [(id, 1)]);
    let sent = std::mem::take(&mut turns.settles);
    assert!(!turns.is_over(), "it is not acknowledged");
    turns.starter.in_flight.remove((sent.settles[0].id, 1));
    assert!(turns.is_over());
}

#[tokio::test]
async fn a_turn_leaves_the_next_one_as_much_to_bring() {
    let (runner, shutdown) = (runner_of(100, 1000), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let mut woken = runner.bus.waker(Signal::Work);
    for _ in 0..10 {
        let all = turns.amounts.claims();
        turns.amounts.answered(all, all, 0);
    }
    (0..600).for_each(|_| hand_in(&turns, MessageId::new(), 1));
    turns.gather(&mut woken);
    assert!(turns.begin(), "there are enough");
    let left = turns.starter.places.ask(1, usize::MAX, true, false);
    assert_eq!(left.all(), 550, "half of what may be in hand");
    let _none = turns.starter.places.answered(left, Vec::new(), Stopwatch::start());
    // All that was brought is handled.
    (0..600).for_each(|_| hand_in(&turns, MessageId::new(), 1));
    turns.gather(&mut woken);
    assert!(turns.begin(), "beside the other");
    let left = turns.starter.places.ask(1, usize::MAX, true, false);
    assert_eq!(left.all(), 0, "both together ask for all");
    turns.starter.places.close();
}

#[tokio::test]
async fn where_only_a_turn_brings_more_half_as_many_settles_go_beside_it() {
    let (runner, shutdown) = (runner_of(100, 1000), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let mut woken = runner.bus.waker(Signal::Work);
    (0..600).for_each(|_| hand_in(&turns, MessageId::new(), 1));
    turns.gather(&mut woken);
    assert!(turns.begin());
    // Nothing is to be looked for, and no handler at work.
    (0..300).for_each(|_| hand_in(&turns, MessageId::new(), 1));
    turns.gather(&mut woken);
    turns.look = false;
    assert!(turns.begin());
    assert_eq!((turns.under_way.len(), turns.settles.len()), (2, 0));
}

/// What follows from a turn that brought `error`: whether it is tried again.
fn tries_again(answered: bool, error: Error) -> bool {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    turns.answered = answered;
    let goes_on = look(&mut turns, Err(error)).is_ok();
    assert_eq!(turns.pause.is_some(), goes_on, "not at once");
    goes_on
}

/// Ends a turn that asked for one message, and settled none.
#[allow(clippy::vec_box)] // as they come out of the rows
fn look(
    turns: &mut Turns<'_, Idle>,
    found: Result<Vec<Box<Message>>, Error>,
) -> Result<bool, Error> {
    let (asked, began) = (turns.starter.places.ask(1, 1, false, false), Stopwatch::start());
    let answer = found.map(|messages| (Vec::new(), messages));
    let turn = Turn { batch: Gathered::default(), asked, heard: turns.heard, began, answer };
    turns.end(turn, &watch::channel(false).0)
}

/// Ends a turn that settled `batch` and claimed nothing, with a failure that nobody foresaw.
fn fail_oddly(turns: &mut Turns<'_, Idle>, batch: Gathered) {
    let error = Error::Database { call: "bus_step", source: sqlx::Error::RowNotFound };
    let (asked, began) = (Asked::default(), Stopwatch::start());
    let turn = Turn { batch, asked, heard: 0, began, answer: Err(error) };
    turns.end(turn, &watch::channel(false).0).expect("it goes on");
}

#[tokio::test]
async fn a_right_that_is_missing_is_borne_for_a_while_and_then_told_with_what_to_do() {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let denied = || Error::Denied { call: "bus_step", message: "permission denied".to_owned() };
    assert!(!tries_again(false, denied()), "one that never worked is told at once");
    let mut turns = turns(&runner, &shutdown);
    look(&mut turns, Ok(Vec::new())).expect("answered");
    for _ in 0..3 {
        look(&mut turns, Err(denied())).expect("borne");
    }
    // Once it was answered, the time begins anew.
    assert!(turns.denied.is_some());
    look(&mut turns, Ok(Vec::new())).expect("answered");
    assert!(turns.denied.is_none());
    turns.denied_for = Duration::ZERO;
    let told = look(&mut turns, Err(denied())).expect_err("the time is over").to_string();
    assert!(told.starts_with("bus_step: permission denied") && told.contains("grant"), "{told}");
    turns.starter.places.close();
}

#[tokio::test]
async fn who_was_woken_while_a_turn_was_under_way_looks_again_whatever_another_found() {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let ask = |turns: &Turns<'_, Idle>| Turn {
        batch: Gathered::default(),
        asked: turns.starter.places.ask(1, 1, false, false),
        heard: turns.heard,
        began: Stopwatch::start(),
        answer: Ok((Vec::new(), Vec::new())),
    };
    let ready = watch::channel(false).0;
    let first = ask(&turns);
    turns.hear();
    // The second one passes over what the first has locked.
    let second = ask(&turns);
    turns.end(second, &ready).expect("it goes on");
    assert!(!turns.look);
    turns.end(first, &ready).expect("it goes on");
    assert!(turns.look, "it may have locked what it did not take");
    let third = ask(&turns);
    turns.end(third, &ready).expect("it goes on");
    assert!(!turns.look, "once");
}

#[tokio::test]
async fn after_a_large_claim_that_brought_much_and_fewer_than_asked_it_is_looked_again() {
    let (runner, shutdown) = (runner_of(100, 100), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    let mut woken = runner.bus.waker(Signal::Work);
    turns.close();
    for (want, bytes, looks) in
        [(100, HEAVY, true), (100, HEAVY / 2, false), (WEIGHED_FROM - 1, HEAVY, false)]
    {
        let asked = turns.starter.places.ask(want, want, true, false);
        assert_eq!(asked.all(), want);
        let messages = vec![heavy(bytes)];
        let turn = Turn {
            batch: Gathered::default(),
            asked,
            heard: turns.heard,
            began: Stopwatch::start(),
            answer: Ok((Vec::new(), messages)),
        };
        turns.end(turn, &watch::channel(false).0).expect("it goes on");
        assert_eq!(woken.rang(), looks, "{bytes} bytes of {want}");
    }
}

/// A message of so many bytes.
fn heavy(bytes: usize) -> Box<Message> {
    let message = json!({
        "id": MessageId::new(), "tenant": "default", "service": "default", "role": "echo", "shard": 0, "intent": "echo",
        "payload": "x".repeat(bytes), "trace_id": crate::message::TraceId::new(), "parent_id": null,
        "idempotency_key": null, "priority": 0, "status": "claimed", "attempts": 1, "max_attempts": 5, "claim_no": 1,
        "run_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    });
    Box::new(serde_json::from_str(&message.to_string()).expect("a message"))
}

#[tokio::test]
async fn a_settle_that_fails_alone_holds_nobody_up_and_is_given_up_after_a_lease() {
    let lease = Duration::from_millis(300);
    let (runner, shutdown) = (runner_with(2, 4, lease), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    turns.answered = true;
    let mut woken = runner.bus.waker(Signal::Work);
    let (bad, good) = (MessageId::new(), MessageId::new());
    hand_in(&turns, bad, 1);
    turns.gather(&mut woken);
    let batch = std::mem::take(&mut turns.settles);
    hand_in(&turns, good, 1);
    turns.gather(&mut woken);
    fail_oddly(&mut turns, batch);
    assert_eq!(claims(&turns), [(good, 1), (bad, 1)], "it goes behind");
    assert!(turns.aside && turns.look, "and is left out for a turn");
    turns.settles.take(1);
    let began = Stopwatch::start();
    while began.elapsed() < lease {
        // Its lease is extended, as by the keeper.
        turns.starter.in_flight.renewed(&[(bad, 1)], Stopwatch::start());
        let batch = std::mem::take(&mut turns.settles);
        assert_eq!(batch.len(), 1, "it is sent again");
        fail_oddly(&mut turns, batch);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    turns.starter.in_flight.renewed(&[(bad, 1)], Stopwatch::start());
    let batch = std::mem::take(&mut turns.settles);
    fail_oddly(&mut turns, batch);
    assert!(turns.settles.is_empty() && !turns.starter.in_flight.is_newest((bad, 1)));
}

#[tokio::test]
async fn a_settle_outlives_a_database_that_is_away_for_longer_than_its_lease() {
    let lease = Duration::from_millis(50);
    let (runner, shutdown) = (runner_with(2, 4, lease), Shutdown::new());
    let mut turns = turns(&runner, &shutdown);
    turns.answered = true;
    let mut woken = runner.bus.waker(Signal::Work);
    let id = MessageId::new();
    hand_in(&turns, id, 1);
    turns.gather(&mut woken);
    for _ in 0..10 {
        // Nobody extends its lease either.
        let batch = std::mem::take(&mut turns.settles);
        fail_oddly(&mut turns, batch);
        tokio::time::sleep(lease / 4).await;
    }
    assert_eq!(claims(&turns), [(id, 1)]);
}

#[tokio::test]
async fn a_look_that_fails_ends_the_worker_where_it_is_wrong_or_none_was_ever_answered() {
    let odd = |source| Error::Database { call: "bus_step", source };
    let refused = || Error::Refused { code: Code::Forbidden, message: "no".to_owned() };
    // Such as a pooler's own failure, which has no SQLSTATE of those that pass.
    assert!(tries_again(true, odd(sqlx::Error::RowNotFound)));
    assert!(!tries_again(false, odd(sqlx::Error::RowNotFound)));
    assert!(!tries_again(true, refused()) && !tries_again(false, refused()));
    assert!(!tries_again(true, odd(sqlx::Error::PoolClosed)), "nobody is left to ask");
    assert!(tries_again(false, odd(sqlx::Error::PoolTimedOut)));
}

#[tokio::test]
async fn handlers_are_let_go_with_the_loop_however_it_ends() {
    let (runner, shutdown) = (runner(), Shutdown::new());
    let turns = turns(&runner, &shutdown);
    let stop = turns.starter.stop.clone();
    assert!(!stop.is_cancelled());
    drop(turns);
    assert!(stop.is_cancelled() && !shutdown.cancelled().is_cancelled(), "those of this one alone");
}
