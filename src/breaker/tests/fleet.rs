//! A fleet against a database that is as simple as it can be.

use std::collections::BTreeMap;

use super::*;

/// Who asks first opens and probes; some successes close.
struct Database {
    row: Remote,
    until: Duration,
    successes: u32,
    log: Vec<State>,
}

impl Database {
    fn row(&self, now: Duration) -> Remote {
        let left = u64::try_from(self.until.saturating_sub(now).as_millis()).expect("some seconds");
        Remote {
            open_for_ms: (self.row.state != State::Closed).then_some(left),
            ..self.row.clone()
        }
    }

    fn change(&mut self, state: State, prober: Option<&str>, until: Duration) {
        if state != self.row.state {
            self.log.push(state);
        }
        let version = self.row.version + 1;
        let prober = prober.map(ToOwned::to_owned);
        self.row = Remote { state, version, prober, ..self.row.clone() };
        (self.until, self.successes) = (until, 0);
    }

    fn open(&mut self, seen_version: i64, until: Duration) {
        if self.row.state == State::Closed && self.row.version == seen_version {
            self.change(State::Open, None, until);
        }
    }

    fn probe(&mut self, worker: &str, now: Duration) {
        let ours = self.row.prober.as_deref() == Some(worker);
        if self.row.state != State::Closed && (now >= self.until || ours) {
            self.change(State::HalfOpen, Some(worker), now + MS * 500);
        }
    }

    fn report(&mut self, worker: &str, ok: Option<bool>, policy: &Policy, until: Duration) {
        if self.row.state != State::HalfOpen || self.row.prober.as_deref() != Some(worker) {
            return;
        }
        let Some(ok) = ok else { return };
        self.successes += 1;
        if !ok {
            self.change(State::Open, None, until);
        } else if self.successes >= policy.successes_to_close {
            self.change(State::Closed, None, until);
        }
    }
}

/// Workers that hear of rows late, lose answers and vanish in the middle of probes.
#[test]
fn a_fleet_leaves_a_sick_target_alone_and_comes_back_when_it_is_well() {
    const WORKERS: usize = 3;
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let policy = policy();
        let closed = row(State::Closed, 0);
        let mut db = Database { row: closed, until: Duration::ZERO, successes: 0, log: Vec::new() };
        let names: Vec<String> = (0..WORKERS).map(|n| format!("worker-{n}")).collect();
        let mut fleet: Vec<Breakers> = names.iter().map(Breakers::new).collect();
        let mut running: BTreeMap<u32, (usize, Permit, Duration)> = BTreeMap::new();
        let (mut calls, mut calls_while_open) = (0, 0);
        let mut now = Duration::ZERO;
        let sick_until = Duration::from_secs(20);
        while now < Duration::from_secs(60) {
            now += MS * 10;
            let until = now + MS * 2000;
            let worker = rng.random_range(0..WORKERS);
            if rng.random_bool(0.2) {
                fleet[worker].adopt(&db.row(now), &policy, now); // it polls
            }
            let lost = rng.random_bool(0.05);
            let answer = |breakers: &mut Breakers, db: &Database| {
                if lost {
                    breakers.unanswered(&id());
                } else {
                    breakers.adopt(&db.row(now), &policy, now);
                }
            };
            match fleet[worker].admit(&id(), &policy, now) {
                Admission::Admit(permit) => {
                    calls += 1;
                    calls_while_open += u32::from(db.row.state == State::Open);
                    running.insert(calls, (worker, permit, now + MS * rng.random_range(1..300)));
                }
                Admission::AskForProbe => {
                    db.probe(&names[worker], now);
                    answer(&mut fleet[worker], &db);
                }
                Admission::Park | Admission::Wait => {}
            }
            let over =
                |(n, (.., end)): (&u32, &(usize, Permit, Duration))| (*end <= now).then_some(*n);
            for n in running.iter().filter_map(over).collect::<Vec<_>>() {
                let (worker, permit, _) = running.remove(&n).expect("it runs");
                let outcome = match now < sick_until {
                    _ if rng.random_bool(0.05) => Outcome::Unknown,
                    true => SICK,
                    false => DONE,
                };
                match fleet[worker].ended(&id(), permit, outcome, &policy, now) {
                    Verdict::Nothing => continue,
                    Verdict::ProposeOpening { seen_version, .. } => db.open(seen_version, until),
                    Verdict::Report { ok } => db.report(&names[worker], ok, &policy, until),
                }
                answer(&mut fleet[worker], &db);
            }
            if rng.random_bool(0.002) {
                fleet[worker] = Breakers::new(&names[worker]); // killed, and started again
                running.retain(|_, (of, ..)| *of != worker);
            }
        }
        assert_eq!(db.log[0], State::Open, "seed {seed}: {:?}", db.log);
        assert_eq!(db.row.state, State::Closed, "seed {seed}: {:?}", db.log);
        let closed = db.log.iter().filter(|state| **state == State::Closed).count();
        assert_eq!(closed, 1, "seed {seed}: it closes once, when it is well: {:?}", db.log);
        // Those who had not heard yet: in fifteen turns each has polled once, on average.
        assert!(calls_while_open < 300, "seed {seed}: {calls_while_open} of {calls}");
        assert!(calls > 2000, "seed {seed}: it came back: {calls}");
    }
}
