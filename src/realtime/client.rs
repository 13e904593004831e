//! A client of Realtime: one connection, any number of channels, back after every loss.
//!
//! One task owns the socket (`driver.rs`, `session.rs`). Handles talk to it through a mailbox that is
//! looked at as a whole, so that nothing waits for the network and nothing grows.

mod backoff;
mod channel;
mod driver;
mod events;
mod options;
mod session;
mod socket;
mod subscription;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use crate::net;
use crate::secret::Secret;
use crate::shutdown::Tasks;

use super::wire;

pub use backoff::Retry;
pub use channel::{Channel, Error};
pub use events::{Content, Event};
pub use options::{Options, UrlError};

use channel::Outgoing;
use driver::Driver;
use subscription::Subscription;

/// Broadcasts that wait for the task; their senders wait with them.
const OUTGOING: usize = 64;

/// Where the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// A connection is being made.
    Connecting,
    /// The server is there; see each channel's [`State`] for the rest.
    Connected,
    /// The connection is lost, or could not be made.
    Lost {
        /// Why.
        error: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The server refuses the connection: 401 for a bad or expired key, 403, 429 for too many. It is tried
    /// again all the same, since keys are replaced and crowds go.
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// It was closed by its owner.
    Closed,
}

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It is to be joined, or the server has not answered yet.
    Joining,
    /// Joined; broadcasts and presence flow.
    Joined,
    /// Joined, and changes of tables flow too.
    Subscribed,
    /// Lost; it is joined again by itself.
    Lost {
        /// Why.
        reason: String,
    },
    /// Its handle was dropped, another took its topic, or the client was closed.
    Closed,
}

/// A connection to Realtime. Cheap to clone; it is closed by [`Client::close`], or when the last clone and
/// the last [`Channel`] are gone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    mailbox: Arc<Mailbox>,
    outgoing: mpsc::Sender<Outgoing>,
    credentials: watch::Sender<Credentials>,
    status: watch::Receiver<Status>,
    options: Arc<Options>,
}

/// What the handles want of the task. Looked at as a whole whenever `changed` says so.
#[derive(Default)]
struct Mailbox {
    wishes: Mutex<Wishes>,
    changed: Notify,
}

#[derive(Default)]
struct Wishes {
    /// Channels to join; as many as their owners have handles.
    open: Vec<Subscription>,
    check: bool,
    close: bool,
}

impl Mailbox {
    fn post(&self, wish: impl FnOnce(&mut Wishes)) {
        wish(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn take(&self) -> Wishes {
        std::mem::take(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    key: Secret,
    token: Option<Secret>,
}

impl Client {
    /// Connects, and stays connected until it is closed. Its task ends in bounded time after
    /// [`Client::close`] or the drop of all handles.
    ///
    /// # Errors
    /// When the certificate file or the proxy of `options.net` cannot be used; whatever the network does is
    /// told by [`Client::status`] instead.
    pub fn start(options: Options, tasks: &Tasks) -> Result<Self, net::Error> {
        let mut laps = crate::clock::Laps::start();
        Self::start_with(options, tasks, Box::new(move || laps.lap()))
    }

    fn start_with(
        options: Options,
        tasks: &Tasks,
        laps: Box<dyn FnMut() -> Duration + Send>,
    ) -> Result<Self, net::Error> {
        options.net.check(&options.url)?;
        let connector = options.net.connector()?;
        let (outgoing, waiting) = mpsc::channel(OUTGOING);
        let credentials = Credentials { key: options.key.clone(), token: options.token.clone() };
        let (credentials, given) = watch::channel(credentials);
        let (told, status) = watch::channel(Status::Connecting);
        let mailbox = Arc::new(Mailbox::default());
        let options = Arc::new(options);
        let driver = Driver::new(
            Arc::clone(&options),
            connector,
            Arc::clone(&mailbox),
            waiting,
            given,
            told,
            laps,
        );
        tasks.spawn(driver.run());
        let shared = Shared { mailbox, outgoing, credentials, status, options };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Joins `topic` (without `realtime:`), now and after every loss. A second channel of the same topic
    /// takes the first one's place.
    #[must_use]
    pub fn channel(&self, topic: &str, config: wire::Config) -> Channel {
        let (channel, subscription) = channel::open(self.clone(), topic, config);
        self.shared.mailbox.post(|wishes| wishes.open.push(subscription));
        channel
    }

    /// Where the connection stands, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Replaces the token: it is pushed to every joined channel, and a connection or join that was
    /// refused is tried again at once.
    pub fn set_token(&self, token: Secret) {
        self.shared.credentials.send_if_modified(|credentials| {
            let new = credentials.token.as_ref() != Some(&token);
            credentials.token = Some(token);
            new
        });
    }

    /// Replaces the key that connections are made with; the present one stays as it is.
    pub fn set_key(&self, key: Secret) {
        self.shared.credentials.send_if_modified(|credentials| {
            let new = credentials.key != key;
            credentials.key = key;
            new
        });
    }

    /// Looks at once whether the server is there: by a heartbeat if connected, by a new attempt if waiting
    /// to reconnect. For who learns that the network may have changed.
    pub fn check(&self) {
        self.shared.mailbox.post(|wishes| wishes.check = true);
    }

    /// Leaves all channels and closes the connection. Done when it is, or when the server took too long.
    pub async fn close(&self) {
        self.shared.mailbox.post(|wishes| wishes.close = true);
        // The task bounds its own farewell; an error means that it has ended.
        let _ = self.status().wait_for(|status| *status == Status::Closed).await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.shared.options)
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
