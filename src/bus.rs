//! The bus client: publish, claim, settle, read the log.
//!
//! Every transition is one round trip to a `bus_*` function, and every call is safe to repeat: the
//! sender chooses a message's id, and settles name the claim that they end. Concurrent publishes and
//! settles are grouped (`group.rs`); wake-ups carry nothing (`wake.rs`).

#[cfg(feature = "hub")]
pub(crate) mod activity;
mod at_hand;
pub mod circuit;
mod claim;
mod core;
pub mod dead_letter;
pub mod env;
mod error;
mod events;
mod feed;
pub(crate) mod group;
pub(crate) mod json;
mod limits;
#[cfg(feature = "hub")]
pub(crate) mod lists;
#[cfg(feature = "hub")]
pub(crate) mod log;
mod messages;
pub mod offer;
mod patience;
mod postgres;
mod publish;
pub(crate) mod queries;
pub mod replay;
#[cfg(feature = "remote")]
pub mod rest;
pub(crate) mod take;
mod transport;
mod upkeep;
mod wake;
mod waking;
mod work;
mod workers;

use std::sync::Arc;

use sqlx::postgres::PgPool;

pub use claim::{Claim, ClaimRequest, Settle, Settled};
pub use error::Error;
#[cfg(feature = "hub")]
pub(crate) use feed::Heads;
pub use feed::{Agents, Changed, Feed, Update, Watch};
pub use json::MAX_PAYLOAD_BYTES;
#[cfg(feature = "hub")]
pub(crate) use json::storable;
pub use limits::{Limits, TenantLimit, TopicLimit};
pub use publish::Receipt;
#[cfg(feature = "hub")]
pub(crate) use publish::check;
pub use queries::Reaped;
pub use queries::backlog::{Limit, Parked};
#[cfg(feature = "hub")]
pub(crate) use queries::events::Head;
#[cfg(feature = "hub")]
pub use queries::pending::Pending;
pub use queries::workers::{Depth, WorkerRow};
pub(crate) use wake::{Ended, Hear};
pub use wake::{Signal, Waker};
pub use work::Step;

use self::core::Core;
use crate::artifact;
use crate::identity::Claims;
use crate::message::NewMessage;
use crate::shutdown::Tasks;
use group::Grouper;
use postgres::Postgres;
use transport::Transport;
use wake::Wake;

/// The bus, over a pool of connections. Cheap to clone; its tasks end with the last clone.
#[derive(Debug, Clone)]
pub struct Bus {
    core: Core,
    publishes: Grouper<NewMessage, Receipt>,
    settles: Grouper<Settle, Settled>,
}

impl Bus {
    /// A bus over `pool`. Call within a Tokio runtime.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let (wake, postgres) = (Wake::new(), Postgres::new(pool));
        postgres.start_waking(&wake, &Tasks::new());
        Self::over(Arc::new(postgres), wake)
    }

    /// A bus over HTTPS. Connects to nothing yet. Call within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Refused`] names the option that cannot be used.
    #[cfg(feature = "remote")]
    pub fn remote(options: rest::Options) -> Result<Self, Error> {
        let wake = Wake::new();
        let rest = rest::Rest::new(options, &wake)?;
        Ok(Self::over(Arc::new(rest), wake))
    }

    /// Another bus of the same process, over a pool of its own, perhaps with other rights. The two wake
    /// each other at once, without the database in between, and listen on one connection.
    #[must_use]
    pub fn beside(&self, pool: PgPool) -> Self {
        Self::over(Arc::new(Postgres::new(pool)), self.core.wake.clone())
    }

    fn over(transport: Arc<dyn Transport>, wake: Wake) -> Self {
        // Not the process' tasks: these end with the bus, and nobody needs to wait for them, since
        // every call waits for its own answer.
        let tasks = Tasks::new();
        let core = Core { transport, wake };
        let publishing = core.clone();
        let settling = core.clone();
        let most = core.transport.room();
        Self {
            publishes: Grouper::start(&tasks, room(most), move |messages: Arc<Vec<NewMessage>>| {
                let core = publishing.clone();
                async move { core.enqueue(&messages, true).await }
            }),
            settles: Grouper::start(&tasks, room(most), move |settles: Arc<Vec<Settle>>| {
                let core = settling.clone();
                async move { core.settle(&settles).await }
            }),
            core,
        }
    }

    /// The pool, where the bus is over one.
    #[must_use]
    pub fn pool(&self) -> Option<&PgPool> {
        self.core.transport.postgres().map(Postgres::pool)
    }

    /// What the key of a bus over HTTPS says of itself: whose work it is for, and which topics.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        self.transport().claims()
    }

    fn transport(&self) -> &dyn Transport {
        &*self.core.transport
    }

    /// Where artifacts go that are not to lie on this machine: to the hub, where this is the way to one.
    #[must_use]
    pub fn artifacts(&self) -> Option<artifact::Store> {
        self.transport().artifacts()
    }

    /// The newest migration that the database has.
    ///
    /// # Errors
    /// [`Error::Database`], also where the schema was never loaded.
    pub async fn schema_version(&self) -> Result<Option<i64>, Error> {
        self.transport().schema_version().await
    }
}

/// How heavy a group may be, where there is a limit.
fn room<T: serde::Serialize>(most: usize) -> Option<group::Room<T>> {
    (most < usize::MAX).then_some(group::Room { most, weigh: |item: &T| json::size(item) })
}
