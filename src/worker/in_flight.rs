//! The claims that this worker holds, from claim to settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;
use crate::message::MessageId;

/// A claim's name: a message may be claimed again while the handler of a lost claim still runs.
pub(crate) type ClaimId = (MessageId, i64);

/// One claim that is held.
#[derive(Debug)]
struct Held {
    claim_no: i64,
    /// Since the lease was last known to be extended; started before the call that did it.
    renewed: Stopwatch,
    cancelled: CancellationToken,
    /// The handler has returned; only the settle is still to be acknowledged.
    handled: bool,
}

/// The newest claim of each message that is held. Shared by the runner, the handlers' tasks and the lease keeper.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    lease: Duration,
    all: Arc<Mutex<All>>,
    /// Some that came late are to be looked at.
    late: Arc<Notify>,
}

#[derive(Debug, Default)]
struct All {
    held: HashMap<MessageId, Held>,
    /// How many handlers are running, those of lost claims included.
    running: usize,
    /// An older claim of a message has made way for a newer one since this was last asked.
    superseded: bool,
    /// When it was last heard that claims may have been taken away.
    taken: Option<Stopwatch>,
}

impl InFlight {
    /// Claims that are held for `lease` unless they are extended.
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, all: Arc::default(), late: Arc::default() }
    }

    /// Adds what was claimed by a call that began at `began`. What may have been taken away before its answer was here was
    /// not looked at then, and what took so long has less of its lease left than the keeper counts on: it is to look again.
    pub(crate) fn hold(&self, claims: impl IntoIterator<Item = ClaimId>, began: Stopwatch) {
        claims.into_iter().for_each(|claim| self.add(claim, began));
        let taken = self.lock().taken.map(|taken| taken.elapsed());
        // Read in this order, what began just before counts.
        let since = began.elapsed();
        if taken.is_some_and(|taken| taken <= since) || since >= self.lease / 3 {
            self.late.notify_one();
        }
    }

    /// Claims may have been taken away. To be said before they are looked at.
    pub(crate) fn taken(&self) {
        self.lock().taken = Some(Stopwatch::start());
    }

    /// Waits until some that came late are to be looked at.
    pub(crate) async fn late(&self) {
        self.late.notified().await;
    }

    /// Adds a claim. An older claim on the same message is lost by that, if nobody noticed before.
    pub(crate) fn add(&self, (id, claim_no): ClaimId, claimed: Stopwatch) {
        let mut all = self.lock();
        if let Some(older) = all.held.get(&id) {
            if older.claim_no > claim_no {
                return; // the answer of a later claim was faster: this one is lost
            }
            older.cancelled.cancel();
            all.superseded = true;
        }
        let cancelled = CancellationToken::new();
        all.held.insert(id, Held { claim_no, renewed: claimed, cancelled, handled: false });
    }

    /// Its handler begins: the token is cancelled when the lease is lost. `None` where it is lost already, or has run out
    /// unextended: then the handler must not begin, and the claim is given up.
    pub(crate) fn begin(&self, (id, claim_no): ClaimId) -> Option<CancellationToken> {
        let mut all = self.lock();
        let held = all.held.get(&id).filter(|held| held.claim_no == claim_no)?;
        if held.cancelled.is_cancelled() || held.renewed.elapsed() >= self.lease {
            all.held.remove(&id);
            return None;
        }
        let cancelled = held.cancelled.clone();
        all.running += 1;
        Some(cancelled)
    }

    /// The handler has returned, and there is something `to_settle` or not. Whether the claim is still the newest.
    pub(crate) fn ended(&self, claim: ClaimId, to_settle: bool) -> bool {
        self.lock().running -= 1;
        if to_settle { self.handled(claim) } else { self.remove(claim) }
    }

    /// Only the settle is still to be acknowledged. Whether the claim is still the newest.
    pub(crate) fn handled(&self, (id, claim_no): ClaimId) -> bool {
        match self.lock().held.get_mut(&id) {
            Some(held) if held.claim_no == claim_no => {
                held.handled = true;
                true
            }
            _ => false,
        }
    }

    /// The claim is settled, or given up. Whether it was the newest.
    pub(crate) fn remove(&self, (id, claim_no): ClaimId) -> bool {
        let mut all = self.lock();
        let is_newest = all.held.get(&id).is_some_and(|held| held.claim_no == claim_no);
        if is_newest {
            all.held.remove(&id);
        }
        is_newest
    }

    /// Whether the claim is the newest of its message.
    pub(crate) fn is_newest(&self, (id, claim_no): ClaimId) -> bool {
        self.lock().held.get(&id).is_some_and(|held| held.claim_no == claim_no)
    }

    /// Whether the claim is held, and its lease is being extended.
    pub(crate) fn is_kept(&self, (id, claim_no): ClaimId) -> bool {
        let all = self.lock();
        let held = all.held.get(&id).filter(|held| held.claim_no == claim_no);
        held.is_some_and(|held| held.renewed.elapsed() < self.lease)
    }

    /// Whether a claim has made way for a newer one since this was last asked.
    pub(crate) fn superseded(&self) -> bool {
        std::mem::take(&mut self.lock().superseded)
    }

    /// How many handlers are running.
    pub(crate) fn running(&self) -> usize {
        self.lock().running
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    /// All claims that may be in force, to be extended. Lost ones are left out: an extend would be refused.
    pub(crate) fn claims(&self) -> Vec<ClaimId> {
        let all = self.lock();
        let kept = all.held.iter().filter(|(_, held)| !held.cancelled.is_cancelled());
        kept.map(|(id, held)| (*id, held.claim_no)).collect()
    }

    /// The leases of `claims` were extended by a call that began at `began`.
    pub(crate) fn renewed(&self, claims: &[ClaimId], began: Stopwatch) {
        let mut all = self.lock();
        for (id, claim_no) in claims {
            if let Some(held) = all.held.get_mut(id).filter(|held| held.claim_no == *claim_no) {
                held.renewed = began;
            }
        }
    }

    /// The claim was refused: cancels its handler, if it has not returned. Whether it had not.
    pub(crate) fn lost(&self, (id, claim_no): ClaimId) -> bool {
        match self.lock().held.get(&id) {
            Some(held) if held.claim_no == claim_no && !held.handled => {
                held.cancelled.cancel();
                true
            }
            _ => false,
        }
    }

    /// How long it is until the first lease runs out unextended.
    pub(crate) fn left(&self) -> Option<Duration> {
        let all = self.lock();
        let open = all.held.values().filter(|held| !held.handled && !held.cancelled.is_cancelled());
        open.map(|held| self.lease.saturating_sub(held.renewed.elapsed())).min()
    }

    /// Cancels the handlers whose lease was not extended in time: nobody told us so, but the
    /// database may by now have given their messages to others. Gives their number.
    pub(crate) fn expire(&self) -> usize {
        let mut expired = 0;
        for held in self.lock().held.values() {
            let is_open = !held.handled && !held.cancelled.is_cancelled();
            if is_open && held.renewed.elapsed() >= self.lease {
                held.cancelled.cancel();
                expired += 1;
            }
        }
        expired
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3600);

    fn claimed(in_flight: &InFlight, claim: ClaimId) -> CancellationToken {
        in_flight.add(claim, Stopwatch::start());
        in_flight.begin(claim).expect("it is held")
    }

    #[test]
    fn a_message_that_is_claimed_again_is_extended_under_its_new_claim_alone() {
        let in_flight = InFlight::new(LEASE);
        let (id, other) = (MessageId::new(), MessageId::new());
        let lost = claimed(&in_flight, (id, 1));
        let kept = claimed(&in_flight, (other, 1));
        assert!(!in_flight.superseded());
        // Its handler has a moment to return; meanwhile the same worker claims the message again.
        let held = claimed(&in_flight, (id, 3));
        assert!(lost.is_cancelled() && !held.is_cancelled() && !kept.is_cancelled());
        let mut claims = in_flight.claims();
        claims.sort_by_key(|(_, claim_no)| *claim_no);
        assert_eq!(claims, [(other, 1), (id, 3)]);
        assert_eq!((in_flight.running(), in_flight.superseded()), (3, true));
        // What the old handler gives is nobody's, and takes nothing from the new one.
        assert!(!in_flight.ended((id, 1), true) && in_flight.is_newest((id, 3)));
        assert!(in_flight.ended((id, 3), true) && in_flight.remove((id, 3)));
        assert!(in_flight.ended((other, 1), false) && in_flight.is_empty());
        assert_eq!(in_flight.running(), 0);
    }

    #[test]
    fn an_older_claim_that_comes_later_is_not_begun() {
        let in_flight = InFlight::new(LEASE);
        let id = MessageId::new();
        let held = claimed(&in_flight, (id, 3));
        in_flight.add((id, 1), Stopwatch::start());
        assert!(in_flight.begin((id, 1)).is_none() && !held.is_cancelled());
        assert_eq!(in_flight.claims(), [(id, 3)]);
    }

    #[test]
    fn what_was_lost_while_it_waited_is_not_begun() {
        let in_flight = InFlight::new(LEASE);
        let (taken, kept) = (MessageId::new(), MessageId::new());
        for id in [taken, kept] {
            in_flight.add((id, 1), Stopwatch::start());
        }
        assert!(in_flight.lost((taken, 1)));
        assert!(in_flight.begin((taken, 1)).is_none() && in_flight.begin((kept, 1)).is_some());
        assert_eq!(in_flight.claims(), [(kept, 1)]);
        // Nor what was not extended in time, also where nobody has noticed yet.
        let in_flight = InFlight::new(Duration::ZERO);
        in_flight.add((kept, 1), Stopwatch::start());
        assert!(in_flight.begin((kept, 1)).is_none() && in_flight.is_empty());
        in_flight.add((kept, 1), Stopwatch::start());
        assert_eq!(in_flight.left(), Some(Duration::ZERO));
        assert_eq!((in_flight.expire(), in_flight.expire()), (1, 0));
        assert_eq!(in_flight.left(), None);
    }

    #[test]
    fn what_comes_after_claims_were_taken_away_and_was_asked_for_before_is_looked_at_again() {
        let in_flight = InFlight::new(LEASE);
        let is_late = || in_flight.late().now_or_never().is_some();
        in_flight.hold([(MessageId::new(), 1)], Stopwatch::start());
        assert!(!is_late(), "nothing was taken away");
        let before = Stopwatch::start();
        in_flight.taken();
        std::thread::sleep(Duration::from_millis(1));
        in_flight.hold([(MessageId::new(), 1)], Stopwatch::start());
        assert!(!is_late(), "that was claimed after it");
        in_flight.hold([(MessageId::new(), 1)], before);
        assert!(is_late());
        // Nor does one wait for its turn whose claim took a third of its lease.
        let in_flight = InFlight::new(Duration::ZERO);
        in_flight.hold([(MessageId::new(), 1)], Stopwatch::start());
        assert!(in_flight.late().now_or_never().is_some());
    }
}
