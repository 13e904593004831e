//! Connections that are kept at hand between calls.
//!
//! A pool hands its connections out in turn, and asks each for a sign of life when it comes back. For one message after the
//! other that is a process of the server that slept longest, which has to be woken with cold caches, and a second round trip
//! beside each call. So of each pool up to two connections stay here, and the one that was used last is used next. They are
//! the pool's all the same: who else needs one finds one, and each goes back when it was idle or here for a while.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;

use crate::clock::Stopwatch;
use crate::shutdown::Tasks;

/// How many connections of one pool are kept: what is settled goes beside what is enqueued.
const MOST: usize = 2;
/// Of a pool that may have fewer than this, none is kept.
const WORTH_IT: u32 = 6;
/// After so long unused a connection goes back.
const IDLE: Duration = Duration::from_secs(1);
/// After so long it goes back in any case: the pool looks after the age of its connections.
const HERE: Duration = Duration::from_secs(60);

/// Those of each pool, whichever buses are over it. A pool has no name: it is known by where its options lie, which is its own
/// for as long as anybody has the pool.
static POOLS: LazyLock<Mutex<HashMap<usize, Weak<AtHand>>>> = LazyLock::new(Mutex::default);

/// The connections of one pool that are at hand.
#[derive(Debug)]
pub(crate) struct AtHand {
    pool: PgPool,
    kept: Mutex<Vec<Kept>>,
}

/// A connection from here, or from the pool.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) connection: PoolConnection<Postgres>,
    /// Since it left the pool.
    out: Stopwatch,
    /// Since it was used.
    idle: Stopwatch,
}

impl AtHand {
    /// The one of `pool`. Call within a Tokio runtime.
    pub(crate) fn of(pool: &PgPool) -> Arc<Self> {
        let mut pools = lock(&POOLS);
        let place = std::ptr::from_ref(pool.options()) as usize;
        if let Some(known) = pools.get(&place).and_then(Weak::upgrade) {
            return known;
        }
        let made = Arc::new(Self { pool: pool.clone(), kept: Mutex::default() });
        pools.retain(|_, known| known.strong_count() > 0);
        pools.insert(place, Arc::downgrade(&made));
        Tasks::new().spawn(tidy(Arc::downgrade(&made), pool.clone()));
        made
    }

    /// A connection: the one that was used last, or one of the pool.
    pub(crate) async fn take(&self) -> sqlx::Result<Kept> {
        let kept = lock(&self.kept).pop();
        match kept {
            Some(kept) => Ok(kept),
            None => {
                let connection = self.pool.acquire().await?;
                Ok(Kept { connection, out: Stopwatch::start(), idle: Stopwatch::start() })
            }
        }
    }

    /// Keeps a connection on which a statement was answered, unless somebody may wait for it.
    pub(crate) fn keep(&self, mut kept: Kept) {
        let most = self.pool.options().get_max_connections();
        let is_free = self.pool.num_idle() > 0 || self.pool.size() < most;
        if most < WORTH_IT || !is_free || kept.out.elapsed() >= HERE || self.pool.is_closed() {
            return;
        }
        let mut all = lock(&self.kept);
        if all.len() < MOST {
            kept.idle = Stopwatch::start();
            all.push(kept);
        }
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        let inside = tokio::runtime::Handle::try_current().is_ok();
        for kept in lock(&self.kept).drain(..) {
            if !inside {
                // Going back to the pool takes a runtime, which has ended; this closes the connection.
                drop(kept.connection.detach());
            }
        }
    }
}

/// Gives back what is not used, and all once the pool is closed, which waits for its connections.
async fn tidy(at_hand: Weak<AtHand>, pool: PgPool) {
    let mut closing = pool.close_event();
    drop(pool);
    let mut closed = false;
    loop {
        tokio::select! {
            () = &mut closing, if !closed => closed = true,
            () = tokio::time::sleep(IDLE) => {}
        }
        let Some(at_hand) = at_hand.upgrade() else { return };
        lock(&at_hand.kept).retain(|kept| !closed && kept.idle.elapsed() < IDLE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens under the lock, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
