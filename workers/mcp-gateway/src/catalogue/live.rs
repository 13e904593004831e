//! The snapshots, kept fresh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cogo::bus::{self, Bus, Changed, Feed};
use cogo::clock::Stopwatch;
use cogo::error::chain;
use cogo::live::Live;
use cogo::message::ALL_TENANTS;
use cogo::shutdown::{Shutdown, Tasks};
use tokio::sync::{Mutex as Turn, Notify, watch};
use tokio_util::sync::CancellationToken;

use super::read::{Read, Reader};
use super::snapshot::Snapshot;
use crate::config::Mesh;

/// How often a snapshot is read when nothing tells of a change. What is told may be lost; then it is late.
const POLL: Duration = Duration::from_secs(15);
/// How soon again while a definition is awaited that a worker names and has not told; doubled up to [`POLL`].
const AWAIT: Duration = Duration::from_secs(1);
/// The least time between two readings: workers may come and go by the hundred.
const GAP: Duration = Duration::from_millis(150);
/// How long a snapshot is kept fresh that nobody asks for and nobody watches.
const IDLE: Duration = Duration::from_secs(600);
/// The most tenants whose snapshots are kept. What is beyond is read each time that it is asked for.
const TENANTS_MAX: usize = 1000;
/// Who approves what is seen for the first time.
const FIRST_USE: &str = "first use";

/// What each tenant is offered, as it is now. Cheap to clone; all clones share what they know.
///
/// A snapshot is read when somebody first asks for it. From then on it follows the feed: a worker that comes, goes or
/// offers something else is seen as soon as the log tells of it, and a machine's tools go when its grace is over. While
/// the database does not answer, what was read last stands.
#[derive(Debug, Clone)]
pub struct Catalogue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bus: Bus,
    mesh: Live<Mesh>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    tasks: Tasks,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    /// Who reads, one at a time.
    reader: Turn<Reader>,
    last: watch::Sender<Option<Arc<Snapshot>>>,
    /// Moves with each change of the list.
    moved: watch::Sender<u64>,
    /// Something may have changed.
    stale: Notify,
    asked: Mutex<Stopwatch>,
}

