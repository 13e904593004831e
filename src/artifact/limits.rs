//! How much may be kept, and how much is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::artifact::Error;
use crate::artifact::backend::Backend;
use crate::clock::Stopwatch;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest artifact, in bytes.
    pub max_bytes: u64,
    /// The most that one tenant's artifacts may come to, in bytes.
    pub tenant_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A scan of a page, a minute of sound; and a disk's worth of them that no tenant should fill alone.
        Self { max_bytes: 32 << 20, tenant_bytes: 10 << 30 }
    }
}

/// What each tenant has: counted at the backend, anew after a while, and carried on in between.
#[derive(Debug)]
pub(super) struct Ledger {
    again: Duration,
    used: Mutex<HashMap<String, Used>>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    bytes: u64,
    counted: Stopwatch,
}

impl Ledger {
    /// One that is carried on for `again` at most: others may put as well.
    pub(super) fn new(again: Duration) -> Self {
        Self { again, used: Mutex::default() }
    }

    /// Takes room for `len` bytes of `tenant`.
    pub(super) async fn take(
        &self,
        backend: &dyn Backend,
        tenant: &str,
        len: u64,
        most: u64,
    ) -> Result<(), Error> {
        if !self.with(|used| self.is_fresh(used.get(tenant))) {
            // Two may count at once. Whoever is first is believed, since the other's count may lack what that one
            // took meanwhile.
            let usage = backend.usage(tenant).await?;
            self.with(|used| {
                if !self.is_fresh(used.get(tenant)) {
                    let counted = Used { bytes: usage.bytes, counted: Stopwatch::start() };
                    used.insert(tenant.to_owned(), counted);
                }
            });
        }
        self.with(|used| match used.get_mut(tenant) {
            Some(has) if has.bytes.saturating_add(len) > most => {
                Err(Error::Full { tenant: tenant.to_owned(), most })
            }
            Some(has) => {
                has.bytes += len;
                Ok(())
            }
            // Forgotten in this moment, because a sweep made room.
            None => Ok(()),
        })
    }

    /// Gives room back: nothing came of it.
    pub(super) fn give_back(&self, tenant: &str, len: u64) {
        self.with(|used| {
            if let Some(has) = used.get_mut(tenant) {
                has.bytes = has.bytes.saturating_sub(len);
            }
        });
    }

    /// Everything is to be counted again.
    pub(super) fn forget(&self) {
        self.with(HashMap::clear);
    }

    fn is_fresh(&self, used: Option<&Used>) -> bool {
        used.is_some_and(|used| used.counted.elapsed() < self.again)
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<String, Used>) -> T) -> T {
        // A count that is off is put right at the next counting.
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
