//! `/realtime/v1`: Supabase Realtime, for the tables of the bus.
//!
//! Changes of rows come from the log (`realtime/changes.rs`), read as each subscriber may read them; broadcasts and
//! presence live in this process alone (`realtime/topics.rs`): clients of two hubs do not hear each other. A topic
//! belongs to the tenant of the token that joins it; tokens without a tenant share topics with those of their
//! role (`realtime/scope.rs`). Private topics are asked of `bus_channel_allowed`. All of `cogo:` is the hub's, which
//! wakes workers there (`realtime/wakeups.rs`).
//!
//! Everything is bounded: sockets, channels, rates, frames, and what waits for a socket that does not read
//! (`realtime/outbox.rs`), which is dropped and counted. Nothing here is durable, and nothing needs to be: clients look
//! for themselves after each `Subscribed to PostgreSQL`.

pub(crate) mod admission;
mod binding;
mod bucket;
mod catalog;
mod change;
mod changes;
mod channel;
mod connection;
mod filter;
mod frame;
pub(crate) mod handshake;
mod http;
mod join;
mod outbox;
mod policy;
mod presence;
mod queries;
mod render;
mod scope;
mod socket;
mod subscribe;
mod subscriptions;
mod topics;
mod wakeups;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use sqlx::postgres::PgPool;

use crate::bus::{Bus, Feed};
use crate::hub::shares::Shares;
use crate::hub::{Hub, Routes, caller};
use crate::identity::Keys;
use crate::metrics::REALTIME_SLOW_SOCKETS_TOTAL;
pub use crate::options::realtime::Options;
use crate::shutdown::{Shutdown, Tasks};
use admission::Admission;
use catalog::Cache;
use outbox::Budget;
use subscriptions::Subscriptions;
use topics::Topics;

/// How long one statement for a subscriber may take; a filter may be made to take for ever.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells channels apart, for the life of the process.
pub(crate) type ChannelId = u64;

/// The hub's Realtime. Cheap to clone; ends with the process.
#[derive(Clone)]
pub struct Realtime(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) bus: Bus,
    pub(crate) feed: Feed,
    pub(crate) callers: caller::Database,
    pub(crate) topics: Topics,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) catalog: Cache,
    pub(crate) admission: Admission,
    pub(crate) budget: Arc<Budget>,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
    channels: AtomicU64,
}

impl Inner {
    pub(crate) fn next_channel(&self) -> ChannelId {
        self.channels.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for Realtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realtime").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Realtime {
    /// Starts to follow the log, until `shutdown` drains; then every socket is closed with 1012. `callers` are
    /// the connections on which rows are read under the subscribers' roles.
    #[must_use]
    pub fn start(
        bus: Bus,
        feed: Feed,
        keys: Keys,
        callers: PgPool,
        options: Options,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Self {
        let budget =
            Budget::new(options.queue_frames, options.queue_bytes, options.queue_bytes_all);
        let inner = Arc::new(Inner {
            admission: Admission::new(&options),
            options,
            keys,
            bus,
            feed,
            callers: caller::Database {
                shares: Arc::new(Shares::new(
                    callers.options().get_max_connections(),
                    callers.options().get_acquire_timeout(),
                )),
                tasks: tasks.clone(),
                pool: callers,
                statement_timeout: STATEMENT_TIMEOUT,
            },
            topics: Topics::default(),
            subscriptions: Arc::default(),
            catalog: Cache::default(),
            budget: Arc::new(budget),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            channels: AtomicU64::new(1),
        });
        let (telling, waking) = (Arc::clone(&inner), Arc::clone(&inner));
        // There before the first one happens, so that its rate is seen.
        counter!(REALTIME_SLOW_SOCKETS_TOTAL).increment(0);
        let stop = shutdown.draining().clone();
        let stopped = stop.clone();
        // Apart: workers are not to wait until rows have been read for others. Both end with the process.
        tasks.spawn(async move {
            tokio::select! {
                () = changes::run(telling) => {}
                () = stop.cancelled() => {}
            }
        });
        tasks.spawn(async move {
            tokio::select! {
                () = wakeups::run(waking) => {}
                () = stopped.cancelled() => {}
            }
        });
        Self(inner)
    }

    /// The hub's tasks, for what must end by itself.
    pub(crate) fn tasks(&self) -> Tasks {
        self.0.tasks.clone()
    }

    /// The database as it is here for callers; `/rest/v1` shares it.
    pub(crate) fn callers(&self) -> caller::Database {
        self.0.callers.clone()
    }
}

/// The routes; the caller adds limits and the check of origins.
pub(super) fn routes(hub: &Arc<Hub>) -> Routes {
    let Realtime(inner) = &hub.state.realtime;
    Routes::new()
        .get(handshake::PATH, handshake::websocket)
        .post("/realtime/v1/api/broadcast", http::several)
        .post("/realtime/v1/api/broadcast/{topic}/events/{event}", http::one)
        .with_state(Arc::clone(inner))
}
