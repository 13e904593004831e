use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

mod fleet;

const MS: Duration = Duration::from_millis(1);
const DONE: Outcome = Outcome::Done { took: MS };
const SICK: Outcome = Outcome::Failed { class: ErrorClass::Connect, took: MS };

fn id() -> Id {
    Id::new("default", "mcp.call.demo.echo.0")
}

/// Opens after four calls, half of them failed.
fn policy() -> Policy {
    Policy {
        window: Window::Count { calls: 10 },
        min_requests: 4,
        slow_call_ms: Some(100),
        half_open_max_calls: 2,
        ..Policy::default()
    }
}

fn row(state: State, version: i64) -> Remote {
    let open_for_ms = (state != State::Closed).then_some(1000);
    Remote { id: id(), state, forced: false, version, open_for_ms, prober: None }
}

fn probing(worker: &str, version: i64) -> Remote {
    Remote { prober: Some(worker.to_owned()), ..row(State::HalfOpen, version) }
}

/// The breakers of worker `me`, with one key and its policy.
struct One {
    breakers: Breakers,
    policy: Policy,
    now: Duration,
}

impl One {
    fn new(policy: Policy) -> Self {
        Self { breakers: Breakers::new("me"), policy, now: Duration::from_secs(5) }
    }

    fn at(row: &Remote) -> Self {
        let mut one = Self::new(policy());
        assert!(one.adopt(row));
        one
    }

    fn admit(&mut self) -> Admission {
        self.breakers.admit(&id(), &self.policy, self.now)
    }

    #[track_caller]
    fn permit(&mut self) -> Permit {
        match self.admit() {
            Admission::Admit(permit) => permit,
            other => panic!("not admitted but {other:?}"),
        }
    }

    fn ended(&mut self, permit: Permit, outcome: Outcome) -> Verdict {
        self.breakers.ended(&id(), permit, outcome, &self.policy, self.now)
    }

    fn call(&mut self, outcome: Outcome) -> Verdict {
        let permit = self.permit();
        self.ended(permit, outcome)
    }

    /// Three calls that fail: not enough to say anything.
    #[track_caller]
    fn fail_three_times(&mut self) {
        for _ in 0..3 {
            assert_eq!(self.call(SICK), Verdict::Nothing);
        }
    }

    /// One more, which is enough.
    #[track_caller]
    fn fail_and_propose(&mut self, version: i64) {
        match self.call(SICK) {
            Verdict::ProposeOpening { seen_version, .. } => assert_eq!(seen_version, version),
            other => panic!("not proposed but {other:?}"),
        }
    }

    fn adopt(&mut self, row: &Remote) -> bool {
        self.breakers.adopt(row, &self.policy, self.now)
    }

    fn state(&self) -> State {
        self.breakers.state(&id()).0
    }
}

#[test]
fn it_opens_exactly_when_the_window_says_so_and_never_below_min_requests() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let calls = rng.random_range(1..20);
        let mut one = One::new(Policy {
            window: Window::Count { calls },
            min_requests: rng.random_range(1..=calls),
            failure_rate: rng.random_range(0.1..=1.0),
            slow_call_rate: rng.random_range(0.1..=1.0),
            ..policy()
        });
        let (mut past, mut version) = (Vec::new(), 0);
        for _ in 0..100 {
            let (failed, slow) = (rng.random_bool(0.3), rng.random_bool(0.3));
            let took = MS * if slow { 100 } else { 99 };
            let outcome = match failed {
                true => Outcome::Failed { class: ErrorClass::Timeout, took },
                false => Outcome::Done { took },
            };
            past.push((failed, slow));
            let window: &[(bool, bool)] = &past[past.len().saturating_sub(calls as usize)..];
            #[allow(clippy::cast_precision_loss)] // a handful
            let share = |count: usize| count as f64 / window.len() as f64;
            let failure_rate = share(window.iter().filter(|(failed, _)| *failed).count());
            let slow_rate = share(window.iter().filter(|(_, slow)| *slow).count());
            let opens = window.len() >= one.policy.min_requests as usize
                && (failure_rate >= one.policy.failure_rate
                    || slow_rate >= one.policy.slow_call_rate);
            let verdict = one.call(outcome);
            if !opens {
                assert_eq!(verdict, Verdict::Nothing, "seed {seed}");
                continue;
            }
            let Verdict::ProposeOpening { seen_version, evidence } = verdict else {
                panic!("seed {seed}: {verdict:?}");
            };
            assert_eq!((seen_version, evidence.calls as usize), (version, window.len()));
            assert_eq!((evidence.failure_rate, evidence.slow_rate), (failure_rate, slow_rate));
            version += 1;
            assert!(one.adopt(&row(State::Closed, version)), "somebody closed it at once");
            past.clear();
        }
    }
}

