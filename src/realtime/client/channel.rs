//! The handle of a channel.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{oneshot, watch};

use super::events::{Content, Event, Queue};
use super::subscription::Subscription;
use super::wire::{self, TOPIC_PREFIX};
use super::{Client, State};

/// Why something could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The channel is not joined now. Nothing is kept for later.
    #[error("the channel is not joined")]
    NotJoined,
    /// The connection was lost before the answer came; the server may have got it or not.
    #[error("the connection was lost before the answer")]
    Lost,
    /// The server refuses it.
    #[error("the server refuses it: {0}")]
    Refused(String),
    /// The server has not answered in time.
    #[error("the server has not answered in time")]
    Unanswered,
    /// It cannot be written in the version that is spoken.
    #[error("it cannot be sent")]
    Wire(#[from] wire::Error),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// A broadcast on its way to the task.
pub(super) struct Outgoing {
    pub(super) port: Arc<Port>,
    pub(super) event: String,
    pub(super) payload: Content,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

/// What a channel's handle and the task share.
pub(super) struct Port {
    pub(super) queue: Queue,
    pub(super) left: AtomicBool,
    tracked: Mutex<Tracked>,
}

/// What to be present as, and how often that was said.
#[derive(Clone, Default)]
pub(super) struct Tracked {
    pub(super) version: u64,
    pub(super) payload: Option<Box<RawValue>>,
}

impl Port {
    pub(super) fn tracked(&self) -> Tracked {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn track(&self, payload: Option<Box<RawValue>>) {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        *tracked = Tracked { version: tracked.version + 1, payload };
    }
}

/// A channel. It stays joined, through every loss, until it is dropped.
pub struct Channel {
    client: Client,
    topic: Arc<str>,
    port: Arc<Port>,
    state: watch::Receiver<State>,
}

pub(super) fn open(client: Client, topic: &str, config: wire::Config) -> (Channel, Subscription) {
    let (told, state) = watch::channel(State::Joining);
    let port = Arc::new(Port {
        queue: Queue::new(client.shared.options.queue),
        left: AtomicBool::new(false),
        tracked: Mutex::default(),
    });
    let topic: Arc<str> = format!("{TOPIC_PREFIX}{topic}").into();
    let retry = client.shared.options.retry;
    let subscription =
        Subscription::new(Arc::clone(&topic), config, Arc::clone(&port), told, retry);
    (Channel { client, topic, port, state }, subscription)
}

impl Channel {
    /// Its topic, without `realtime:`.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topic.strip_prefix(TOPIC_PREFIX).unwrap_or(&self.topic)
    }

    /// What is heard next; nothing once another channel took the topic or the client was closed.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.port.queue.next().await
    }

    /// Where it stands, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Broadcasts JSON to the others on the channel. Waits for the server's word only if the channel was
    /// joined with `broadcast.ack`.
    ///
    /// # Errors
    /// When it is not joined, and whatever the server says. Nothing is kept for later.
    pub async fn broadcast(
        &self,
        event: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<(), Error> {
        let payload = to_raw_value(payload).map_err(|_| wire::Error::Unwritable)?;
        self.send(event, Content::Json(payload)).await
    }

    /// Broadcasts bytes; only version 2.0.0 can, and listeners of 1.0.0 do not get them.
    ///
    /// # Errors
    /// As [`Channel::broadcast`]; and in version 1.0.0.
    pub async fn broadcast_bytes(&self, event: &str, payload: Vec<u8>) -> Result<(), Error> {
        self.send(event, Content::Bytes(payload)).await
    }

    async fn send(&self, event: &str, payload: Content) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let (port, event) = (Arc::clone(&self.port), event.to_owned());
        let outgoing = Outgoing { port, event, payload, done };
        self.client.shared.outgoing.send(outgoing).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Is present with `payload`, from now on and after every join, until [`Channel::untrack`]. A refusal
    /// comes as [`Event::SystemError`]. Realtime closes channels that call presence more than five times
    /// in 30 s: it tells who is there, not how busy they are.
    ///
    /// # Errors
    /// When `payload` cannot be written as JSON.
    pub fn track(&self, payload: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.port.track(Some(to_raw_value(payload).map_err(|_| wire::Error::Unwritable)?));
        self.client.shared.mailbox.changed.notify_one();
        Ok(())
    }

    /// Is not present any more.
    pub fn untrack(&self) {
        self.port.track(None);
        self.client.shared.mailbox.changed.notify_one();
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.port.left.store(true, Ordering::Release);
        self.client.shared.mailbox.changed.notify_one();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("topic", &self.topic())
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
