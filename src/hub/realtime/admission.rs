//! How many may come: sockets in all and of one key, and how fast.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::Instant;

use crate::hub::realtime::bucket::Bucket;
use crate::hub::realtime::{Inner, Options};
use crate::metrics::{REALTIME_CONNECTIONS, REALTIME_REFUSED_TOTAL};

/// Keys that are remembered without a socket; past it, those go that were not used for a while.
const REMEMBERED: usize = 1000;
/// How long a key is remembered then: its rates are full again long before.
const FORGET: Duration = Duration::from_secs(10);

/// Counts a refusal. `what` is what was refused; `reason` is one of a few words.
pub(crate) fn count_refusal(what: &'static str, reason: &'static str) {
    counter!(REALTIME_REFUSED_TOTAL, "what" => what, "reason" => reason).increment(1);
}

#[derive(Debug)]
pub(crate) struct Admission {
    places: Mutex<Places>,
    max: usize,
    max_of_key: usize,
    joins: u32,
    events: u32,
    hasher: std::hash::RandomState,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    keys: HashMap<u64, Key>,
}

#[derive(Debug)]
struct Key {
    taken: usize,
    rates: Arc<Mutex<Rates>>,
    used: Instant,
}

/// The rates of one key.
#[derive(Debug)]
pub(crate) struct Rates {
    pub(crate) joins: Bucket,
    pub(crate) events: Bucket,
}

/// One socket's place, given up when dropped.
pub(crate) struct Place {
    admission: Arc<Inner>,
    key: u64,
    pub(crate) rates: Arc<Mutex<Rates>>,
}

impl Admission {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            places: Mutex::default(),
            max: options.max_connections,
            max_of_key: options.max_connections_per_key,
            joins: options.joins_per_second,
            events: options.events_per_second,
            hasher: std::hash::RandomState::new(),
        }
    }

    /// The rates of a key; its token is not kept.
    pub(crate) fn rates(&self, token: &str) -> Arc<Mutex<Rates>> {
        let mut places = self.lock();
        Arc::clone(&self.key(&mut places, self.hasher.hash_one(token)).rates)
    }

    fn key<'a>(&self, places: &'a mut Places, key: u64) -> &'a mut Key {
        if places.keys.len() >= REMEMBERED && !places.keys.contains_key(&key) {
            places.keys.retain(|_, key| key.taken > 0 || key.used.elapsed() < FORGET);
        }
        let key = places.keys.entry(key).or_insert_with(|| Key {
            taken: 0,
            rates: Arc::new(Mutex::new(Rates {
                joins: Bucket::new(self.joins, Duration::from_secs(1)),
                events: Bucket::new(self.events, Duration::from_secs(1)),
            })),
            used: Instant::now(),
        });
        key.used = Instant::now();
        key
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place for a socket with this key, or the reason why there is none.
    pub(crate) fn take(inner: &Arc<Inner>, token: &str) -> Result<Self, &'static str> {
        let admission = &inner.admission;
        let key = admission.hasher.hash_one(token);
        let mut places = admission.lock();
        if places.taken >= admission.max {
            return Err("connections");
        }
        let taken = admission.key(&mut places, key);
        if taken.taken >= admission.max_of_key {
            return Err("connections_of_key");
        }
        taken.taken += 1;
        let rates = Arc::clone(&taken.rates);
        places.taken += 1;
        drop(places);
        gauge!(REALTIME_CONNECTIONS).increment(1);
        Ok(Self { admission: Arc::clone(inner), key, rates })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.admission.admission.lock();
        places.taken -= 1;
        if let Some(key) = places.keys.get_mut(&self.key) {
            key.taken -= 1;
            key.used = Instant::now();
        }
        drop(places);
        gauge!(REALTIME_CONNECTIONS).decrement(1);
    }
}