#[test]
fn what_failed_long_ago_does_not_count_with_what_fails_now() {
    let mut one = One::new(Policy { window: Window::Time { ms: 1000 }, ..policy() });
    one.fail_three_times();
    one.now += MS * 1001;
    one.fail_three_times();
    one.fail_and_propose(0);
}

#[test]
fn a_server_that_answers_is_well_and_what_never_reached_it_says_nothing() {
    let failed = |class| Outcome::Failed { class, took: MS };
    for (class, verdict) in [
        (ErrorClass::Connect, Verdict::Report { ok: Some(false) }),
        (ErrorClass::Ambiguous, Verdict::Report { ok: Some(false) }),
        (ErrorClass::ToolError, Verdict::Report { ok: Some(true) }),
        (ErrorClass::InvalidParams, Verdict::Report { ok: None }),
        (ErrorClass::Internal, Verdict::Report { ok: None }),
        (ErrorClass::DeadlineExceeded, Verdict::Report { ok: None }),
    ] {
        assert_eq!(One::at(&probing("me", 1)).call(failed(class)), verdict, "{class}");
    }
    let mut one = One::at(&probing("me", 1));
    one.policy.failure_on = vec![ErrorClass::ToolError];
    let unlisted = one.call(failed(ErrorClass::Connect));
    assert_eq!(unlisted, Verdict::Report { ok: None }, "not listed, and no sign");
    let mut one = One::at(&probing("me", 1));
    one.policy.failure_on = vec![ErrorClass::ToolError];
    assert_eq!(one.call(failed(ErrorClass::ToolError)), Verdict::Report { ok: Some(false) });
}

#[test]
fn closed_admits_and_waits_while_an_opening_is_proposed() {
    let mut one = One::new(policy());
    let early: Vec<_> = (0..6).map(|_| one.permit()).collect();
    assert!(early.iter().all(|permit| !permit.is_probe()));
    for permit in &early[..3] {
        assert_eq!(one.ended(*permit, SICK), Verdict::Nothing);
    }
    assert_eq!(one.ended(early[3], Outcome::Unknown), Verdict::Nothing, "not counted");
    assert!(matches!(one.ended(early[4], SICK), Verdict::ProposeOpening { seen_version: 0, .. }));
    assert_eq!(one.admit(), Admission::Wait);
    assert_eq!(one.ended(early[5], SICK), Verdict::Nothing, "it is proposed already");
    one.breakers.unanswered(&id());
    one.fail_and_propose(0);
    // The task that should have asked is lost: nobody waits for ever.
    one.now += MS * 10_000;
    one.fail_and_propose(0);
    // The fleet does not agree: evidence is gathered anew.
    assert!(!one.adopt(&row(State::Closed, 0)));
    one.fail_three_times();
}

