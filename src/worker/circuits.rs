//! The breakers of one worker: what it may do is asked before a message is handled, and how that went is told
//! after. The counting and deciding is `breaker`'s, the transitions are the database's; here they meet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::breaker::{
    Admission, Breakers, Id, Outcome, Permit, Policies, Remote, Rule, State, Verdict,
};
use crate::bus::circuit::Circuit;
use crate::bus::{Bus, Error, Signal};
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::live::Live;
use crate::worker::resolved::Resolved;

/// How often the breakers are read when nothing wakes us. A transition must be known everywhere within two
/// seconds, also where no wake-up comes through.
const POLL: Duration = Duration::from_millis(1500);
/// Over the internet the breakers are looked at only while there is something to do, and before the first call
/// after that was not so: for so long what was learnt holds.
const KNOWN_FOR: Duration = Duration::from_millis(1500);
/// The same while every change is told of.
const TOLD_FOR: Duration = Duration::from_secs(15);
/// How long the database may take for an answer that somebody waits for; then the message is parked.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How much longer than its handler may take a probe is ours: for the settle and for the report.
const PROBE_GRACE: Duration = Duration::from_secs(5);
/// The longest that the database gives a prober.
const PROBE_MAX: Duration = Duration::from_secs(86_400);

/// The breakers of one worker. Shared by the handlers' tasks.
#[derive(Debug)]
pub(crate) struct Circuits {
    bus: Bus,
    worker: String,
    tenant: String,
    policies: Resolved<Rule>,
    breakers: Mutex<Breakers>,
    /// The breakers' time; they read no clock.
    since: Stopwatch,
    /// Counts what was learnt, for those who wait for it.
    learnt: watch::Sender<u64>,
    /// When all breakers were last looked at.
    looked: watch::Sender<Option<Stopwatch>>,
    /// Somebody waits for the next look.
    wanted: Notify,
    /// How many calls are under way, or ask whether they may be; and whether there is one, for who waits for that.
    in_hand: AtomicUsize,
    some_in_hand: watch::Sender<bool>,
}

/// A call that is under way, or asks whether it may be.
#[derive(Debug)]
struct InHand(Arc<Circuits>);

impl InHand {
    fn new(circuits: &Arc<Circuits>) -> Self {
        circuits.in_hand.fetch_add(1, Ordering::AcqRel);
        // Not each call: only where a look costs a request does anybody wait for it.
        if circuits.bus.pace().is_far {
            circuits.count_in_hand();
        }
        Self(Arc::clone(circuits))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::AcqRel);
        if self.0.bus.pace().is_far {
            self.0.count_in_hand();
        }
    }
}

/// A call that was let through. Dropped without [`Passage::ended`], it gives its place back and says nothing.
#[derive(Debug)]
pub(crate) struct Passage {
    circuits: Arc<Circuits>,
    id: Id,
    permit: Option<Permit>,
    _in_hand: InHand,
}

impl Passage {
    /// How the call ended; gives what is to be told the database, if anything.
    pub(crate) fn ended(
        mut self,
        outcome: Outcome,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let verdict = self.circuits.ended(&self.id, self.permit.take()?, outcome);
        let is_told = verdict != Verdict::Nothing;
        is_told.then_some(async move { self.circuits.tell(&self.id, outcome, verdict).await })
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let circuits = &self.circuits;
            // Nobody is left to tell the database; a probe's lease will run out.
            let _untold = circuits.ended(&self.id, permit, Outcome::Unknown);
        }
    }
}

impl Circuits {
    pub(crate) fn new(bus: Bus, worker: &str, tenant: &str, policies: Live<Policies>) -> Arc<Self> {
        Arc::new(Self {
            bus,
            worker: worker.to_owned(),
            tenant: tenant.to_owned(),
            policies: Resolved::new(policies),
            breakers: Mutex::new(Breakers::new(worker)),
            since: Stopwatch::start(),
            learnt: watch::Sender::new(0),
            looked: watch::Sender::new(None),
            wanted: Notify::new(),
            in_hand: AtomicUsize::new(0),
            some_in_hand: watch::Sender::new(false),
        })
    }

