//! How many of something there may be, in all and of one principal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cogo::hub::Principal;

/// The places that are taken. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_owner: HashMap<[u8; 32], usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All are.
    All,
    /// As many as one principal may have.
    Own,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `who`, where there may be `max` in all and `max_own` for each.
    pub(super) fn take(&self, who: &Principal, max: usize, max_own: usize) -> Result<Place, Taken> {
        let owner = who.id();
        let mut counts = self.lock();
        if counts.all >= max {
            return Err(Taken::All);
        }
        let own = counts.by_owner.get(&owner).copied().unwrap_or_default();
        if own >= max_own {
            return Err(Taken::Own);
        }
        counts.by_owner.insert(owner, own + 1);
        counts.all += 1;
        Ok(Place { places: self.clone(), owner })
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    pub(super) owner: [u8; 32],
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.by_owner.remove(&self.owner);
            }
        }
    }
}