#[test]
fn open_parks_until_the_probe_may_be_asked_for() {
    let mut one = One::at(&row(State::Open, 3));
    assert_eq!(one.admit(), Admission::Park);
    one.now += MS * 999;
    assert_eq!(one.admit(), Admission::Park);
    one.now += MS;
    assert_eq!(one.admit(), Admission::AskForProbe);
    assert_eq!(one.admit(), Admission::Wait, "one question at a time");
    // Refused, with the same row: parked for as long as that says.
    assert!(!one.adopt(&row(State::Open, 3)));
    assert_eq!(one.admit(), Admission::Park);
    one.now += MS * 1000;
    assert_eq!(one.admit(), Admission::AskForProbe);
    one.breakers.unanswered(&id());
    assert_eq!(one.admit(), Admission::AskForProbe);
    one.now += MS * 10_000;
    assert_eq!(one.admit(), Admission::AskForProbe, "nobody waits for ever");
    assert!(one.adopt(&probing("me", 4)));
    assert!(one.permit().is_probe());
}

#[test]
fn what_an_operator_holds_moves_only_by_an_operator() {
    let held = |state| Remote { forced: true, open_for_ms: None, ..row(state, 2) };
    let mut open = One::at(&held(State::Open));
    open.now += Duration::from_secs(100_000);
    assert_eq!(open.admit(), Admission::Park);
    let mut closed = One::at(&held(State::Closed));
    for _ in 0..20 {
        assert_eq!(closed.call(SICK), Verdict::Nothing);
    }
    assert!(closed.adopt(&row(State::Closed, 3)), "reset");
    closed.fail_three_times();
    closed.fail_and_propose(3);
}

#[test]
fn our_half_open_admits_some_probes_and_reports_each() {
    let mut one = One::at(&probing("me", 4));
    let (first, second) = (one.permit(), one.permit());
    assert_eq!(one.admit(), Admission::Park, "no more than half_open_max_calls");
    assert_eq!(one.ended(first, DONE), Verdict::Report { ok: Some(true) });
    // The answer counts one success; the second probe is still in flight.
    assert!(one.adopt(&probing("me", 5)));
    let third = one.permit();
    assert_eq!(one.admit(), Admission::Park);
    let given_back = one.ended(third, Outcome::Unknown);
    assert_eq!(given_back, Verdict::Report { ok: None }, "its place is free again");
    let fourth = one.permit();
    assert_eq!(one.ended(second, SICK), Verdict::Report { ok: Some(false) });
    assert_eq!(one.admit(), Admission::Wait, "nobody follows a probe that failed");
    assert!(one.adopt(&row(State::Open, 6)));
    assert_eq!(one.ended(fourth, DONE), Verdict::Nothing, "of an earlier time");
    assert_eq!(one.admit(), Admission::Park);
}

#[test]
fn a_slow_probe_is_no_success() {
    let slow = Outcome::Done { took: MS * 100 };
    assert_eq!(One::at(&probing("me", 4)).call(slow), Verdict::Report { ok: Some(false) });
}

#[test]
fn the_prober_asks_anew_when_its_time_is_over_and_keeps_its_probes() {
    let mut one = One::at(&probing("me", 4));
    let probe = one.permit();
    one.now += MS * 1000;
    assert_eq!(one.admit(), Admission::AskForProbe);
    assert_eq!(one.admit(), Admission::Wait);
    assert!(!one.adopt(&probing("me", 4)), "granted, and nothing else has changed");
    let _second = one.permit();
    assert_eq!(one.admit(), Admission::Park);
    assert_eq!(one.ended(probe, DONE), Verdict::Report { ok: Some(true) });
}

#[test]
fn anothers_half_open_parks_until_its_time_is_over() {
    let mut one = One::at(&probing("another", 4));
    assert_eq!(one.admit(), Admission::Park);
    one.now += MS * 1000;
    assert_eq!(one.admit(), Admission::AskForProbe, "the prober has vanished");
    assert!(one.adopt(&probing("me", 5)));
    let probe = one.permit();
    assert!(one.adopt(&probing("another", 6)), "we were too slow ourselves");
    assert_eq!(one.ended(probe, DONE), Verdict::Nothing);
    assert_eq!(one.admit(), Admission::Park);
}