    fn count_in_hand(&self) {
        self.some_in_hand.send_if_modified(|some| {
            // Read under the lock of who tells, so that the last one to tell says what is so.
            let now = self.in_hand.load(Ordering::Acquire) > 0;
            std::mem::replace(some, now) != now
        });
    }

    /// Whether a call of `key` may be made now, which may take `timeout`: the same for each call of the key, for
    /// one may use what was granted to another. `None`: its breaker is not closed.
    pub(crate) async fn pass(self: &Arc<Self>, id: Id, timeout: Duration) -> Option<Passage> {
        let in_hand = InHand::new(self);
        if self.bus.pace().is_far && !self.knows() {
            self.look_first().await;
        }
        // Armed before it is looked, but only where somebody was asked: mostly there is nothing to wait for.
        let mut learnt = None;
        loop {
            let policy = self.policies.get(&id.key);
            let admission = self.lock().admit(&id, &policy, self.since.elapsed());
            match admission {
                Admission::Admit(permit) => {
                    // Dropped where the probe may not be made, it gives its place back.
                    let (circuits, permit_of) = (Arc::clone(self), Some(permit));
                    let passage = Passage { circuits, id, permit: permit_of, _in_hand: in_hand };
                    let may = !permit.is_probe() || self.has_time(&passage.id, timeout).await;
                    return may.then_some(passage);
                }
                Admission::Park => return None,
                Admission::AskForProbe => match self.ask(&id, timeout).await {
                    Some((_granted, circuit)) => self.adopt(&[circuit]),
                    None => {
                        self.lock().unanswered(&id);
                        return None;
                    }
                },
                // Somebody else of this process has asked.
                Admission::Wait => match &mut learnt {
                    None => learnt = Some(self.learnt.subscribe()),
                    Some(learnt) => {
                        let answer = tokio::time::timeout(ANSWER_WITHIN, learnt.changed());
                        if answer.await.is_err() {
                            return None;
                        }
                    }
                },
            }
        }
    }

    /// Whether a probe can end while it is ours to make: if need be the database is asked for more time, since
    /// another worker would probe as well once ours is over.
    async fn has_time(&self, id: &Id, timeout: Duration) -> bool {
        let left = self.lock().probe_left(id, self.since.elapsed());
        // What was just granted is enough.
        if left.is_some_and(|left| left + PROBE_GRACE / 2 >= lease(timeout)) {
            return true;
        }
        match self.ask(id, timeout).await {
            Some((granted, circuit)) => {
                self.adopt(&[circuit]);
                granted
            }
            None => false,
        }
    }

    async fn ask(&self, id: &Id, timeout: Duration) -> Option<(bool, Circuit)> {
        let asked = self.bus.circuit_probe(id, &self.worker, lease(timeout));
        answered(asked, "ask for a probe of", id).await
    }

    fn ended(&self, id: &Id, permit: Permit, outcome: Outcome) -> Verdict {
        let policy = self.policies.get(&id.key);
        self.lock().ended(id, permit, outcome, &policy, self.since.elapsed())
    }

    /// Carries out what follows from the end of a call.
    async fn tell(&self, id: &Id, outcome: Outcome, verdict: Verdict) {
        let policy = self.policies.get(&id.key);
        let circuit = match verdict {
            Verdict::Nothing => return,
            Verdict::ProposeOpening { seen_version, evidence } => {
                let opened =
                    self.bus.circuit_open(id, &self.worker, seen_version, &policy, &evidence);
                answered(opened, "propose to open", id).await
            }
            Verdict::Report { ok } => {
                let reason = match outcome {
                    Outcome::Failed { class, .. } => Some(class.as_str()),
                    Outcome::Done { .. } if ok == Some(false) => Some("slow"),
                    Outcome::Done { .. } | Outcome::Unknown => None,
                };
                let reported = self.bus.circuit_report(id, &self.worker, ok, reason);
                answered(reported, "report on", id).await.flatten()
            }
        };
        match circuit {
            Some(circuit) => self.adopt(&[circuit]),
            None => self.lock().unanswered(id),
        }
    }

