//! Runs a role in a test, as `cogo worker` would.

use std::time::Duration;

use tokio::sync::watch;

use super::TestDb;
use crate::artifact;
use crate::bus::{Bus, Feed};
use crate::live::Live;
use crate::message::{Message, MessageId};
use crate::shutdown::{Shutdown, Tasks};
use crate::worker::{Context, Prefetch, Role};

/// Long enough for anything that should happen, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);

/// A role at work on a test's database.
#[derive(Debug)]
pub struct RunningRole {
    bus: Bus,
    feed: Feed,
    shutdown: Shutdown,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl RunningRole {
    /// Starts `role` with default policies and waits until it claims messages. Its configuration and
    /// artifacts directory is empty and its own.
    ///
    /// # Panics
    /// When the role does not become ready.
    pub async fn start(role: &Role, db: &TestDb) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the role");
        let bus = Bus::new(db.pool().clone());
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let context = Context {
            bus: bus.clone(),
            worker_id: format!("{}-test", role.name),
            tenant: crate::message::DEFAULT_TENANT.to_owned(),
            concurrency: 4,
            prefetch: Prefetch::Auto,
            lease: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            retry: Live::default(),
            breaker: Live::default(),
            config_dir: dir.path().to_owned(),
            artifacts_dir: dir.path().to_owned(),
            artifacts: artifact::Store::folder(dir.path(), artifact::Limits::default()),
            reread: Live::default(),
            shutdown: shutdown.clone(),
            ready: watch::Sender::new(false),
        };
        let mut ready = context.ready.subscribe();
        let work = (role.start)(context);
        tasks.spawn(async move { work.await.expect("the role runs until it is stopped") });
        tokio::time::timeout(SOON, ready.wait_for(|ready| *ready))
            .await
            .expect("the role is ready in time")
            .expect("the role does not give up");
        let feed = Feed::start(bus.clone(), &tasks, &shutdown);
        Self { bus, feed, shutdown, tasks, _dir: dir }
    }

    /// The bus, to publish to it.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Waits until the message is finished.
    ///
    /// # Panics
    /// When it is not finished in time.
    pub async fn finished(&self, id: MessageId) -> Message {
        let message = self.feed.wait(id, SOON).await.expect("the message is there");
        assert!(message.status.is_final(), "message {id} is still {}", message.status);
        message
    }

    /// Lets the role finish what it has in hand, and waits for it.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(SOON).await, "the role does not stop");
    }
}
