//! Connections that stay at hand between calls.
//!
//! A pool hands out the connection that was idle the longest, and asks each one that comes back for a sign of life: one
//! round trip more for each call, during which the next call takes another connection. So a few calls a moment go round
//! all connections of a pool, each a server process that has to warm up its caches again: a call took a third more of
//! processor than on one connection. Here the one that came back last goes first, and is not asked, since its answer
//! was complete.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use tokio::runtime::Handle;

use crate::clock::Stopwatch;

/// How many: as many as flushes of one kind are under way at once.
const KEPT: usize = 2;
/// From pools with room for fewer none is kept: somebody else may wait for it.
const ROOM: u32 = 4;
/// After so long a connection goes back to the pool, which knows how old one may become.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A connection of a pool, and since when it is out.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) connection: PoolConnection<Postgres>,
    since: Stopwatch,
}

impl Out {
    pub(crate) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, since: Stopwatch::start() }
    }
}

/// The connections of one pool that are at hand.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one that came back last is the last.
    kept: Vec<Out>,
    closed: bool,
}

impl Warm {
    /// The connection that came back last, or one of the pool's.
    pub(crate) async fn take(&self, pool: &PgPool) -> sqlx::Result<Out> {
        let kept = self.lock().kept.pop();
        match kept {
            Some(kept) => Ok(kept),
            None => Ok(Out::new(pool.acquire().await?)),
        }
    }

    /// Takes one back whose answer was read to its end; the pool's where that is the better place for it.
    pub(crate) fn give_back(&self, pool: &PgPool, out: Out) {
        let stays = pool.options().get_max_connections() >= ROOM && out.since.elapsed() < KEPT_FOR;
        let mut state = self.lock();
        if stays && !state.closed && state.kept.len() < KEPT {
            state.kept.push(out);
        }
    }

    /// Gives all back to the pool, for good: it waits for them when it is closed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.kept.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Warm {
    /// Without a runtime nothing can go back to the pool.
    fn drop(&mut self) {
        if Handle::try_current().is_err() {
            let kept = std::mem::take(&mut self.lock().kept);
            kept.into_iter().for_each(|out| drop(out.connection.leak()));
        }
    }
}