#[test]
fn an_older_row_is_ignored_and_a_newer_one_empties_the_window() {
    let mut one = One::at(&row(State::Open, 7));
    for older in [row(State::Closed, 6), probing("me", 6), row(State::Closed, -1)] {
        assert!(!one.adopt(&older));
        assert_eq!((one.state(), one.admit()), (State::Open, Admission::Park));
    }
    assert!(one.adopt(&row(State::Closed, 8)));
    let before = one.permit();
    one.fail_three_times();
    assert!(one.adopt(&row(State::Closed, 9)));
    assert_eq!(one.ended(before, SICK), Verdict::Nothing, "it began before");
    one.fail_three_times();
    one.fail_and_propose(9);
}

#[test]
fn a_disabled_breaker_does_not_open_by_itself_but_obeys() {
    let mut one = One::new(Policy { enabled: false, ..policy() });
    for _ in 0..20 {
        assert_eq!(one.call(SICK), Verdict::Nothing);
    }
    assert!(one.adopt(&row(State::Open, 1)));
    assert_eq!(one.admit(), Admission::Park);
    assert!(one.adopt(&probing("me", 2)));
    assert_eq!(one.call(DONE), Verdict::Report { ok: Some(true) });
}

#[test]
fn a_window_that_is_configured_anew_begins_anew() {
    let mut one = One::new(policy());
    one.fail_three_times();
    one.policy.window = Window::Count { calls: 5 };
    one.fail_three_times();
    one.fail_and_propose(0);
}

#[test]
fn memory_is_bounded_and_what_is_open_is_remembered() {
    let policy = policy();
    let mut breakers = Breakers::new("me");
    breakers.most = 50;
    let key = |n: u64| Id::new("default", format!("mcp.call.{n}"));
    let open = |n| Remote { id: key(n), ..row(State::Open, 1) };
    for n in 0..1000 {
        let now = Duration::from_secs(n);
        let _permit = breakers.admit(&key(n), &policy, now);
        if n < 10 {
            assert!(breakers.adopt(&open(n), &policy, now));
        }
        let _in_use = breakers.admit(&key(10), &policy, now);
        assert!(breakers.circuits.len() <= 50);
    }
    assert_eq!(breakers.open().count(), 10);
    assert!(breakers.circuits.contains_key(&key(10)), "used again and again");
    assert!(breakers.circuits.contains_key(&key(999)));
    assert!(!breakers.circuits.contains_key(&key(500)));
    // With no room at all calls go through unwatched, and nothing breaks.
    for n in 0..1000 {
        breakers.adopt(&open(n), &policy, Duration::ZERO);
    }
    assert_eq!((breakers.circuits.len(), breakers.open().count()), (50, 50));
    let Admission::Admit(permit) = breakers.admit(&key(5000), &policy, Duration::ZERO) else {
        panic!("not admitted");
    };
    assert_eq!(breakers.ended(&key(5000), permit, SICK, &policy, MS), Verdict::Nothing);
}

#[test]
fn a_key_that_the_database_cannot_hold_has_no_breaker() {
    let mut breakers = Breakers::new("me");
    let (longest, long, control) =
        ("\u{1f980}".repeat(300), "x".repeat(301), "mcp.call.demo.a\nb.0".to_owned());
    for (key, watched) in [(&longest, true), (&long, false), (&control, false)] {
        let id = Id::new("default", key);
        for _ in 0..20 {
            match breakers.admit(&id, &policy(), MS) {
                Admission::Admit(permit) => {
                    let verdict = breakers.ended(&id, permit, SICK, &policy(), MS);
                    assert!(
                        watched || verdict == Verdict::Nothing,
                        "it would be refused each time"
                    );
                }
                other => assert!(watched, "{other:?}"),
            }
        }
        assert_eq!(breakers.circuits.contains_key(&id), watched, "{} characters", key.len());
    }
}
