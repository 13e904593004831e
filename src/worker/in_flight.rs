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
    /// Adds a claim; the token is cancelled when its lease is lost.
    pub(crate) fn add(&self, claim: ClaimId, claimed: Stopwatch) -> CancellationToken {
        let cancelled = CancellationToken::new();
        let held = Held { renewed: claimed, cancelled: cancelled.clone(), handled: false };
        self.lock().insert(claim, held);
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

    /// All claims, to be extended.
    pub(crate) fn claims(&self) -> Vec<ClaimId> {
        self.lock().keys().copied().collect()
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