    /// Reads all breakers again and again, until `stop`.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let mut woken = self.bus.waker(Signal::Circuit);
        let mut in_hand = self.some_in_hand.subscribe();
        loop {
            self.look().await;
            loop {
                let pace = self.bus.pace();
                let idle = pace.is_far && !*in_hand.borrow_and_update();
                let pause = match pace.is_far {
                    true => pace.pause(),
                    false => POLL.mul_f64(rand::rng().random_range(0.75..1.0)),
                };
                tokio::select! {
                    () = tokio::time::sleep(pause), if !idle => break,
                    () = woken.woken() => break,
                    () = self.wanted.notified() => break,
                    _ = in_hand.changed(), if idle => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Reads all breakers.
    async fn look(&self) {
        // Before asking: what opens while the answer is on its way need not stand in it.
        let (open, began) = (self.open(), Stopwatch::start());
        match tokio::time::timeout(ANSWER_WITHIN, self.bus.circuits(&self.tenant)).await {
            Ok(Ok(circuits)) => {
                self.adopt_all(&circuits, open);
                self.looked.send_replace(Some(began));
            }
            Ok(Err(error)) => {
                tracing::debug!(error = %chain(&error), "Could not read the circuit breakers");
                self.looked.send_replace(None);
            }
            Err(_) => {
                tracing::debug!("Reading the circuit breakers took too long");
                self.looked.send_replace(None);
            }
        }
    }

    /// Whether the last look still holds.
    fn knows(&self) -> bool {
        let holds = if self.bus.pace().is_told { TOLD_FOR } else { KNOWN_FOR };
        self.looked.borrow().is_some_and(|looked| looked.elapsed() < holds)
    }

    /// Waits for the next look. One that fails leaves what was known: that nobody answers opens no breaker.
    async fn look_first(&self) {
        let mut looked = self.looked.subscribe();
        self.wanted.notify_one();
        if tokio::time::timeout(ANSWER_WITHIN, looked.changed()).await.is_err() {
            tracing::debug!("Nobody looked at the circuit breakers in time");
        }
    }

    fn open(&self) -> Vec<(Id, i64)> {
        self.lock().open().map(|(id, version)| (id.clone(), version)).collect()
    }

    /// All that there are: of those that were `open`, one that is not named is closed. Its row goes only long
    /// after it has closed.
    fn adopt_all(&self, circuits: &[Circuit], open: Vec<(Id, i64)>) {
        let named = |id: &Id| circuits.iter().any(|c| c.tenant == id.tenant && c.key == id.key);
        let gone = open.into_iter().filter(|(id, _)| !named(id)).map(|(id, version)| Remote {
            id,
            state: State::Closed,
            forced: false,
            version: version + 1,
            open_for_ms: None,
            prober: None,
        });
        self.adopt_rows(circuits.iter().map(Remote::from).chain(gone));
    }

    fn adopt(&self, circuits: &[Circuit]) {
        self.adopt_rows(circuits.iter().map(Remote::from));
    }

    fn adopt_rows(&self, rows: impl Iterator<Item = Remote>) {
        let now = self.since.elapsed();
        for row in rows {
            let news = self.lock().adopt(&row, &self.policies.get(&row.id.key), now);
            if news {
                tracing::info!(
                    circuit.key = %row.id.key,
                    "The circuit breaker {} is {}", row.id.key, row.state.as_str()
                );
            }
        }
        self.learnt.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Breakers> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a probe is ours, of a call that may take `timeout`.
fn lease(timeout: Duration) -> Duration {
    (timeout + PROBE_GRACE).min(PROBE_MAX)
}

/// What the database answers in time; what it does not is told here.
async fn answered<T>(
    answer: impl Future<Output = Result<T, Error>>,
    what: &str,
    id: &Id,
) -> Option<T> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "Could not {what} the circuit breaker {}", id.key);
            None
        }
        Err(_) => {
            tracing::warn!("The bus took too long to {what} the circuit breaker {}", id.key);
            None
        }
    }
}
