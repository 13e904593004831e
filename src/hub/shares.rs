//! How much of the callers' connections one tenant may use at once: never all, so that whoever asks much, or what
//! takes long, keeps nobody of another tenant waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The share of each tenant.
#[derive(Debug)]
pub(crate) struct Shares {
    places: usize,
    patience: Duration,
    /// Of those that use some, or wait for some.
    tenants: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// One place of a tenant's share; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Arc<Shares>,
    tenant: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// Shares of so many connections, for which a caller waits so long.
    pub(crate) fn new(connections: u32, patience: Duration) -> Self {
        let all = usize::try_from(connections).unwrap_or(usize::MAX);
        // Of a single one there is nothing to share.
        let places = (all - all / 4).max(1);
        Self { places, patience, tenants: Mutex::default() }
    }

    /// A place for a tenant; none if it did not become free in time.
    pub(crate) async fn take(self: &Arc<Self>, tenant: &str) -> Option<Place> {
        let semaphore = {
            let mut tenants = self.lock();
            let new = || Arc::new(Semaphore::new(self.places));
            Arc::clone(tenants.entry(tenant.to_owned()).or_insert_with(new))
        };
        // From here on it is forgotten again, however this ends.
        let mut place = Place { shares: Arc::clone(self), tenant: tenant.to_owned(), permit: None };
        let permit = tokio::time::timeout(self.patience, semaphore.acquire_owned()).await;
        place.permit = Some(permit.ok()?.ok()?);
        Some(place)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tenants = self.shares.lock();
        drop(self.permit.take());
        // Each place and each that waits holds one more; under the lock nobody comes.
        if tenants.get(&self.tenant).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_tenant_takes_all_and_nobody_is_remembered() {
        let shares = Arc::new(Shares::new(4, Duration::from_secs(3)));
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(shares.take("acme").await.expect("its share"));
        }
        assert!(shares.take("acme").await.is_none(), "the fourth is for others");
        drop(shares.take("globex").await.expect("another tenant's"));
        taken.pop();
        taken.push(shares.take("acme").await.expect("one that was given back"));
        taken.clear();
        assert!(shares.lock().is_empty());
        assert!(Arc::new(Shares::new(1, Duration::ZERO)).take("acme").await.is_some());
    }
}
