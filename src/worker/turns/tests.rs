//! What the loop decides, without a database: nothing here is sent.

use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::error::Code;
use crate::message::MessageId;
use crate::retry::Policies;
use crate::worker::runner::Options;
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
    let pool = PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none");
    let options = Options {
        worker_id: "w1".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".parse().expect("a topic")],
        concurrency,
        prefetch: Prefetch::AtMost(prefetch),
        lease: Duration::from_secs(3600),
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
    let (asked, began) = (turns.starter.places.ask(1, 1, false, false), Stopwatch::start());
    let turn = Turn { batch: Gathered::default(), asked, heard: 0, began, answer: Err(error) };
    let ready = watch::channel(false).0;
    let goes_on = turns.end(turn, &ready).is_ok();
    assert_eq!(turns.pause.is_some(), goes_on, "not at once");
    goes_on
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