impl Catalogue {
    /// Starts to follow the machines that come and go, until `shutdown` drains. Reads nothing until somebody asks.
    #[must_use]
    pub fn start(
        bus: Bus,
        feed: Feed,
        mesh: Live<Mesh>,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Self {
        let stop = shutdown.draining().clone();
        let (tenants, tasks) = (Mutex::default(), tasks.clone());
        let shared = Arc::new(Shared { bus, mesh, tenants, tasks: tasks.clone(), stop });
        tasks.spawn(follow(Arc::clone(&shared), feed));
        Self { shared }
    }

    /// What `tenant` is offered. Read at first; from then on it is there.
    ///
    /// # Errors
    /// When it has to be read and the database does not answer.
    pub async fn snapshot(&self, tenant: &str) -> Result<Arc<Snapshot>, bus::Error> {
        let Some(kept) = self.tenant(tenant) else {
            let mesh = self.shared.mesh.get();
            let read = Reader::default().read(&self.shared.bus, tenant, &mesh).await?;
            return Ok(Arc::new(read.snapshot));
        };
        if let Some(snapshot) = kept.last.borrow().clone() {
            return Ok(snapshot);
        }
        let mut reader = kept.reader.lock().await;
        // Read while we waited, by the task that keeps it fresh or by another caller.
        let read = kept.last.borrow().clone();
        if let Some(snapshot) = read {
            return Ok(snapshot);
        }
        kept.read(&mut reader, &self.shared).await?;
        Ok(kept.last.borrow().clone().unwrap_or_default())
    }

    /// Moves when the list that `tenant` sees has changed. Also reads it, if nobody has yet.
    #[must_use]
    pub fn changed(&self, tenant: &str) -> watch::Receiver<u64> {
        match self.tenant(tenant) {
            Some(kept) => kept.moved.subscribe(),
            None => watch::channel(0).1,
        }
    }

    /// The bus that it reads.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    /// The configuration by which it offers.
    #[must_use]
    pub fn mesh(&self) -> Arc<Mesh> {
        self.shared.mesh.get()
    }

    /// Reads the snapshot of `tenant` anew, at once: its caller has just changed something.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh(&self, tenant: &str) -> Result<(), bus::Error> {
        match self.tenant(tenant) {
            Some(kept) => {
                let mut reader = kept.reader.lock().await;
                kept.read(&mut reader, &self.shared).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// The tenant whose snapshot is kept; none where there are too many.
    fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        let mut tenants = self.shared.tenants();
        if let Some(kept) = tenants.get(name) {
            kept.is_asked_for();
            return Some(Arc::clone(kept));
        }
        if tenants.len() >= TENANTS_MAX {
            return None;
        }
        let kept = Arc::new(Tenant {
            name: name.to_owned(),
            reader: Turn::default(),
            last: watch::Sender::new(None),
            moved: watch::Sender::new(0),
            stale: Notify::new(),
            asked: Mutex::new(Stopwatch::start()),
        });
        tenants.insert(name.to_owned(), Arc::clone(&kept));
        drop(tenants);
        self.shared.tasks.spawn(keep(Arc::clone(&self.shared), Arc::clone(&kept)));
        Some(kept)
    }
}

impl Shared {
    fn tenants(&self) -> MutexGuard<'_, HashMap<String, Arc<Tenant>>> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a tenant up that nobody has asked for lately, and says so.
    fn gives_up(&self, tenant: &Tenant) -> bool {
        let mut tenants = self.tenants();
        let is_idle = tenant.moved.receiver_count() == 0 && tenant.asked_ago() > IDLE;
        if is_idle {
            tenants.remove(&tenant.name);
        }
        is_idle
    }
}

impl Tenant {
    fn is_asked_for(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Stopwatch::start();
    }

    fn asked_ago(&self) -> Duration {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Reads what there is, and tells those who watch.
    async fn read(&self, reader: &mut Reader, shared: &Shared) -> Result<Read, bus::Error> {
        let mesh = shared.mesh.get();
        let mut read = reader.read(&shared.bus, &self.name, &mesh).await?;
        if !read.first_seen.is_empty() {
            match shared.bus.pin_first(&self.name, &read.first_seen, Some(FIRST_USE)).await {
                Ok(pinned) => tracing::info!(
                    tenant = %self.name, "Approved {pinned} tools of {} at first sight", self.name
                ),
                Err(error) if error.is_transient() => return Err(error),
                // A tenant has only so many; what was approved before is offered all the same.
                Err(error) => tracing::warn!(
                    tenant = %self.name, error = %chain(&error),
                    "Could not approve {} tools of {} at first sight; they are not offered",
                    read.first_seen.len(), self.name
                ),
            }
            // Another hub may have been first, with another machine's.
            read = reader.read(&shared.bus, &self.name, &mesh).await?;
            read.snapshot.withdraw(&read.first_seen);
        }
        let snapshot = Arc::new(read.snapshot.clone());
        let before = self.last.send_replace(Some(Arc::clone(&snapshot)));
        let before = before.unwrap_or_default();
        if !before.lists_as(&snapshot) {
            self.moved.send_modify(|count| *count += 1);
        }
        for held in snapshot.held().iter().filter(|held| !before.held().contains(held)) {
            tracing::warn!(
                mcp.toolset = %held.offer.toolset, tenant = %self.name,
                "Holding the tool {}: it is not as it was approved. Look at it with `cogo mcp pins`",
                held.offer.name()
            );
        }
        Ok(read)
    }
}

/// Tells those whose workers have changed, until the catalogue stops.
async fn follow(shared: Arc<Shared>, feed: Feed) {
    let mut agents = feed.agents();
    loop {
        let changed = tokio::select! {
            changed = agents.next() => changed,
            () = shared.stop.cancelled() => return,
        };
        let tenants = shared.tenants();
        match changed {
            Changed::Tenant(name) if name != ALL_TENANTS => {
                if let Some(tenant) = tenants.get(&name) {
                    tenant.stale.notify_one();
                }
            }
            _ => tenants.values().for_each(|tenant| tenant.stale.notify_one()),
        }
    }
}

/// Keeps the snapshot of one tenant fresh, until nobody has asked for it for long.
async fn keep(shared: Arc<Shared>, tenant: Arc<Tenant>) {
    let mut mesh = shared.mesh.clone();
    let mut awaits = AWAIT;
    loop {
        let reading = async {
            let mut reader = tenant.reader.lock().await;
            tenant.read(&mut reader, &shared).await
        };
        let pause = tokio::select! {
            read = reading => match read {
                Ok(read) => {
                    let pause = if read.is_incomplete { awaits } else { POLL };
                    awaits = if read.is_incomplete { (awaits * 2).min(POLL) } else { AWAIT };
                    // A little late, rather than just too early.
                    read.leaves_in.map_or(pause, |leaves| pause.min(leaves + GAP))
                }
                Err(error) => {
                    tracing::warn!(
                        tenant = %tenant.name, error = %chain(&error),
                        "Could not read what {} is offered; what was read last stands", tenant.name
                    );
                    POLL
                }
            },
            () = shared.stop.cancelled() => return,
        };
        if shared.gives_up(&tenant) {
            return;
        }
        let due = async {
            tokio::time::sleep(GAP).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = tenant.stale.notified() => {}
                () = mesh.changed() => {}
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.stop.cancelled() => return,
        }
    }
}
