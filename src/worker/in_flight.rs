//! The claims that this worker holds, from claim to settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;
use crate::message::MessageId;

/// A claim's name: a message may be claimed again while the handler of a lost claim still runs.
pub(crate) type ClaimId = (MessageId, i64);

/// One claim that is held.
#[derive(Debug, Clone)]
struct Held {
    /// Since the lease was last known to be extended; started before the call that did it.
    renewed: Stopwatch,
    cancelled: CancellationToken,
    /// The handler has returned; only the settle is still to be acknowledged.
    handled: bool,
}

/// All claims that are held. Shared by the runner, the handlers' tasks and the lease keeper.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    held: Arc<Mutex<HashMap<ClaimId, Held>>>,
}

impl InFlight {
    /// Adds a claim; the token is cancelled when its lease is lost. An older claim on the same message is
    /// lost by that, if nobody noticed before.
    pub(crate) fn add(&self, claim: ClaimId, claimed: Stopwatch) -> CancellationToken {
        let cancelled = CancellationToken::new();
        let held = Held { renewed: claimed, cancelled: cancelled.clone(), handled: false };
        let mut all = self.lock();
        for (older, held) in all.iter() {
            if older.0 == claim.0 {
                held.cancelled.cancel();
            }
        }
        all.insert(claim, held);
        cancelled
    }

    /// The handler has returned.
    pub(crate) fn handled(&self, claim: ClaimId) {
        if let Some(held) = self.lock().get_mut(&claim) {
            held.handled = true;
        }
    }

    /// The claim is settled, or given up.
    pub(crate) fn remove(&self, claim: ClaimId) {
        self.lock().remove(&claim);
    }

    /// How many handlers are running.
    pub(crate) fn running(&self) -> usize {
        self.lock().values().filter(|held| !held.handled).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All claims that may be in force, to be extended. Lost ones are left out: an extend would be refused,
    /// and a batch that names a message twice is refused as a whole, so that every lease would run out.
    pub(crate) fn claims(&self) -> Vec<ClaimId> {
        let all = self.lock();
        let kept = all.iter().filter(|(_, held)| !held.cancelled.is_cancelled());
        kept.map(|(claim, _)| *claim).collect()
    }

    /// The leases of `claims` were extended by a call that began at `began`.
    pub(crate) fn renewed(&self, claims: &[ClaimId], began: Stopwatch) {
        let mut all = self.lock();
        for claim in claims {
            if let Some(held) = all.get_mut(claim) {
                held.renewed = began;
            }
        }
    }

    /// The claim was refused: cancels its handler. Whether one was running.
    pub(crate) fn lost(&self, claim: ClaimId) -> bool {
        match self.lock().get(&claim) {
            Some(held) if !held.handled => {
                held.cancelled.cancel();
                true
            }
            _ => false,
        }
    }

    /// Cancels the handlers whose lease was not extended for `lease`: nobody told us so, but the
    /// database may by now have given their messages to others. Gives their number.
    pub(crate) fn expire(&self, lease: Duration) -> usize {
        let mut expired = 0;
        for held in self.lock().values() {
            if !held.handled && !held.cancelled.is_cancelled() && held.renewed.elapsed() >= lease {
                held.cancelled.cancel();
                expired += 1;
            }
        }
        expired
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimId, Held>> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_claimed_again_is_extended_under_its_new_claim_alone() {
        let in_flight = InFlight::default();
        let (id, other) = (MessageId::new(), MessageId::new());
        let lost = in_flight.add((id, 1), Stopwatch::start());
        let kept = in_flight.add((other, 1), Stopwatch::start());
        // Its handler has a moment to return; meanwhile the same worker claims the message again.
        let held = in_flight.add((id, 3), Stopwatch::start());
        assert!(lost.is_cancelled() && !held.is_cancelled() && !kept.is_cancelled());
        let mut claims = in_flight.claims();
        claims.sort_by_key(|(_, claim_no)| *claim_no);
        assert_eq!(claims, [(other, 1), (id, 3)]);
    }
}
